"""Values that many runs share, made once."""

from collections.abc import Callable, Hashable
from typing import Any


class Memo(dict):
    """What was made so far, by name; whoever owns it keeps it alive."""

    def __call__(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` returned for this key; it is called once."""
        if key not in self:
            self[key] = make()
        return self[key]

"""Which of the files that a configuration was merged from holds a key: the one that a message must name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prophet_moe.validation import read_yaml

COMMAND_LINE = "--config"
"""Where a value comes from that no file holds."""


class Sources:
    """The files that a configuration was merged from, mapping by mapping; later ones win, and lists are replaced."""

    def __init__(self, merged: Mapping[str, Any], files: Sequence[Path]) -> None:
        """`merged` is the result; `files` come in the order of merging. An unreadable file is a UserError."""
        self._merged = merged
        self._contents = [(_shown(Path(file)), read_yaml(Path(file))) for file in files]

    def of(self, *keys: tuple) -> str:
        """Name the file that set a key path, or as much of it as there is; of several, the one merged last."""
        names = [*(name for name, _ in self._contents), COMMAND_LINE]
        return names[max(self._number(key) for key in keys)]

    def _number(self, key: tuple) -> int:
        """Number of the last file with the longest part of `key`; that of the command line where none has its value."""
        nowhere = len(self._contents)
        depths = [_depth(content, key) for _, content in self._contents]
        deepest = max(depths, default=0)
        if deepest == 0 or deepest < _depth(self._merged, key):
            return nowhere
        last = max(number for number, depth in enumerate(depths) if depth == deepest)
        held = key[:deepest]
        given = _depth(self._merged, held) < deepest or _agree(
            _value(self._contents[last][1], held), _value(self._merged, held)
        )
        return last if given else nowhere


def _shown(path: Path) -> str:
    """Return the path as its user writes it: from the folder of the project where it lies there."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _depth(content: Any, key: tuple) -> int:
    """How many leading parts of the key path are keys of `content`; a place in a list belongs to the list's key."""
    if not key or not isinstance(content, Mapping) or key[0] not in content:
        return 0
    return 1 + _depth(content[key[0]], key[1:])


def _value(content: Any, key: tuple) -> Any:
    return _value(content[key[0]], key[1:]) if key else content


def _agree(held: Any, merged: Any) -> bool:
    """Return whether a value of a file is the merged one; mappings were merged, and may have grown."""
    return isinstance(held, Mapping) == isinstance(merged, Mapping) and (isinstance(held, Mapping) or held == merged)

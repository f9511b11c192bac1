"""A phase of a campaign: a measurement, what its folder holds of it, and how it went."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from prophet_moe.collect.campaign.plan import Variant
from prophet_moe.collect.campaign.progress import Progress, progress_of
from prophet_moe.errors import UserError

WAITING, THERE, MEASURED = "waiting", "there already", "measured"
CUT_OFF, FAILED, INTERRUPTED, LEFT_OUT = "cut off", "failed", "interrupted", "left out"
"""States of a phase. Those that are THERE or MEASURED are whole."""


@dataclass
class Phase:
    """One phase; `state`, `seconds` and `reason` change while the campaign runs."""

    kind: str
    folder: Path
    variants: list[Variant]
    progress: Progress = field(default_factory=lambda: Progress(False, None))
    state: str = WAITING
    plan: str = ""
    """File of the plan that it follows, where it has begun."""
    resumed: bool = False
    seconds: float = 0.0
    reason: str = ""

    @property
    def whole(self) -> bool:
        """Return whether the measurement is whole."""
        return self.state in (THERE, MEASURED)

    def look(self, state_of_whole: str) -> None:
        """Read how far the folder is; a damaged one fails, a whole one is `state_of_whole`."""
        try:
            self.progress = progress_of(self.folder, self.kind)
            followed = self._followed()
        except UserError as error:
            self.state, self.reason = FAILED, str(error)
            return
        self.plan = followed.file if followed else self.plan
        if self.progress.whole:
            self.state, self.reason = state_of_whole, ""
        elif self.progress.plan is not None and followed is None:
            problem = "holds parts of a plan that the campaign does not have"
            self.state = FAILED
            self.reason = str(UserError(str(self.folder), problem, "Go on with that plan, or delete the folder."))

    def choices(self, start_seconds: float) -> list[Variant]:
        """Return what may be run: every variant, or what is left of the one that was begun with."""
        if self.progress.plan is None:
            return self.variants
        begun = next(variant for variant in self.variants if variant.file == self.plan)
        working = max(begun.seconds - start_seconds, 0)
        return [replace(begun, seconds=begun.seconds - working * (1 - self.progress.share_left))]

    def summary(self) -> dict[str, Any]:
        """Return what the summary of the campaign says of this phase, JSON-like."""
        return {
            "phase": self.kind,
            "state": self.state,
            "resumed": self.resumed,
            "plan": self.plan,
            "folder": str(self.folder),
            "seconds": round(self.seconds, 1),
            "parts": self.progress.told(),
            "reason": self.reason,
        }

    def _followed(self) -> Variant | None:
        """Return the variant whose plan the folder follows, if any: numbers compare by value, 1 is 1.0."""
        followed = self.progress.plan
        return next((v for v in self.variants if followed is not None and _content(v.file) == followed), None)


def _content(file: str) -> Any:
    try:
        return yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except yaml.YAMLError:
        # The measurement itself tells what is wrong.
        return None

"""Traces that strategies are simulated on, their timing models, and the traces that are left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prophet_moe.inventory import Inventory, counted
from prophet_moe.routing.datasets import DatasetFile, timed_model
from prophet_moe.validation import StrictModel, read_json

TABLE = "tables/data/comparative_results.csv"


def timing_models(
    here: Inventory, timed_as: Mapping[str, str], models: Path, known: DatasetFile
) -> dict[str, dict[str, Any] | None]:
    """Return the architecture whose layers each trace is timed with and its formats, JSON-like; None where unknown.

    It is that of `timed_as`, else that of the trace's own model, from the folder `models` or the list of datasets.
    """
    found = {}
    for name in (*here.traces, *here.present, *here.recorded):
        own = known.datasets[name].model if name in known.datasets else here.metadata(name).get("model")
        timed = timed_model(timed_as.get(name) or own, models, known)
        parts = ("architecture", "precision")
        found[name] = {part: _told(getattr(timed, part)) for part in parts} if timed else None
    return found


def _told(part: StrictModel) -> dict[str, Any]:
    """Return what a part states itself, so that a new key with a default leaves recorded results as they are."""
    return part.model_dump(mode="json", exclude_defaults=True)


@dataclass(frozen=True)
class Selection:
    """The traces of a build: those that are simulated, those that are recorded, and those that are left out."""

    here: Inventory
    timed: Mapping[str, Any]
    """As `timing_models` returns it."""
    least: int
    """Sequences that a trace must hold: half of them are for training, and the other half must hold one sample."""
    alike: Sequence[str]
    """Recorded datasets whose results have the settings of this build."""

    @property
    def short(self) -> dict[str, int]:
        """Sequences of each trace that holds too few."""
        return {name: sequences for name, sequences in self.here.sequences.items() if sequences < self.least}

    @property
    def replayed(self) -> list[str]:
        """Traces and datasets that this build simulates."""
        names = [name for name in (*self.here.traces, *self.here.present) if name in self.here.fitted]
        return [name for name in names if self.timed[name] and name not in self.short]

    @property
    def shown(self) -> list[str]:
        """Traces and datasets with results: simulated by this build, or recorded."""
        return [*self.replayed, *self.alike]

    def notes(self) -> list[str]:
        """Return one line for each trace that is left out; traces that are too short for any fit have another note."""
        short = [
            f"note: {name} holds {counted(sequences)} without repetition, expected at least {self.least}, twice "
            f"studies.comparison.sequences, so {TABLE} leaves it out. Collect more sequences, or lower that number"
            for name, sequences in self.short.items()
            if name in self.here.fitted
        ]
        untimed = [
            f"note: {name} has no timing model, so {TABLE} leaves it out. To choose one: add {name} to replay.timed_as"
            for name in (*self.here.traces, *self.here.present)
            if not self.timed[name] and name in self.here.fitted and name not in self.short
        ]
        otherwise = [
            f"note: {name} was simulated with other settings and is not available locally, so {TABLE} leaves it out"
            for name in self.here.recorded
            if name not in self.alike
        ]
        return short + untimed + otherwise


def replayed_alike(here: Inventory, settings: Mapping[str, Any], measured: bool) -> list[str]:
    """Return the recorded datasets whose simulations were recorded with these `settings`, by name.

    They use estimated times. Once the GPU is `measured`, every dataset must be simulated again.
    """
    files = {name: here.resources / "statistics" / name / "simulation.json" for name in here.recorded}
    known = {name: read_json(path) for name, path in files.items() if path.exists()}
    return [] if measured else [name for name, recorded in known.items() if recorded == settings[name]]

"""The inventory: routing traces, datasets, predictors and measured GPUs that are available locally, or missing.

Plain data and lines for the user; the rules only read them. Paths are relative to the project's root.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prophet_moe.collect.plan import Plan
from prophet_moe.routing.datasets import Dataset, data_folders, how_to_get, located
from prophet_moe.routing.sequences import LEAST_FITTED, LEAST_TEXTS
from prophet_moe.routing.store import phase_of, title_of
from prophet_moe.validation import read_json

TRACE_FILES = ("trace.parquet", "metadata.json", "SHA256SUMS")
PREDICTOR_FILES = ("predictor.safetensors", "metadata.json", "SHA256SUMS")
COMPLETE = "SHA256SUMS"
"""The file that a folder of recorded data has once it is complete."""


def known_traces(folder: Path) -> list[str]:
    """Names of the recorded traces below a folder."""
    return sorted(path.parent.name for path in folder.glob("*/trace.parquet"))


def known_counts(folder: Path) -> list[str]:
    """Names of the folders below `folder` that hold counts instead of a trace."""
    return sorted(path.parent.name for path in folder.glob("*/counts.npz"))


def counted(sequences: int) -> str:
    """Return a number of sequences in words."""
    return f"{sequences} sequence{'' if sequences == 1 else 's'}"


@dataclass(frozen=True)
class Inventory:
    """The traces that the settings list, and the data about them that is available locally."""

    traces: tuple[str, ...]
    """Names of the traces: `traces` in config/experiment.yaml."""
    afresh: bool
    """Whether the build collects these traces itself: `collect.afresh`."""
    plan: Plan
    """The plan of that collection."""
    listed: Mapping[str, Dataset]
    """Routing data of other projects by name, as config/datasets.yaml lists it."""
    gpus: tuple[str, ...]
    """Names of the GPUs: `gpus` in config/experiment.yaml."""
    python: str = "python"
    """Python interpreter with PyTorch, for commands in messages."""
    resources: Path = Path("resources")
    results: Path = Path("results")
    elsewhere: Mapping[str, Sequence[Path] | None] = field(default_factory=dict)
    """Files of each dataset, where they were found; None or no entry where they were not."""

    @cached_property
    def present(self) -> list[str]:
        """Datasets whose files are available locally."""
        return [name for name in self.listed if self.elsewhere.get(name)]

    @cached_property
    def recorded(self) -> list[str]:
        """Datasets known only by the statistics that were recorded of them."""
        known = self.resources / "statistics"
        return [name for name in self.listed if name not in self.present and (known / name).is_dir()]

    @cached_property
    def datasets(self) -> list[str]:
        """Datasets of either kind, in the order of the list."""
        return [name for name in self.listed if name in (*self.present, *self.recorded)]

    def trace_folder(self, name: str) -> Path:
        """Return where a trace lies, or will lie."""
        if name in self.datasets:
            return self.results / "datasets" / name
        return (self.results if self.afresh else self.resources) / "traces" / name

    def trace_files(self, name: str) -> list[Path]:
        """Return the files of a trace."""
        return [self.trace_folder(name) / file for file in TRACE_FILES]

    def result(self, name: str, kind: str) -> Path:
        """Return where a result about a trace lies: that of recorded data is committed, others are built."""
        folder = self.resources / "statistics" if name in self.recorded else self.results / "traces"
        return folder / name / f"{kind}.csv"

    def results_of(self, names: Collection[str], kind: str) -> list[Path]:
        """Return the results of one kind about some traces."""
        return [self.result(name, kind) for name in names]

    def metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata of a recorded trace; it is empty for one that the build collects or imports."""
        if name not in self.traces or self.afresh:
            return {}
        found = read_json(self.trace_folder(name) / "metadata.json")
        return found if found.get("kind") == "trace" else {}

    def title(self, name: str) -> str:
        """Return what tables and figures call a trace."""
        if name in self.listed:
            return title_of(name, self.listed[name].phase)
        found = self.metadata(name)
        return title_of(name, phase_of(found)) if found else name

    def titles(self, names: Collection[str]) -> list[str]:
        """Return what tables and figures call some traces."""
        return [self.title(name) for name in names]

    def router_shape(self, name: str) -> tuple[int, int]:
        """Return E and k of a listed trace: of the plan's model where it is collected afresh."""
        if self.afresh:
            arguments = self.plan.models[name].config
            return arguments.get("num_experts", arguments.get("num_local_experts")), arguments["num_experts_per_tok"]
        found = self.metadata(name)
        return found["experts"], found["top_k"]

    @cached_property
    def sequences(self) -> dict[str, int]:
        """Sequences without repetition of each recorded trace and of each dataset that tells of them.

        Duplicates of a trace are left out where its metadata tells of them.
        """
        found = {name: self.metadata(name) for name in self.traces}
        listed = {name: self.listed[name].unrepeated for name in self.datasets}
        return {name: _sequences(metadata) for name, metadata in found.items() if metadata} | {
            name: extent.sequences for name, extent in listed.items() if extent
        }

    @cached_property
    def fitted(self) -> list[str]:
        """Traces and datasets with enough sequences and texts to fit a law to one half and evaluate it on the other."""
        return [name for name in (*self.traces, *self.datasets) if not self._too_few(name)]

    def _too_few(self, name: str) -> str:
        """What a trace has too few of; nothing of one that something can be fitted to."""
        held = self.sequences.get(name, LEAST_FITTED)
        if held < LEAST_FITTED:
            return f"{counted(held)} without repetition, expected at least {LEAST_FITTED}"
        texts = self._texts(name)
        return f"{counted(held)} of one text, expected at least {LEAST_TEXTS} texts" if texts < LEAST_TEXTS else ""

    def _texts(self, name: str) -> int:
        """Texts of a trace; as many as are needed where nothing tells of them."""
        if name in self.listed:
            extent = self.listed[name].unrepeated
            return extent.texts if extent else LEAST_TEXTS
        return self.metadata(name).get("unrepeated", {}).get("texts", LEAST_TEXTS)

    def predictor_folder(self, name: str) -> Path:
        """Return where the predictor that was trained on a trace lies, or will lie."""
        return (self.results if self.afresh and name in self.traces else self.resources) / "predictors" / name

    def predictor_files(self, name: str) -> list[Path]:
        """Return the files of the predictor of a trace."""
        return [self.predictor_folder(name) / file for file in PREDICTOR_FILES]

    @cached_property
    def predicted(self) -> list[str]:
        """Traces and datasets that have a predictor, or will have one, or whose prediction was recorded."""
        names = (*self.traces, *self.present)
        trained = [n for n in names if self.afresh or (self.predictor_folder(n) / "metadata.json").exists()]
        return [*trained, *(name for name in self.recorded if name in self.fitted)]

    def measured(self, kind: str) -> list[str]:
        """Return the GPUs of the grid whose measurement of one kind is complete: hardware or prefetch."""
        return [name for name in self.gpus if (self.resources / kind / name / COMPLETE).exists()]

    def measurement_files(self, kind: str, names: Collection[str]) -> list[Path]:
        """Return the files of measurements of one kind by the names of their GPUs."""
        return [path for name in names for path in sorted((self.resources / kind / name).glob("*"))]

    @cached_property
    def measured_memory(self) -> list[str]:
        """GPUs, of the grid or not, whose memory was measured."""
        return sorted(path.parent.name for path in (self.resources / "memory").glob(f"*/{COMPLETE}"))

    def notes(self) -> list[str]:
        """Return the lines that a user should read before a build: what is missing, and what follows from it."""
        return [*self._missing_datasets(), *self._of_prefill(), *self._too_short(), *self._unmeasured()]

    def _missing_datasets(self) -> list[str]:
        instead = {True: "its recorded statistics are used", False: "it is left out"}
        return [
            f"note: dataset {name} is not available locally, so {instead[name in self.recorded]}. "
            f"To get it: {how_to_get(name, dataset)}"
            for name, dataset in self.listed.items()
            if name not in self.present
        ]

    def _of_prefill(self) -> list[str]:
        return [
            f"note: {name} holds no decode token, so its results are those of prefill and it is called {title}"
            for name, title in ((name, self.title(name)) for name in (*self.traces, *self.datasets))
            if title != name
        ]

    def _too_short(self) -> list[str]:
        return [
            f"note: {name} holds {self._too_few(name)}. No law is fitted to it and it is not simulated; only "
            "tables/data/routing_statistics.csv has it"
            for name in (*self.traces, *self.datasets)
            if name not in self.fitted
        ]

    def _unmeasured(self) -> list[str]:
        command = "python -m prophet_moe.collect"
        lines = []
        if names := [name for name in self.gpus if name not in self.measured("hardware")]:
            lines.append(
                f"note: times on {', '.join(names)} come from datasheets. To measure them on a machine with the GPU: "
                f"{command} hardware --out {self.resources}/hardware/NAME"
            )
        if not self.measured_memory:
            lines.append(
                "note: no GPU's memory was measured, so the runtime reserve is assumed and memory is not validated. "
                f"To measure it on a machine with a GPU: {command} memory --out {self.resources}/memory/NAME"
            )
        return lines

    def training_minutes(self, recorded: Path) -> list[str]:
        """Return one line for each model that will be trained: how long that took for the trace in `recorded`."""
        lines = []
        for name in self.traces if self.afresh else ():
            metadata = recorded / name / "metadata.json"
            if not metadata.exists() or (self.results / "collect" / name / "training.json").exists():
                continue
            if training := read_json(metadata)["notes"].get("training"):
                machine = training["machine"]
                lines.append(
                    f"note: this build trains {name}. This took {training['seconds'] / 60:.0f} minutes on "
                    f"{machine.get('cpu') or machine['device']} with {machine['cpu_threads']} threads"
                )
        return lines

    def without_predictor(self) -> list[str]:
        """Return one line for each trace that no predictor was trained on."""
        return [
            f"note: no predictor was trained on {name}, so tables/data/prediction.csv leaves it out. To train one: "
            f"{self.python} -m prophet_moe.collect predictor {self.trace_folder(name)} "
            f"--out {self.predictor_folder(name)}"
            for name in (*self.traces, *self.present)
            if name not in self.predicted and name in self.fitted
        ]


def located_all(listed: Mapping[str, Dataset]) -> dict[str, Sequence[Path] | None]:
    """Return where the files of each dataset lie on this machine."""
    folders = data_folders()
    return {name: located(name, dataset, folders) for name, dataset in listed.items()}


def _sequences(metadata: Mapping[str, Any]) -> int:
    if "unrepeated" in metadata:
        return metadata["unrepeated"]["sequences"]
    flagged = sum(bool(note.get("has_repetition")) for note in metadata["notes"].get("sequences", []))
    return metadata["sequences"] - flagged

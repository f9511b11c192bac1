"""The list of other people's data, config/datasets.yaml: what it is, and where it lies on this machine."""

import difflib
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from prophet_moe.catalog import Architecture, ModelSpec, load_models, model_names
from prophet_moe.errors import UserError
from prophet_moe.files import atomic_write, sha256
from prophet_moe.routing.importers import FORMATS
from prophet_moe.routing.sequences import LEAST_FITTED, LEAST_TEXTS, unrepeated_extent
from prophet_moe.routing.trace import PHASES, Router, Trace
from prophet_moe.settings.fields import WeightFormats
from prophet_moe.validation import StrictModel, inconsistent, read_yaml, validate

EXTERNAL = Path("resources/external")
VARIABLE = "PROPHET_DATA"


class RouterSpec(StrictModel):
    """The routers of a model, and which of its layers hold an MoE block: all from `first` on."""

    layers: int = Field(gt=0)
    """Hidden layers of the model."""
    first: int = Field(default=0, ge=0)
    """The first layer with an MoE block."""
    experts: int = Field(gt=0)
    """Routed experts per MoE layer, E."""
    top_k: int = Field(gt=0)
    """Routed experts that one token uses, k."""
    source: str
    """Where the numbers come from."""
    architecture: Architecture | None = None
    """The model, for times of its layers."""
    precision: WeightFormats = WeightFormats()
    """Formats of its weights as its authors ship them."""


class DataFile(StrictModel):
    """One file of a dataset, with its size, its checksum and its public address."""

    path: str
    """Below resources/external/<id>/ or a folder in PROPHET_DATA."""
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    address: str = ""
    """Public address, {commit} filled in; empty where there is none."""


class Extent(StrictModel):
    """How much of a routing trace is used: what repeats within itself or repeats another sequence is not counted."""

    sequences: int = Field(ge=0)
    """Sequences without repetition."""
    texts: int = Field(ge=0)
    """Texts that they are of."""


class Dataset(StrictModel):
    """A published data set that this project reads but does not distribute."""

    kind: Literal["routing", "popularity", "expert_cache", "serving", "operators"]
    """Which experts tokens chose; the same or its counts, for the popularity of a model's experts alone
    (resources/observations/routing.csv), or of one session with the hits of an engine's own cache, neither of which a
    build takes up; when requests came; or how long operators take on GPUs."""
    project: str
    """Public address of the project."""
    commit: str
    """The version of the project that was read."""
    licence: str
    citation: str
    use: str
    """What this project may use the data for."""
    files: list[DataFile] = Field(min_length=1)
    """The first is what is imported; the others go with it."""
    model: str = ""
    """The model behind a routing trace."""
    importer: str = ""
    """The format of a routing trace, as in `prophet-moe trace import`."""
    phase: Literal["decode", "prefill"] = "decode"
    """The tokens of a routing trace that are described: those of prefill where none is decoded."""
    unrepeated: Extent | None = None
    """What a routing trace holds, known before it is imported; needed where that is too little for a law."""
    without_address: str = ""
    """How to get the files that have no public address."""

    @model_validator(mode="after")
    def _complete(self) -> "Dataset":
        routed = self.kind in ("routing", "expert_cache")
        if routed and self.importer not in FORMATS:
            raise inconsistent(("importer",), f"got {self.importer!r}, expected one of {', '.join(FORMATS)}")
        if routed and not self.model:
            raise inconsistent(("model",), "got '', expected the model's name for a routing trace")
        if not self.without_address and not all(file.address for file in self.files):
            raise inconsistent(("without_address",), "got '', expected how to get the files that have no address")
        return self


class DatasetFile(StrictModel):
    """The whole of config/datasets.yaml: data sets and the routers of models outside the catalogue."""

    routers: dict[str, RouterSpec]
    """Routers of models that are known by their traces only, by the model's name."""
    datasets: dict[str, Dataset]
    """Datasets by id."""


def load_datasets(path: Path) -> DatasetFile:
    """Read the list of data sets at `path`; a mistake in it is a UserError that names its key."""
    return validate(DatasetFile, read_yaml(path), str(path), "Mend that entry.")


def known_router(name: str, models: Mapping[str, ModelSpec], listed: DatasetFile) -> Router | None:
    """Return the router of a model of the catalogue or of the list (of an encoder-decoder the decoder's), else None."""
    if name in models:
        return router_in(name, models[name])
    if name in listed.routers:
        spec = listed.routers[name]
        return Router(name, spec.experts, spec.top_k, tuple(range(spec.first, spec.layers)))
    return None


def router_named(name: str, models: Mapping[str, ModelSpec], listed: DatasetFile) -> Router:
    """Return the router of the model `name`; an unknown name is a UserError that suggests the nearest one."""
    if router := known_router(name, models, listed):
        return router
    available = list(dict.fromkeys([*models, *listed.routers]))
    near = difflib.get_close_matches(name, available, n=1)
    expected = f"did you mean {near[0]!r}" if near else f"expected one of {', '.join(available)}"
    raise UserError("--model", f"unknown model {name!r}; {expected}", "Or add it to routers in config/datasets.yaml.")


def router_in(name: str, model: ModelSpec) -> Router:
    """Return the router of a model of the catalogue; of an encoder-decoder, the decoder's."""
    arch = model.architecture
    if arch.moe is None:
        raise UserError("--model", f"{name} is dense, expected a model with routed experts", "Name another model.")
    return Router(name, arch.moe.experts, arch.moe.top_k, arch.moe_layers)


def timed_model(name: str, folder: Path, listed: DatasetFile) -> ModelSpec | RouterSpec | None:
    """Return the `architecture` and shipped `precision` of a model of the list or of the catalogue in `folder`.

    It is None for any other model.
    """
    if name in listed.routers and listed.routers[name].architecture:
        return listed.routers[name]
    return load_models(folder, [name])[name] if name in model_names(folder) else None


def data_folders() -> list[Path]:
    """Return the folders that PROPHET_DATA names, absolute: relative ones start from where the command was started."""
    return [Path(folder).absolute() for folder in os.environ.get(VARIABLE, "").split(":") if folder]


def located(name: str, dataset: Dataset, folders: Sequence[Path]) -> list[Path] | None:
    """Return where the files of a dataset lie, all below resources/external/<id>/ or one of `folders`, else None."""
    for folder in (EXTERNAL / name, *folders):
        paths = [folder / file.path for file in dataset.files]
        if all(path.exists() for path in paths):
            return paths
    return None


def check_files(dataset: Dataset, paths: list[Path]) -> None:
    """Refuse files that differ from the size and the SHA-256 registered for `dataset`."""
    for file, path in zip(dataset.files, paths, strict=True):
        if path.stat().st_size != file.bytes or sha256(path) != file.sha256:
            raise UserError(str(path), "is not the registered file: its size or SHA-256 differs", "Get it again.")


def check_phase(name: str, dataset: Dataset, trace: Trace) -> Trace:
    """Return the `trace` of a dataset if its tokens are of the phase that is listed: titles are made from that."""
    found = PHASES[trace.described_phase]
    if found != dataset.phase:
        why = "decodes nothing" if found == "prefill" else "decodes"
        problem = f"datasets.{name}.phase: got {dataset.phase!r}, expected {found!r}: the data {why}"
        raise UserError("config/datasets.yaml", problem, "Mend that entry.")
    return trace


def check_extent(name: str, dataset: Dataset, trace: Trace) -> Trace:
    """Return the `trace` of a dataset if it holds what is listed, or enough for a law where nothing is listed."""
    found = Extent.model_validate(unrepeated_extent(trace))
    listed = dataset.unrepeated
    if found == listed or (listed is None and found.sequences >= LEAST_FITTED and found.texts >= LEAST_TEXTS):
        return trace
    told = "nothing" if listed is None else _in_yaml(listed)
    problem = f"datasets.{name}.unrepeated: got {told}, expected {_in_yaml(found)}, which the data holds"
    raise UserError("config/datasets.yaml", problem, "Mend that entry.")


def _in_yaml(extent: Extent) -> str:
    return f"{{sequences: {extent.sequences}, texts: {extent.texts}}}"


def how_to_get(name: str, dataset: Dataset) -> str:
    """Return one line that says how a user who lacks the dataset `name` gets it."""
    if dataset.without_address:
        return " ".join(dataset.without_address.split())
    return f"prophet-moe data fetch {name}"


def fetch(name: str, dataset: Dataset) -> list[Path]:
    """Download the files of a dataset into resources/external/<id>/ and check them."""
    if not all(file.address for file in dataset.files):
        raise UserError(name, f"has no public address: {how_to_get(name, dataset)}", "")
    paths = [EXTERNAL / name / file.path for file in dataset.files]
    for file, path in zip(dataset.files, paths, strict=True):
        if not path.exists():
            address = file.address.format(commit=dataset.commit)
            with atomic_write(path) as partial:
                _download(address, partial)
    check_files(dataset, paths)
    return paths


def _download(address: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(address, timeout=60) as response, path.open("wb") as stream:
            shutil.copyfileobj(response, stream)
    except (urllib.error.URLError, TimeoutError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(address, f"could not be fetched: {reason}", "Check the network, or copy the file.") from None

"""Models: the published architecture, and the constants that the report printed or implied."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prophet_moe.catalog.architecture import Architecture
from prophet_moe.errors import UserError
from prophet_moe.settings.fields import WeightFormats
from prophet_moe.validation import StrictModel, inconsistent, read_yaml, validate


class Constant(StrictModel):
    """A number of the report with what is known about it."""

    value: float | int | None
    """The number; none where nothing in the report determines it."""
    status: Literal["exact", "inferred", "unknown"]
    """`exact`: printed, or fixed by printed numbers. `inferred`: fitted to results. `unknown`: not determined."""
    source: str
    """Lines of the report that print the number (docs/reports.md), or the calculation that gives it."""
    interval: list[float] | None = None
    """Lowest and highest value that reproduces the report while all other constants are as given here."""
    interval_free_activation: list[float] | None = None
    """Lowest and highest value that reproduces the report while the rule of activations is free, too."""

    @model_validator(mode="after")
    def _unknown_or_valued(self) -> "Constant":
        if self.value is None and self.status != "unknown":
            raise inconsistent(("status",), f"got {self.status} without a value, expected unknown")
        return self


class Reported(StrictModel):
    """The constants that the report prints or implies for one model."""

    model: str
    """Name of the model in this project. A block that was copied with a file names another one, and is refused."""
    experts: Constant
    """Routed experts per MoE layer."""
    top_k: Constant
    """Routed experts that one token uses."""
    layers: Constant
    """Layers, which the report takes to hold an MoE block each."""
    expert_mb: Constant
    """One expert, in MB. The report divides by 1024 to get its GB."""
    expert_total_gb: Constant
    """All experts of all layers, in the report's GB."""
    total_params_b: Constant
    """All parameters, in 10^9."""
    active_params_b: Constant
    """Parameters that one token uses, in 10^9."""
    non_expert_gb: Constant
    """Everything but routed experts, in the report's GB."""
    activation_gb_per_sequence: Constant
    """Activations of one sequence, in the report's GB."""
    kv_bytes_per_token: Constant
    """KV cache of one token, in bytes."""
    native_context: Constant
    """Native context, in tokens."""
    forced_not_fitting: bool = False
    """Whether the model is set not to fit, since the report shows 0.00x and gives too little to compute it."""


class ModelSpec(StrictModel):
    """One model of the catalogue: its published architecture and the report's constants."""

    name: str
    """Name of the model in this project, equal to the file's name."""
    published_name: str
    """Name that the authors use."""
    hugging_face: str | None = None
    """Repository on huggingface.co, as owner/name."""
    arxiv: str | None = None
    """Number of the paper on arXiv, as text."""
    licence: str | None = None
    """Licence of the weights."""
    published_total_b: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """All parameters that the authors state, in 10^9. The count is compared with it."""
    published_active_b: float | None = None
    """Parameters that one token uses, in 10^9, as the authors state them."""
    sources: list[str] = Field(min_length=1)
    """Where the architecture comes from: configuration files and papers, with their versions."""
    notes: list[str] = []
    """What a reader should know, such as values that sources disagree on."""
    verified_by: list[str] = []
    """Checks that the counts passed."""
    left_out: list[str] = []
    """Parts of the checkpoint that `architecture` leaves out on purpose. Every output about the model names them."""
    precision: WeightFormats = WeightFormats()
    """Formats of the weights as the authors ship them, which `precision: shipped` of a scenario takes."""
    architecture: Architecture
    """The published architecture, from which every parameter and KV byte is counted."""
    reported: Reported | None = None
    """The report's constants. A model without them is left out of scenario `reported`."""

    @model_validator(mode="after")
    def _reported_is_its_own(self) -> "ModelSpec":
        if self.reported and self.reported.model != self.name:
            problem = (
                f"got {self.reported.model!r}, expected {self.name!r}: the report's constants are of another model"
            )
            raise inconsistent(("reported", "model"), problem)
        return self


def model_names(folder: Path) -> list[str]:
    """Return the names of the models in `folder`, sorted: one YAML file each."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_models(folder: Path, names: Sequence[str] | None = None) -> dict[str, ModelSpec]:
    """Read the models of `folder`; with `names`, just those. An unknown name is a UserError."""
    available = model_names(folder)
    for name in names or ():
        if name not in available:
            near = difflib.get_close_matches(name, available, n=1)
            hint = f"did you mean {near[0]!r}" if near else f"known: {', '.join(available)}"
            raise UserError(
                "models", f"unknown model {name!r}; {hint}", f"Add {folder / name}.yaml or correct the name."
            )
    return {name: load_model(folder / f"{name}.yaml") for name in names or available}


def load_model(path: Path) -> ModelSpec:
    """Read one model file; its `name` must equal the file's name."""
    document = read_yaml(path)
    if is_old_form(document):
        problem = "is in the form of earlier versions, expected mixers, ffns, blocks and a pattern"
        raise UserError(str(path), f"architecture: {problem}", f"Run: prophet-moe model convert {path}")
    spec = validate(ModelSpec, document, str(path), "Mend that key.")
    if spec.name != path.stem:
        raise UserError(str(path), f"name: got {spec.name!r}, expected the file's name {path.stem!r}", "Rename one.")
    return spec


def is_old_form(document: Any) -> bool:
    """Return whether a model file is in the form that ended with layer patterns."""
    architecture = document.get("architecture") if isinstance(document, dict) else None
    return isinstance(architecture, dict) and "family" in architecture and "pattern" not in architecture

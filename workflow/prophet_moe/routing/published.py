"""Popularity of the experts of published models, as others counted it, and how training balanced their load.

`resources/observations/routing.csv` holds a row for each model and text: statistics of the counts, u(B) of tokens of
different sequences, and the effective CV, at which the law for u(B) is nearest to it (`law_fit.fit_popularity_cv`). The
counts themselves are third-party data and are not kept. `resources/observations/balancing.csv` says how the load of the
models of the grid was balanced.
"""

from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, model_validator

from prophet_moe.errors import UserError
from prophet_moe.validation import StrictModel, inconsistent, read_csv, validate

PUBLISHED, BALANCING = Path("resources/observations/routing.csv"), Path("resources/observations/balancing.csv")
BATCHES = (2, 4, 8, 16, 32, 64)
"""Batch sizes, in tokens, at which u(B) is stated."""
ROUNDING = 0.005
"""Largest difference that a stated statistic may owe to its rounding."""

Balancing = Literal["auxiliary_loss", "global_batch_loss", "bias", "unknown"]
Row = TypeVar("Row", bound=StrictModel)


class PublishedRouting(StrictModel):
    """What counts of one published model on one text say about its routing: a row of the file."""

    id: str = Field(min_length=1)
    """Name of the row."""
    model: str = Field(min_length=1)
    """The model, as its authors name it."""
    stands_for: str
    """The file of config/models/ or config/models/current/ that describes it, without .yaml; empty for no such file."""
    text: str = Field(min_length=1)
    """The text whose tokens were counted."""
    domain: Literal["web", "prompts"]
    """`web` is text like that of pre-training; `prompts` are instructions, questions, chats and tasks."""
    traffic: Literal["whole", "domain"]
    """`whole` is a mixture; `domain` is a single domain, task or shape of request, of which `whole` is the mixture."""
    phase: Literal["prefill", "decode", "prefill+decode"]
    """Whose tokens were counted."""
    tokens_per_layer: int | None = Field(gt=0)
    """Tokens that each layer counted; empty for means over texts."""
    sequences: int | None = Field(gt=0)
    """Sequences that they are of; empty where that is not stated."""
    layers: int = Field(gt=0)
    """MoE layers that were counted."""
    model_layers: int = Field(gt=0)
    """MoE layers of the model."""
    experts: int = Field(gt=0)
    """Routed experts per MoE layer, E."""
    top_k: int = Field(gt=0)
    """Routed experts per token, k."""
    balancing: Balancing
    """How training balanced the load: a loss of each batch or sequence, one of the global batch, or a bias."""
    balancing_detail: str
    """The same in the words of the source."""
    cv_layer_mean: float = Field(ge=0)
    """Popularity CV, mean over layers."""
    cv_layer_min: float = Field(ge=0)
    """That of the most even layer."""
    cv_layer_max: float = Field(ge=0)
    """That of the most skewed layer."""
    max_over_mean_median: float = Field(ge=1)
    """Popularity of the most popular expert over the mean, median of the layers."""
    max_over_mean_max: float = Field(ge=1)
    """The same of the most skewed layer."""
    skewness_layer_mean: float
    """Skewness of the popularity, mean over layers."""
    share_of_experts_below_quarter_of_mean: float = Field(ge=0, le=1)
    """Share of the experts with less than a quarter of the mean popularity."""
    u_2: float
    """Distinct experts of 2 tokens of different sequences, mean over layers: exact, by the popularity counted."""
    u_4: float
    """The same of 4 tokens."""
    u_8: float
    """The same of 8 tokens."""
    u_16: float
    """The same of 16 tokens."""
    u_32: float
    """The same of 32 tokens."""
    u_64: float
    """The same of 64 tokens."""
    effective_cv: float = Field(ge=0)
    """The popularity CV at which the law for u(B) is nearest to these."""
    source: str = Field(pattern=r"^\S+/\S+(@|#)\S+")
    """Whose counts: owner/repository@commit and path, or owner/repository#number."""
    licence: str = Field(min_length=1)
    """Licence of the counts; where none is stated, only statistics of them are used."""
    clean: bool
    """Whether all layers of the model were counted, and nothing is known to be wrong with the counts."""
    note: str
    """What else there is to know; for a row that is not clean, why."""

    @property
    def unique(self) -> tuple[float, ...]:
        """Return u(B) at every batch size of BATCHES."""
        return tuple(getattr(self, f"u_{batch}") for batch in BATCHES)

    @property
    def known_as(self) -> str:
        """Return the model's name in this project, else that of its authors."""
        return self.stands_for or self.model

    @model_validator(mode="after")
    def _possible(self) -> "PublishedRouting":
        if self.top_k > self.experts:
            raise inconsistent(("top_k",), f"got {self.top_k}, expected at most the {self.experts} experts")
        if self.layers > self.model_layers:
            raise inconsistent(("layers",), f"got {self.layers}, expected at most the model's {self.model_layers}")
        if self.clean and self.layers < self.model_layers:
            raise inconsistent(("clean",), f"got True, but {self.layers} of {self.model_layers} layers were counted")
        if not self.clean and not self.note:
            raise inconsistent(("note",), "got '', expected why the row is not clean")
        most = sqrt(self.experts / self.top_k - 1) + ROUNDING
        for name in ("cv_layer_min", "cv_layer_mean", "cv_layer_max", "effective_cv"):
            if getattr(self, name) > most:
                problem = f"got {getattr(self, name):g}, expected at most sqrt(E/k - 1) = {most - ROUNDING:.4g}"
                raise inconsistent((name,), problem)
        for name in ("max_over_mean_median", "max_over_mean_max"):
            if getattr(self, name) > self.experts / self.top_k + ROUNDING:
                problem = f"got {getattr(self, name):g}, expected at most E/k = {self.experts / self.top_k:g}"
                raise inconsistent((name,), problem)
        for name, problem in impossible_unique(self.experts, self.top_k, self.unique):
            raise inconsistent((name,), problem)
        return self


class Balanced(StrictModel):
    """How training balanced the load of the experts of a model of the catalogue."""

    model: str = Field(min_length=1)
    """A file of config/models/ without .yaml."""
    balancing: Balancing
    """As in PublishedRouting."""
    basis: str = Field(min_length=1)
    """The key of the model's configuration, or the paper, that says so."""


def impossible_unique(experts: int, top_k: int, unique: Sequence[float]) -> Iterator[tuple[str, str]]:
    """Yield the columns of u(B) at BATCHES that no popularity gives, and why: even popularity gives the most."""
    fewer = float(top_k)
    for batch, distinct in zip(BATCHES, unique, strict=True):
        even = experts * (1 - (1 - top_k / experts) ** batch)
        if not fewer - ROUNDING <= distinct <= even + ROUNDING:
            expected = f"expected {fewer:g} (u of a smaller batch) to {even:.5g} (even popularity)"
            yield f"u_{batch}", f"got {distinct:g}, {expected}"
        fewer = distinct


def read_published(path: Path = PUBLISHED) -> list[PublishedRouting]:
    """Read the rows of a file of published routing; a cell that is missing or impossible is a UserError."""
    rows = _read(path, PublishedRouting)
    names = [row.id for row in rows]
    for line, name in enumerate(names, start=2):
        if name in names[: line - 2]:
            raise UserError(f"{path}, line {line}", f"id: got {name!r}, which an earlier row has", "Name it otherwise.")
    return rows


def read_balancing(path: Path = BALANCING) -> dict[str, str]:
    """Read how the load of models of the catalogue was balanced, by model."""
    return {row.model: row.balancing for row in _read(path, Balanced)}


def _read(path: Path, kind: type[Row]) -> list[Row]:
    if not path.exists():
        raise UserError(str(path), "no such file", f"Restore it: git checkout {path}")
    rows = [dict(zip(kind.model_fields, cells, strict=True)) for cells in read_csv(path, list(kind.model_fields))]
    return [
        validate(
            kind,
            {name: _typed(cell, kind.model_fields[name].annotation) for name, cell in row.items()},
            f"{path}, line {line}",
            "Mend that cell.",
        )
        for line, row in enumerate(rows, start=2)
    ]


def _typed(cell: str, kind: Any) -> Any:
    """Return the cell as a value of its column; one that is none stays text, for the validator to tell of."""
    if kind == int | None:
        return _typed(cell, int) if cell else None
    if kind is bool:
        return {"True": True, "False": False}.get(cell, cell)
    try:
        return kind(cell) if kind in (int, float) else cell
    except ValueError:
        return cell

"""Calibrated routings: generator parameters fitted to hit rates that engines published, kept with their sources.

`resources/observations/hit_curves.csv` holds the hit rates, each with its source, and whether it is fitted or left out;
`resources/routing/<curve>.json` holds what was fitted to one curve and how far it is from every point. Popularity is
that of published counts (`published_cv`): of the curve's own model where it is fitted, and of any other model that its
locality is carried over to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from prophet_moe.errors import UserError
from prophet_moe.files import write_json
from prophet_moe.routing.nearest import Candidate, source_of
from prophet_moe.routing.published import PUBLISHED, PublishedRouting
from prophet_moe.routing.published_cv import popularity_cv
from prophet_moe.routing.synthetic import (
    Chains,
    Parameters,
    Scalars,
    Setting,
    fit_curve,
    hit_curve,
    rates_at,
    with_popularity_cv,
)
from prophet_moe.routing.trace import Router
from prophet_moe.validation import StrictModel, read_csv, read_json, validate

FIT_SEED, EVALUATION_SEED = 0, 1
EVALUATION_CHAINS = Chains(sequences=96)
"""Chains that a fitted curve is evaluated on: more than it is fitted to, so that little of an error is chance."""
DIGITS = 4
"""Significant digits of a fitted number: more than the points decide."""


class Observation(StrictModel):
    """One published or recorded hit rate of a per-layer LRU cache of experts: decode, one sequence at a time."""

    curve: str = Field(min_length=1)
    """Name of the curve that it belongs to."""
    use: Literal["fit", "left_out"]
    """Whether the curve is fitted to it or only evaluated at it."""
    engine: str
    """The program that ran or replayed."""
    model: str = Field(min_length=1)
    """Name of the model."""
    quantisation: str
    """Format of the weights."""
    experts_per_layer: int = Field(gt=0)
    """Routed experts per MoE layer, E."""
    top_k: int = Field(gt=0)
    """Routed experts that one token uses, k, in that run."""
    moe_layers: int = Field(gt=0)
    """Layers with routed experts."""
    resident_share: float = Field(gt=0, le=1)
    """Experts that the cache of a layer holds, over E."""
    policy: str
    """Replacement policy of the cache."""
    batch: int = Field(ge=1, le=1)
    """Sequences decoded together: only one is comparable."""
    hit_rate: float = Field(ge=0, le=1)
    """Requests for an expert that found it, over all requests."""
    hit_kind: str
    """Whether an engine counted or a trace was replayed."""
    lookup: Literal["ask", "request"]
    """Whether the experts of a token are looked up together or one after another."""
    tokens: int = Field(gt=0)
    """Decode tokens of each sequence."""
    start: Literal["cold", "warm"]
    """Whether the cache was empty at the first of them."""
    prompt_kind: str
    """Kind of text that was decoded."""
    source: str = Field(min_length=1)
    """Where it was published: owner/repository#number, or a file at a commit."""
    notes: str
    """Remarks on how the hit rate was measured."""

    @property
    def setting(self) -> Setting:
        """Return how a curve is generated to be compared with it."""
        return Setting(self.tokens, self.start, self.lookup)

    @property
    def slots(self) -> float:
        """Return the experts that the cache of a layer holds; not whole where an engine counts parts of experts."""
        return self.resident_share * self.experts_per_layer


class Point(StrictModel):
    """A point of a curve beside what the fitted routing gives there."""

    resident_share: float
    """Experts that the cache of a layer holds, over E."""
    hit_rate: float
    """The hit rate as it was published."""
    error: float
    """Hit rate of the generated traces less the published one."""
    tokens: int
    """Decode tokens of each sequence."""
    start: Literal["cold", "warm"]
    """Whether the cache was empty at the first of them."""
    lookup: Literal["ask", "request"]
    """How a token's experts are looked up."""
    source: str
    """Where it was published."""


class FittedScalars(StrictModel):
    """The numbers of `synthetic.Scalars` as a calibrated file holds them."""

    persistence: float = Field(ge=0, le=1)
    """Probability that a choice repeats the choice of the token before."""
    affinity: float = Field(ge=0)
    """Standard deviation of the logarithm of a sequence's favours, the part that stays."""
    drift: float = Field(ge=0)
    """Standard deviation of the part that drifts."""
    drift_tokens: float = Field(gt=0)
    """Correlation time of the drift, tokens."""
    spread: float = Field(ge=0)
    """Standard deviation of the experts' weights over their mean."""


class FittedPopularity(StrictModel):
    """The popularity CV that a routing was fitted with, as `published_cv.popularity_cv` gives it."""

    value: float = Field(ge=0)
    """The effective CV of the model's own counts, or pooled over published models."""
    low: float = Field(ge=0)
    """Ends of its 95 % interval."""
    high: float = Field(ge=0)
    source: str = Field(min_length=1)
    """The counts that it rests on."""


class Calibrated(StrictModel):
    """A routing fitted to a curve, and how far it is from every point with another seed than it was fitted with."""

    curve: str
    """Name of the curve, and of the file."""
    model: str
    """The model whose hit rates were fitted."""
    experts: int = Field(gt=0)
    """Its routed experts per MoE layer, E."""
    top_k: int = Field(gt=0)
    """Its routed experts per token, k."""
    tokens: int = Field(gt=0)
    """Decode tokens of each sequence of the points fitted."""
    start: Literal["cold", "warm"]
    """Whether the cache was empty at the first of them."""
    lookup: Literal["ask", "request"]
    """How a token's experts are looked up at the points fitted."""
    source: list[str] = Field(min_length=1)
    """Where the points fitted were published."""
    popularity_cv: FittedPopularity
    """The popularity CV of the generated sequences."""
    scalars: FittedScalars
    """The fitted numbers of the generator."""
    fitted: list[Point] = Field(min_length=1)
    """Points that the numbers were fitted to."""
    left_out: list[Point]
    """Points that the numbers were not fitted to."""

    @property
    def candidate(self) -> Candidate:
        """Return what decides whether this routing stands in for a model."""
        return Candidate(self.experts, self.top_k, len(self.fitted) + len(self.left_out))

    def alone(self, router: Router) -> Parameters:
        """Return generator parameters for sequences that decode alone, whose hits rest on the fitted locality only."""
        return Scalars(**self.scalars.model_dump()).parameters(router)

    def parameters(self, router: Router, popularity_cv: float) -> Parameters:
        """Return generator parameters for any router: its sizes and popularity CV, and the locality that was fitted."""
        return with_popularity_cv(Scalars(**self.scalars.model_dump()), router, popularity_cv).parameters(router)


def read_observations(path: Path) -> list[Observation]:
    """Read the file of hit rates; a cell that is missing or out of its range is a UserError with its line."""
    columns = list(Observation.model_fields)
    rows = [dict(zip(columns, row, strict=True)) for row in read_csv(path, columns)]
    return [
        validate(Observation, _numbers(row), f"{path}, line {line}", "Mend that cell.")
        for line, row in enumerate(rows, start=2)
    ]


def _numbers(row: dict[str, str]) -> dict[str, Any]:
    """Return the row with its numbers read; a cell that is none stays text, for the validator to tell of."""
    read = {}
    for name, text in row.items():
        kind = Observation.model_fields[name].annotation
        try:
            read[name] = kind(text) if kind in (int, float) else text
        except ValueError:
            read[name] = text
    return read


def fit_observed(
    curve: str, observations: Iterable[Observation], published: Sequence[PublishedRouting], balancing: Mapping[str, str]
) -> Calibrated:
    """Fit the routing of a named curve to its points of use `fit`, and evaluate it at all of its points.

    Its popularity is that of the counts `published` of its model, else pooled as the `balancing` of the model says.

    A name without points, and points to fit that were measured in different ways, are a UserError.
    """
    observations = list(observations)
    points = [each for each in observations if each.curve == curve]
    fitted = [each for each in points if each.use == "fit"]
    if not fitted:
        available = ", ".join(sorted({each.curve for each in observations if each.use == "fit"}))
        raise UserError("curve", f"got {curve!r}, expected one of {available}", "Correct it, or add its points.")
    measured = {(each.model, each.experts_per_layer, each.top_k, each.setting) for each in fitted}
    if len(measured) > 1:
        raise UserError(curve, "points to fit differ in model, experts, top_k, tokens, start or lookup", "Mend a row.")
    first, setting = fitted[0], fitted[0].setting
    router = Router(first.model, first.experts_per_layer, first.top_k, tuple(range(first.moe_layers)))
    shares = [(each.slots, each.hit_rate) for each in fitted]
    popularity = _popularity_of(first, published, balancing.get(first.model, "unknown"))
    given = setting.tokens, popularity.value, setting.start, setting.lookup
    searched = fit_curve(router, shares, *given, seed=FIT_SEED)
    scalars = Scalars(**{name: float(f"{value:.{DIGITS}g}") for name, value in asdict(searched).items()})
    return Calibrated(
        curve=curve,
        model=first.model,
        experts=first.experts_per_layer,
        top_k=first.top_k,
        tokens=setting.tokens,
        start=setting.start,
        lookup=setting.lookup,
        source=sorted({each.source for each in fitted}),
        popularity_cv=popularity,
        scalars=FittedScalars(**asdict(scalars)),
        fitted=evaluated(scalars, fitted),
        left_out=evaluated(scalars, [each for each in points if each.use == "left_out"]),
    )


def _popularity_of(curve: Observation, published: Sequence[PublishedRouting], balancing: str) -> FittedPopularity:
    found = popularity_cv(curve.model, curve.experts_per_layer, curve.top_k, published, balancing)
    if found is None:
        raise UserError(str(PUBLISHED), "holds no counts, expected at least one row", f"git checkout {PUBLISHED}")
    rounded = {name: round(getattr(found, name), DIGITS) for name in ("value", "low", "high")}
    return FittedPopularity(**rounded, source=found.source)


def evaluated(scalars: Scalars, points: Sequence[Observation], chains: Chains = EVALUATION_CHAINS) -> list[Point]:
    """Return the points beside the errors of traces generated as each was measured, from EVALUATION_SEED."""
    curves = {
        (each.setting, each.experts_per_layer, each.top_k): hit_curve(
            scalars, Router(each.model, each.experts_per_layer, each.top_k, ()), each.setting, EVALUATION_SEED, chains
        )
        for each in {(each.setting, each.experts_per_layer, each.top_k): each for each in points}.values()
    }
    return [
        Point(
            resident_share=each.resident_share,
            hit_rate=each.hit_rate,
            error=round(_rate(curves[each.setting, each.experts_per_layer, each.top_k], each) - each.hit_rate, DIGITS),
            tokens=each.tokens,
            start=each.start,
            lookup=each.lookup,
            source=each.source,
        )
        for each in points
    ]


def _rate(curve: Any, point: Observation) -> float:
    return float(rates_at(curve, [point.slots])[0])


def write_calibrated(calibrated: Calibrated, folder: Path) -> Path:
    """Write a calibrated routing to `<folder>/<curve>.json` and return that path."""
    path = folder / f"{calibrated.curve}.json"
    write_json(path, calibrated.model_dump())
    return path


def calibrated_routings(folder: Path) -> list[Calibrated]:
    """Read all calibrated routings of a folder, by name; none at all, or a file that is none, is a UserError."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise UserError(str(folder), "holds no calibrated routing", "prophet-moe trace fit-curve CURVE makes one.")
    return [read_calibrated(path) for path in paths]


def nearest(experts: int, top_k: int, routings: Sequence[Calibrated]) -> Calibrated:
    """Return the routing of the nearest E and k (`nearest.source_of`); none to choose from is a UserError."""
    named = {each.curve: each for each in routings}
    return named[source_of(experts, top_k, {}, {name: each.candidate for name, each in named.items()})]


def read_calibrated(path: Path) -> Calibrated:
    """Read one calibrated routing; a file that holds none is a UserError."""
    return validate(Calibrated, read_json(path), str(path), "Fit it again: prophet-moe trace fit-curve CURVE")

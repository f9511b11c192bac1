"""Decode steps that others timed, predicted from their conditions, and the constants of estimates fitted to them.

A row is one measurement: model, formats, GPU and how many, batch, lengths, and a time. Batches are taken as full, the
context as that of the middle of the answer, and distinct experts by uniform occupancy. Rows of other kinds, or with a
condition that is unknown, are left out with the reason. Only rows that are `clean` fix constants; which are is said by
resources/observations/README.md.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prophet_moe.catalog import Architecture, GpuSpec, ModelSpec
from prophet_moe.catalog.link import LinkSpec, load_links
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import (
    ANY,
    CONSTANTS,
    Constants,
    Estimator,
    LayerConstants,
    Operation,
    Residuals,
    Split,
    estimate_step,
    head_operation,
    layer_operations,
    read_constants,
    step_operations,
)
from prophet_moe.hardware.operators import MICROSECOND, Operators, operators_for
from prophet_moe.observed.context import Context
from prophet_moe.observed.schema import TIMES, read_observations, result_frame, result_row
from prophet_moe.precision import FORMATS, Precision
from prophet_moe.units import GB

Floats = NDArray[np.float64]

OPERATORS, LINKS = Path("resources/operators"), Path("config/links.yaml")
"""Where fits lie, one file per GPU and one of constants, and the ways to copy."""
STEP, LAYER, LINK = ("e2e decode", "e2e ubatch"), "operator: one MoE layer", "host link"
"""Kinds of rows that are predicted: a whole step of one or more GPUs, one MoE layer alone, copies from the host."""
OTHER_COPIES = ("D2H", "kernel", "both directions", "beside", "bidirectional", "gather", "write-combined", "reaches")
"""Words of rows about links that name no copy of config/links.yaml."""
UNPINNED = ("pageable", "load_state_dict")
"""Words of rows about links whose host memory is not pinned."""
SIZE = re.compile(r"([0-9.]+) ?([KMG])(i?)B")
LARGE = 1e9
"""Bytes of a copy whose size no row states: large enough that what a copy costs does not show."""
GROUP = ["model", "engine", "gpu"]
"""What is left out as a whole when constants are judged."""
OBSERVED = Path("resources/observations/times.csv")
"""Rows that constants are fitted to."""
STEP_TIME, LAYER_TIME, LINK_SPEED = "step_time", "layer_time", "link_speed"
"""Quantities: the time of a decode step, that of one MoE layer alone, and the bandwidth of copies from the host."""
GOAL_PCT = 20
"""Error in percent within which a step is predicted well."""
LEAST_ROWS, LEAST_GROUPS = 20, 3
"""Rows and groups from which a GPU, or an engine on a GPU, has an interval of its own."""
LOW, HIGH = 0.05, 0.95
"""Quantiles of an interval."""
DTYPES: Mapping[str, Precision] = {
    "bf16": Precision(),
    "bf16 (not stated)": Precision(),
    "int8 weights": Precision("int8", {"embeddings": "bf16"}),
    "fp8": Precision("fp8_block128", {"embeddings": "bf16"}),
    "mxfp4 experts, bf16 rest": Precision("bf16", {"routed_experts": "mxfp4"}),
    "int4 experts, bf16 rest": Precision("bf16", {"routed_experts": "int4_group32"}),
    "Q4_0 GGUF": Precision("int4_group32", {"embeddings": "q6_k"}),
    "mxfp4 GGUF": Precision("q8_0", {"routed_experts": "mxfp4"}),
    "mxfp4 GGUF 11.27 GiB": Precision("q8_0", {"routed_experts": "mxfp4"}),
    "Q4_K_M GGUF": Precision("q4_k", {"embeddings": "q6_k"}),
    "Q6_K GGUF": Precision("q6_k"),
}
"""Formats by the words of the sources; the name of a format of `precision` stands for itself, embeddings of 16 bits."""
SAME_LAYERS = {"Kimi-K2.5": "Kimi-K2-Thinking"}
"""Models whose language model has the layers of one in the catalogue, by the names of rows."""
NEEDED = (
    *("id", "kind", "quantity", "engine", "model", "dtype", "gpu", "gpus", "ep", "batch", "measured_ms"),
    *("context_assumed", "kv_bits_assumed", "value", "unit", "datasheet", "cache", "clean", "notes"),
)
"""Columns of observations that predictions are made of."""
COLUMNS = (
    *("id", "kind", "quantity", "engine", "gpu", "model", "measured", "predicted", "unit", "error_pct", "clean"),
    *("left_out", "low", "high", "bound", "basis"),
)
"""Columns of predictions; times in milliseconds. `bound` is the roofline of the datasheet."""


@dataclass(frozen=True)
class Known:
    """What predictions are made of, by name."""

    models: Callable[[str], ModelSpec | None]
    """A model by its name in the rows; None of an unknown one."""
    gpus: Mapping[str, GpuSpec]
    operators: Mapping[str, Operators]
    """Fits by GPU; a GPU without any is estimated by its share of the bandwidth."""
    constants: Constants
    links: Mapping[str, LinkSpec] = field(default_factory=dict)
    """Ways to copy from the host by name."""

    def gpu_named(self, name: str) -> str | None:
        """Return the GPU of the catalogue that a row names, with its memory or, where there is one alone, without."""
        found = [gpu for gpu in self.gpus if gpu.startswith(f"{name}-")]
        return name if name in self.gpus else found[0] if len(found) == 1 else None

    def estimator(self, gpu: str) -> Estimator:
        """Return what estimates of a GPU are made of."""
        return Estimator(gpu, self.gpus[gpu], self.operators.get(gpu), self.constants)


def known(
    models: Mapping[str, ModelSpec], gpus: Mapping[str, GpuSpec], folder: Path = OPERATORS, links: Path = LINKS
) -> Known:
    """Return what predictions are made of: a catalogue, and the fits and constants in `folder`."""
    constants = read_constants(folder / CONSTANTS)
    return Known(
        lambda name: models.get(SAME_LAYERS.get(name, name)), gpus, fits(gpus, folder), constants, load_links(links)
    )


def fits(gpus: Mapping[str, GpuSpec], folder: Path = OPERATORS) -> dict[str, Operators]:
    """Return the fitted operators of the GPUs that have some."""
    read = {gpu: operators_for(folder, gpu, spec) for gpu, spec in gpus.items()}
    return {gpu: operators for gpu, operators in read.items() if operators}


class Conditions(NamedTuple):
    """One row as the estimate takes it."""

    gpu: str
    arch: Architecture
    precision: Precision
    batch: int
    context: int
    unique_experts: float
    split: Split


class NotPredictedError(Exception):
    """Why a row cannot be predicted, in words."""


def conditions(row: pd.Series, known: Known) -> Conditions:
    """Return the conditions of a row; a row that cannot be predicted is a NotPredictedError that says why."""
    if row["kind"] not in (*STEP, LAYER):
        raise NotPredictedError(f"no prediction for rows of kind {row['kind']!r}")
    model, gpu = known.models(row["model"]), known.gpu_named(row["gpu"])
    if model is None:
        raise NotPredictedError(f"no model {row['model']!r}")
    if gpu is None:
        raise NotPredictedError(f"no datasheet of {row['gpu']!r}")
    if not row["dtype"]:
        raise NotPredictedError("the format of the weights is not stated")
    precision = _precision(row)
    if precision is None:
        raise NotPredictedError(f"format {row['dtype']!r} is not known")
    needed = ("batch", "measured_ms") if row["kind"] == LAYER else ("batch", "measured_ms", "context_assumed")
    missing = next((name for name in needed if not _number(row[name]) > 0), None)
    if missing:
        raise NotPredictedError(f"{missing} is not stated")
    arch, batch = model.architecture, round(_number(row["batch"]))
    if arch.moe is None:
        raise NotPredictedError(f"{row['model']} is dense")
    context = 1 if row["kind"] == LAYER else max(1, round(_number(row["context_assumed"])))
    gpus = _number(row["gpus"])
    split = Split(round(gpus) if gpus > 0 else 1, by_expert=_number(row["ep"]) > 1)
    return Conditions(gpu, arch, precision, batch, context, _unique_experts(row, arch, batch), split)


def _number(value: object) -> float:
    """Return a cell as a number, NaN where it is empty or is none."""
    return float(pd.to_numeric(value, errors="coerce"))


def _precision(row: pd.Series) -> Precision | None:
    name = row["dtype"]
    if name in DTYPES:
        found = DTYPES[name]
    elif name in FORMATS:
        found = Precision(name, {"embeddings": "bf16"})
    else:
        return None
    kv = "fp8" if _number(row["kv_bits_assumed"]) == 8 else "bf16"
    return Precision(found.default, found.components, kv)


def _unique_experts(row: pd.Series, arch: Architecture, batch: int) -> float:
    """Return the distinct experts that the row states, or those of uniform occupancy."""
    stated = re.match(r"u=([0-9.]+)", str(row["notes"]))
    if stated:
        return float(stated[1])
    return uniform_experts(arch, batch)


def uniform_experts(arch: Architecture, batch: int) -> float:
    """Return the distinct experts of a batch by uniform occupancy, 0 of a dense model."""
    if arch.moe is None:
        return 0.0
    experts = arch.moe.experts
    return experts * (1 - (1 - min(arch.moe.top_k, experts) / experts) ** batch)


def predicted(rows: pd.DataFrame, context: Context) -> pd.DataFrame:
    """Predict every row, each by constants that its own model, engine and GPU did not fix.

    Parameters
    ----------
    rows : DataFrame
        Observations with the columns of `schema.TIMES`; all but those that it requires may be empty.
    context : Context
        Models, GPUs, and the folder with fits, links, and the rows that constants are fitted to.

    Returns
    -------
    DataFrame
        One row per observation with the columns of `schema.RESULT_COLUMNS`; `low` and `high` are the ends of the
        interval of 90 %.
    """
    using = known(context.models, context.gpus, context.root / OPERATORS, context.root / LINKS)
    fixed = features(_named_as_known(read_observations(context.root / OBSERVED, TIMES), using, context), using)
    unseen = Unseen(clean_rows(fixed), using)
    named = _named_as_known(rows, using, context)
    found = [
        predictions(part, replace(using, constants=unseen.constants(part.iloc[0]))) for _, part in _groups_of(named)
    ]
    by_id = {cells["id"]: cells for part in found for cells in part.to_dict("records")}
    return result_frame(_result(row, by_id[row["id"]]) for row in rows.to_dict("records"))


def within_goal(row: Mapping[str, Any]) -> bool | None:
    """Return whether a step is predicted within 20 %; None of other quantities, which have no goal."""
    return abs(row["error_pct"]) <= GOAL_PCT if row["quantity"] == STEP_TIME and row["clean"] else None


def _groups_of(rows: pd.DataFrame) -> Iterable[tuple[object, pd.DataFrame]]:
    return rows.groupby(GROUP, sort=False)


def _named_as_known(rows: pd.DataFrame, known: Known, context: Context) -> pd.DataFrame:
    """Return rows with models and GPUs by their names in the catalogue, numbers as floats, unjudged ones as clean."""

    def model(named: str) -> str:
        found = None if known.models(named) else context.model(named)
        return found[0].name if found else named

    def gpu(named: str) -> str:
        found = known.gpu_named(named) or context.gpu(named)
        return found if isinstance(found, str) else found[0] if found else named

    numbers = {name: float for name in rows.columns if pd.api.types.is_numeric_dtype(rows[name])}
    named = {"model": rows["model"].map(model), "gpu": rows["gpu"].map(gpu), "clean": rows["clean"].replace("", "1")}
    return rows.astype(numbers).assign(**named)


def _result(row: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, object]:
    """Return a prediction as every kind has it, with the names of the row's source."""
    kind = row["kind"]
    quantity = STEP_TIME if kind in STEP else {LAYER: LAYER_TIME, LINK: LINK_SPEED}.get(kind, kind)
    names = {name: row[name] for name in ("id", "engine", "gpu", "model")}
    values = {name: found[name] for name in ("measured", "predicted", "low", "high", "unit", "left_out")}
    return result_row(
        kind="times", quantity=quantity, **names, **values, basis=found["basis"] if found["clean"] else ""
    )


class Unseen:
    """Constants for a row, fitted to clean rows of all groups but its own."""

    def __init__(self, fixed: pd.DataFrame, known: Known) -> None:
        """Keep what constants are fitted to, the columns of `features`."""
        self._fixed, self._known, self._found = fixed, known, {}

    def constants(self, row: Mapping[str, Any]) -> Constants:
        """Return the constants without the row's model, engine and GPU; as they are where no such row fixed them."""
        group = tuple(row[name] for name in GROUP)
        if group not in self._found:
            own = (self._fixed[GROUP] == list(group)).all(axis=1)
            self._found[group] = self._without(self._fixed[~own]) if own.any() else self._known.constants
        return self._found[group]

    def _without(self, rows: pd.DataFrame) -> Constants:
        constants = self._known.constants
        layer_us = fit_with_operators(rows[rows["operators"].notna()])
        share, share_layer_us = fit_without_operators(rows)
        beside = constants.with_operators.model_copy(update={"layer_us": layer_us})
        alone = constants.without_operators.model_copy(update={"hbm_share": share, "layer_us": share_layer_us})
        return constants.model_copy(update={"with_operators": beside, "without_operators": alone})


def predictions(rows: pd.DataFrame, known: Known) -> pd.DataFrame:
    """Predict every row of observed times.

    Parameters
    ----------
    rows : DataFrame
        Rows of resources/observations/times.csv, or of a file with its columns.
    known : Known
        Models, GPUs, fits and constants.

    Returns
    -------
    DataFrame
        One row per observation in the order given, with the columns COLUMNS: what was measured, the estimate, its
        interval and bound, in milliseconds or GB/s. Where a row does not count, `left_out` has the reason.
    """
    return pd.DataFrame([_predicted(row, known) for _, row in rows.iterrows()], columns=list(COLUMNS))


def _predicted(row: pd.Series, known: Known) -> dict[str, Any]:
    found = {name: row[name] for name in ("id", "kind", "quantity", "engine", "gpu", "model")}
    try:
        found |= _link_speeds(row, known) if row["kind"] == LINK else _step_times(row, known)
    except (NotPredictedError, UserError) as reason:
        unit, measured = ("GB/s", row["value"]) if row["kind"] == LINK else ("ms", row["measured_ms"])
        return found | {"measured": _number(measured), "unit": unit, "clean": False, "left_out": str(reason)}
    clean = _number(row["clean"]) == 1
    noted = isinstance(row["notes"], str) and row["notes"]
    left_out = "" if clean else f"not clean: {noted or 'its file says so'}"
    error = 100 * (found["predicted"] / found["measured"] - 1)
    return found | {"error_pct": error, "clean": clean, "left_out": left_out}


def _step_times(row: pd.Series, known: Known) -> dict[str, Any]:
    """Return the milliseconds measured and estimated of a step or of one layer, with bound and interval."""
    case = conditions(row, known)
    estimator = known.estimator(case.gpu)
    found = {"measured": _number(row["measured_ms"]), "unit": "ms", "basis": estimator.basis}
    if row["kind"] == LAYER:
        operation = _moe_layer(case)
        seconds, bound = estimator.operation_seconds(operation), estimator.bound_seconds([operation])
        return found | {"predicted": 1000 * seconds, "bound": 1000 * bound}
    step = estimate_step(
        *(estimator, case.arch, case.batch, case.context, case.unique_experts, case.precision, case.split),
        row["engine"],
    )
    times = {"predicted": step.seconds, "low": step.low, "high": step.high, "bound": step.bound}
    return found | {name: 1000 * seconds for name, seconds in times.items()}


def _link_speeds(row: pd.Series, known: Known) -> dict[str, Any]:
    """Return the GB/s measured and predicted of copies, at both ends of the shares, and of the datasheet."""
    quantity, measured, link = str(row["quantity"]), _number(row["value"]), _number(row["datasheet"])
    if not quantity.startswith("H2D") or any(word in quantity for word in OTHER_COPIES):
        raise NotPredictedError("no name in config/links.yaml for such copies")
    if row["unit"] != "GB/s" or not (measured > 0 and link > 0):
        raise NotPredictedError("no bandwidth beside that of a datasheet")
    name = "pageable" if any(word in quantity for word in UNPINNED) else "pinned"
    way, size = known.links[name], _size(str(row["cache"]))

    def speed(share: float) -> float:
        return size / way.model_copy(update={"share": share}).seconds_over(link, size) / GB

    shares = {"predicted": way.share, "low": way.lowest_share, "high": way.highest_share}
    speeds = {end: speed(share) for end, share in shares.items()}
    return {"measured": measured, "unit": "GB/s", "bound": link, "basis": name, **speeds}


def _size(text: str) -> float:
    found = SIZE.search(text)
    if found is None:
        return LARGE
    return float(found[1]) * (1024 if found[3] else 1000) ** (" KMG".index(found[2]))


def _moe_layer(case: Conditions) -> Operation:
    block = next(block for block in case.arch.layers() if block.ffn and case.arch.ffns[block.ffn].kind == "moe")
    operations = layer_operations(
        case.arch, block, case.batch, case.context, case.unique_experts, case.precision, case.split
    )
    return next(each for each in operations if each.kind == "moe_layer")


def features(rows: pd.DataFrame, known: Known) -> pd.DataFrame:
    """Return of every row of a whole step what constants are fitted to.

    The columns are `id`, those of GROUP, `gpus`, `batch`, `measured` and `bound` in seconds, `operators` (their sum,
    NaN without tables), `layers` and `clean`.
    """
    found = []
    for _, row in rows[rows["kind"].isin(STEP)].iterrows():
        try:
            case = conditions(row, known)
        except NotPredictedError:
            continue
        estimator = known.estimator(case.gpu)
        layers = step_operations(case.arch, case.batch, case.context, case.unique_experts, case.precision, case.split)
        head = head_operation(case.arch, case.batch, case.precision, case.split)
        bound = sum(map(estimator.bound_seconds, [*layers, [head]]))
        summed = np.nan
        if estimator.operators:
            summed = sum(estimator.operation_seconds(each) for layer in [*layers, [head]] for each in layer)
        measured = _number(row["measured_ms"]) / 1000
        names = [row["id"], row["model"], row["engine"], case.gpu, case.split.gpus, case.batch]
        found.append((*names, measured, bound, summed, len(layers), _number(row["clean"]) == 1))
    columns = ["id", *GROUP, "gpus", "batch", "measured", "bound", "operators", "layers", "clean"]
    return pd.DataFrame(found, columns=columns)


Law = Callable[[pd.DataFrame, pd.DataFrame], Floats]
"""Fits its constants to the first rows and predicts the seconds of the second ones."""


def _least(errors: Callable[[Floats], Floats], start: list[float], least: list[float], most: list[float]) -> Floats:
    from scipy.optimize import least_squares

    return least_squares(errors, start, bounds=(least, most), loss="soft_l1", f_scale=0.1).x


def fit_with_operators(rows: pd.DataFrame) -> float:
    """Fit the microseconds per layer beside the operators, by least errors of logarithms."""
    summed, layers, measured = (rows[name].to_numpy(np.float64) for name in ("operators", "layers", "measured"))

    def errors(found: Floats) -> Floats:
        return np.log((summed + layers * found[0] * MICROSECOND) / measured)

    return float(_least(errors, [30.0], [0.0], [1000.0])[0])


def fit_without_operators(rows: pd.DataFrame) -> tuple[float, float]:
    """Fit the share of the roofline's speed and the microseconds per layer, by least errors of logarithms."""
    bound, layers, measured = (rows[name].to_numpy(np.float64) for name in ("bound", "layers", "measured"))

    def errors(found: Floats) -> Floats:
        return np.log((bound / found[0] + layers * found[1] * MICROSECOND) / measured)

    share, layer_us = _least(errors, [0.7, 80.0], [0.05, 0.0], [1.0, 1000.0])
    return float(share), float(layer_us)


def _by_roofline(_: pd.DataFrame, rows: pd.DataFrame) -> Floats:
    return rows["bound"].to_numpy(np.float64)


def _by_share(known: pd.DataFrame, rows: pd.DataFrame) -> Floats:
    share = float(np.exp(np.median(np.log(known["bound"] / known["measured"]))))
    return rows["bound"].to_numpy(np.float64) / share


def _by_share_and_layer(known: pd.DataFrame, rows: pd.DataFrame) -> Floats:
    share, layer_us = fit_without_operators(known)
    return rows["bound"].to_numpy(np.float64) / share + rows["layers"].to_numpy(np.float64) * layer_us * MICROSECOND


def _by_operators(_: pd.DataFrame, rows: pd.DataFrame) -> Floats:
    return rows["operators"].to_numpy(np.float64)


def _by_operators_and_layer(known: pd.DataFrame, rows: pd.DataFrame) -> Floats:
    layer_us = fit_with_operators(known[known["operators"].notna()])
    return (rows["operators"] + rows["layers"] * layer_us * MICROSECOND).to_numpy(np.float64)


def _by_estimate(known: pd.DataFrame, rows: pd.DataFrame) -> Floats:
    return np.where(rows["operators"].notna(), _by_operators_and_layer(known, rows), _by_share_and_layer(known, rows))


def by_own(law: Law, column: str, least: int = 1) -> Law:
    """Return the law with constants of each GPU's or engine's own, where `least` other groups of it are known.

    `column` is `gpu` or `engine`. Elsewhere the constants are those of all known rows.
    """

    def of_each(known: pd.DataFrame, rows: pd.DataFrame) -> Floats:
        seconds = pd.Series(np.nan, rows.index)
        for name, part in rows.groupby(column):
            same = known[known[column] == name]
            seconds[part.index] = law(same if _groups(same) >= least else known, part)
        return seconds.to_numpy()

    return of_each


LAWS: Mapping[str, tuple[str, Law]] = {
    "M0": ("the roofline of the datasheet", _by_roofline),
    "M1": ("roofline over a share, by GPU", by_own(_by_share, "gpu")),
    "M2": ("roofline over a share and a constant per layer, by GPU", by_own(_by_share_and_layer, "gpu")),
    "M2g": ("the same for all GPUs", _by_share_and_layer),
    "B0": ("operators summed", _by_operators),
    "B3": ("operators and a constant per layer", _by_operators_and_layer),
    "B4": ("B3 with an engine's own constant", by_own(_by_operators_and_layer, "engine", LEAST_GROUPS)),
    "estimate": ("B3 where a GPU has operators, else M2g", _by_estimate),
}
"""Laws that are held against the observations, by their names in tables."""
TABLED = ("B0", "B3", "B4")
"""Laws of GPUs with tables of operators alone."""


def left_out(law: Law, rows: pd.DataFrame, group: list[str]) -> Floats:
    """Return predicted over measured seconds of rows, each predicted from rows of other groups alone."""
    ratio = pd.Series(np.nan, rows.index)
    for _, held in rows.groupby(group):
        ratio[held.index] = law(rows.drop(held.index), held) / held["measured"]
    return ratio.to_numpy(np.float64)


def unseen(law: Law, rows: pd.DataFrame, fitted: pd.DataFrame | None) -> Floats:
    """Return predicted over measured seconds of rows: from `fitted` alone, or without it from their other groups."""
    if fitted is None:
        return left_out(law, rows, GROUP)
    return law(fitted, rows) / rows["measured"].to_numpy(np.float64)


def clean_rows(features: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `features` that count."""
    return features[features["clean"]].reset_index(drop=True)


def judged(rows: pd.DataFrame, fitted: pd.DataFrame | None = None) -> pd.DataFrame:
    """Judge every law on clean rows that it has not seen.

    Parameters
    ----------
    rows : DataFrame
        What `features` returns; rows that are not clean do not count.
    fitted : DataFrame, optional
        The rows that constants are fitted to. Without any, they are fitted to `rows`, whole groups left out in turn.

    Returns
    -------
    DataFrame
        By law: rows, the shares of rows within 20 % and 30 %, and mean, median and 0.9 quantile of the error.
    """
    rows = clean_rows(rows)
    fitted = None if fitted is None else clean_rows(fitted)
    found = []
    for name, (title, law) in LAWS.items():
        used = rows[rows["operators"].notna()].reset_index(drop=True) if name in TABLED else rows
        if len(used):
            errors = np.abs(unseen(law, used, fitted) - 1)
            within = float((errors <= 0.2).mean()), float((errors <= 0.3).mean())
            sizes = float(errors.mean()), float(np.median(errors)), float(np.quantile(errors, 0.9))
            found.append((name, title, len(used), *within, *sizes))
    names = ["law", "title", "rows", "within_20_pct", "within_30_pct", "mean_error", "median_error", "p90_error"]
    return pd.DataFrame(found, columns=names)


def by_group(rows: pd.DataFrame, fitted: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return how estimates compare with clean rows by GPU, engine, model and number of GPUs, as `judged` does."""
    rows = clean_rows(rows)
    ratio = unseen(_by_estimate, rows, None if fitted is None else clean_rows(fitted))
    rows = rows.assign(ratio=ratio, bound_ratio=rows["bound"] / rows["measured"])
    grouped = rows.groupby(["gpu", "engine", "model", "gpus"])
    return grouped.agg(
        rows=("id", "size"),
        median=("ratio", "median"),
        least=("ratio", "min"),
        most=("ratio", "max"),
        bound=("bound_ratio", "median"),
    ).reset_index()


def fit_constants(rows: pd.DataFrame, source: str) -> Constants:
    """Fit the constants of estimates to the clean rows of `features`, and their residuals group by group."""
    rows = clean_rows(rows)
    tabled = rows[rows["operators"].notna()].reset_index(drop=True)
    share, layer_us = fit_without_operators(rows)
    seen = tabled.assign(ratio=1 / left_out(_by_operators_and_layer, tabled, GROUP))
    residuals = [_residuals(ANY, ANY, True, seen, GROUP)]
    for names, part in [*seen.groupby(["gpu"]), *seen.groupby(["gpu", "engine"])]:
        if len(part) >= LEAST_ROWS and _groups(part) >= LEAST_GROUPS:
            residuals.append(_residuals(*names, *[ANY] * (2 - len(names)), True, part, GROUP))
    # A GPU without tables has no rows either: its residuals are those of GPUs that the constants had not seen.
    seen = rows.assign(ratio=1 / left_out(_by_share_and_layer, rows, ["gpu"]))
    residuals.append(_residuals(ANY, ANY, False, seen, ["gpu"]))
    return Constants(
        source=source,
        with_operators=LayerConstants(
            layer_us=_rounded(fit_with_operators(tabled)), rows=len(tabled), groups=_groups(tabled)
        ),
        without_operators=LayerConstants(
            layer_us=_rounded(layer_us), hbm_share=_rounded(share), rows=len(rows), groups=_groups(rows)
        ),
        residuals=residuals,
    )


def _residuals(gpu: str, engine: str, operators: bool, rows: pd.DataFrame, group: list[str]) -> Residuals:
    """Return the quantiles of measured over estimated times, every group counting the same."""
    weights = 1 / rows.groupby(group)["ratio"].transform("size")
    low, high = (_rounded(weighted_quantile(rows["ratio"], weights, share)) for share in (LOW, HIGH))
    counted = {"rows": len(rows), "groups": _groups(rows)}
    return Residuals(gpu=gpu, engine=engine, operators=operators, low=low, high=high, **counted)


def weighted_quantile(values: pd.Series, weights: pd.Series, share: float) -> float:
    """Return the least value at which the weights of values up to it reach a share of all weights."""
    order = np.argsort(values.to_numpy(), kind="stable")
    reached = np.cumsum(weights.to_numpy()[order])
    return float(values.to_numpy()[order[np.searchsorted(reached, share * reached[-1] * (1 - 1e-12))]])


def _groups(rows: pd.DataFrame) -> int:
    return len(rows[GROUP].drop_duplicates())


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")

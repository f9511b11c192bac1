"""Decode steps that others timed, predicted from their conditions, and the constants of estimates fitted to them.

A row is one measurement: model, formats, GPU and how many, batch, lengths, and a time. Batches are taken as full, the
context as that of the middle of the answer, and distinct experts by uniform occupancy. Rows of other kinds, or with a
condition that is unknown, are left out with the reason. Only rows that are `clean` fix constants; which are is said by
resources/observations/README.md.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prophet_moe.catalog import Architecture, GpuSpec, ModelSpec
from prophet_moe.hardware.estimate import (
    ANY,
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
from prophet_moe.hardware.operators import MICROSECOND, Operators, read_operators
from prophet_moe.precision import FORMATS, Precision

Floats = NDArray[np.float64]

OPERATORS, CONSTANTS = Path("resources/operators"), "constants.json"
"""Where fits lie, one file per GPU, and the file of constants in it."""
STEP, LAYER = ("e2e decode", "e2e ubatch"), "operator: one MoE layer"
"""Kinds of rows that are predicted: a whole step of one or more GPUs, and one MoE layer alone."""
GROUP = ["model", "engine", "gpu"]
"""What is left out as a whole when constants are judged."""
LEAST_ROWS, LEAST_GROUPS = 20, 2
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

    def estimator(self, gpu: str) -> Estimator:
        """Return what estimates of a GPU are made of."""
        return Estimator(gpu, self.gpus[gpu], self.operators.get(gpu), self.constants)


def known(models: Mapping[str, ModelSpec], gpus: Mapping[str, GpuSpec], folder: Path = OPERATORS) -> Known:
    """Return what predictions are made of: a catalogue, and the fits and constants in `folder`."""
    return Known(models.get, gpus, fits(gpus, folder), read_constants(folder / CONSTANTS))


def fits(gpus: Iterable[str], folder: Path = OPERATORS) -> dict[str, Operators]:
    """Return the fitted operators of the GPUs that have some."""
    read = {gpu: read_operators(folder, gpu) for gpu in gpus}
    return {gpu: operators for gpu, operators in read.items() if operators}


class Conditions(NamedTuple):
    """One row as the estimate takes it."""

    arch: Architecture
    precision: Precision
    batch: int
    context: int
    unique_experts: float
    split: Split


def conditions(row: pd.Series, known: Known) -> Conditions | str:
    """Return the conditions of a row, or in words why it cannot be predicted."""
    if row["kind"] not in (*STEP, LAYER):
        return f"no prediction for rows of kind {row['kind']!r}"
    model, gpu = known.models(row["model"]), row["gpu"]
    if model is None:
        return f"no model {row['model']!r}"
    if gpu not in known.gpus:
        return f"no datasheet of {gpu!r}"
    precision = _precision(row)
    if precision is None:
        return f"format {row['dtype']!r} is not known"
    needed = ("batch", "measured_ms") if row["kind"] == LAYER else ("batch", "measured_ms", "context_assumed")
    missing = next((name for name in needed if not _number(row[name]) > 0), None)
    if missing:
        return f"{missing} is not stated"
    arch, batch = model.architecture, round(_number(row["batch"]))
    if arch.moe is None:
        return f"{row['model']} is dense"
    context = 1 if row["kind"] == LAYER else max(1, round(_number(row["context_assumed"])))
    gpus = _number(row["gpus"])
    split = Split(round(gpus) if gpus > 0 else 1, by_expert=_number(row["ep"]) > 1)
    return Conditions(arch, precision, batch, context, _unique_experts(row, arch, batch), split)


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
    experts = arch.moe.experts
    return experts * (1 - (1 - min(arch.moe.top_k, experts) / experts) ** batch)


def predicted(rows: pd.DataFrame, known: Known) -> pd.DataFrame:
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
        interval and bound in milliseconds, or the reason why it is left out.
    """
    found = [_predicted(row, known) for _, row in rows.iterrows()]
    return pd.DataFrame(found, columns=list(COLUMNS))


def _predicted(row: pd.Series, known: Known) -> tuple:
    head = tuple(row[name] for name in ("id", "kind", "quantity", "engine", "gpu", "model"))
    measured, clean = _number(row["measured_ms"]), _number(row["clean"]) == 1
    case = conditions(row, known)
    if isinstance(case, str):
        return (*head, measured, np.nan, "ms", np.nan, clean, case, *(np.nan,) * 3, "")
    estimator = known.estimator(row["gpu"])
    if row["kind"] == LAYER:
        operation = _moe_layer(case)
        seconds, bound = estimator.operation_seconds(operation), estimator.bound_seconds([operation])
        low = high = np.nan
    else:
        step = estimate_step(
            *(estimator, case.arch, case.batch, case.context, case.unique_experts, case.precision, case.split),
            row["engine"],
        )
        seconds, bound, low, high = step.seconds, step.bound, step.low * 1000, step.high * 1000
    error = 100 * (seconds * 1000 / measured - 1)
    return (*head, measured, seconds * 1000, "ms", error, clean, "", low, high, bound * 1000, estimator.basis)


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
        case = conditions(row, known)
        if isinstance(case, str):
            continue
        estimator = known.estimator(row["gpu"])
        layers = step_operations(case.arch, case.batch, case.context, case.unique_experts, case.precision, case.split)
        head = head_operation(case.arch, case.batch, case.precision, case.split)
        bound = sum(map(estimator.bound_seconds, [*layers, [head]]))
        summed = np.nan
        if estimator.operators:
            summed = sum(estimator.operation_seconds(each) for layer in [*layers, [head]] for each in layer)
        measured = _number(row["measured_ms"]) / 1000
        names = [row["id"], *(row[name] for name in GROUP), case.split.gpus, case.batch]
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


def per_gpu(law: Law) -> Law:
    """Return the law with constants of each GPU's own, where other groups of that GPU are known."""

    def by_gpu(known: pd.DataFrame, rows: pd.DataFrame) -> Floats:
        seconds = pd.Series(np.nan, rows.index)
        for gpu, of_gpu in rows.groupby("gpu"):
            same = known[known["gpu"] == gpu]
            seconds[of_gpu.index] = law(same if len(same) else known, of_gpu)
        return seconds.to_numpy()

    return by_gpu


LAWS: Mapping[str, tuple[str, Law]] = {
    "M0": ("the roofline of the datasheet", _by_roofline),
    "M1": ("roofline over a share, by GPU", per_gpu(_by_share)),
    "M2": ("roofline over a share and a constant per layer, by GPU", per_gpu(_by_share_and_layer)),
    "M2g": ("the same for all GPUs", _by_share_and_layer),
    "B0": ("operators summed", _by_operators),
    "B3": ("operators and a constant per layer", _by_operators_and_layer),
    "estimate": ("B3 where a GPU has operators, else M2g", _by_estimate),
}
"""Laws that are held against the observations, by their names in tables."""


def left_out(law: Law, rows: pd.DataFrame, group: list[str]) -> Floats:
    """Return predicted over measured seconds of rows, each predicted from rows of other groups alone."""
    ratio = pd.Series(np.nan, rows.index)
    for _, held in rows.groupby(group):
        ratio[held.index] = law(rows.drop(held.index), held) / held["measured"]
    return ratio.to_numpy(np.float64)


def judged(rows: pd.DataFrame, group: list[str] | None = None) -> pd.DataFrame:
    """Judge every law on clean rows that it has not seen, whole groups left out.

    Returns
    -------
    DataFrame
        By law: rows, the shares of rows within 20 % and 30 %, and the median and 0.9 quantile of the error.
    """
    rows = rows[rows["clean"]].reset_index(drop=True)
    with_tables = rows[rows["operators"].notna()].reset_index(drop=True)
    found = []
    for name, (title, law) in LAWS.items():
        used = with_tables if name in ("B0", "B3") else rows
        errors = np.abs(left_out(law, used, group or GROUP) - 1)
        within = float((errors <= 0.2).mean()), float((errors <= 0.3).mean())
        found.append((name, title, len(used), *within, float(np.median(errors)), float(np.quantile(errors, 0.9))))
    return pd.DataFrame(
        found, columns=["law", "title", "rows", "within_20_pct", "within_30_pct", "median_error", "p90_error"]
    )


def fit_constants(rows: pd.DataFrame, source: str) -> Constants:
    """Fit the constants of estimates to the clean rows of `features`, and their residuals group by group."""
    rows = rows[rows["clean"]].reset_index(drop=True)
    tabled = rows[rows["operators"].notna()].reset_index(drop=True)
    share, layer_us = fit_without_operators(rows)
    residuals = []
    for operators, used, law in ((True, tabled, _by_operators_and_layer), (False, rows, _by_share_and_layer)):
        residuals.extend(_residuals(used.assign(ratio=1 / left_out(law, used, GROUP)), operators))
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


def _residuals(rows: pd.DataFrame, operators: bool) -> list[Residuals]:
    """Return the quantiles of all rows, and of every GPU and engine on a GPU that has enough of them."""
    parts = [((ANY, ANY), rows)]
    parts += [((gpu, ANY), part) for gpu, part in rows.groupby("gpu")]
    parts += [(names, part) for names, part in rows.groupby(["gpu", "engine"])]
    found = []
    for (gpu, engine), part in parts:
        if gpu == ANY or (len(part) >= LEAST_ROWS and _groups(part) >= LEAST_GROUPS):
            low, high = (_rounded(float(part["ratio"].quantile(q))) for q in (LOW, HIGH))
            counted = {"rows": len(part), "groups": _groups(part)}
            found.append(Residuals(gpu=gpu, engine=engine, operators=operators, low=low, high=high, **counted))
    return found


def _groups(rows: pd.DataFrame) -> int:
    return len(rows[GROUP].drop_duplicates())


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def by_group(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how estimates compare with clean rows by GPU, engine, model and number of GPUs, groups left out."""
    rows = rows[rows["clean"]].reset_index(drop=True)
    rows = rows.assign(ratio=left_out(_by_estimate, rows, GROUP), bound_ratio=rows["bound"] / rows["measured"])
    grouped = rows.groupby(["gpu", "engine", "model", "gpus"])
    return grouped.agg(
        rows=("id", "size"),
        median=("ratio", "median"),
        least=("ratio", "min"),
        most=("ratio", "max"),
        bound=("bound_ratio", "median"),
    ).reset_index()

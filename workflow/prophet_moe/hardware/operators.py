"""Operators of a decode step as others measured them: a fixed time, a share of the HBM bandwidth, a share of the peak.

    seconds = fixed + experts x each + sqrt((bytes / (share HBM))^2 + (FLOPs / (share peak))^2)

`each` is what every distinct expert of an MoE layer takes, and 0 of other operators. Shares are at most 1, so that a
fitted time is never below the roofline max(bytes / HBM, FLOPs / peak). The root of the sum of squares lies between full
overlap (the maximum) and none (the sum), and fits the tables better than either.

The tables are those of aiconfigurator (config/datasets.yaml), one per GPU and operator. Fits minimise errors of
logarithms over decode sizes; each is judged on shapes that it has not seen. The results lie in
resources/operators/<gpu>.json. They are not measurements of this project: those lie in resources/hardware/ and are read
by `profile`.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prophet_moe.catalog import GpuSpec
from prophet_moe.errors import UserError
from prophet_moe.precision import FORMATS, KV_FORMATS
from prophet_moe.units import GB, MIB
from prophet_moe.validation import read_json

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

MICROSECOND = 1e-6
TFLOP = 10**12
KINDS = ("moe_layer", "gemm", "attention", "mla", "all_reduce")
"""Operators: a whole MoE layer, a matrix product, attention, latent attention, a sum over GPUs."""
WEIGHT_FORMATS = {"bfloat16": "bf16", "fp8": "fp8_tensor", "fp8_block": "fp8_block128", "int4_wo": "int4_group128"}
"""Formats of weights by their names in the tables."""
MOST_TOKENS = 256
"""Tokens of a step, and sequences of a batch, up to which operators are fitted."""
LEAST_READ = 64 * MIB
"""Bytes that a matrix product must read for its share of the bandwidth to be fitted: smaller weights stay in the L2
cache of the collector's loop, where they show the fixed time alone."""
LEAST_CONTEXT = 256
"""Cached tokens from which attention is fitted: shorter ones cost as much as one block of a kernel."""
ABOVE_LAUNCH = 2
"""The collector launches some operators from the host, and a small one takes as long as its launch, which a served step
in a CUDA graph does not have. Of these, rows count whose bytes alone take this many launches, and the fixed time is
that of the operator in LAUNCHED_LIKE, which was measured in a graph."""
LAUNCHED_LIKE = {"mla": ("attention", "bf16"), "gemm": ("gemm", "bf16")}
"""Whose fixed time operators have that were launched from the host: latent attention, and products of FP8 weights."""
LARGEST_SUM = 1 << 22
"""Bytes up to which sums over GPUs are fitted; beyond them engines leave the kernel that was measured."""
FOLDS = 10
"""Parts of the shapes that are left out in turn."""
DRAWS, SEED = 16, 0
"""Draws of the collector's power-law routing over which distinct experts are averaged, and their seed."""


@dataclass(frozen=True)
class Fit:
    """The law of one operator in one format on one GPU, with its errors on `rows` of `shapes` shapes."""

    kind: str
    format: str
    """Format of weights or cache; the number of GPUs of a sum over them."""
    fixed_us: float
    each_us: float
    """Microseconds per distinct expert of an MoE layer."""
    hbm_share: float
    """Share of the datasheet's HBM bandwidth, at most 1; of a sum over GPUs too, although it crosses their links."""
    peak_share: float | None
    """Share of the datasheet's 16-bit peak, at most 1; None where operations do not show."""
    rows: int
    shapes: int
    mean_error: float
    """Mean of |fitted / measured - 1|."""
    p90_error: float
    """0.9 quantile of the same."""
    left_out_mean_error: float
    """The mean where every shape is predicted by a fit to the other shapes."""
    left_out_p90_error: float

    def seconds(self, spec: GpuSpec, size: float, flops: float, experts: float = 0) -> float:
        """Return the seconds of an operator that moves `size` bytes and does `flops` operations."""
        launched = (self.fixed_us + experts * self.each_us) * MICROSECOND
        return launched + self.moving_seconds(spec, size, flops)

    def moving_seconds(self, spec: GpuSpec, size: float, flops: float) -> float:
        """Return the seconds without the fixed ones, for what is a part of another operator."""
        moved = size / (self.hbm_share * spec.hbm_gb_per_s * GB)
        done = flops / (self.peak_share * spec.peak_tflops * TFLOP) if self.peak_share else 0.0
        return math.hypot(moved, done)


@dataclass(frozen=True)
class Operators:
    """All fits of one GPU, and where its tables came from."""

    gpu: str
    fits: tuple[Fit, ...]
    provenance: Mapping[str, Any]

    def fit(self, kind: str, format: str) -> Fit:
        """Return the fit of a format, or of the measured format that is nearest to it in bits.

        Bytes are those of the format itself: only fixed time and shares are borrowed.
        """
        if (kind, format) not in self._nearest:
            fits = [each for each in self.fits if each.kind == kind]
            self._nearest[kind, format] = min(
                fits, key=lambda each: (each.format != format, abs(_bits(each.format) - _bits(format)), each.format)
            )
        return self._nearest[kind, format]

    @cached_property
    def _nearest(self) -> dict[tuple[str, str], Fit]:
        """What was asked for so far: a step asks for the same few fits in every layer."""
        return {}


def _bits(format: str) -> float:
    """Return the bits of a number of a format, or the GPUs of a sum over them."""
    if format in FORMATS:
        return FORMATS[format].bits
    return KV_FORMATS[format].bits if format in KV_FORMATS else float(format)


def fit_law(kind: str, format: str, points: "pd.DataFrame", spec: GpuSpec, fixed_us: float | None = None) -> Fit:
    """Fit the law of one operator to `points`: shape, bytes, flops and seconds of each measurement.

    Parameters
    ----------
    kind, format : str
        What the fit is of.
    points : DataFrame
        Columns `shape`, `bytes`, `flops` and `seconds`; flops of 0 throughout leave the peak out.
    spec : GpuSpec
        The datasheet that shares refer to.
    fixed_us : float, optional
        The fixed time where it is known; else it is fitted.

    Returns
    -------
    Fit
        Shares at most 1, with errors on all rows and on shapes left out.
    """
    shapes, shape = np.unique(points["shape"].to_numpy(str), return_inverse=True)
    seconds, terms = points["seconds"].to_numpy(np.float64), _terms(points, spec)
    law = _fitted(terms, seconds, fixed_us)
    errors = np.abs(_predicted(terms, law) / seconds - 1)
    outside = np.full_like(seconds, np.nan)
    folds = min(FOLDS, len(shapes))
    for fold in range(folds) if folds > 1 else ():
        held = shape % folds == fold
        outside[held] = _predicted(terms[held], _fitted(terms[~held], seconds[~held], fixed_us)) / seconds[held] - 1
    outside = np.abs(outside)
    fixed, each, hbm, peak = (float(number) for number in law)
    worked = bool(terms[:, 3].any())
    return Fit(
        *(kind, format, fixed, each, 1 / hbm, 1 / peak if worked else None, len(points), len(shapes)),
        *(float(errors.mean()), float(np.quantile(errors, 0.9))),
        *(float(outside.mean()), float(np.quantile(outside, 0.9))),
    )


def _terms(points: "pd.DataFrame", spec: GpuSpec) -> Floats:
    """(rows, 4): a microsecond, one per expert, seconds at the bandwidth of the datasheet, and at its peak."""
    experts = points["experts"].to_numpy(np.float64) if "experts" in points else np.zeros(len(points))
    moved = points["bytes"].to_numpy(np.float64) / (spec.hbm_gb_per_s * GB)
    done = points["flops"].to_numpy(np.float64) / (spec.peak_tflops * TFLOP)
    return np.column_stack([np.full(len(points), MICROSECOND), experts * MICROSECOND, moved, done])


def _predicted(terms: Floats, law: Floats) -> Floats:
    """Return the seconds of rows by a law: fixed and per expert, and what seconds of bytes and of FLOPs count as."""
    return terms[:, :2] @ law[:2] + np.hypot(terms[:, 2] * law[2], terms[:, 3] * law[3])


def _fitted(terms: Floats, seconds: Floats, fixed_us: float | None) -> Floats:
    """Return the law of least errors of logarithms, large ones counted in proportion, as tables have outliers."""
    from scipy.optimize import least_squares

    free = terms.any(axis=0)
    law = np.array([fixed_us or 0.0, 0.0, 1.0, 1.0])
    free[0] = fixed_us is None
    least, start = np.array([0.0, 0.0, 1.0, 1.0]), np.array([10.0, 0.1, 1.3, 1.3])

    def errors(found: Floats) -> Floats:
        law[free] = found
        return np.log(_predicted(terms, law) / seconds)

    solved = least_squares(errors, start[free], bounds=(least[free], np.inf), loss="soft_l1", f_scale=0.1)
    law[free] = solved.x
    return law


def balanced_experts(tokens: int, experts: int, top_k: int) -> int:
    """Return the distinct experts of the collector's balanced routing: all different until every one is used."""
    return min(experts, tokens * top_k)


@cache
def power_law_experts(tokens: int, experts: int, top_k: int, alpha: float) -> float:
    """Return the mean distinct experts of the collector's power-law routing.

    The tokens of every expert are drawn, scaled to all choices and rounded; none has more than all tokens. What is then
    too many or too few is taken from, and given to, the experts with the fewest.
    """
    low, high = (1.0, 0.8 * tokens) if tokens * top_k > experts else (0.01, 2.0)
    power = 1 - alpha
    drawn = np.random.default_rng(SEED).random((DRAWS, experts))
    drawn = (drawn * (high**power - low**power) + low**power) ** (1 / power)
    counts = np.rint(drawn / drawn.sum(axis=1, keepdims=True) * tokens * top_k).astype(int)
    return float(np.mean([np.count_nonzero(_balanced_out(row, tokens, tokens * top_k)) for row in counts]))


def _balanced_out(counts: NDArray[np.int_], most: int, total: int) -> NDArray[np.int_]:
    """Return the tokens of each expert, at most `most` and `total` in all, changed at the experts with the fewest."""
    excess = int(np.maximum(counts - most, 0).sum())
    counts = np.minimum(counts, most)
    for expert in np.argsort(counts, kind="stable"):
        given = min(excess, most - counts[expert])
        counts[expert] += given
        excess -= given
    order, missing = cycle(np.argsort(counts, kind="stable")), total - int(counts.sum())
    while missing:
        expert = next(order)
        if missing > 0 and counts[expert] < most:
            counts[expert] += 1
            missing -= 1
        elif missing < 0:
            counts[expert if counts[expert] else counts.argmax()] -= 1
            missing += 1
    return counts


def moe_points(table: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    """Yield the points of MoE layers by format: whole layers, their FFN split over GPUs or not, no expert parallelism.

    Balanced routing counts where it was measured, as its distinct experts are known, and the mildest power law else.
    """
    table = table[(table["moe_ep_size"] == 1) & (table["num_tokens"] <= MOST_TOKENS)]
    for name, rows in table.groupby("moe_dtype"):
        if name not in WEIGHT_FORMATS:
            continue
        routed = "balanced" if (rows["distribution"] == "balanced").any() else rows["distribution"].min()
        yield WEIGHT_FORMATS[name], _moe_rows(rows[rows["distribution"] == routed], FORMATS[WEIGHT_FORMATS[name]])


def _moe_rows(rows: "pd.DataFrame", stored: Any) -> "pd.DataFrame":
    import pandas as pd

    points = []
    for row in rows.itertuples():
        inner, hidden = row.inter_size // row.moe_tp_size, row.hidden_size
        routed = str(row.distribution)
        used = (
            balanced_experts(row.num_tokens, row.num_experts, row.topk)
            if routed == "balanced"
            else power_law_experts(row.num_tokens, row.num_experts, row.topk, float(routed.rsplit("_", 1)[1]))
        )
        expert = 2 * stored.bytes(inner, hidden) + stored.bytes(hidden, inner)
        shape = f"{row.num_experts}x{row.topk}x{hidden}x{row.inter_size}"
        flops = 6 * row.num_tokens * row.topk * inner * hidden
        points.append((shape, used, used * expert, flops, row.latency / 1000))
    return pd.DataFrame(points, columns=["shape", "experts", "bytes", "flops", "seconds"])


def gemm_points(table: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    """Yield the points of matrix products by format: weights, inputs and outputs of `m` tokens are moved."""
    import pandas as pd

    table = table[table["m"] <= MOST_TOKENS]
    for name, rows in table.groupby("gemm_dtype"):
        if name not in WEIGHT_FORMATS:
            continue
        stored = FORMATS[WEIGHT_FORMATS[name]]
        sizes = [stored.bytes(n, k) for n, k in zip(rows["n"], rows["k"], strict=True)]
        columns = {
            "shape": rows["n"].astype(str) + "x" + rows["k"].astype(str),
            "bytes": sizes,
            "flops": 2.0 * rows["m"] * rows["n"] * rows["k"],
            "seconds": rows["latency"] / 1000,
        }
        yield WEIGHT_FORMATS[name], pd.DataFrame(columns)


def attention_points(table: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    """Yield the points of decode attention by the format of the cache, which is read once per KV head."""
    table = table[(table["batch_size"] <= MOST_TOKENS) & (table["step"] + table["isl"] >= LEAST_CONTEXT)]
    for name, rows in table.groupby("kv_cache_dtype"):
        format = {"bfloat16": "bf16", "fp8": "fp8"}[name]
        cached = rows["batch_size"] * (rows["step"] + rows["isl"])
        kv_heads = rows["num_key_value_heads"].where(rows["num_key_value_heads"] > 0, rows["num_heads"])
        values = 2.0 * kv_heads * rows["head_dim"]
        flops = 4.0 * cached * rows["num_heads"] * rows["head_dim"]
        yield format, _cached(rows, cached * values * KV_FORMATS[format].bits / 8, flops, kv_heads)


def mla_points(table: "pd.DataFrame", latent: int = 512, rope: int = 64) -> "Iterator[tuple[str, pd.DataFrame]]":
    """Yield the points of latent attention by the format of the cache: one latent and one rotary key per token."""
    table = table[(table["batch_size"] <= MOST_TOKENS) & (table["step"] + table["isl"] >= LEAST_CONTEXT)]
    for name, rows in table.groupby("kv_cache_dtype"):
        format = {"bfloat16": "bf16", "fp8": "fp8"}[name]
        cached = rows["batch_size"] * (rows["step"] + rows["isl"])
        flops = 2.0 * cached * rows["num_heads"] * (2 * latent + rope)
        yield format, _cached(rows, cached * (latent + rope) * KV_FORMATS[format].bits / 8.0, flops, rows["tp_size"])


def _cached(rows: "pd.DataFrame", sizes: Any, flops: Any, split: Any) -> "pd.DataFrame":
    import pandas as pd

    shapes = rows["num_heads"].astype(str) + "x" + split.astype(str)
    columns = {"shape": shapes, "bytes": sizes, "flops": flops, "seconds": rows["latency"] / 1000}
    return pd.DataFrame(columns)


def sum_points(table: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    """Yield the points of sums over GPUs by their number: launched in a CUDA graph, sizes in 16-bit numbers."""
    import pandas as pd

    table = table[table["kernel_source"].str.endswith("graph") & (2 * table["message_size"] <= LARGEST_SUM)]
    for gpus, rows in table.groupby("num_gpus"):
        columns = {
            "shape": rows["message_size"].astype(str),
            "bytes": 2 * rows["message_size"],
            "flops": 0.0,
            "seconds": rows["latency"] / 1000,
        }
        yield str(gpus), pd.DataFrame(columns)


def smallest_seconds(points: "pd.DataFrame") -> float:
    """Return the median seconds of the tenth of the points that moves least: the time of a launch and nothing else."""
    return float(points.nsmallest(max(1, len(points) // 10), "bytes")["seconds"].median())


def above_launch(points: "pd.DataFrame", spec: GpuSpec) -> "pd.DataFrame":
    """Return the points whose bytes alone take ABOVE_LAUNCH launches."""
    least = ABOVE_LAUNCH * smallest_seconds(points) * spec.hbm_gb_per_s * GB
    return points[points["bytes"] > least]


POINTS = {
    "moe": ("moe_layer", moe_points),
    "gemm": ("gemm", gemm_points),
    "attention": ("attention", attention_points),
    "mla": ("mla", mla_points),
    "comm": ("all_reduce", sum_points),
}
"""The operator of a table, and what makes points of it, by the folder that the table lies in."""


def fit_operators(gpu: str, spec: GpuSpec, tables: Mapping[str, Path], provenance: Mapping[str, Any]) -> Operators:
    """Fit every operator of a GPU from its tables, which are Parquet files by the names of POINTS."""
    import pandas as pd

    fits: dict[tuple[str, str], Fit] = {}
    for folder, (kind, points_of) in POINTS.items():
        for format, points in points_of(pd.read_parquet(tables[folder])):
            like = LAUNCHED_LIKE.get(kind)
            fixed_us = None
            if like == (kind, format):
                fixed_us = smallest_seconds(points) / MICROSECOND
                points = points[points["bytes"] >= LEAST_READ]
            elif like:
                fixed_us = fits[like].fixed_us
                points = above_launch(points, spec)
            fits[kind, format] = fit_law(kind, format, points, spec, fixed_us)
    return Operators(gpu, tuple(fits.values()), provenance)


def to_json(operators: Operators, digits: int = 6) -> str:
    """Return the text of a file of fits, numbers rounded to significant digits."""

    def rounded(value: Any) -> Any:
        return float(f"{value:.{digits}g}") if isinstance(value, float) else value

    fits: Iterable[dict[str, Any]] = ({key: rounded(value) for key, value in asdict(f).items()} for f in operators.fits)
    return json.dumps({"gpu": operators.gpu, **operators.provenance, "fits": list(fits)}, indent=2) + "\n"


def read_operators(folder: Path, gpu: str) -> Operators | None:
    """Read the fits of a GPU from `folder`; None where it has none, a UserError where they are damaged."""
    path = folder / f"{gpu}.json"
    if not path.exists():
        return None
    content = read_json(path)
    try:
        fits = tuple(Fit(**fit) for fit in content.pop("fits"))
        named = content.pop("gpu")
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(str(path), f"is not a file of fitted operators: {error}", "Fit it again.") from None
    if named != gpu or {fit.kind for fit in fits} != set(KINDS):
        raise UserError(str(path), f"got fits of {named}, expected all operators of {gpu}", "Fit it again.")
    return Operators(gpu, fits, content)


def operators_for(folder: Path, gpu: str, spec: GpuSpec) -> Operators | None:
    """Read the fits of a GPU from `folder`, else those of the GPU that its specification says has the same chip."""
    return read_operators(folder, gpu) or (read_operators(folder, spec.same_chip_as) if spec.same_chip_as else None)

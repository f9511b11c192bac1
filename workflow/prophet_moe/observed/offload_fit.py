"""Overheads of serving missing experts, fitted to pairs of hit rate and tokens per second that others measured.

A step takes the resident time, the bytes of its misses over the link, so much for each miss and so much for each layer
(`EngineOffload.step_ms`). The two overheads of a kind of engine are those of the least squares of log errors over the
kind's rows, in which every engine and model counts the same. A row is judged by overheads that its own engine and model
did not fix; where a kind has no more than two rows of others, by those that its own source did not fix.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prophet_moe.catalog.engine_offload import EngineOffload

Floats = NDArray[np.float64]

FITTED = ("in_graph_gather", "host_managed")
"""Kinds whose overheads are fitted. Read rates of storage are those of whole runs, which hold the overheads."""
HYBRID = "hybrid"
"""Kind whose CPU computes misses."""
MISS_US, LAYER_US = np.arange(0.0, 405, 5), np.arange(0.0, 605, 5)
"""Microseconds that are tried: finer than the rows decide."""
LEAST_OTHERS = 3
"""Rows of other engines and models that a row is judged by at least; with fewer, by those of other sources."""
BANDWIDTH_SHARE, LAYER_OVERHEAD_US = 0.80, 100.0
"""What turns a bound by datasheet bandwidth into an estimate: means of what fits decode on A100, H100 and H200 (0.80,
0.90, 0.71 of the bandwidth; 98, 95, 111 us per layer). None of those measurements is a row here."""


def pairs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what the affine law needs of each row, in milliseconds; NaN where the row does not tell it.

    `resident` is the time without misses; where a row has a bound by datasheet (`resident_basis`), the estimate. `miss`
    is the time of one miss's bytes: of rows whose link is from another run (`link_from`), what that run took for each;
    of hybrids, by link and CPU together, since both serve their share at once.
    """
    indexed = rows.set_index("id", drop=False)
    layers = indexed["moe_layers"].astype(float)
    bound = indexed["resident_basis"].fillna("").str.startswith("bound")
    resident = indexed["resident_ms"].astype(float)
    rate = indexed["link_gb_per_s"].astype(float)
    hybrid = indexed["engine_kind"] == HYBRID
    rate = rate.where(~hybrid, rate + indexed["cpu_gb_per_s"].astype(float))
    estimate = resident / BANDWIDTH_SHARE + LAYER_OVERHEAD_US / 1e3 * layers
    pairs = pd.DataFrame(
        {
            "kind": indexed["engine_kind"],
            "group": indexed["engine"].astype(str) + ", " + indexed["model"].astype(str),
            "source": indexed["source"],
            "layers": layers,
            "misses": layers * indexed["top_k"].astype(float) * (1 - indexed["hit_rate"].astype(float)),
            "resident": resident.where(~bound, estimate),
            "miss": indexed["expert_mb"].astype(float) / rate,
            "measured": 1e3 / indexed["tokens_per_s"].astype(float),
        }
    )
    origin = pairs.reindex(indexed["link_from"].fillna("").to_numpy())
    taken = ((origin["measured"] - origin["resident"]) / origin["misses"]).to_numpy()
    pairs["miss"] = pairs["miss"].where(np.isnan(taken), taken)
    return pairs


@dataclass(frozen=True)
class Overheads:
    """The two overheads of serving misses, in microseconds."""

    miss_us: float
    layer_us: float

    def milliseconds(self, pairs: pd.DataFrame) -> Floats:
        """Return the time of a step of each pair."""
        return _steps(pairs, np.array(self.miss_us), np.array(self.layer_us))


def _steps(pairs: pd.DataFrame, miss_us: Floats, layer_us: Floats) -> Floats:
    """(..., rows): milliseconds of the affine law, for overheads of any shape (...)."""
    resident, misses, miss, layers = (pairs[name].to_numpy(float) for name in ("resident", "misses", "miss", "layers"))
    return resident + misses * (miss + miss_us[..., None] / 1e3) + layers * layer_us[..., None] / 1e3


def fit(pairs: pd.DataFrame) -> Overheads:
    """Return the overheads of least squares of log errors; every engine and model counts the same."""
    weights = 1 / pairs.groupby("group")["group"].transform("size").to_numpy(float)
    miss_us, layer_us = np.meshgrid(MISS_US, LAYER_US, indexing="ij")
    logs = np.log(_steps(pairs, miss_us, layer_us) / pairs["measured"].to_numpy(float))
    best = np.unravel_index(np.argmin((weights * logs**2).sum(axis=-1)), miss_us.shape)
    return Overheads(float(miss_us[best]), float(layer_us[best]))


def fit_kinds(pairs: pd.DataFrame) -> dict[str, Overheads]:
    """Return the overheads of each kind that is fitted, from its pairs."""
    return {kind: fit(of_kind) for kind, of_kind in pairs.groupby("kind") if kind in FITTED}


def left_out_predictions(pairs: pd.DataFrame, presets: Mapping[str, EngineOffload]) -> pd.Series:
    """Return the milliseconds of each pair, by overheads that its group or its source did not fix.

    Rows of a preset (`EngineOffload.rows`) are those that fix it. Others are judged by the preset as it is.
    """
    parts = [_of_kind(of_kind, presets[kind]) for kind, of_kind in pairs.groupby("kind") if kind in presets]
    found = pd.concat([pd.Series(dtype=float), *chain.from_iterable(parts)])
    return found.reindex(pairs.index)


def _of_kind(pairs: pd.DataFrame, preset: EngineOffload) -> Iterator[pd.Series]:
    fixing = pairs[pairs.index.isin(preset.rows)]
    own = Overheads(preset.miss_overhead_us, preset.layer_overhead_us)
    others = pairs.drop(fixing.index)
    yield pd.Series(own.milliseconds(others), others.index)
    for _, group in fixing.groupby("group"):
        enough = len(fixing) - len(group) >= LEAST_OTHERS
        for _, judged in [("", group)] if enough else group.groupby("source"):
            yield pd.Series(fit(fixing.drop(judged.index)).milliseconds(judged), judged.index)

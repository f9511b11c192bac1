"""Time of Prophet's predictor per layer and step, beside the same network as NumPy matrix products, on one core.

usage: python benches/predictor.py [--repeats R] [--record FILE]
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from prophet_moe.files import write_csv
from prophet_moe.predict.context import SOURCES
from prophet_moe.predict.network import Network, read_network

PREDICTORS = Path("resources/predictors")
BATCHES = (1, 16, 64)
CALLS = 200
"""Calls timed together: one takes microseconds."""


def matrix_products(network: Network, inputs: np.ndarray, layer: int, lookahead: int) -> np.ndarray:
    """The same scores by gathering, summing and multiplying whole arrays."""
    at = (lookahead - 1, layer)
    hidden = np.maximum(network.embedding[at][inputs].sum(axis=1) + network.hidden_bias[at], 0)
    return hidden @ network.output[at] + network.output_bias[at]


def microseconds(call: Callable[[], object]) -> float:
    """Of one call, mean over CALLS."""
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return 1e6 * (time.perf_counter() - start) / CALLS


def measured(name: str, network: Network, top_k: int, batch: int, repeats: int) -> dict:
    """Quartiles of both over `repeats`, taken in turns, for one layer of one step of `batch` tokens."""
    layer, experts = network.output_bias.shape[1] - 1, network.output_bias.shape[2]
    ids = np.random.default_rng(0).integers(experts, size=(batch, SOURCES, top_k))
    inputs = (ids + experts * np.arange(SOURCES)[:, None]).reshape(batch, -1).astype(np.int32)
    np.testing.assert_allclose(
        network.scores(inputs, layer, 1), matrix_products(network, inputs, layer, 1), rtol=1e-4, atol=1e-4
    )
    pairs = [
        (
            microseconds(lambda: network.scores(inputs, layer, 1)),
            microseconds(lambda: matrix_products(network, inputs, layer, 1)),
        )
        for _ in range(repeats)
    ]
    low, middle, high = statistics.quantiles([ours for ours, _ in pairs], n=4)
    ratio = statistics.median([theirs / ours for ours, theirs in pairs])
    return {
        "trace": name,
        "batch": batch,
        "microseconds": middle,
        "low": low,
        "high": high,
        "numpy_over_ours": ratio,
        "cpu": processor(),
    }


def processor() -> str:
    """The CPU's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> None:
    """Print, and with --record write, the time of every recorded predictor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--record", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = []
    for folder in sorted(path.parent for path in PREDICTORS.glob("*/metadata.json")):
        network = read_network(folder)
        top_k = int(pd.read_json(folder / "metadata.json", typ="series")["top_k"])
        for batch in BATCHES:
            rows.append(measured(folder.name, network, top_k, batch, arguments.repeats))
            told = rows[-1]
            print(
                f"{folder.name:20} batch {batch:3}: {told['microseconds']:7.1f} us per layer-step "
                f"({told['low']:.1f}..{told['high']:.1f}), NumPy takes {told['numpy_over_ours']:.1f} times as long"
            )
    if arguments.record:
        write_csv(arguments.record, pd.DataFrame(rows))


if __name__ == "__main__":
    main()

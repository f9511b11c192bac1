"""Speed and memory of the capacity sweep beside a plain Python loop and pandas.apply, in one run on one core.

usage: python benches/capacity_sweep.py [--configurations N] [--repeats R]
"""

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from prophet_moe.capacity.context import CACHE_COLUMNS
from prophet_moe.capacity.memory import ModelMemory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.capacity.sweep import INPUTS, sweep
from prophet_moe.params import Cache
from prophet_moe.settings.scenario import CALIBRATED, REPORTED, Scenario

CONSTANTS = [name for name in INPUTS if name not in ("device_bytes", "batch")]
CHUNK = 100_000


def random_configurations(count: int, seed: int) -> dict[str, np.ndarray]:
    """Columns of `count` random configurations, in the ranges of the catalogue."""
    rng = np.random.default_rng(seed)
    whole = {
        "experts": (8, 257),
        "top_k": (1, 9),
        "moe_layers": (6, 95),
        "encoder_moe_layers": (0, 5),
        "predictor_bytes": (2_000_000, 43_000_000),
        "expert_bytes": (5_000_000, 1_300_000_000),
        "non_expert_bytes": (300_000_000, 110_000_000_000),
        "kv_bytes_per_token": (30_000, 400_000),
        "state_bytes_per_sequence": (0, 80_000_000),
        "activation_bytes_per_token": (10_000, 500_000),
        "activation_bytes_per_sequence": (100_000, 1_000_000),
        "native_context": (512, 262_145),
        "device_bytes": (32 * 10**9, 142 * 10**9),
        "batch": (1, 65),
    }
    columns = {name: rng.integers(*bounds, count).astype(float) for name, bounds in whole.items()}
    return columns | {"forced_not_fitting": np.zeros(count, dtype=bool), "popularity_cv": rng.uniform(0, 2, count)}


def with_caches(columns: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The configurations of models that also keep windows, of 128 to 4,096 tokens, and an entry per 1 to 128 tokens."""
    rng, shape = np.random.default_rng(seed), (len(columns["batch"]), 3)
    windows = rng.choice([128.0, 1024.0, 4096.0], shape)
    windows[:, -1] = np.inf
    tokens = np.ones(shape)
    tokens[:, -1] = rng.choice([1.0, 4.0, 128.0], shape[0])
    return columns | dict(zip(CACHE_COLUMNS, (rng.integers(1_000, 400_000, shape) * 1.0, tokens, windows), strict=True))


def chunks(count: int) -> Iterator[dict[str, np.ndarray]]:
    """`count` random configurations, CHUNK at a time."""
    for start in range(0, count, CHUNK):
        yield random_configurations(min(CHUNK, count - start), seed=start)


def run_sweep(columns: dict[str, np.ndarray], scenario: Scenario) -> None:
    """All metrics, block after block."""
    for _rows, _metrics in sweep(columns, scenario):
        pass


def run_loop(columns: dict[str, np.ndarray], scenario: Scenario) -> None:
    """The scalar reference, one configuration after another."""
    for row in zip(*(columns[name].tolist() for name in columns), strict=True):
        evaluate_row(dict(zip(columns, row, strict=True)), scenario)


def run_apply(columns: dict[str, np.ndarray], scenario: Scenario) -> None:
    """The scalar reference through pandas.DataFrame.apply, one Series of metrics per row."""
    pd.DataFrame({name: list(values) for name, values in columns.items()}).apply(
        lambda row: pd.Series(evaluate_row(row, scenario)), axis=1
    )


def evaluate_row(row: dict | pd.Series, scenario: Scenario) -> dict:
    """The reference's metrics for one row of columns."""
    caches = zip(*(row[name] for name in CACHE_COLUMNS), strict=True) if CACHE_COLUMNS[0] in row else ()
    further = tuple(
        Cache("attention", 1, int(size), int(tokens), None if np.isinf(window) else int(window))
        for size, tokens, window in caches
    )
    constants = {name: row[name] for name in CONSTANTS}
    memory = ModelMemory(**constants, total_params=0, active_params=0, further_caches=further)
    return evaluate(memory, row["device_bytes"], int(row["batch"]), scenario)


def seconds_per_row(run: Callable, columns: dict[str, np.ndarray], scenario: Scenario) -> float:
    """Wall seconds per configuration of one run."""
    start = time.perf_counter()
    run(columns, scenario)
    return (time.perf_counter() - start) / len(columns["batch"])


def compare_speed(count: int, repeats: int) -> None:
    """Print the time per configuration of each way and its ratio to the sweep, interleaved, median of the repeats."""
    everything = random_configurations(count, seed=0)
    ways = {"sweep": (run_sweep, count), "Python loop": (run_loop, 20_000), "pandas.apply": (run_apply, 2_000)}
    windowed = with_caches(everything, seed=1)
    cases = {"calibrated": (CALIBRATED, everything), "reported": (REPORTED, everything)}
    for name, (scenario, chosen) in (cases | {"windows": (CALIBRATED, windowed)}).items():
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeats):
            for way, (run, rows) in ways.items():
                columns = {key: values[:rows] for key, values in chosen.items()}
                times[way].append(seconds_per_row(run, columns, scenario))
        for way, (_, rows) in ways.items():
            ratios = [other / own for other, own in zip(times[way], times["sweep"], strict=True)]
            print(
                f"{name:11} {way:13} {rows:>9,} configurations  {1e9 * statistics.median(times[way]):>10,.0f} ns each"
                f"  {statistics.median(ratios):>7,.0f}x ({min(ratios):,.0f}..{max(ratios):,.0f})"
            )


def peak_memory(count: int) -> None:
    """Print the peak resident memory of sweeping `count` configurations in blocks."""
    for columns in chunks(count):
        run_sweep(columns, CALIBRATED)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak resident memory of this process after {count:,} configurations: {peak:.2f} GiB")


def main() -> None:
    """Measure the speed of the sweep beside a Python loop and pandas, and its peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configurations", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    compare_speed(arguments.configurations, arguments.repeats)
    peak_memory(10_000_000)


if __name__ == "__main__":
    main()

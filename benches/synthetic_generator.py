"""Speed of the synthetic generator, in routed ids per second on one core.

usage: python benches/synthetic_generator.py [--sequences N] [--tokens T] [--repeats R]
"""

import argparse
import os
import statistics
import time
from dataclasses import replace

import numpy as np

from prophet_moe.routing.synthetic import Parameters, generate
from prophet_moe.routing.trace import Router

ROUTERS = [
    Router("32 experts, top-4, 24 layers", 32, 4, tuple(range(24))),
    Router("256 experts, top-8, 58 layers", 256, 8, tuple(range(58))),
    Router("8 experts, top-2, 32 layers", 8, 2, tuple(range(32))),
]
DRIFT_TOKENS = 20.0
"""Short, as favours are drawn anew four times in it: slow."""


def typical_parameters(router: Router) -> Parameters:
    """Skewed load, and as much structure as real traces show."""
    layers = len(router.layers)
    load = np.random.default_rng(0).dirichlet(np.full(router.experts, 2.0), layers)
    return Parameters(router, load, load, np.full(layers, 0.5), np.full(layers, 0.3), np.full(layers, 1.5))


def ids_per_second(parameters: Parameters, sequences: int, tokens: int) -> tuple[float, float]:
    """Routed ids per second of CPU time and of wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    ids = generate(parameters, sequences, tokens, seed=0).experts.size
    return ids / (time.process_time() - cpu), ids / (time.perf_counter() - wall)


def main() -> None:
    """Print the median and the range of the repeats for each router."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    typical = [typical_parameters(router) for router in ROUTERS]
    drifting = [
        replace(
            each,
            router=replace(each.router, model=f"{each.router.model}, drift"),
            drift=np.ones(1),
            drift_tokens=np.full(1, DRIFT_TOKENS),
        )
        for each in typical
    ]
    for parameters in [*typical, *drifting]:
        generate(parameters, 1, 2, seed=0)
        speeds = [ids_per_second(parameters, arguments.sequences, arguments.tokens) for _ in range(arguments.repeats)]
        for clock, values in zip(("CPU", "wall"), zip(*speeds, strict=True), strict=True):
            print(
                f"{parameters.router.model:36} {statistics.median(values) / 1e6:6.1f} M ids per {clock:4} second"
                f"  ({min(values) / 1e6:.1f}..{max(values) / 1e6:.1f})"
            )


if __name__ == "__main__":
    main()

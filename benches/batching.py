"""Speed of continuous batching: an hour of arrivals on 64 instances, on one core, beside the rules in plain Python.

Arrivals are drawn from the law of a recorded trace, at a rate for each instance at which it is busy and keeps up. What
is timed: from arrivals to the times of every request. The plain form runs one event after another, as SimPy does, and
serves fewer of them.

Seconds are those of the processor.

usage: python benches/batching.py [--trace NAME] [--instances N] [--rate R]
"""

import argparse
import os
import time
from pathlib import Path
from types import SimpleNamespace

from prophet_moe.catalog.engine import load_engine
from prophet_moe.catalog.model import load_model
from prophet_moe.serving.arrival_law import draw, read_law
from prophet_moe.serving.batching import serve
from prophet_moe.serving.reference import simulate
from prophet_moe.settings.scenario import CALIBRATED
from studies.dynamic_batching.compute import AS_SHIPPED, service_of
from studies.dynamic_batching.study import DynamicBatchingSettings

ROOT = Path(__file__).resolve().parents[1]
HOUR, GOAL = 3600, 10.0
"""Seconds of arrivals, and seconds in which they are to be served."""
PLAIN_SECONDS = 200
"""Seconds of arrivals of two instances that plain Python serves."""


def main() -> None:
    """Print what was served in how many seconds, by the kernel and by plain Python."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trace", default="azure-conversation")
    parser.add_argument("--instances", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2.5, help="requests per second and instance")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.chdir(ROOT)

    settings = DynamicBatchingSettings()
    first = settings.served[0]
    files = SimpleNamespace(
        gpus=Path("config/gpus.yaml"),
        names=Path("config/model_names.yaml"),
        operators=sorted(Path("resources/operators").glob("*.json")),
    )
    spec = load_model(next(Path("config/models").rglob(f"{first.model}.yaml")))
    engine, scenario = load_engine(Path(f"config/engines/{settings.engine}.yaml")), CALIBRATED
    service = service_of(
        spec, first.gpu, engine, scenario.model_copy(update=AS_SHIPPED), {}, settings.compute_share, files
    )
    law = read_law(Path(f"resources/arrivals/{arguments.trace}.json"))

    arrivals = draw(law, HOUR, 0, arguments.rate * arguments.instances)
    serve(draw(law, 60, 0), service.times, service.limits)  # compiles
    for dispatch in ("least_loaded", "round_robin"):
        started = time.process_time()
        served = serve(arrivals, service.times, service.limits, arguments.instances, dispatch)
        taken = time.process_time() - started
        done = (
            f"{len(arrivals):,} requests, {served.requests.generated.sum():,} tokens on {arguments.instances} instances"
        )
        print(f"{dispatch}: {done} in {taken:.2f} s (goal {GOAL:g}); {100 * (1 - served.idle_share):.0f} % busy")

    few = draw(law, PLAIN_SECONDS, 0, 2 * arguments.rate)
    started = time.process_time()
    simulate(few, service.times.tables, service.limits, 2)
    plain = time.process_time() - started
    started = time.process_time()
    serve(few, service.times, service.limits, 2)
    times = plain / (time.process_time() - started)
    print(f"plain Python: {len(few)} requests in {plain:.2f} s, {times:.0f} times the kernel's")


if __name__ == "__main__":
    main()

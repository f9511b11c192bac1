"""Commands about expert caches."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from prophet_moe.cli.terminal import console
from prophet_moe.errors import UserError
from prophet_moe.routing import store
from prophet_moe.routing.sequences import unrepeated
from prophet_moe.routing.trace import Trace, sequence_starts

if TYPE_CHECKING:
    from prophet_moe.cachesim.run import Outcome

CORRECT = "Correct it."


def add_commands(commands: Any) -> None:
    """Add `sim`."""
    sim = commands.add_parser("sim", help="expert caches on recorded routing").add_subparsers(
        required=True, metavar="ACTION"
    )
    run = sim.add_parser("run", help="misses and hit rate of one cache on the decoded tokens of a trace")
    run.add_argument("--trace", required=True, type=Path, metavar="DIR")
    run.add_argument("--strategy", required=True, help="lru, fifo, lfu or belady (the offline optimum)")
    run.add_argument("--capacity", required=True, type=int, metavar="C", help="experts that the cache holds")
    run.add_argument("--batch", default=1, type=int, metavar="B", help="sequences that decode together (default 1)")
    scope = run.add_mutually_exclusive_group()
    scope.add_argument("--per-layer", action="store_true", default=True, help="each layer has its own C (default)")
    scope.add_argument("--global", action="store_false", dest="per_layer", help="all layers share the C")
    run.add_argument("--json", action="store_true", help="print JSON")
    run.set_defaults(run=run_policy)


def run_policy(arguments: argparse.Namespace) -> None:
    """Print what one cache serves of a trace's decoded tokens, less repetitive and duplicate sequences."""
    # Only this command needs Numba, whose import takes half a second.
    from prophet_moe.cachesim.policies import POLICIES
    from prophet_moe.cachesim.run import capacities, simulate
    from prophet_moe.cachesim.streams import requests_of

    if arguments.strategy not in POLICIES:
        known = ", ".join(POLICIES)
        raise UserError("--strategy", f"unknown strategy {arguments.strategy!r}, expected one of {known}", CORRECT)
    trace = _decoded(arguments.trace)
    sequences = len(sequence_starts(trace)) - 1
    if not 1 <= arguments.batch <= sequences:
        expected = f"expected 1 to the {sequences} sequences of the trace"
        raise UserError("--batch", f"got {arguments.batch}, {expected}", CORRECT)
    requests = requests_of(trace, arguments.batch)
    possible = capacities(requests, per_layer=arguments.per_layer)
    if arguments.capacity not in possible:
        needed = f"at least {possible[0]} (experts that a batch of {arguments.batch} asks of one layer at once)"
        owned = "a layer" if arguments.per_layer else "all layers together"
        expected = f"expected {needed} and at most {possible[-1]} (experts of {owned})"
        raise UserError("--capacity", f"got {arguments.capacity}, {expected}", CORRECT)
    outcome = simulate(requests, arguments.strategy, arguments.capacity, per_layer=arguments.per_layer)
    result = _described(arguments, trace, outcome)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result)


def _decoded(folder: Path) -> Trace:
    trace = unrepeated(store.read_trace(folder).decoded())
    if not len(trace):
        raise UserError(str(folder), "holds no decoded token that counts", "Name another trace.")
    return trace


def _described(arguments: argparse.Namespace, trace: Trace, outcome: "Outcome") -> dict[str, Any]:
    """The outcome, JSON-like."""
    columns = (trace.router.layers, outcome.requests.tolist(), outcome.misses.tolist(), outcome.hit_rates.tolist())
    names = ("layer", "requests", "misses", "hit_rate")
    return {
        "trace": str(arguments.trace),
        "model": trace.router.model,
        "strategy": arguments.strategy,
        "capacity": arguments.capacity,
        "scope": "per_layer" if arguments.per_layer else "global",
        "batch": arguments.batch,
        "tokens": len(trace),
        "requests": int(outcome.requests.sum()),
        "misses": int(outcome.misses.sum()),
        "hit_rate": outcome.hit_rate,
        "layers": [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)],
    }


def _show(result: dict[str, Any]) -> None:
    scope = "experts in each layer" if result["scope"] == "per_layer" else "experts of all layers"
    head = f"{result['model']}: {result['strategy']}, {result['capacity']} {scope}"
    table = Table("layer", "requests", "misses", "hit rate", min_width=60, title=f"{head}, batch {result['batch']}")
    for row in [*result["layers"], {"layer": "all"} | result]:
        table.add_row(str(row["layer"]), f"{row['requests']:,}", f"{row['misses']:,}", f"{row['hit_rate']:.4f}")
    console().print(table)

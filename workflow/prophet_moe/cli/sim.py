"""Commands that simulate caches of experts on routing traces."""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from rich.progress import Progress
from rich.table import Table

from prophet_moe import params
from prophet_moe.catalog import GpuSpec, ModelSpec, load_gpus, load_models
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.cli import sim_demand
from prophet_moe.cli.catalog import EXPERIMENT, GPUS, HARDWARE, LINKS, MODELS, OPERATORS
from prophet_moe.cli.terminal import console, errors
from prophet_moe.cli.trace import A_TRACE, trace_folder
from prophet_moe.cli.values import between
from prophet_moe.errors import UserError
from prophet_moe.routing import store
from prophet_moe.routing.datasets import RouterSpec, load_datasets, timed_model
from prophet_moe.routing.sequences import caveats, without_repetition
from prophet_moe.routing.trace import PHASES, Trace, sequence_starts
from prophet_moe.settings.experiment import SEE_KEYS, Experiment
from prophet_moe.settings.fields import SequenceOrder
from prophet_moe.units import GB, MB
from prophet_moe.validation import read_yaml, validate

if TYPE_CHECKING:
    from prophet_moe.offload.demand.prefill import Chunks, Work
    from prophet_moe.offload.replay import Part
    from prophet_moe.offload.simulator.simulation import Hierarchy, Outcome, Times
    from prophet_moe.offload.strategies import Strategy
    from prophet_moe.precision import Precision

CORRECT = "Correct it."
LEAST_MB, LARGEST_MB = 0.001, 10**7
"""Limits of the size of an expert and of a cache in MB: 1 kB, and more than the memory of any machine."""
SLOTS = re.compile(" *[0-9]{1,18} *")
"""Pattern of a number of slots. More digits are a typing error."""
DATASETS, PREDICTORS = Path("config/datasets.yaml"), Path("resources/predictors")

EXAMPLES = """\
examples:
  prophet-moe sim list
  prophet-moe sim run --trace small-12x128-top1 --strategy prophet --capacity 64 --batch 8 --gpu A100-80GB
  prophet-moe sim run --trace small-6x8-top2 --strategy on_demand --iso-cache 100 --expert-mb 2.5 --json
  prophet-moe sim run --trace small-6x64-top8 --strategy on_demand --capacity 16 --kind host_managed --cpu-gb-per-s 50

MB are 10^6 bytes, times are in ms. docs/simulation.md describes what is simulated and what is not."""


def add_commands(commands: Any) -> None:
    """Add the command `sim` to the parser."""
    shown = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    sim = commands.add_parser("sim", help="simulate expert caches on recorded routing", **shown).add_subparsers(
        required=True, metavar="ACTION"
    )
    listed = sim.add_parser("list", help="list the strategies and their sources")
    listed.set_defaults(run=list_strategies)

    run = sim.add_parser("run", help="simulate one strategy on the held-out tokens of a trace", **shown)
    run.add_argument("--trace", required=True, type=trace_folder, metavar="TRACE", help=A_TRACE)
    run.add_argument("--strategy", required=True, help="see `prophet-moe sim list`")
    size = run.add_mutually_exclusive_group(required=True)
    size.add_argument("--capacity", metavar="C[,C2...]", help="slots for experts in GPU memory, and in further tiers")
    total = between("--iso-cache", "MB", LEAST_MB, LARGEST_MB)
    size.add_argument("--iso-cache", type=total, metavar="MB", help="three tiers of 40, 40 and 20 %% of this many MB")
    run.add_argument("--batch", default=1, type=int, metavar="B", help="sequences that decode together (default 1)")
    run.add_argument("--gpu", help="GPU of the simulation; default: `reference.gpu` in config/experiment.yaml")
    run.add_argument(
        "--datasheet", action="store_true", help="times by the GPU's datasheet, a lower bound; default: estimated times"
    )
    run.add_argument("--model", help="timing model of the trace; default: replay.timed_as")
    run.add_argument(
        "--predictor", type=Path, metavar="DIR", help="folder of the predictor; default: resources/predictors/TRACE"
    )
    expert = between("--expert-mb", "MB", LEAST_MB, LARGEST_MB)
    run.add_argument("--expert-mb", type=expert, metavar="MB", help="size of an expert; default: the model's")
    run.add_argument("--item-by-item", action="store_true", help="access the experts of one token after another")
    run.add_argument(
        "--deduplicated", action="store_true", help="access each distinct expert of a batch once; default: as described"
    )
    run.add_argument(
        "--order",
        default="mixed",
        choices=get_args(SequenceOrder),
        help="order in which sequences are batched: domains mixed (default), or as recorded, domain by domain",
    )
    run.add_argument("--global", action="store_false", dest="per_layer", help="all layers share the capacity")
    run.add_argument(
        "--inclusive", action="store_true", help="a further tier also holds the experts of the nearer tiers"
    )
    run.add_argument(
        "--waves", action="store_true", help="allow oversubscribed layers, which need more experts than they have slots"
    )
    run.add_argument("--json", action="store_true", help="print JSON")
    sim_demand.add_options(run, size)
    run.set_defaults(run=run_strategy)
    sim_demand.add_check(sim)


def list_strategies(arguments: argparse.Namespace) -> None:
    """Print one line per strategy."""
    from prophet_moe.offload.strategies import strategies

    table = Table("strategy", "what it is", "eviction", "deduplicated", "source")
    for name, found in strategies().items():
        table.add_row(name, found.title, found.eviction, "yes" if found.deduplicated else "", found.source)
    console().print(table)


def run_strategy(arguments: argparse.Namespace) -> None:
    """Print the results of one strategy on the held-out tokens of a trace: decode tokens, else prefill tokens."""
    # Only this command needs Numba, whose import takes half a second.
    from prophet_moe.offload.replay import parts_of, run
    from prophet_moe.offload.simulator.predictions import TrainingStatistics
    from prophet_moe.offload.strategies import strategies
    from prophet_moe.predict.context import split

    strategy, on_demand = _strategy(arguments), sim_demand.asked(arguments)
    capacities = None if arguments.capacity is None else _capacities(arguments.capacity)
    trace = store.read_trace(arguments.trace)
    counted = without_repetition(trace)
    learned_from, held_out = split(counted)
    tokens = held_out.described()
    sequences = len(sequence_starts(tokens)) - 1
    if not 1 <= arguments.batch <= sequences:
        held = "the only held-out sequence" if sequences == 1 else f"the {sequences} held-out sequences"
        expected = f"expected 1 to {held} of the trace"
        raise UserError("--batch", f"got {arguments.batch}, {expected}", CORRECT)
    experiment = _experiment()
    times, expert_mb = _times(arguments, trace, experiment)
    hierarchy = None if arguments.budget_mb is not None else _hierarchy(arguments, capacities, trace, expert_mb)
    training = TrainingStatistics(learned_from, _network(arguments, trace))
    basis = {"phase": PHASES[tokens.described_phase], "notes": caveats(counted)}
    if on_demand:
        storage = experiment.replay.storage_gb_per_s
        chunk = experiment.scenarios[experiment.scenario].activation.prefill_chunk_tokens
        prompts = _prompt_work(arguments, trace, experiment), chunk
        result = sim_demand.replayed(arguments, training, held_out, times, expert_mb, storage, *prompts)
        result = basis | result | {"notes": [*basis["notes"], *result["notes"]]}
        print(json.dumps(result, indent=2)) if arguments.json else sim_demand.show(result)
        return
    times = replace(times, transfer_seconds=_transfer_seconds(times, hierarchy, expert_mb, experiment))
    replay = training, tokens, arguments.batch, arguments.order
    served = _watched(parts_of(*replay), len(tokens))
    outcome = run(served, training, strategy, hierarchy, times, oversubscribe=arguments.waves)
    every = strategies()["all_resident"]
    resident = run(parts_of(*replay), training, every, hierarchy, times).seconds
    result = basis | _described(arguments, trace, strategy, hierarchy, outcome, resident)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result, strategy)


def _capacities(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(SLOTS.fullmatch(part) for part in parts):
        raise UserError("--capacity", f"got {text!r}, expected whole numbers, such as 64 or 16,16,8", CORRECT)
    return tuple(map(int, parts))


def _strategy(arguments: argparse.Namespace) -> "Strategy":
    from prophet_moe.offload.strategies import strategies

    known = strategies()
    if arguments.strategy not in known:
        expected = f"expected one of {', '.join(known)}"
        raise UserError("--strategy", f"unknown strategy {arguments.strategy!r}, {expected}", CORRECT)
    chosen = known[arguments.strategy]
    if arguments.item_by_item and arguments.deduplicated:
        raise UserError("--item-by-item", "cannot be deduplicated", "Leave one of the two out.")
    if arguments.item_by_item or arguments.deduplicated:
        return replace(chosen, deduplicated=arguments.deduplicated)
    return chosen


def _experiment() -> Experiment:
    science = {key: value for key, value in read_yaml(EXPERIMENT).items() if key not in ("style", "studies")}
    return validate(Experiment, science, str(EXPERIMENT), SEE_KEYS)


def _times(arguments: argparse.Namespace, trace: Trace, experiment: Experiment) -> tuple["Times", float]:
    """Times of the trace's layers at one tier, and the MB of an expert."""
    from prophet_moe.hardware.pace import read_paces
    from prophet_moe.offload.simulator.timing import timing_model

    model, gpus, precision = _timed_on(arguments, trace, experiment)
    (paces,) = read_paces(
        HARDWARE, OPERATORS, gpus, link_named(experiment.decode_step.link, load_links(LINKS))
    ).values()
    pace = paces.bound if arguments.datasheet else paces.best
    architecture = model.architecture.model_dump(mode="json")
    context = experiment.decode_step.context_tokens
    timed = timing_model(architecture, pace, trace.router, context, precision, experiment.replay.copy_chunk_mb)
    size = params.expert_bytes(model.architecture, precision) / MB
    times = timed(sim_demand.tokens_at_once(arguments))
    if arguments.expert_mb is None:
        return times, size
    seconds = (times.transfer_seconds[0] * arguments.expert_mb / size,)
    return replace(times, transfer_seconds=seconds), arguments.expert_mb


def _timed_on(
    arguments: argparse.Namespace, trace: Trace, experiment: Experiment
) -> tuple[ModelSpec | RouterSpec, dict[str, GpuSpec], "Precision"]:
    """Return the model that the trace is timed with, the GPU by its name, and the precision of the scenario."""
    gpu = arguments.gpu or experiment.reference.gpu
    model = _timed_model(arguments, trace, experiment.replay.timed_as)
    precision = experiment.scenarios[experiment.scenario].precision_of(model.precision)
    return model, load_gpus(GPUS, [gpu]), precision


def _prompt_work(arguments: argparse.Namespace, trace: Trace, experiment: Experiment) -> "Callable[[Chunks], Work]":
    """Return what the device computes of chunks of prompts: a layer of the trace as long as one of the model."""
    from prophet_moe.capacity.prefill import chunk_seconds
    from prophet_moe.catalog.architecture import with_top_k
    from prophet_moe.hardware.profile import TFLOP, read_profile
    from prophet_moe.hardware.roofline import expert_shape, expert_weight_bytes
    from prophet_moe.offload.demand.prefill import Work

    model, gpus, precision = _timed_on(arguments, trace, experiment)
    (profile,) = (read_profile(HARDWARE, gpu, spec) for gpu, spec in gpus.items())
    arch = with_top_k(model.architecture, trace.router.top_k)
    shape, weight_bytes = expert_shape(arch), expert_weight_bytes(arch, precision)

    @cache
    def other(before: int, tokens: int) -> float:
        return chunk_seconds(arch, profile, before, tokens, precision) / params.moe_layers(arch)

    @cache
    def expert(tokens: int) -> float:
        return profile.expert_seconds(*shape, tokens, weight_bytes) if tokens else 0.0

    def on_cpu(most: int) -> np.ndarray | None:
        if arguments.cpu_tflops is None:
            return None
        tokens, (rate, _) = np.arange(most + 1), sim_demand.cpu_rate(arguments)
        read = np.where(tokens, params.expert_bytes(arch, precision) / (rate * GB), 0.0)
        return np.maximum(read, 2 * shape.parameters * tokens / (arguments.cpu_tflops * TFLOP))

    def work(chunks: "Chunks") -> Work:
        each = zip(chunks.before.tolist(), chunks.tokens.tolist(), strict=True)
        others = np.array([other(before, tokens) for before, tokens in each])
        most = int(chunks.tokens.max(initial=0))
        layers = len(trace.router.layers)
        on_device = np.array([expert(tokens) for tokens in range(most + 1)])
        return Work(others[:, None].repeat(layers, axis=1), on_device, on_cpu(most))

    return work


def _timed_model(arguments: argparse.Namespace, trace: Trace, timed: dict[str, str]) -> ModelSpec | RouterSpec:
    model = arguments.model or timed.get(arguments.trace.resolve().name) or trace.router.model
    found = timed_model(model, MODELS, load_datasets(DATASETS))
    if found is None and not arguments.model:
        raise UserError("--model", f"{model} is not in the catalogue", "Name the model that the trace is timed with.")
    # The error about an unknown name suggests similar names.
    return found or load_models(MODELS, [model])[model]


def _hierarchy(
    arguments: argparse.Namespace, capacities: tuple[int, ...] | None, trace: Trace, expert_mb: float
) -> "Hierarchy":
    """Return the hierarchy of `--capacity`, or that of `--iso-cache`."""
    from prophet_moe.offload.simulator.simulation import Hierarchy, iso_cache

    capacities = capacities or iso_cache(arguments.iso_cache, expert_mb)
    most = trace.router.experts * (1 if arguments.per_layer else len(trace.router.layers))
    if not all(1 <= capacity <= most for capacity in capacities):
        owned = "a layer" if arguments.per_layer else "all layers together"
        got = ",".join(map(str, capacities))
        raise UserError("--capacity", f"got {got}, expected 1 to {most} (experts of {owned}) in each tier", CORRECT)
    return Hierarchy(capacities, arguments.per_layer, arguments.inclusive)


def _transfer_seconds(
    times: "Times", hierarchy: "Hierarchy", expert_mb: float, experiment: Experiment
) -> tuple[float, ...]:
    """Farther tiers are host memory; behind them is storage. With one tier, host memory is behind it."""
    if len(hierarchy.capacities) == 1:
        return times.transfer_seconds
    storage = experiment.replay.storage_gb_per_s * GB
    return (
        *times.transfer_seconds * (len(hierarchy.capacities) - 1),
        max(times.transfer_seconds[0], expert_mb * MB / storage),
    )


def _network(arguments: argparse.Namespace, trace: Trace) -> Any:
    from prophet_moe.predict.network import read_trained

    folder = arguments.predictor or PREDICTORS / arguments.trace.resolve().name
    if arguments.strategy != "prophet" and not arguments.predictor:
        return None
    return read_trained(folder, trace, arguments.trace)


def _watched(parts: "Iterable[Part]", tokens: int) -> "Iterator[Part]":
    """Show a progress bar on standard error, if it is a terminal."""
    terminal = errors()
    with Progress(console=terminal, disable=not terminal.is_terminal, transient=True) as progress:
        bar = progress.add_task("replaying", total=tokens)
        for part in parts:
            yield part
            progress.advance(bar, int((part[0].rows >= 0).sum()))


def _described(
    arguments: argparse.Namespace,
    trace: Trace,
    strategy: "Strategy",
    hierarchy: "Hierarchy",
    outcome: "Outcome",
    resident: float,
) -> dict[str, Any]:
    from prophet_moe.offload.replay import layer_rows, metrics

    return {
        "trace": str(arguments.trace),
        "model": trace.router.model,
        "strategy": arguments.strategy,
        "deduplicated": strategy.deduplicated,
        "capacity": list(hierarchy.capacities),
        "scope": "per_layer" if hierarchy.per_layer else "global",
        "batch": arguments.batch,
        "order": arguments.order,
        "tokens": int(outcome.step_tokens.sum()),
        **metrics(outcome, resident),
        "copies_by_source": outcome.sources.sum(axis=1)[1:].tolist(),
        "layers": list(layer_rows(outcome, trace.router.layers)),
    }


def _show(result: dict[str, Any], strategy: "Strategy") -> None:
    capacities = ", ".join(map(str, result["capacity"]))
    scope = "experts in each layer" if result["scope"] == "per_layer" else "experts of all layers"
    title = f"{result['model']}: {strategy.title}, {capacities} {scope}, batch {result['batch']}"
    table = Table("layer", "experts accessed", "hit rate", "stall (ms)", min_width=76, title=title)
    for row in result["layers"]:
        cells = (f"{row['unique_experts']:.2f}", f"{row['hit_rate']:.4f}", f"{row['stall_ms']:.3f}")
        table.add_row(str(row["layer"]), *cells)
    console().print(table)
    lines = {
        "tokens": "{tokens:,} of {phase}",
        "step": "mean {step_ms_mean:.3f} ms, p50 {step_ms_p50:.3f}, p95 {step_ms_p95:.3f}, p99 {step_ms_p99:.3f}",
        "slowdown": "{slowdown:.3f} times the time with all experts resident; {stall_share:.1%} of the time is stall",
        "requests": "{requests:,} of {routed_requests:,} choices ({request_dedup:.1%} deduplicated)",
        "hits": "{hit_rate:.4f} (kept {kept_share:.4f}, prefetched {prefetched_share:.4f}); late {late_share:.4f}",
        "copies": "{demand_copies:,} missing, prefetched {useful_prefetches:,} useful, {late_prefetches:,} late, "
        "{wasted_prefetches:,.1f} wasted",
    }
    for note in result["notes"]:
        console().print(f"{'note':>10}  {note}", highlight=False, soft_wrap=True)
    for name, line in lines.items():
        console().print(f"{name:>10}  {line.format(**result)}", highlight=False)

"""Options of `sim run` for caches on demand as engines have them, and `sim check` of recorded sessions."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from rich.table import Table

from prophet_moe.catalog.engine_offload import KINDS, load_offload
from prophet_moe.cli.terminal import console
from prophet_moe.cli.values import between, whole
from prophet_moe.errors import UserError
from prophet_moe.routing.sequences import mixed
from prophet_moe.routing.trace import DECODE, PREFILL, Trace, sequence_starts
from prophet_moe.units import GB, MB

if TYPE_CHECKING:
    from prophet_moe.offload.demand.lookups import Asks, ByteCache
    from prophet_moe.offload.demand.prefill import Chunks, Work
    from prophet_moe.offload.demand.replay import Engine
    from prophet_moe.offload.simulator.predictions import TrainingStatistics
    from prophet_moe.offload.simulator.simulation import Times

PRESETS = Path("config/offload.yaml")
STARTS = ("training", "cold")
PREFILLS = ("through", "through_by_id", "stream", "stream_missing", "bypass", "cpu")
ASKED = (
    *(
        "kind",
        "miss_overhead_us",
        "step_overhead_us",
        "cpu_gb_per_s",
        "cpu_memory_gb_per_s",
        "background",
        "inserts",
        "admit_after",
    ),
    *("budget_mb", "start", "prefill", "prefill_chunk", "cpu_tflops", "draft", "acceptance"),
    *("page_cache_mb", "mapped_mb", "devices"),
)
"""Options that ask for a cache on demand; each is None or False where it is not given."""
ON_DEMAND, HYBRID = "on_demand", "hybrid"
LARGEST_US, LARGEST_MB, LARGEST_RATE = 10**6, 10**7, 10**5
KEEPS_NOTHING = "the cache holds less than one step needs: the least recently used experts are those needed next"
NOTHING = np.empty((0, 1), np.int64)
CHECK_EXAMPLE = """\
example:
  prophet-moe sim check qwen.route.csv --cache-mib 4000"""


def add_options(run: argparse.ArgumentParser, size: Any) -> None:
    """Add the options to the parser of `sim run`; `size` is its group of sizes, one of which is given."""
    budget = between("--budget-mb", "MB", 0, LARGEST_MB)
    size.add_argument(
        "--budget-mb", type=budget, metavar="MB", help="MB for experts of the bytes that the trace states by layer"
    )
    group = run.add_argument_group("misses as engines serve them (strategy on_demand, least recently used)")
    microseconds = {name: between(name, "us", 0, LARGEST_US) for name in ("--miss-overhead-us", "--step-overhead-us")}
    group.add_argument("--kind", choices=KINDS, help=f"overheads of this kind of engine, from {PRESETS}")
    group.add_argument(
        "--miss-overhead-us", type=microseconds["--miss-overhead-us"], metavar="US", help="of the host for each copy"
    )
    group.add_argument(
        "--step-overhead-us", type=microseconds["--step-overhead-us"], metavar="US", help="of the host for each step"
    )
    cpu = between("--cpu-gb-per-s", "GB/s", 0.001, LARGEST_RATE)
    group.add_argument(
        "--cpu-gb-per-s", type=cpu, metavar="RATE", help="the CPU computes misses at this rate, beside the copies"
    )
    memory = between("--cpu-memory-gb-per-s", "GB/s", 0.001, LARGEST_RATE)
    group.add_argument(
        "--cpu-memory-gb-per-s",
        type=memory,
        metavar="RATE",
        help="the CPU reads its memory at this rate, and computes misses at the share of it that --kind hybrid says",
    )
    group.add_argument(
        "--background", action="store_true", help="the CPU computes all misses; what enters is copied beside"
    )
    group.add_argument(
        "--inserts", type=whole("--inserts", 0, 10**6), metavar="N", help="most misses of a layer and step that enter"
    )
    group.add_argument(
        "--admit-after", type=whole("--admit-after", 1, 10**6), metavar="N", help="the miss from which an expert enters"
    )
    group.add_argument(
        "--start", choices=STARTS, help="what the cache holds first: the most used of training (default), nothing"
    )
    group.add_argument(
        "--prefill",
        choices=PREFILLS,
        help="prompts before decode: through the cache, layers streamed whole, misses copied, not kept, or on the CPU",
    )
    chunk = whole("--prefill-chunk", 1, 10**7)
    group.add_argument(
        "--prefill-chunk", type=chunk, metavar="N", help="tokens of a prompt at once; default: the scenario's"
    )
    arithmetic = between("--cpu-tflops", "TFLOP/s", 0.001, LARGEST_RATE)
    group.add_argument("--cpu-tflops", type=arithmetic, metavar="RATE", help="arithmetic of the CPU, for --prefill cpu")
    group.add_argument(
        "--draft", type=whole("--draft", 0, 64), metavar="N", help="tokens of one sequence drafted for each step"
    )
    accepted = between("--acceptance", "", 0, 1)
    group.add_argument("--acceptance", type=accepted, metavar="A", help="probability that a drafted token is right")
    pages = between("--page-cache-mb", "MB", 0, LARGEST_MB)
    group.add_argument(
        "--page-cache-mb", type=pages, metavar="MB", help="experts lie on storage, and so many MB of it in pages"
    )
    mapped = between("--mapped-mb", "MB", 0, LARGEST_MB)
    group.add_argument(
        "--devices",
        type=whole("--devices", 1, 64),
        metavar="N",
        help="GPUs that experts are spread over, with a link each",
    )
    group.add_argument("--mapped-mb", type=mapped, metavar="MB", help="other weights that each step reads by pages")


def add_check(actions: Any) -> None:
    """Add the command `sim check` to the parser."""
    shown = {"epilog": CHECK_EXAMPLE, "formatter_class": argparse.RawDescriptionHelpFormatter}
    check = actions.add_parser("check", help="replay a recorded session beside the hits of its engine", **shown)
    check.add_argument("session", type=Path, metavar="FILE", help="lines with hits and a header of bytes by layer")
    size = between("--cache-mib", "MiB", 0, LARGEST_MB)
    check.add_argument("--cache-mib", required=True, type=size, metavar="MIB", help="MiB of the cache of all layers")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=check_session)


def check_session(arguments: argparse.Namespace) -> None:
    """Print the recorded hit rate of a session beside those of replays that start in three ways."""
    from prophet_moe.offload.demand.recorded import Start, agreement, read_session

    session = read_session(arguments.session)
    capacity = round(arguments.cache_mib * 2**20)
    found = {start: agreement(session, capacity, start) for start in get_args(Start)}
    if arguments.json:
        print(json.dumps({start: asdict(each) | {"points": each.points} for start, each in found.items()}, indent=2))
        return
    title = f"{arguments.session.name}: {session.hit_rate:.4f} of {len(session.hits):,} recorded"
    table = Table("cache at the start", "hit rate", "points", "requests that differ", "most in a step", title=title)
    for start, each in found.items():
        cells = (f"{each.simulated:.4f}", f"{each.points:+.2f}", f"{each.differing:,}", str(each.worst_step))
        table.add_row(start.replace("_", " "), *cells)
    console().print(table)


def asked(arguments: argparse.Namespace) -> bool:
    """Return whether any of the options is given; what cannot be combined with them is a UserError."""
    given = [name for name in ASKED if not any(getattr(arguments, name) is unset for unset in (None, False))]
    if not given:
        return False
    option = f"--{given[0].replace('_', '-')}"
    if arguments.strategy != ON_DEMAND:
        raise UserError(option, f"got strategy {arguments.strategy}, expected {ON_DEMAND}", "Leave one of the two out.")
    for other in ("iso_cache", "item_by_item", "inclusive"):
        if getattr(arguments, other):
            raise UserError(option, f"cannot be combined with --{other.replace('_', '-')}", "Leave one of the two out.")
    if arguments.capacity is not None and "," in arguments.capacity:
        raise UserError(option, "needs one tier, --capacity names several", "Name one, or see --page-cache-mb.")
    if (arguments.draft is None) != (arguments.acceptance is None):
        raise UserError("--draft", "needs --acceptance, and the other way round", "Add the other one.")
    if arguments.mapped_mb is not None and arguments.page_cache_mb is None:
        raise UserError("--mapped-mb", "needs --page-cache-mb", "Add it.")
    cpu = {name: getattr(arguments, name) for name in ("cpu_gb_per_s", "cpu_memory_gb_per_s")}
    rates = [f"--{name.replace('_', '-')}" for name, rate in cpu.items() if rate is not None]
    if len(rates) > 1:
        raise UserError(rates[0], f"cannot be combined with {rates[1]}", "Leave one of the two out.")
    if arguments.kind == HYBRID and not rates:
        raise UserError("--kind", "hybrid needs --cpu-gb-per-s, or --cpu-memory-gb-per-s", "Add one.")
    if arguments.cpu_memory_gb_per_s is not None and arguments.kind != HYBRID:
        raise UserError("--cpu-memory-gb-per-s", "needs --kind hybrid, whose preset has the CPU's share", "Add it.")
    if arguments.background and not rates:
        raise UserError("--background", "needs --cpu-gb-per-s", "Add it.")
    if arguments.page_cache_mb is not None and rates:
        raise UserError("--page-cache-mb", f"cannot be combined with {rates[0]}", "Leave one of the two out.")
    if arguments.prefill_chunk is not None and arguments.prefill is None:
        raise UserError("--prefill-chunk", "needs --prefill", "Add it.")
    if (arguments.prefill == "cpu") != (arguments.cpu_tflops is not None):
        raise UserError("--cpu-tflops", "needs --prefill cpu, and the other way round", "Add the other one.")
    if arguments.prefill == "cpu" and not rates:
        raise UserError("--prefill", "cpu needs --cpu-gb-per-s", "Add it.")
    if arguments.prefill is not None and arguments.page_cache_mb is not None:
        raise UserError("--prefill", "cannot be combined with --page-cache-mb", "Leave one of the two out.")
    if arguments.draft is not None and arguments.batch != 1:
        raise UserError("--draft", f"got batch {arguments.batch}, expected 1", "Leave one of the two out.")
    return True


def tokens_at_once(arguments: argparse.Namespace) -> int:
    """Return how many tokens the device computes in a step."""
    return arguments.batch if arguments.draft is None else arguments.draft + 1


def replayed(
    arguments: argparse.Namespace,
    training: "TrainingStatistics",
    held_out: Trace,
    times: "Times",
    expert_mb: float,
    storage_gb_per_s: float,
    prompt_work: "Callable[[Chunks], Work]",
    chunk: int,
) -> dict[str, Any]:
    """Return the results of a cache on demand on the held-out tokens; `times` are of one tier.

    `prompt_work` says what the device computes of chunks of prompts, which have `chunk` tokens unless an option says
    otherwise.
    """
    from prophet_moe.offload.demand.lookups import asks_of, warm_start
    from prophet_moe.offload.demand.replay import Prefill, run, steps_of
    from prophet_moe.offload.demand.speculation import Speculation
    from prophet_moe.offload.replay import MIXING_SEED

    router = held_out.router
    layers = len(router.layers)
    layer_bytes, stated = bytes_by_layer(held_out, expert_mb)
    engine = _engine(arguments, times, layer_bytes, router.experts, expert_mb, storage_gb_per_s)
    ordered = mixed(held_out, MIXING_SEED) if arguments.order == "mixed" else held_out
    tokens = ordered.described()
    drafts = None if arguments.draft is None else Speculation(arguments.draft, arguments.acceptance)
    steps = steps_of(tokens.experts, sequence_starts(tokens), router.experts, arguments.batch, drafts)
    room = (arguments.devices or 1) * int(engine.cache.capacities[0])
    if arguments.capacity is not None and not arguments.waves and steps.asks.widest > room:
        problem = f"got {room}, expected at least {steps.asks.widest}, what a layer needs at once"
        raise UserError("capacity", problem, "Correct it, or allow layers to oversubscribe it: --waves.")
    before = warm_start(training.popularity, engine.cache) if arguments.start != "cold" else asks_of(NOTHING)
    prefill = None
    if arguments.prefill is not None:
        groups = _prompts(ordered, arguments.batch, arguments.prefill_chunk or chunk)
        prefill = Prefill(arguments.prefill, groups, prompt_work)
    outcome = run(steps, engine, before, layers, prefill)
    size = {"capacity": [int(arguments.capacity)]} if arguments.capacity else {"budget_mb": arguments.budget_mb}
    notes = [] if _holds_a_step(engine.cache, steps.asks, layers) else [KEEPS_NOTHING]
    return {
        "notes": notes,
        "trace": str(arguments.trace),
        "model": router.model,
        "strategy": arguments.strategy,
        **size,
        **({} if prefill is None else {"prefill": prefill.way}),
        "scope": "per_layer" if arguments.per_layer else "global",
        "expert_bytes": "stated by layer" if stated else "the model's",
        "batch": arguments.batch,
        "devices": arguments.devices or 1,
        "order": arguments.order,
        "tokens": int(steps.emitted.sum()),
        **outcome.metrics(),
    }


def _holds_a_step(cache: "ByteCache", asks: "Asks", layers: int) -> bool:
    """Return whether the caches hold all that the layers need in the first step."""
    ids = asks.ids[: asks.starts[min(layers, len(asks.starts) - 1)]]
    needed = np.bincount(cache.group_of[ids], weights=cache.bytes_of[ids], minlength=len(cache.capacities))
    return bool((needed <= cache.capacities).all())


def bytes_by_layer(trace: Trace, expert_mb: float) -> tuple[np.ndarray, bool]:
    """(L,): bytes of an expert of each layer, and whether the trace's source states them."""
    files = trace.origin.notes.get("lines", {})
    stated = [about["expert_bytes"] for about in files.values() if "expert_bytes" in about]
    if len(stated) == 1 and all(str(layer) in stated[0] for layer in trace.router.layers):
        return np.array([stated[0][str(layer)] for layer in trace.router.layers], np.int64), True
    return np.full(len(trace.router.layers), round(expert_mb * MB), np.int64), False


def _engine(
    arguments: argparse.Namespace,
    times: "Times",
    layer_bytes: np.ndarray,
    experts: int,
    expert_mb: float,
    storage_gb_per_s: float,
) -> "Engine":
    from prophet_moe.offload.demand.lookups import Admission, byte_cache, slot_cache
    from prophet_moe.offload.demand.page_cache import Storage
    from prophet_moe.offload.demand.replay import Engine
    from prophet_moe.offload.demand.times import Costs

    layers, link, devices = len(layer_bytes), expert_mb * MB / times.transfer_seconds[0], arguments.devices or 1
    cache = (
        slot_cache(layers, experts, int(arguments.capacity), per_layer=arguments.per_layer, devices=devices)
        if arguments.capacity is not None
        else byte_cache(
            layer_bytes, experts, round(arguments.budget_mb * MB), per_layer=arguments.per_layer, devices=devices
        )
    )
    miss_us, step_us = _overheads(arguments, layers)
    cpu, overlap = cpu_rate(arguments)
    costs = Costs(
        times.non_expert_seconds,
        times.expert_seconds,
        layer_bytes / (link * overlap),
        None if cpu is None else layer_bytes / (cpu * overlap * GB),
        arguments.background,
        miss_us / 1e6,
        step_us / 1e6,
        devices,
    )
    storage = None
    if arguments.page_cache_mb is not None:
        mapped = None
        if arguments.mapped_mb:
            mapped = np.full(layers, round(arguments.mapped_mb * MB / layers), np.int64)
        storage = Storage(round(arguments.page_cache_mb * MB), link, storage_gb_per_s * GB, mapped)
    admission = Admission(arguments.inserts, arguments.admit_after or 1)
    return Engine(cache, costs, np.repeat(layer_bytes, experts), admission, storage)


def _overheads(arguments: argparse.Namespace, layers: int) -> tuple[float, float]:
    """Return the microseconds of a copy and of a step: those given, else those of the kind, else none."""
    miss_us, step_us = 0.0, 0.0
    if arguments.kind is not None:
        preset = load_offload(PRESETS)[arguments.kind]
        miss_us, step_us = preset.miss_overhead_us, preset.step_overhead_us(layers)
    given = (arguments.miss_overhead_us, miss_us), (arguments.step_overhead_us, step_us)
    return tuple(other if value is None else value for value, other in given)


def cpu_rate(arguments: argparse.Namespace) -> tuple[float | None, float]:
    """Return the GB/s at which the CPU alone computes misses, None without one, and what link and CPU keep of their
    rates while both read the memory: all, unless the kind says otherwise.
    """
    if arguments.kind != HYBRID:
        return arguments.cpu_gb_per_s, 1.0
    preset = load_offload(PRESETS)[HYBRID]
    if arguments.cpu_memory_gb_per_s is not None:
        return preset.cpu_share * arguments.cpu_memory_gb_per_s, preset.overlap_share
    return arguments.cpu_gb_per_s, preset.overlap_share


def _prompts(trace: Trace, batch: int, chunk: int) -> "list[Chunks]":
    """Return the chunks of the prompts of each group of sequences that decode together."""
    from prophet_moe.offload.demand.prefill import chunks_of

    of_prompts = trace.phase == PREFILL
    if not of_prompts.any() or not (trace.phase == DECODE).any():
        raise UserError("--prefill", "needs a trace of prompts and decode tokens", "Leave it out.")
    sequences, experts = trace.sequence[of_prompts], trace.experts[of_prompts]
    decoded = trace.sequence[trace.phase == DECODE]
    decoded = decoded[np.sort(np.unique(decoded, return_index=True)[1])]
    found = []
    for first in range(0, len(decoded), batch):
        rows = [np.flatnonzero(sequences == sequence) for sequence in decoded[first : first + batch]]
        starts = np.cumsum([0, *map(len, rows)])
        found.append(chunks_of(experts[np.concatenate(rows)], starts, chunk, trace.router.experts))
    return found


def show(result: dict[str, Any]) -> None:
    """Print the results of a cache on demand."""
    from prophet_moe.offload.demand.replay import FIRST_STEPS

    size = f"{result['capacity'][0]} experts" if "capacity" in result else f"{result['budget_mb']:g} MB"
    scope = "in each layer" if result["scope"] == "per_layer" else "in all layers"
    title = f"{result['model']}: on demand, {size} {scope}, batch {result['batch']}"
    console().print(title, highlight=False)
    lines = {
        "tokens": "{tokens:,} of {phase}, {tokens_per_step:.2f} a step",
        "step": "mean {step_ms_mean:.3f} ms, p50 {step_ms_p50:.3f}, p95 {step_ms_p95:.3f}, p99 {step_ms_p99:.3f}",
        "rate": "{tokens_per_second:,.2f} tokens/s; {slowdown:.3f} times the time with all experts resident",
        "requests": "{requests:,} of {routed_requests:,} choices; {experts_per_layer_step:.2f} a layer and step",
        "hits": "{hit_rate:.4f}",
        "misses": "{copies:,} copied, {on_cpu:,} computed on the CPU; {admitted:,} entered the cache",
    }
    if "prefill_s" in result:
        lines["prompts"] = (
            "{prefill_s_per_group:,.4f} s before each group decodes ({prefill_chunks:,} chunks, {prefill_tokens:,} "
            "tokens in all); {prefill_copies:,} copied of {prefill_requests:,} needed"
        )
        lines["then hits"] = f"{{hit_rate_of_first_{FIRST_STEPS}_steps:.4f}} in the first {FIRST_STEPS} steps of decode"
    if "page_hit_rate" in result:
        lines["pages"] = "held {page_hit_rate:.4f} of the misses; {storage_gb:,.1f} GB read from storage"
    for note in result["notes"]:
        console().print(f"{'note':>10}  {note}", highlight=False, soft_wrap=True)
    for name, line in lines.items():
        console().print(f"{name:>10}  {line.format(**result)}", highlight=False)

"""Alternatives to Prophet: what each keeps on the GPU, which context fits, and what a decode step takes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from prophet_moe.capacity.configured import Configured, read_configured
from prophet_moe.capacity.memory import ModelMemory, device_bytes, model_memory
from prophet_moe.capacity.reference import evaluate, max_context, unique_experts
from prophet_moe.capacity.reserve import with_reserve
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.link import LinkSpec, link_named, load_links
from prophet_moe.hardware.estimate import Estimator, StepEstimate, estimate_step, read_estimators
from prophet_moe.hardware.pace import EstimatedPace
from prophet_moe.offload.placements import (
    BUFFERED_LAYERS,
    Placement,
    Sizes,
    all_resident,
    every_expert,
    needed_experts,
    sizes_of,
    slots,
    streamed,
)
from prophet_moe.offload.proxies import generated
from prophet_moe.offload.replay import Sample, SampleSize, run
from prophet_moe.offload.replay import slots as slots_of
from prophet_moe.offload.simulator.simulation import Hierarchy, Times
from prophet_moe.offload.simulator.timing import proxy_times, requests_of
from prophet_moe.offload.strategies import strategies
from prophet_moe.precision import FORMATS
from prophet_moe.predict.discrimination import Discrimination, read_discrimination
from prophet_moe.printed import read_printed
from prophet_moe.routing.calibrated import Calibrated, calibrated_routings, nearest
from prophet_moe.routing.trace import Router
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import from_sources, write_table
from studies.alternatives.study import ALTERNATIVES, BASELINE_FORMAT, AlternativesSettings

LARGEST_POWER = 20
"""Exponent of the largest batch that is tried for streaming to be hidden."""
SLOTTED = ("expert_slots", "prophet")
"""Approaches with slots: on demand, and prefetched."""
COMPARISON = "002 alternatives"
"""The report's comparison, in resources/reports/printed.csv."""
REPORTED_AS = {
    "baseline": ("all_resident", BASELINE_FORMAT),
    "CPU offload": ("every_expert", BASELINE_FORMAT),
    "INT8": ("all_resident", "int8"),
    "Prophet": ("prophet", BASELINE_FORMAT),
    "Prophet and INT8": ("prophet", "int8"),
}
"""Approach and format of each of its rows."""


@dataclass(frozen=True)
class Way:
    """One way of serving in one format."""

    approach: str
    format: str
    share: float = np.nan
    """Slots over E."""
    count: int = 0
    """Slots of a layer."""


@dataclass(frozen=True)
class Simulated:
    """What the simulator finds with slots at 16 bits."""

    hit_rate: float
    """On demand."""
    excess: float
    """Time that Prophet adds to that of all experts resident, over what the same slots add on demand."""


@dataclass(frozen=True)
class Bench:
    """One GPU with its estimates and its link."""

    gpu: str
    spec: GpuSpec
    estimator: Estimator
    link: LinkSpec
    context: int
    """Cached tokens of each sequence of a timed step."""

    def step(self, spec: ModelSpec, scenario: Scenario, batch: int, unique: float) -> StepEstimate:
        """Return the estimate of a step with every expert resident."""
        arch = spec.architecture
        used = min(unique, arch.moe.top_k * batch)
        context = min(self.context, arch.native_context)
        return estimate_step(self.estimator, arch, batch, context, used, scenario.precision_of(spec.precision))

    @property
    def pace(self) -> EstimatedPace:
        """Return the pace of what is simulated."""
        return EstimatedPace(self.estimator, self.link)

    def copying(self, placement: Placement, share: float | None = None) -> float:
        """Return the seconds of what a step copies, at the link's share of its datasheet or at another one."""
        if not placement.moved_bytes:
            return 0.0
        link = self.link if share is None else self.link.model_copy(update={"share": share})
        return link.seconds(self.spec, placement.moved_bytes / placement.copies, placement.copies)


def ways_of(experts: int, top_k: int, settings: AlternativesSettings) -> Iterator[Way]:
    """Yield every approach in every format; slots hold at least the experts of one token."""
    for form in (BASELINE_FORMAT, *settings.formats):
        for approach in ("all_resident", "every_expert", "needed_experts", "streamed", "streamed_kv"):
            yield Way(approach, form)
        for share in settings.resident_shares:
            count = min(experts, max(top_k, slots_of(experts, share)))
            for approach in SLOTTED:
                yield Way(approach, form, share, count)


def placed(way: Way, sizes: Sizes, unique: float, miss_share: float, cache_bytes: float) -> Placement:
    """Return where the weights are in one way of serving, and what a step copies."""
    match way.approach:
        case "all_resident":
            return all_resident(sizes)
        case "every_expert":
            return every_expert(sizes)
        case "needed_experts":
            return needed_experts(sizes, unique)
        case "streamed":
            return streamed(sizes)
        case "streamed_kv":
            return streamed(sizes, cache_bytes)
        case _:
            return slots(sizes, way.count, unique, miss_share)


def reported_sizes(memory: ModelMemory, share: float) -> Sizes:
    """Return sizes by the report's constants, at a share of 16 bits; it names no parts, so that streaming keeps all."""
    return Sizes(
        experts=memory.experts,
        expert_bytes=memory.expert_bytes * share,
        layers=memory.moe_layers,
        encoder_layers=0,
        kept_bytes=memory.non_expert_bytes * share,
        decoder_bytes=0,
        encoder_bytes=0,
        blocks=memory.moe_layers,
    )


def alternatives(
    configured: Configured,
    benches: Sequence[Bench],
    simulations: Mapping[tuple[str, str, int, float], Simulated],
    settings: AlternativesSettings,
    printed: pd.DataFrame,
) -> pd.DataFrame:
    """Return a row per model, GPU, batch size, approach, share of slots and format.

    Parameters
    ----------
    configured : Configured
        Models, GPUs and the scenario. With the report's constants there are sizes and contexts only, and no times.
    benches : sequence of Bench
        GPUs with estimates and links.
    simulations : mapping from (model, GPU, batch size, share) to Simulated
        What slots do; empty with the report's constants.
    settings : AlternativesSettings
        Formats, batch sizes and shares of slots.
    printed : DataFrame
        What the reports print, `printed.read_printed`.

    Returns
    -------
    DataFrame
        The columns of ALTERNATIVES; sizes in bytes.
    """
    rows = []
    for name, memory in configured.constants().items():
        for bench in benches:
            here = with_reserve(configured.scenario, configured.reserves.get(bench.gpu))
            for batch in settings.batch_sizes:
                unique = unique_experts(here.routing, memory.experts, memory.top_k, memory.popularity_cv, batch)
                found = _rows(configured.models[name], bench, here, batch, unique, simulations, settings)
                rows += [{"model": name, "gpu": bench.gpu, "batch_size": batch} | row for row in found]
    return with_reported(pd.DataFrame(rows), reported_rows(printed), settings)


@dataclass(frozen=True)
class Base:
    """The baseline that a row is compared with."""

    sizes: Sizes
    step: StepEstimate | None


def _rows(spec, bench, scenario, batch, unique, simulations, settings) -> Iterator[dict[str, object]]:
    """One row per way of serving a model on a GPU at a batch size."""
    published = scenario.architecture == "published"
    memory = model_memory(spec, scenario.model_copy(update={"precision": BASELINE_FORMAT}))
    device = device_bytes(bench.spec, scenario)
    shape = (int(memory.experts), int(memory.top_k))
    base = None
    for way in ways_of(*shape, settings):
        at = scenario.model_copy(update={"precision": way.format})
        here = model_memory(spec, at)
        sizes = (
            sizes_of(spec.architecture, at.precision_of(spec.precision))
            if published
            else reported_sizes(here, FORMATS[way.format].bits / FORMATS[BASELINE_FORMAT].bits)
        )
        context = min(bench.context, spec.architecture.native_context)
        cache = batch * here.cached_bytes(context) if published else 0.0
        simulated = simulations.get((spec.name, bench.gpu, batch, way.share)) if way.count else None
        miss_share = 1 - simulated.hit_rate if simulated else 1.0
        placement = placed(way, sizes, unique, miss_share, cache)
        base = base or Base(sizes, bench.step(spec, at, batch, unique) if published else None)
        row = {"approach": way.approach, "format": way.format, "resident_share": way.share}
        row |= dict(_memory(way, placement, sizes, here, at, device, batch, base, cache))
        row["moved_bytes"] = placement.moved_bytes if simulated or not way.count else np.nan
        row |= dict(_time(way, placement, spec, bench, at, batch, unique, base, simulated) if published else _no_time())
        yield row | {"quality": settings.quality.get(way.format, "")}


def _memory(way, placement, sizes, memory, scenario, device, batch, base, cache) -> Iterator[tuple[str, object]]:
    """Sizes on the GPU and the host, and the longest context."""
    weights = placement.gpu_bytes + placement.buffer_bytes
    predictor = memory.predictor_bytes if way.approach == "prophet" else 0
    fixed = evaluate(memory, device, batch, scenario, resident=memory.experts)["fixed_bytes"] - memory.non_expert_bytes
    longest = _longest(memory, device - fixed - weights - predictor, batch, way, sizes)
    whole = _longest(memory, device - fixed - base.sizes.total_bytes, batch, Way("all_resident", ""), sizes)
    yield "expert_bytes", placement.gpu_expert_bytes
    yield "freed_bytes", base.sizes.routed_bytes - placement.gpu_expert_bytes
    yield "weights_bytes", weights
    yield "host_bytes", placement.host_bytes + (cache if way.approach == "streamed_kv" else 0)
    yield "max_context", longest
    yield "native_context", min(longest, memory.native_context) if memory.native_context > 0 else longest
    yield "baseline_fits", whole >= 1


def _longest(memory: ModelMemory, free: float, batch: int, way: Way, sizes: Sizes) -> int:
    """The longest context; with the cache on the host, a layer's part of it for each buffered layer is on the GPU."""
    share = BUFFERED_LAYERS / sizes.blocks if way.approach == "streamed_kv" else 1.0
    return max_context(memory, free / share, batch)


def _time(way, placement, spec, bench, scenario, batch, unique, base, simulated) -> Iterator[tuple[str, object]]:
    """Time of a step over that of the baseline: the same misjudgement of both is in the interval of what is copied."""
    step, first = bench.step(spec, scenario, batch, unique), base.step
    known = simulated is not None or not way.count
    overlapped = way.approach in ("streamed", "streamed_kv")

    def over(copying: float, scale: float) -> float:
        """The slowdown where the baseline's step takes `scale` times its estimate, and so do steps of other formats."""
        computed, copied = step.seconds / first.seconds, copying / (scale * first.seconds)
        if overlapped:
            return max(computed, copied)
        return computed + (simulated.excess if way.approach == "prophet" and simulated else 1.0) * copied

    low, high = first.low / first.seconds, first.high / first.seconds
    copying = bench.copying(placement)
    yield "step_ms", 1e3 * step.seconds
    yield "hit_rate", simulated.hit_rate if simulated else np.nan
    yield "slowdown", over(copying, 1.0) if known else np.nan
    yield "slowdown_low", over(bench.copying(placement, bench.link.highest_share), high) if known else np.nan
    yield "slowdown_high", over(bench.copying(placement, bench.link.lowest_share), low) if known else np.nan
    yield "slowdown_bound", max(step.seconds, copying) / first.seconds if known else np.nan
    yield "hidden_batch", hidden_batch(way, spec, bench, scenario) if overlapped else np.nan


def _no_time() -> Iterator[tuple[str, object]]:
    names = ("step_ms", "hit_rate", "slowdown", "slowdown_low", "slowdown_high", "slowdown_bound", "hidden_batch")
    yield from ((name, np.nan) for name in names)


def hidden_batch(way: Way, spec: ModelSpec, bench: Bench, scenario: Scenario) -> float:
    """Return the smallest power of two of sequences whose step takes as long as its copies; NaN where none does.

    Such a batch needs all experts of a layer.
    """
    arch = spec.architecture
    memory, sizes = model_memory(spec, scenario), sizes_of(arch, scenario.precision_of(spec.precision))
    cached = memory.cached_bytes(min(bench.context, arch.native_context))
    for power in range(LARGEST_POWER + 1):
        batch = 2**power
        placement = streamed(sizes, batch * cached if way.approach == "streamed_kv" else 0.0)
        if bench.step(spec, scenario, batch, min(arch.moe.experts, arch.moe.top_k * batch)).seconds >= bench.copying(
            placement
        ):
            return batch
    return np.nan


def reported_rows(printed: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the report's comparison: model, batch size, approach, format, GB of experts and slowdowns.

    `printed` is what `printed.read_printed` returns. CPU offloading keeps the experts of one layer of 24.
    """
    cells = printed[printed["table"] == COMPARISON]
    found = []
    for name, (approach, form) in REPORTED_AS.items():
        row = cells[cells["row"] == name]
        values = row.set_index("column")["claimed"]
        latency = values.get("latency")
        found.append(
            {
                "model": row["model"].iloc[0],
                "batch_size": int(row["batch"].iloc[0]),
                "approach": approach,
                "format": form,
                "reported_expert_gb": values["experts on the GPU" if "experts on the GPU" in values else "experts"],
                "reported_low": values["latency, low"] if latency is None else latency,
                "reported_high": values["latency, high"] if latency is None else latency,
            }
        )
    return pd.DataFrame(found)


def with_reported(rows: pd.DataFrame, given: pd.DataFrame, settings: AlternativesSettings) -> pd.DataFrame:
    """Return the rows with the report's numbers on those that its comparison has, on every GPU."""
    keys = ["model", "approach", "format", "batch_size", "resident_share"]
    shares = np.where(given["approach"].isin(SLOTTED), settings.resident_shares[0], np.nan)
    return rows.merge(given.assign(resident_share=shares), on=keys, how="left", validate="many_to_one")


def simulations_of(
    configured: Configured,
    benches: Sequence[Bench],
    routings: Sequence[Calibrated],
    power: Discrimination,
    chunk_mb: float,
    settings: AlternativesSettings,
) -> dict[tuple[str, str, int, float], Simulated]:
    """Simulate the slots of every model, on demand and with Prophet, at 16 bits with estimated times.

    Routing is generated with the locality of the nearest published hit curve, for the model's own E, k and popularity.
    """
    at = configured.under(configured.scenario.model_copy(update={"precision": BASELINE_FORMAT}))
    samples: dict[tuple[int, int, float], Sample] = {}
    found = {}
    for name, memory in at.constants().items():
        spec, shape = at.models[name], (memory.experts, memory.top_k)
        arch, precision = spec.architecture, at.scenario.precision_of(spec.precision)
        if (routed := (*shape, memory.popularity_cv)) not in samples:
            router = Router(name, *shape, tuple(range(settings.layers)))
            size = SampleSize(max(settings.sequences, *settings.batch_sizes), settings.tokens)
            calibrated = nearest(*shape, routings)
            samples[routed] = generated(calibrated, router, memory.popularity_cv, power, size, 1)[0]
        sample = samples[routed]
        for bench, batch in product(benches, settings.batch_sizes):
            unique = min(unique_experts(at.scenario.routing, *routed, batch), memory.top_k * batch)
            needed = requests_of([batches for batches, _ in sample.parts(batch)])
            step = (settings.layers, batch, bench.context, unique, needed, precision, chunk_mb)
            times = proxy_times(arch, bench.pace, *step)
            for share in settings.resident_shares:
                count = min(memory.experts, max(memory.top_k, slots_of(memory.experts, share)))
                found[name, bench.gpu, batch, share] = _simulated(sample, batch, count, times)
    return found


def _simulated(sample: Sample, batch: int, count: int, times: Times) -> Simulated:
    parts, training = sample.parts(batch), sample.predictions.training
    on_demand, prophet = (
        run(parts, training, replace(strategies()[name], deduplicated=True), Hierarchy((count,)), times)
        for name in ("on_demand", "prophet")
    )
    slower = [outcome.seconds / outcome.compute_seconds - 1 for outcome in (on_demand, prophet)]
    return Simulated(on_demand.hit_rate, slower[1] / slower[0] if slower[0] > 0 else 1.0)


def build(files, parameters):
    """Write table 17, the alternatives under one scenario."""
    settings = AlternativesSettings.model_validate(parameters["settings"])
    configured = read_configured(files, parameters, settings.gpus)
    link = link_named(parameters["link"], load_links(files.links))
    estimators = read_estimators(files.operators[0].parent, configured.gpus)
    benches = [Bench(each.gpu, each.spec, each, link, parameters["context"]) for each in estimators.values()]
    simulations = {}
    if configured.scenario.architecture == "published":
        routings = calibrated_routings(files.calibrated[0].parent)
        power = read_discrimination(files.discrimination)
        simulations = simulations_of(configured, benches, routings, power, parameters["copy_chunk_mb"], settings)
    rows = alternatives(configured, benches, simulations, settings, read_printed(files.printed))
    write_table(files.table, from_sources(rows, ALTERNATIVES), ALTERNATIVES)

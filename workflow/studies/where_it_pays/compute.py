"""Where expert slots pay: the hit rate that each machine needs, and the share of experts that gives it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prophet_moe import params
from prophet_moe.capacity.configured import Configured, read_configured
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.capacity.reference import evaluate, most_resident
from prophet_moe.capacity.reserve import with_reserve
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.bus import BusSpec, load_buses
from prophet_moe.catalog.link import LinkSpec, link_named, load_links
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import Estimator, estimate_step, read_estimators
from prophet_moe.offload.break_even import (
    expert_share,
    fewest_slots,
    filled_hit_curve,
    hit_rate_needed,
    link_ratio,
    slowdown,
)
from prophet_moe.offload.replay import RECORDED, Sample, run
from prophet_moe.offload.simulator.predictions import Predictions, TrainingStatistics
from prophet_moe.offload.simulator.simulation import Hierarchy, Times
from prophet_moe.offload.strategies import strategies
from prophet_moe.precision import Precision
from prophet_moe.routing.calibrated import Calibrated, calibrated_routings, nearest
from prophet_moe.routing.synthetic import Chains, Scalars, generate
from prophet_moe.routing.trace import Router
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import from_sources, write_table
from prophet_moe.units import GB, MB
from studies.where_it_pays.study import OWN, SHIPPED, WHERE_IT_PAYS, WhereItPaysSettings

REPLAY_SEED, LEARNED_SEED = 0, 1_000_000
"""Seeds of the sequences that are replayed, and of those that popularity is counted on."""
LEARNED_SEQUENCES = 64


@dataclass(frozen=True)
class Machine:
    """A GPU, and what its missing experts come over."""

    gpu: str
    bus: str
    title: str
    spec: GpuSpec
    link_gb_per_s: float
    link: LinkSpec
    basis: str

    @property
    def unified(self) -> bool:
        """Whether missing experts are in the GPU's own memory, so that there is nothing to copy."""
        return self.spec.unified_memory and self.bus == OWN


@dataclass(frozen=True)
class Curves:
    """Hit curves (E + 1,) of a model: by the routing that stands in for it, and by every published one."""

    routing: str
    of: Mapping[str, np.ndarray]

    def shares(self, hit_rate: float, top_k: int) -> tuple[float, float, float]:
        """Return the fewest slots over E for a hit rate: by the own routing, the least and the most over all."""
        found = {name: fewest_slots(curve, hit_rate, top_k) / (len(curve) - 1) for name, curve in self.of.items()}
        return found[self.routing], min(found.values()), max(found.values())


def machines_of(
    gpus: Mapping[str, GpuSpec],
    buses: Mapping[str, BusSpec],
    pinned: LinkSpec,
    settings: WhereItPaysSettings,
) -> list[Machine]:
    """Return the machines of the settings: GPUs with their own link or behind a bus; an unknown bus is a UserError."""
    found = []
    for name in settings.gpus:
        spec = gpus[name]
        known = [bus.title for bus in buses.values() if bus.gb_per_s == spec.link_gb_per_s]
        title = "unified memory" if spec.unified_memory else known[0] if known else f"{spec.link_gb_per_s:g} GB/s"
        basis = "bound" if spec.unified_memory else "measured"
        found.append(Machine(name, OWN, title, spec, spec.link_gb_per_s, pinned, basis))
    for bus, names in settings.buses.items():
        if bus not in buses:
            problem = f"unknown bus {bus!r}, expected one of {', '.join(buses)}"
            raise UserError("where_it_pays.buses", problem, "Correct it, or add it to config/buses.yaml.")
        at = buses[bus]
        found += [Machine(name, bus, at.title, gpus[name], at.gb_per_s, at.link, at.basis) for name in names]
    return found


def hit_curves(
    models: Mapping[str, ModelSpec], routings: Sequence[Calibrated], settings: WhereItPaysSettings
) -> dict[str, Curves]:
    """Return the hit curves of every model, from each of the routings; models of equal E and k share them."""
    known: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    found = {}
    for name, spec in models.items():
        moe = spec.architecture.moe
        key = moe.experts, moe.top_k
        if key not in known:
            router = Router(name, *key, ())
            chains = Chains(settings.sequences, settings.layers)
            known[key] = {
                each.curve: filled_hit_curve(
                    Scalars(**each.scalars.model_dump()), router, settings.tokens, REPLAY_SEED, chains
                )
                for each in routings
            }
        found[name] = Curves(nearest(*key, routings).curve, known[key])
    return found


def where_it_pays(
    configured: Configured,
    machines: Sequence[Machine],
    estimators: Mapping[str, Estimator],
    curves: Mapping[str, Curves],
    step: DecodeStep,
    settings: WhereItPaysSettings,
) -> pd.DataFrame:
    """Return a row per model, machine and format: what break-even needs, and what the machine holds.

    Parameters
    ----------
    configured : Configured
        Models with experts, and a scenario, which gives all parameters but the formats of weights.
    machines : sequence of Machine
        GPUs, each with what missing experts come over.
    estimators : mapping from str to Estimator
        By GPU, what estimates of its times are made of.
    curves : mapping from str to Curves
        Hit curves by model.
    step : DecodeStep
        The context of the step, and the slowdown that is claimed.
    settings : WhereItPaysSettings
        Formats of weights.

    Returns
    -------
    DataFrame
        The columns of WHERE_IT_PAYS but for those that are simulated; sizes in bytes.
    """
    rows = []
    for name, spec in configured.models.items():
        for form in (SHIPPED, *settings.formats):
            at = configured.scenario.model_copy(update={"architecture": "published", "precision": form})
            memory, precision = model_memory(spec, at), at.precision_of(spec.precision)
            for machine in machines:
                here = with_reserve(at, configured.reserves.get(machine.gpu))
                needs = dict(_needs(spec, machine, estimators[machine.gpu], curves[name], precision, step))
                holds = dict(_holds(memory, machine, here, needs))
                rows.append({"model": name, "gpu": machine.gpu, "format": form} | needs | holds)
    return pd.DataFrame(rows)


def _needs(
    spec: ModelSpec, machine: Machine, estimator: Estimator, curves: Curves, precision: Precision, step: DecodeStep
) -> Iterator[tuple[str, object]]:
    """Break-even of one sequence that decodes, in closed form, and the share of experts that reaches it."""
    arch = spec.architecture
    moe, size = arch.moe, params.expert_bytes(arch, precision)
    context, limit = min(step.context_tokens, arch.native_context), step.claimed_slowdown
    found = estimate_step(estimator, arch, 1, context, moe.top_k, precision)
    hbm, read = machine.spec.hbm_gb_per_s, len(arch.moe_layers) * moe.top_k
    rho = 1.0 if machine.unified else link_ratio(size, hbm, machine.link_gb_per_s, machine.link)
    share, most, least = (expert_share(size, read, hbm, seconds) for seconds in (found.seconds, found.low, found.high))
    way = "in_place" if machine.unified else "on_demand"
    needed = float(hit_rate_needed(limit, share, rho, way))
    prefetched = float(hit_rate_needed(limit, share, rho, "in_place" if machine.unified else "prefetched"))
    yield from zip(("num_experts", "top_k"), (moe.experts, moe.top_k), strict=True)
    yield from zip(("bus", "link", "link_basis"), (machine.bus, machine.title, machine.basis), strict=True)
    yield "unified_memory", machine.unified
    yield from zip(("context", "expert_mb"), (context, size / MB), strict=True)
    seconds = (found.seconds, found.low, found.high)
    yield from zip(("step_ms", "step_low_ms", "step_high_ms"), (1e3 * each for each in seconds), strict=True)
    yield from zip(("expert_share", "link_ratio"), (share, rho), strict=True)
    yield "cold_slowdown", float(slowdown(1, share, rho, way))
    yield "hit_rate_needed", needed
    yield "hit_rate_needed_low", float(hit_rate_needed(limit, least, rho, way))
    yield "hit_rate_needed_high", float(hit_rate_needed(limit, most, rho, way))
    yield "hit_rate_needed_prefetched", prefetched
    yield "hit_rate_needed_in_place", float(hit_rate_needed(limit, share, rho, "in_place"))
    yield "routing", curves.routing
    names = ("resident_share_needed", "resident_share_low", "resident_share_high")
    yield from zip(names, curves.shares(needed, moe.top_k), strict=True)
    yield "resident_share_prefetched", curves.shares(prefetched, moe.top_k)[0]


def _holds(memory, machine: Machine, scenario: Scenario, needs: Mapping) -> Iterator[tuple[str, object]]:
    """What the GPU's memory holds, and what the share needed leaves of it."""
    device = device_bytes(machine.spec, scenario)
    most = most_resident(memory, device, 1, scenario, needs["context"]) or 0
    slots = round(needs["resident_share_needed"] * memory.experts)
    kept = evaluate(memory, device, 1, scenario, resident=slots, predictor_kept=False)
    yield "largest_resident_share", most / memory.experts
    if most >= memory.experts:
        state = "all_fit"
    elif most < memory.top_k:
        state = "too_large"
    else:
        state = "slots" if most >= slots else "too_slow"
    yield "state", state
    yield "freed_bytes", 0 if machine.unified else kept["expert_savings_bytes"]
    yield "baseline_max_context", kept["baseline_max_context"]
    yield "slots_max_context", kept["prophet_max_context"]


def simulated(
    rows: pd.DataFrame,
    models: Mapping[str, ModelSpec],
    machines: Sequence[Machine],
    routings: Sequence[Calibrated],
    chunk_mb: float,
    settings: WhereItPaysSettings,
) -> pd.DataFrame:
    """Return the columns of `rows` that are simulated, by its index: the share needed, on demand, on generated routing.

    The simulator is given the estimated step and copy of the row. The closed form is given the hit rate that it finds,
    so that they differ by what the law leaves out: copies that go on beside experts which are computed.
    """
    chosen = rows[(rows["format"] == SHIPPED) & rows["gpu"].isin(settings.simulated) & ~rows["unified_memory"]]
    by_curve = {each.curve: each for each in routings}
    by_name = {(each.gpu, each.bus): each for each in machines}
    samples: dict[tuple[int, int, str], Sample] = {}
    found = {}
    for index, row in chosen.iterrows():
        key = row["num_experts"], row["top_k"], row["routing"]
        if key not in samples:
            samples[key] = _sample(by_curve[row["routing"]], *key[:2], settings)
        layers = len(models[row["model"]].architecture.moe_layers)
        times = _times(row, layers, by_name[row["gpu"], row["bus"]], chunk_mb, settings)
        slots, sample = Hierarchy((round(row["resident_share_needed"] * row["num_experts"]),)), samples[key]
        outcome = run(sample.parts(1), sample.predictions.training, strategies()["on_demand"], slots, times)
        ratios = 1 - outcome.hit_rate, row["expert_share"], row["link_ratio"]
        law = [float(slowdown(*ratios, way)) for way in ("on_demand", "prefetched")]
        found[index] = (outcome.hit_rate, outcome.seconds / outcome.compute_seconds, *law)
    names = ("simulated_hit_rate", "simulated_slowdown", "closed_form_slowdown", "closed_form_prefetched")
    return pd.DataFrame.from_dict(found, orient="index", columns=names, dtype=float)


def _times(row: pd.Series, layers: int, machine: Machine, chunk_mb: float, settings: WhereItPaysSettings) -> Times:
    """Return the times of a row's step: its experts at the speed of memory, and the rest spread over its MoE layers."""
    expert = row["expert_mb"] * MB / (machine.spec.hbm_gb_per_s * GB)
    other = row["step_ms"] / 1e3 / layers - row["top_k"] * expert
    copy = expert / row["link_ratio"]
    chunk = copy * min(1.0, chunk_mb / row["expert_mb"])
    return Times(np.full(settings.layers, other), np.array([0.0, expert]), (copy,), chunk)


def _sample(calibrated: Calibrated, experts: int, top_k: int, settings: WhereItPaysSettings) -> Sample:
    router = Router(calibrated.model, experts, top_k, tuple(range(settings.layers)))
    drawn = calibrated.alone(router)
    training = TrainingStatistics(generate(drawn, LEARNED_SEQUENCES, settings.tokens, LEARNED_SEED))
    replayed = generate(drawn, settings.sequences, settings.tokens, REPLAY_SEED)
    return Sample(Predictions(training, replayed), REPLAY_SEED, RECORDED, 0.0)


def build(files, parameters):
    """Write table 16, where expert slots pay."""
    settings = WhereItPaysSettings.model_validate(parameters["settings"])
    step = DecodeStep.model_validate(parameters["step"])
    names = dict.fromkeys([*settings.gpus, *(name for names in settings.buses.values() for name in names)])
    configured = read_configured(files, parameters, list(names))
    models, gpus = configured.models, configured.gpus
    pinned = link_named(step.link, load_links(files.links))
    machines = machines_of(gpus, load_buses(files.buses), pinned, settings)
    estimators = read_estimators(files.operators[0].parent, gpus)
    routings = calibrated_routings(files.calibrated[0].parent)
    rows = where_it_pays(configured, machines, estimators, hit_curves(models, routings, settings), step, settings)
    found = simulated(rows, models, machines, routings, parameters["copy_chunk_mb"], settings)
    write_table(files.table, from_sources(rows.join(found), WHERE_IT_PAYS), WHERE_IT_PAYS)

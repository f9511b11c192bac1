"""Models over several GPUs: the fewest that hold a context, with every expert resident and with expert slots."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from prophet_moe.capacity.hit_rates import HitRates, hit_rates_for, read_hit_rates
from prophet_moe.capacity.reserve import reserves_for
from prophet_moe.capacity.several_gpus import Load, Spread, spread
from prophet_moe.capacity.under_engine import NO_ENGINE, EngineChoice, read_engine
from prophet_moe.catalog import GpuSpec, ModelSpec, load_gpus
from prophet_moe.catalog.link import LinkSpec, link_named, load_links
from prophet_moe.catalog.model import load_model
from prophet_moe.hardware.estimate import Estimator, read_estimators
from prophet_moe.params.sharding import Parallelism
from prophet_moe.routing.popularity_cv import PopularityCV, pooled_for, popularity_cvs_of
from prophet_moe.serving.exchange import Exchange, exchange
from prophet_moe.serving.parallel import NODE, layouts, most_slots, with_communication
from prophet_moe.serving.parallel_times import fetch_seconds, step_times
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import Table, from_sources, write_table
from prophet_moe.units import GB
from studies.several_gpus.study import LAYOUTS, SEVERAL_GPUS, SeveralGpusSettings

MILLION = 10**6
ALL, AT_RANDOM = "all experts", "at random"
"""Hit rates that no simulation gave: those of all experts, and of experts in slots at random."""
KB = 1000


@dataclass(frozen=True)
class Machine:
    """GPUs of one kind as the study uses them."""

    name: str
    spec: GpuSpec
    estimator: Estimator
    host: LinkSpec
    """How experts are copied from the host."""
    reserve: int | None = None
    """Measured runtime reserve in bytes, where the scenario takes it."""

    def links(self, settings: SeveralGpusSettings) -> dict[str, float]:
        """Return what a GPU sends to others over every kind of link, GB/s that are reached."""
        found = {"pcie": self.host.share * self.spec.link_gb_per_s}
        if self.name in settings.nvlink_gb_per_s:
            found["nvlink"] = settings.nvlink_share * settings.nvlink_gb_per_s[self.name]
        return found | {"network": settings.network_share * settings.network_gb_per_s}

    def between(self, gpus: int, settings: SeveralGpusSettings) -> float:
        """Return what a GPU sends to the others of a group: within a machine its fast link, beyond it the network."""
        links = self.links(settings)
        return links["network"] if gpus > NODE else links.get("nvlink", links["pcie"])


@dataclass(frozen=True)
class Slots:
    """Expert slots beside a context, and what they cost in time."""

    number: int
    hit_rate: float
    """Share of the distinct experts of a layer-step that are in slots."""
    basis: str
    """What the hit rate rests on."""
    seconds: float
    """A step if every expert were there."""
    fetching: float
    """Seconds of copies from the host in a step."""

    @property
    def on_demand(self) -> float:
        """Return the seconds of a step that fetches when the router asks."""
        return self.seconds + self.fetching

    @property
    def slowdown(self) -> float:
        """Return the step on demand over the step with every expert."""
        return self.on_demand / self.seconds


@dataclass(frozen=True)
class Asked:
    """What a system must hold, on GPUs of one kind."""

    machine: Machine
    batch: int
    context: int
    settings: SeveralGpusSettings
    rates: HitRates | None = None
    """Simulated hit rates of the model at that batch."""

    def seconds(self, held: Spread) -> float:
        """Return the estimated seconds of a step with every expert resident."""
        speed = self.machine.between(held.over.experts_over, self.settings)
        traffic = exchanged(held, self.settings)
        return step_times(held, self.machine.estimator, self.batch, self.context, traffic, speed).seconds

    def slots(self, held: Spread) -> Slots:
        """Return the most slots beside the context, and what they cost in time."""
        if held.load(self.batch).context("baseline") >= self.context:
            number = held.local_experts
        else:
            number = most_slots(held, self.batch, self.context)
        hit_rate, basis = self.hit_rate(number / held.local_experts)
        fetching = fetch_seconds(held, self.machine.estimator, self.batch, hit_rate, self.machine.host)
        return Slots(number, hit_rate, basis, self.seconds(held), fetching)

    def hit_rate(self, share: float) -> tuple[float, str]:
        """Return the hit rate with a share of experts in slots, without prediction, and what it rests on."""
        if share == 1:
            return 1.0, ALL
        simulated = self.rates.at(share * self.rates.experts) if self.rates else None
        return (share, AT_RANDOM) if simulated is None else (simulated, self.rates.trace)

    def costs(self, who: str, gpus: int, longest: int) -> dict[str, float]:
        """Return what keeping a million tokens for an hour costs on GPUs that hold `longest` of every sequence."""
        hours = gpus / (self.batch * longest / MILLION)
        price = self.settings.usd_per_gpu_hour.get(self.machine.name, np.nan)
        return {f"{who}_gpu_hours": hours, f"{who}_usd": hours * price}


def exchanged(held: Spread, settings: SeveralGpusSettings) -> Exchange:
    """Return what the GPUs of a layout send one another per token, in the formats of the settings."""
    return exchange(held.spec.architecture, held.over, settings.dispatch_bytes, settings.combine_bytes)


@dataclass(frozen=True)
class Spreads:
    """One model in every layout on GPUs of one kind."""

    spec: ModelSpec
    context: int
    layouts_on: Callable[[int], list[Spread]]
    """Returns the layouts on a number of GPUs."""


def spreads_of(
    spec: ModelSpec,
    machine: Machine,
    scenario: Scenario,
    popularity_cv: float,
    settings: SeveralGpusSettings,
    engine: EngineChoice = NO_ENGINE,
) -> Spreads:
    """Return a model in every layout; those of a number of GPUs are counted when they are first asked for."""
    gpu, listed, reserve = machine.name, machine.spec, machine.reserve

    def over_gpus(over: Parallelism) -> Spread:
        here = with_communication(scenario, over, settings.communication_gib)
        return spread(spec, gpu, listed, here, over, engine, popularity_cv, reserve)

    @cache
    def layouts_on(count: int) -> list[Spread]:
        return [over_gpus(over) for over in layouts(spec.architecture, count)]

    return Spreads(spec, min(settings.context_tokens, spec.architecture.native_context), layouts_on)


def headline_row(
    spreads: Spreads, machine: Machine, batch: int, settings: SeveralGpusSettings, rates: HitRates | None = None
) -> dict[str, object]:
    """Return a row of table 18 by the sources of its columns: the fewest GPUs of one kind for one model and batch."""
    context = spreads.context
    asked = Asked(machine, batch, context, settings, rates)
    fits = {"baseline": {}, "prophet": {}}
    within = None
    for count in sorted(settings.gpu_counts):
        for held in spreads.layouts_on(count):
            load = held.load(batch)
            for who, where in fits.items():
                # With every expert in a slot nothing has to be predicted: where the baseline fits, slots do.
                if max(load.context("baseline"), load.context(who)) >= context:
                    where.setdefault(count, []).append(held)
        if within is None and count in fits["prophet"]:
            slowdowns = (asked.slots(held).slowdown for held in fits["prophet"][count])
            within = count if min(slowdowns) <= settings.slowdown_limit else None
        if fits["baseline"] and within is not None:
            break
    only = [count for count in fits["prophet"] if count not in fits["baseline"]]
    row: dict[str, object] = {
        "batch_size": batch,
        "context": context,
        "prophet_only": " ".join(map(str, only)),
        "slowdown_limit": settings.slowdown_limit,
        "gpus_within_limit": within,
        "basis": machine.estimator.basis,
    }
    row |= _baseline(fits["baseline"], asked)
    row |= _prophet(fits["prophet"], asked)
    if row["baseline_gpus"] and row["prophet_gpus"]:
        row["gpus_saved"] = row["baseline_gpus"] - row["prophet_gpus"]
    return row


def _baseline(fits: Mapping[int, list], asked: Asked) -> dict[str, object]:
    if not fits:
        return {"baseline_gpus": None, "baseline_layout": ""}
    count = min(fits)
    timed = [(asked.seconds(held), held) for held in fits[count]]
    seconds, held = min(timed, key=lambda each: each[0])
    return {
        "baseline_gpus": count,
        "baseline_layout": held.over.named,
        "baseline_step_ms": 1e3 * seconds,
        **asked.costs("baseline", count, held.load(asked.batch).context("baseline")),
    }


def _prophet(fits: Mapping[int, list], asked: Asked) -> dict[str, object]:
    if not fits:
        return {"prophet_gpus": None, "prophet_layout": "", "hit_rate_basis": ""}
    count = min(fits)
    found = [(asked.slots(held), held) for held in fits[count]]
    slots, held = min(found, key=lambda each: each[0].on_demand)
    fullest, by_rule = held.load(asked.batch, slots.number).tightest("prophet"), held.load(asked.batch)
    longest = max(by_rule.context("baseline"), by_rule.context("prophet"))
    traffic, share = exchanged(held, asked.settings), slots.number / held.local_experts
    return {
        "prophet_gpus": count,
        "prophet_layout": held.over.named,
        "slots": slots.number,
        "local_experts": held.local_experts,
        "share_resident_pct": 100 * share,
        "baseline_experts": fullest.metrics["baseline_expert_bytes"],
        "prophet_experts": fullest.metrics["prophet_expert_bytes"],
        "host_bytes": (1 - share) * held.whole.moe_layers * held.whole.experts * held.whole.expert_bytes,
        "kv_bytes_per_token_per_gpu": fullest.stage.memory.kv_bytes_per_token_growing,
        "activations": fullest.metrics["activation_bytes"],
        "hit_rate": slots.hit_rate,
        "hit_rate_basis": slots.basis,
        "prophet_step_ms": 1e3 * slots.seconds,
        "slowdown_on_demand": slots.slowdown,
        "slowdown_least": max(1.0, slots.fetching / slots.seconds),
        "all_to_all_kb_per_token": traffic.all_to_all / KB,
        "exchanged_kb_per_token": traffic.total / KB,
        **asked.costs("prophet", count, longest),
    }


def layout_rows(spreads: Spreads, machine: Machine, settings: SeveralGpusSettings) -> Iterator[dict[str, object]]:
    """Yield rows of the table of layouts by the sources of its columns: pure layouts, and the one of most context."""
    batch = settings.batch_sizes[-1]
    for count in settings.layout_counts:
        found = [(held, held.load(batch)) for held in spreads.layouts_on(count)]
        longest = max((load.context("prophet") for _, load in found), default=0)
        best = next((held for held, load in found if load.context("prophet") == longest > 0), None)
        for held, load in found:
            if is_pure(held.over) or held is best:
                yield _layout_row(held, load, machine, settings) | {"longest": held is best}


def is_pure(over: Parallelism) -> bool:
    """Return whether a layout spreads a model in one way alone: tensor, expert, data or pipeline parallel."""
    return sum(size > 1 for size in (over.tensor, over.data, over.pipeline)) <= 1


def _layout_row(held: Spread, load: Load, machine: Machine, settings: SeveralGpusSettings) -> dict[str, object]:
    over, batch, traffic = held.over, settings.batch_sizes[-1], exchanged(held, settings)
    links = machine.links(settings)
    sent = batch * traffic.total / over.gpus / GB
    states = {(True, True): "both", (False, True): "prophet_only"}
    contexts = {who: load.context(who) for who in ("baseline", "prophet")}
    fits = contexts["baseline"] >= 1, contexts["prophet"] >= 1
    fullest = load.tightest("prophet")
    return {
        **fullest.metrics,
        **{f"{who}_max_context": context for who, context in contexts.items()},
        "local_experts": held.local_experts,
        "gpu": machine.name,
        "batch_size": batch,
        "gpus": over.gpus,
        "layout": over.named,
        "tp": over.tensor,
        "dp": over.data,
        "pp": over.pipeline,
        "ep": over.expert,
        "fit_state": "both" if fits[0] else states.get(fits, "neither"),
        "kv_bytes_per_token_per_gpu": fullest.stage.memory.kv_bytes_per_token_growing,
        **{f"{who}_context_per_gpu": batch * context / over.gpus for who, context in contexts.items()},
        "sums_kb_per_token": traffic.sums / KB,
        "dispatch_kb_per_token": traffic.dispatch / KB,
        "combine_kb_per_token": traffic.combine / KB,
        "once_per_gpu_kb_per_token": traffic.once_per_gpu / KB,
        "stages_kb_per_token": traffic.stages / KB,
        **{
            f"{name}_ms": 1e3 * sent / links[name] if name in links else np.nan
            for name in ("nvlink", "pcie", "network")
        },
    }


def several_gpus(
    models: Mapping[str, ModelSpec],
    current: Mapping[str, ModelSpec],
    machines: list[Machine],
    scenario: Scenario,
    settings: SeveralGpusSettings,
    known: Mapping[str, PopularityCV],
    simulated: Mapping[int, Mapping[str, HitRates]] | None = None,
    engine: EngineChoice = NO_ENGINE,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Find the fewest GPUs of every kind for every model, and describe the layouts on the first kind.

    Parameters
    ----------
    models, current : mapping from str to ModelSpec
        Models in the formats of the scenario, and in those that they ship.
    machines : list of Machine
        Kinds of GPUs.
    scenario : Scenario
        Formats, routing, resident rule and reserves; architectures are the published ones.
    settings : SeveralGpusSettings
        Batch, context, numbers of GPUs, links and prices.
    known : mapping from str to PopularityCV
        By model; empty where the scenario's routing is not fitted.
    simulated : mapping from int to mapping from str to HitRates, optional
        Hit rates of caches without prediction by batch and model. A model without any has those of one with its E and
        k, else slots hold experts at random.
    engine : EngineChoice
        The scenario's engine.

    Returns
    -------
    tuple of DataFrame
        Table 18, and the table of layouts.
    """
    published = scenario.model_copy(update={"architecture": "published"})
    shipped = published.model_copy(update={"precision": "shipped"})
    rows, described = [], []
    top_k = {name: spec.architecture.moe.top_k for name, spec in {**models, **current}.items()}
    for specs, here in ((models, published), (current, shipped)):
        for name, spec in specs.items():
            popularity_cv = _popularity_cv(spec, known, scenario)
            formats = here.precision_of(spec.precision).named()
            about, experts = {"model": name, "formats": formats}, spec.architecture.moe.experts
            rates = {
                batch: hit_rates_for(name, experts, top_k[name], (simulated or {}).get(batch, {}), top_k)
                for batch in settings.batch_sizes
            }
            for machine in machines:
                spreads = spreads_of(spec, machine, here, popularity_cv, settings, engine)
                rows += [
                    about | {"gpu": machine.name} | headline_row(spreads, machine, batch, settings, rates[batch])
                    for batch in settings.batch_sizes
                ]
                if machine is machines[0]:
                    described += [about | row for row in layout_rows(spreads, machine, settings)]
    return _table(rows, SEVERAL_GPUS), _table(described, LAYOUTS)


def _popularity_cv(spec: ModelSpec, known: Mapping[str, PopularityCV], scenario: Scenario) -> float:
    moe = spec.architecture.moe
    if spec.name in known:
        return known[spec.name].bounded(moe.experts, moe.top_k).value
    if known:
        return pooled_for(spec.name, moe.experts, moe.top_k, known).value
    variation = scenario.routing.variation
    return 0.0 if isinstance(variation, str) else variation


def _table(rows: list[dict[str, object]], table: Table) -> pd.DataFrame:
    """Return rows as a table is declared; a column that no row tells of is empty."""
    return from_sources(pd.DataFrame(rows).reindex(columns=[column.source for column in table.columns]), table)


def build(files, parameters):
    """Write table 18 and the table of layouts."""
    scenario = Scenario.model_validate(parameters["scenario"])
    settings = SeveralGpusSettings.model_validate(parameters["several_gpus"])
    gpus = load_gpus(files.gpus, settings.gpus)
    host = link_named(parameters["link"], load_links(files.links))
    reserves = reserves_for(scenario, Path(parameters["memory"]), gpus)
    estimators = read_estimators(files.operators[0].parent, gpus)
    machines = [Machine(name, spec, estimators[name], host, reserves.get(name)) for name, spec in gpus.items()]
    models = {path.stem: load_model(path) for path in files.models}
    current = {path.stem: load_model(path) for path in files.current}
    known = popularity_cvs_of(files.variations, scenario.routing.batching)
    simulated = {batch: read_hit_rates(Path(path), batch) for path in files.frontier for batch in settings.batch_sizes}
    engine = read_engine(files.engine)
    table, described = several_gpus(models, current, machines, scenario, settings, known, simulated, engine)
    write_table(files.table, table, SEVERAL_GPUS)
    write_table(files.layouts, described, LAYOUTS)

"""The command `plan`: how to split a GPU between slots for experts and the KV cache, and each engine's flags for it."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from prophet_moe.capacity.budget import budget
from prophet_moe.capacity.engine import Serving
from prophet_moe.capacity.reference import evaluate, unique_experts
from prophet_moe.capacity.reserve import reserves_for
from prophet_moe.capacity.under_engine import EngineChoice, Held, memories_on, serving
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.engine import EngineSpec, find_engine
from prophet_moe.catalog.engine_offload import load_offload
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.catalog.names import load_names, named
from prophet_moe.cli.capacity import (
    MEMORY,
    experiment_of,
    formats_of,
    gpus_of,
    popularity_cv_of,
    scenario_of,
)
from prophet_moe.cli.catalog import ENGINES, LINKS, MODEL_NAMES, OPERATORS
from prophet_moe.cli.model import find_model
from prophet_moe.cli.terminal import console
from prophet_moe.cli.values import between, whole
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import read_estimators
from prophet_moe.hardware.profile import Profile
from prophet_moe.planning import pages
from prophet_moe.planning.advice import Alternatives, advise, tree_verdict
from prophet_moe.planning.build import (
    Machine,
    fewest_gpus,
    holds_all,
    name_for_engines,
    situation_of,
    smaller_format,
)
from prophet_moe.planning.curve import CURVES, OWN, STAND_IN, HitCurve, given_curve, simulated_curve
from prophet_moe.planning.demand import Demand
from prophet_moe.planning.demand import sentences as demand_sentences
from prophet_moe.planning.engines import commands
from prophet_moe.planning.explain import Explained, explained
from prophet_moe.planning.pages import Plan
from prophet_moe.planning.situation import CLEAN, HOSTED, LAW_OF, Situation, miss_cost
from prophet_moe.planning.solve import Split, at_limit, longest_context, split
from prophet_moe.planning.stand_in import routings_in, stand_in
from prophet_moe.precision import FORMATS, KV_FORMATS
from prophet_moe.settings.fields import LARGEST_BATCH, LARGEST_CONTEXT, LARGEST_RATIO, LARGEST_SPEED
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import GIB

if TYPE_CHECKING:
    from prophet_moe.cli.plan_arrivals import Named

OFFLOAD, ROUTINGS = Path("config/offload.yaml"), Path("resources/routing")
STUDIES, OF_ARRIVALS = ("prefill",), ("dynamic_batching",)
"""Studies whose settings a plan reads, and those that it also reads with --arrivals."""
LIMITS = (1.05, 1.2, 2.0)
"""Slowdowns that are planned for where none are given."""
SHORTEST, RATIO = 4096, 4
"""Tokens of the shortest context that is planned where none are given, and from each to the next."""
MOST = 64
"""Most contexts, or limits, of one plan."""
MOST_INSTANCES = 1024
EXAMPLES = """\
examples:
  prophet-moe plan --model Qwen3-30B-A3B --gpu RTX4090-24GB
  prophet-moe plan --model gpt-oss-120b --gpu RTX5090-32GB --context 8192 65536 --limit 1.2 2 --host-memory 96
  prophet-moe plan --model Qwen3-30B-A3B --gpu RTX4090-24GB --format q4_k --engine llama.cpp --explain
  prophet-moe plan --model Qwen3-30B-A3B --gpu A100-80GB --arrivals azure-conversation --instances 2
  prophet-moe plan --model Qwen3-30B-A3B --memory 23.5 --bandwidth 1008 --link 31.5 --curve 8:0.37,24:0.74,49:0.89

GB are 10^9 bytes, GiB 2^30. No build is needed."""


def add_command(commands: Any) -> None:
    """Add the command `plan` to the parser."""
    plan = commands.add_parser(
        "plan",
        help="split a GPU between slots for experts and the KV cache, with each engine's flags",
        description="How many experts should have a slot on the GPU beside a context? First a recommendation, then "
        "slots, hit rate, tokens per second and prefill at every context, the fewest slots within each slowdown, the "
        "frontier as a chart, what does not work, and the command line of every engine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = plan.add_argument
    which = "a model of the catalogue (see: prophet-moe models), a model's YAML file, a config.json, or its folder"
    add("--model", required=True, metavar="NAME", help=which)
    add("--gpu", nargs="+", action="extend", default=[], metavar="NAME", help="one or more GPUs of config/gpus.yaml")
    memory = "memory in GiB of a GPU that is not listed, as CUDA reports it"
    add("--memory", type=between("--memory", "GiB", 1, 10_000), metavar="GIB", help=memory)
    bandwidth = between("--bandwidth", "GB/s", 1, LARGEST_SPEED)
    add("--bandwidth", type=bandwidth, metavar="GB/S", help="its memory bandwidth; without it there are no times")
    host_link = between("--link", "GB/s", 1, LARGEST_SPEED)
    add("--link", type=host_link, metavar="GB/S", help="bandwidth of its host link in one direction, by datasheet")
    peak = between("--tflops", "TFLOP/s", 1, 100_000)
    add("--tflops", type=peak, metavar="TFLOP/S", help="its peak for 16-bit matrix products (default: unlimited)")
    context = {"nargs": "+", "action": "extend", "type": whole("--context", 1, LARGEST_CONTEXT)}
    tokens = "tokens per sequence, one or more (default: 4,096 and four times as many, up to the native context)"
    add("--context", metavar="TOKENS", help=tokens, **context)
    batch = whole("--batch", 1, LARGEST_BATCH)
    together = plan.add_mutually_exclusive_group()
    together.add_argument("--batch", type=batch, metavar="B", help="sequences that decode together (default: 1)")
    served = "in place of a batch, requests that are served: a name of resources/arrivals/, or a file (docs/plan.md)"
    together.add_argument("--arrivals", metavar="NAME", help=served)
    count = whole("--instances", 1, MOST_INSTANCES)
    add("--instances", type=count, metavar="N", help="instances of the model that share the arrivals (default: 1)")
    limit = {"nargs": "+", "action": "extend", "type": between("--limit", "", 1, LARGEST_RATIO)}
    add("--limit", metavar="RATIO", help="slowdowns to plan for (default: 1.05 1.2 2)", **limit)
    formats = "format of the weights: shipped, or a name of docs/precision.md (default: as in `capacity`)"
    add("--format", choices=["shipped", *FORMATS], metavar="FORMAT", help=formats)
    kv = f"format of the KV cache: {', '.join(KV_FORMATS)} (default: the scenario's)"
    add("--kv-format", choices=list(KV_FORMATS), metavar="FORMAT", help=kv)
    engine = "engine whose memory and law of time are planned with: a profile of config/engines/ or a YAML file"
    add("--engine", metavar="NAME", help=f"{engine} (default: the scenario's)")
    law = "law of time in place of the engine's own: a clean link, or a host that manages copies"
    add("--law", choices=[CLEAN, HOSTED], help=law)
    preset = f"way to copy from the host: a name of {LINKS} (default: decode_step.link of the configuration)"
    add("--link-preset", metavar="NAME", help=preset)
    host = "host memory that can be pinned, GiB; without it that is not checked"
    add("--host-memory", type=between("--host-memory", "GiB", 0, 100_000), metavar="GIB", help=host)
    rates = plan.add_mutually_exclusive_group()
    given = "hit rates that you know: slots a layer, or shares of its experts below 1, each with its hit rate"
    rates.add_argument("--curve", metavar="SLOTS:HIT,...", help=given)
    rates.add_argument("--trace", type=Path, metavar="FOLDER", help="a routing trace of the model, which is replayed")
    add("--scenario", metavar="NAME", help="a scenario with published architectures (default: `scenario`)")
    overlay = "overlays of config/experiment.yaml, as `snakemake --configfile` takes them"
    add("--configfile", nargs="+", action="extend", type=Path, default=[], metavar="FILE", help=overlay)
    add("--explain", action="store_true", help="print every line of the budget with its formula and its source")
    add("--json", action="store_true", help="print JSON: a list with one plan per GPU")
    plan.set_defaults(run=show_plan)


def show_plan(arguments: argparse.Namespace) -> None:
    """Print the plan for every GPU."""
    plans = plans_of(arguments, _basis_of(arguments))
    if arguments.json:
        print(json.dumps([pages.as_json(plan) for plan in plans], indent=2, allow_nan=False))
        return
    for plan in plans:
        _print(plan, arguments.explain)


@dataclass(frozen=True)
class Basis:
    """What plans take from the configuration."""

    scenario_name: str
    scenario: Scenario
    link: str
    """The name of the way to copy from the host."""
    compute_share: float
    """Share of a GPU's peak that the matrix products of a prompt reach."""
    counts: list[str]
    """Folders of counts that popularity is read from first."""
    batching: Any = None
    """Settings of the study `dynamic_batching`; None without arrivals."""


@dataclass(frozen=True)
class _Request:
    """What is planned for every GPU."""

    arguments: argparse.Namespace
    basis: Basis
    spec: ModelSpec
    scenario: Scenario
    choice: EngineChoice
    curve: HitCurve
    contexts: list[int]
    limits: list[float]
    arrivals: "Named | None"
    """What is served in place of a given batch."""

    @property
    def asked(self) -> bool:
        """Return whether the contexts are given, by the user or by arrivals."""
        return self.arguments.context is not None or self.arrivals is not None

    @property
    def engine(self) -> EngineSpec:
        """The profile of the engine."""
        return self.choice.profile

    @property
    def law(self) -> str:
        """The law of time: the one given, else that of the engine."""
        return self.arguments.law or LAW_OF.get(self.engine.engine, HOSTED)

    @property
    def link(self) -> str:
        """The name of the way to copy from the host."""
        return self.arguments.link_preset or self.basis.link


@dataclass(frozen=True)
class _Device:
    """A GPU, and what it does where its bandwidths are known."""

    name: str
    listed: GpuSpec
    machine: Machine | None
    batch: int
    """Sequences that decode together."""
    demand: Demand | None = None
    """What arrivals ask of it."""


@dataclass(frozen=True)
class _Solved:
    """A situation, with what its budget is explained by."""

    situation: Situation
    held: Held


def _basis_of(arguments: argparse.Namespace) -> Basis:
    experiment = experiment_of(arguments.configfile, STUDIES + (OF_ARRIVALS if arguments.arrivals else ()))
    name, scenario = scenario_of(arguments, experiment)
    batching = experiment.studies.dynamic_batching if arguments.arrivals else None
    share = experiment.studies.prefill.compute_share
    return Basis(name, scenario, experiment.decode_step.link, share, experiment.counts, batching)


def plans_of(arguments: argparse.Namespace, basis: Basis) -> list[Plan]:
    """Return a plan for every GPU that the arguments of the command name; what cannot be planned is a UserError."""
    spec = find_model(arguments.model)
    if spec.architecture.moe is None:
        raise UserError(spec.name, "is dense: it has no experts to plan slots for", "Use: prophet-moe capacity")
    scenario = basis.scenario
    if scenario.architecture == "reported":
        problem = f"scenario {basis.scenario_name} has the report's constants, which tell no time"
        raise UserError("--scenario", problem, "Use --scenario calibrated.")
    engine = find_engine(arguments.engine or scenario.engine, ENGINES)
    choice = EngineChoice(engine, tuple(load_names(MODEL_NAMES)))
    scenario = scenario.model_copy(update={**formats_of(arguments, spec), "engine": engine.name})
    gpus, profiles = gpus_of(arguments)
    arrivals = _arrivals(arguments, basis)
    contexts, limits = _asked(arguments, spec, arrivals)
    curve = _curve(arguments, spec)
    request = _Request(arguments, basis, spec, scenario, choice, curve, contexts, limits, arrivals)
    devices = [_device(request, gpu, listed, profiles[gpu]) for gpu, listed in gpus.items()]
    return [_plan(request, _asked_by_arrivals(request, device) if arrivals else device) for device in devices]


def _asked(arguments: argparse.Namespace, spec: ModelSpec, arrivals: "Named | None") -> tuple[list[int], list[float]]:
    """Return the contexts and the limits to plan for, ascending; none is longer than nearly all requests that come."""
    native = spec.architecture.native_context
    contexts = arguments.context
    if contexts is None:
        longest = min(native, arrivals.context) if arrivals else native
        contexts = [longest]
        while (shorter := SHORTEST * RATIO ** (len(contexts) - 1)) < longest:
            contexts.append(shorter)
    limits = arguments.limit or LIMITS
    for option, values in (("--context", contexts), ("--limit", limits)):
        if len(values) > MOST:
            raise UserError(option, f"got {len(values)} values, expected at most {MOST}", "Give fewer.")
    return sorted(set(contexts)), sorted(set(limits))


def _arrivals(arguments: argparse.Namespace, basis: Basis) -> "Named | None":
    if arguments.arrivals is None:
        if arguments.instances is not None:
            raise UserError("--instances", "shares arrivals, and none are given", "Give --arrivals too.")
        return None
    # Only arrivals need Numba, whose import takes a while.
    from prophet_moe.cli.plan_arrivals import arrivals_named

    return arrivals_named(arguments.arrivals, basis.batching.seconds, basis.batching.seed)


def _curve(arguments: argparse.Namespace, spec: ModelSpec) -> HitCurve:
    """Return the hit rates: given, replayed, or those of the calibrated routing that stands in for the model."""
    moe = spec.architecture.moe
    top_k = min(moe.top_k, moe.experts)
    if arguments.curve:
        return given_curve(arguments.curve, moe.experts, top_k)
    if arguments.trace:
        # Only a replay needs Numba, whose import takes a while.
        from prophet_moe.planning.traced import traced_curve

        return traced_curve(arguments.trace, moe.experts, top_k)
    routing, own = stand_in(spec.name, moe.experts, top_k, routings_in(ROUTINGS))
    return simulated_curve(CURVES, routing, moe.experts, top_k, OWN if own else STAND_IN)


def _device(request: _Request, gpu: str, listed: GpuSpec, profile: Profile | None) -> _Device:
    if profile is None:
        return _Device(gpu, listed, None, request.arguments.batch or 1)
    link = link_named(request.link, load_links(LINKS), "--link-preset")
    estimator = read_estimators(OPERATORS, {gpu: listed})[gpu]
    machine = Machine(estimator, profile, link, request.basis.compute_share)
    return _Device(gpu, listed, machine, request.arguments.batch or 1)


def _asked_by_arrivals(request: _Request, device: _Device) -> _Device:
    """Return the GPU with the batch that comes of the arrivals on it."""
    from prophet_moe.cli.plan_arrivals import Planned, demand

    if device.machine is None:
        raise UserError("--arrivals", f"need times, which {device.name} has none of", "Give --bandwidth and --link.")
    own, scenario = request.basis.batching, request.scenario
    scheduler = request.engine if request.engine.scheduler.sequences > 1 else find_engine(own.engine, ENGINES)
    moe, cv = request.spec.architecture.moe, _popularity_cv(request, scenario)

    def unique(tokens: Sequence[int]) -> list[float]:
        found = [unique_experts(scenario.routing, moe.experts, moe.top_k, cv, each) for each in tokens]
        return [min(each, moe.top_k * count) for each, count in zip(found, tokens, strict=True)]

    def plan(batch: int) -> Planned:
        s = _solved(request, replace(device, batch=batch), scenario).situation
        splits = [split(s, context) for context in request.contexts]
        context = _planned(splits, s, request.asked)
        return Planned(s, next(each for each in splits if each.context == context), unique)

    asked = replace(_serving(request, device, scenario), engine=scheduler)
    served = demand(
        request.arrivals,
        asked,
        device.machine.estimator,
        plan,
        request.arguments.instances or 1,
        device.machine.compute_share,
        own.first_token_s,
    )
    return replace(device, batch=served.batch, demand=served)


def _serving(request: _Request, device: _Device, scenario: Scenario) -> Serving:
    own = named(request.spec.name, list(request.choice.names))
    return serving(request.spec, device.name, device.listed, scenario, request.engine, own)


def _plan(request: _Request, device: _Device) -> Plan:
    spec, limits = request.spec, request.limits
    solved = _solved(request, device, request.scenario)
    s = solved.situation
    splits = [split(s, context) for context in request.contexts]
    planned = _planned(splits, s, request.asked)
    advice = advise(s, planned, limits, _alternatives(request, device, s, planned))
    found = next(each for each in splits if each.context == planned)
    total = device.listed.memory_visible_gib * GIB
    told = commands(found, name_for_engines(spec), s.expert_bytes, total, s.room_bytes) if found.works else []
    return Plan(
        model=spec.name,
        gpu=device.name,
        scenario=request.basis.scenario_name,
        engine=request.engine.name,
        formats=request.scenario.precision_of(spec.precision).named(),
        situation=s,
        law=request.law,
        splits=tuple(splits),
        limits=tuple(at_limit(s, context, limit) for limit in limits for context in request.contexts),
        longest=tuple((limit, longest_context(s, limit)) for limit in limits),
        advice=advice,
        tree=tree_verdict(s, advice),
        commands=tuple(told),
        lines=tuple(_lines(request, device, solved, found)),
        demand=device.demand,
    )


def _planned(splits: list[Split], s: Situation, asked: bool) -> int:
    """Return the context that the recommendation is for: the longest that is asked for, else the longest that works."""
    known = [each for each in splits if each.context <= s.native_context and (asked or each.works)]
    return max(known, key=lambda each: each.context, default=splits[0]).context


def _alternatives(request: _Request, device: _Device, s: Situation, context: int) -> Alternatives:
    """Return what else would hold every expert, where they do not fit as they are."""
    if holds_all(s, context):
        return Alternatives(None, None)

    def fits(format: str) -> bool:
        quantised = request.scenario.model_copy(update={"precision": format})
        return holds_all(_solved(request, device, quantised).situation, context)

    asked = _serving(request, device, request.scenario)
    smaller = smaller_format(request.scenario.precision_of(request.spec.precision), fits)
    return Alternatives(smaller, fewest_gpus(asked, s.batch, context))


def _solved(request: _Request, device: _Device, scenario: Scenario) -> _Solved:
    """Return the situation of a scenario, under the engine."""
    spec, listed, machine, batch = request.spec, device.listed, device.machine, device.batch
    gpus, known = {device.name: listed}, {device.name: listed} if device.name in request.arguments.gpu else {}
    reserves = reserves_for(scenario, MEMORY, known)
    held = memories_on({spec.name: spec}, gpus, scenario, request.choice, reserves)[spec.name, device.name]
    memory = held.memory
    # One sequence needs k, whatever the popularity, whose reading takes a while.
    cv = 0.0 if batch == 1 else _popularity_cv(request, scenario)
    unique = unique_experts(scenario.routing, memory.experts, memory.top_k, cv, batch)
    cost = None
    if machine:
        presets = load_offload(OFFLOAD)
        clean, hosted, link = presets[CLEAN], presets[HOSTED], machine.link
        cost = miss_cost(memory.expert_bytes, listed.link_gb_per_s, link, clean, hosted, request.law)
    given = request.arguments.host_memory
    s = situation_of(
        memory=memory,
        arch=spec.architecture,
        precision=scenario.precision_of(spec.precision),
        scenario=held.scenario,
        device_bytes=held.device_bytes,
        batch=batch,
        unique=min(unique, memory.top_k * batch),
        curve=request.curve,
        cost=cost,
        machine=machine,
        host_bytes=0.0 if listed.unified_memory else None if given is None else given * GIB,
    )
    return _Solved(s, held)


def _popularity_cv(request: _Request, scenario: Scenario) -> float:
    found = popularity_cv_of(request.spec, scenario, request.basis.counts)
    return found.value if found else scenario.routing.variation


def _lines(request: _Request, device: _Device, solved: _Solved, found: Split) -> list[Explained]:
    """Return the budget of the GPU, of the engine and of times, line by line."""
    s, held, spec = solved.situation, solved.held, request.spec
    metrics = evaluate(held.memory, held.device_bytes, s.batch, held.scenario)
    precision = request.scenario.precision_of(spec.precision)
    lines = budget(spec.architecture, precision, held.memory, held.scenario, metrics, held.device_bytes, s.batch)
    given = request.arguments.host_memory is not None
    sources = {
        "host": "--host-memory" if given else "--host-memory is not given: not checked",
        "resident": f"{OPERATORS}, {device.machine.estimator.basis}" if device.machine else "",
        "link": f"{request.link} of {LINKS}, {request.law} of {OFFLOAD}",
        "law": f"{request.law} of {OFFLOAD}",
    }
    return explained(s, found, lines, request.engine, held.budget, sources)


def _print(plan: Plan, explain: bool) -> None:
    terminal = console()
    title = f"{plan.model} on {plan.gpu}, batch {plan.situation.batch:,}, engine {plan.engine} ({plan.scenario})"
    terminal.rule(title, align="left", style="default")
    asked = demand_sentences(plan.demand) if plan.demand else ()
    for sentence in (*asked, *pages.sentences(plan)):
        terminal.print(sentence, highlight=False, markup=False)
    for what, sentence in pages.rests_on(plan).items():
        terminal.print(f"  {what}: {sentence}", highlight=False, markup=False)
    names = ("context", "slots", "a layer", "resident", "hit rate", "tok/s", "slowdown", "prefill")
    terminal.print(_table("the most slots beside each context", names, pages.context_rows(plan)))
    names = ("slowdown", "context", "fewest slots", "that fit", "kept", "resident", "hit rate", "tok/s")
    terminal.print(_table("the fewest slots within each slowdown", names, pages.limit_rows(plan)))
    for limit, context in plan.longest:
        if context:
            terminal.print(
                f"Within {limit:g}: the longest context is {context:,} tokens.", highlight=False, markup=False
            )
    if plan.situation.timed:
        terminal.print("context against slowdown, with the most slots", highlight=False, markup=False)
        for line in pages.chart(plan.splits, sorted({limit for limit, _ in plan.longest})):
            terminal.print(line, highlight=False, markup=False)
    for line in pages.failures(plan):
        terminal.print(line, highlight=False, markup=False)
    heading = "and what to look at afterwards:" if plan.commands else "none: no engine can keep that split."
    terminal.print(f"Commands at {plan.advice.context:,} tokens, {heading}", highlight=False)
    for each in plan.commands:
        terminal.print(f"  {each.engine}: {each.command or 'none'}", highlight=False, markup=False, soft_wrap=True)
        note = f" ({each.note})" if each.note else ""
        terminal.print(f"    counts {each.unit}{note}. {each.counter}", highlight=False, markup=False, soft_wrap=True)
        if explain:
            terminal.print(f"    source: {each.source}", highlight=False, markup=False, soft_wrap=True)
    if explain:
        names = ("line", "value", "formula", "source")
        rows = [(each.what, each.value, each.formula, each.source) for each in plan.lines]
        terminal.print(_table("every line with its formula and its source", names, rows, right=1))


def _table(title: str, names: tuple[str, ...], rows: list[tuple[str, ...]], right: int | None = None) -> Table:
    table = Table(*names, title=title, title_justify="left")
    for place, column in enumerate(table.columns):
        column.justify = "right" if right is None or place == right else "left"
    for row in rows:
        table.add_row(*row)
    return table

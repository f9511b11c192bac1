"""The command `capacity`: does a model fit a GPU, with what context, and what does a decode step then take."""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.table import Table

from prophet_moe import params
from prophet_moe.capacity.answer import Question, Step, answer, verdict
from prophet_moe.capacity.engine import EngineBudget
from prophet_moe.capacity.hit_rates import HitRates, hit_rates_for, read_hit_rates
from prophet_moe.capacity.memory import covers
from prophet_moe.capacity.placement import unplaceable
from prophet_moe.capacity.reserve import reserves_for
from prophet_moe.capacity.under_engine import EngineChoice, memories_on
from prophet_moe.catalog import GpuSpec, ModelSpec, load_gpus, load_models, model_names
from prophet_moe.catalog.engine import find_engine
from prophet_moe.catalog.link import link_named, load_links
from prophet_moe.catalog.names import load_names
from prophet_moe.cli.capacity_gpus import (
    Asked,
    add_parallelism,
    budget_table,
    reserve_told,
    routing_told,
    several,
    show_several,
    without_nan,
)
from prophet_moe.cli.catalog import ENGINES, EXPERIMENT, GPUS, HARDWARE, LINKS, MODEL_NAMES, MODELS, OPERATORS
from prophet_moe.cli.model import find_model
from prophet_moe.cli.terminal import console
from prophet_moe.cli.values import between, whole
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import StepEstimate, read_estimators
from prophet_moe.hardware.profile import TFLOP, Profile, read_profile
from prophet_moe.precision import FORMATS, KV_FORMATS
from prophet_moe.routing.popularity_cv import PopularityCV, pooled_for, read_popularity_cvs
from prophet_moe.settings.experiment import Experiment, resolve
from prophet_moe.settings.fields import LARGEST_BATCH, LARGEST_CONTEXT, LARGEST_SPEED
from prophet_moe.settings.scenario import IDEAL, Scenario
from prophet_moe.study import load_studies
from prophet_moe.units import GB, GIB, MB
from prophet_moe.validation import merged, read_yaml

STYLE, MEMORY = Path("config/style.yaml"), Path("resources/memory")
POPULARITY_CVS, FITS = Path("tables/data/routing_variation.csv"), Path("tables/data/routing_law_fits.csv")
FRONTIER, TRACES = Path("tables/data/frontier.csv"), Path("resources/traces")
EXAMPLES = """\
examples:
  prophet-moe capacity --model Mixtral-8x7B --gpu A100-80GB
  prophet-moe capacity --model Qwen3-235B --gpu A100-80GB H100-80GB --batch 1 16 --context 8192
  prophet-moe capacity --model DeepSeek-MoE-16B --memory 23.5 --bandwidth 1008 --link 31.5
  prophet-moe capacity --model checkpoints/gpt-oss-120b/config.json --gpu H100-80GB --format shipped --kv-format fp8
  prophet-moe capacity --model Qwen3-30B-A3B --gpu H100-80GB --engine vllm-0.10
  prophet-moe capacity --model DeepSeek-V3-671B --gpu H200-141GB --tp 8 --format shipped --batch 16
  prophet-moe capacity --model DBRX-132B --gpu H100-80GB --configfile config/overlays/int8_weights.yaml --scenario int8

GB are 10^9 bytes, GiB 2^30. No build is needed."""
DESCRIBE_ANOTHER = "Or describe one that is not listed: --memory GIB --bandwidth GB/S --link GB/S"
"""The advice for a GPU that config/gpus.yaml does not list."""
NUMBERS = {
    "resident_experts": ("experts per MoE layer that Prophet keeps on the GPU", ""),
    "unique_experts": ("distinct experts of a layer that the batch uses, mean", ""),
    "dedup_factor": ("experts of a layer over those the batch uses", ""),
    "request_dedup": ("share of the batch's choices that name an expert again", ""),
    "expert_savings_pct": ("experts that need not be on the GPU", "%"),
    "baseline_expert_bytes": ("experts, all resident", "GB"),
    "prophet_expert_bytes": ("experts, Prophet's set", "GB"),
    "expert_savings_bytes": ("experts, saved by Prophet", "GB"),
    "staging_bytes": ("Prophet's staging buffer", "GB"),
    "activation_bytes": ("activations", "GB"),
    "fixed_bytes": ("non-expert weights, activations, runtime", "GB"),
    "kv_cache_bytes": ("KV cache of the batch at the native context", "GB"),
    "baseline_total_bytes": ("total, all experts resident", "GB"),
    "prophet_total_bytes": ("total, Prophet's set", "GB"),
    "baseline_free_bytes": ("free for the KV cache, all experts resident", "GB"),
    "prophet_free_bytes": ("free for the KV cache, Prophet's set", "GB"),
    "baseline_fits": ("fits with all experts resident", ""),
    "prophet_fits": ("fits with Prophet's set", ""),
    "baseline_max_context": ("longest context by memory, all experts resident", "tokens"),
    "prophet_max_context": ("longest context by memory, Prophet's set", "tokens"),
    "baseline_native_context": ("the same, at most the native context, all experts resident", "tokens"),
    "prophet_native_context": ("the same, at most the native context, Prophet's set", "tokens"),
    "kv_increase_tokens": ("context gained by memory", "tokens"),
    "kv_extension_factor": ("context by memory, Prophet's set over all resident", ""),
}
"""Names of the numbers of the capacity model in tables, and their units."""


def add_command(commands: Any) -> None:
    """Add the command `capacity` to the parser."""
    capacity = commands.add_parser(
        "capacity",
        help="does a model fit a GPU, how long a context, and what a decode step takes",
        description="Does a model fit a GPU with every expert resident, with Prophet's resident set, and with how long "
        "a context? What does a decode step then take? First the answer in words, then the numbers.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = capacity.add_argument
    which = "a model of the catalogue (see: prophet-moe models), a model's YAML file, a config.json, or its folder"
    add("--model", required=True, metavar="NAME", help=which)
    formats = "format of the weights: shipped, the one that the model's authors ship, or a name of docs/precision.md "
    formats += "(default: the scenario's for the models of the report, shipped for all others)"
    add("--format", choices=["shipped", *FORMATS], metavar="FORMAT", help=formats)
    kv = f"format of the KV cache: {', '.join(KV_FORMATS)} (default: the scenario's)"
    add("--kv-format", choices=list(KV_FORMATS), metavar="FORMAT", help=kv)
    add("--gpu", nargs="+", action="extend", default=[], metavar="NAME", help="one or more GPUs of config/gpus.yaml")
    batches = {"nargs": "+", "action": "extend", "type": whole("--batch", 1, LARGEST_BATCH)}
    add(
        "--batch",
        metavar="B",
        **batches,
        help="batch size: sequences that decode together, one or more numbers (default: 1)",
    )
    context = whole("--context", 1, LARGEST_CONTEXT)
    add("--context", type=context, metavar="TOKENS", help="tokens per sequence: check whether this context fits")
    profile = "serving engine: a profile of config/engines/ (docs/engines.md) or a YAML file (default: the scenario's)"
    add("--engine", metavar="NAME", help=profile)
    add_parallelism(capacity)
    add(
        "--scenario",
        metavar="NAME",
        help="a scenario of config/experiment.yaml or of an overlay (default: `scenario` there)",
    )
    overlay = "overlays of config/experiment.yaml, as `snakemake --configfile` takes them"
    add("--configfile", nargs="+", action="extend", type=Path, default=[], metavar="FILE", help=overlay)
    memory = "memory in GiB of a GPU that is not listed, as CUDA reports it (nvidia-smi's MiB / 1024)"
    add("--memory", type=between("--memory", "GiB", 1, 10_000), metavar="GIB", help=memory)
    bandwidth = between("--bandwidth", "GB/s", 1, LARGEST_SPEED)
    add("--bandwidth", type=bandwidth, metavar="GB/S", help="its memory bandwidth; with --link, times are computed too")
    link = "bandwidth of its host link in one direction (PCIe 4.0 x16: 31.5)"
    add("--link", type=between("--link", "GB/s", 1, LARGEST_SPEED), metavar="GB/S", help=link)
    peak = "its peak for 16-bit matrix products (default: unlimited, so arithmetic takes no time)"
    add("--tflops", type=between("--tflops", "TFLOP/s", 1, 100_000), metavar="TFLOP/S", help=peak)
    add("--json", action="store_true", help="print JSON: a list with one entry per GPU and batch")
    capacity.set_defaults(run=show_capacity)


def show_capacity(arguments: argparse.Namespace) -> None:
    """Print the answer for every requested GPU and batch size: words first, then numbers."""
    if several(arguments):
        return show_several(arguments, _asked(arguments))
    answers = list(_answers(_asked(arguments), arguments))
    if arguments.json:
        print(json.dumps([_as_json(found, rests) for found, rests in answers], indent=2, allow_nan=False))
        return
    terminal = console()
    for found, rests in answers:
        title = f"{found['model']} on {found['gpu']}, batch {found['batch']:,} ({found['scenario']})"
        terminal.rule(title, align="left", style="default")
        for sentence in verdict(found):
            terminal.print(sentence, highlight=False, markup=False)
        for what, sentence in rests.items():
            terminal.print(f"  {what}: {sentence}", highlight=False, markup=False)
        if found["engine_budget"]:
            terminal.print(_engine_table(found["engine"], found["engine_budget"]))
        if found["budget"]:
            terminal.print(budget_table(found["budget"]))
        terminal.print(_table(found["metrics"]))


def _asked(arguments: argparse.Namespace) -> Asked:
    """What the command line asks, read and checked: the model, the scenario and its engine, the GPUs."""
    experiment = experiment_of(arguments.configfile)
    spec = find_model(arguments.model)
    name, scenario = scenario_of(arguments, experiment)
    engine = find_engine(arguments.engine or scenario.engine, ENGINES)
    if engine.name != IDEAL and scenario.architecture == "reported":
        problem = f"got {engine.name}, expected {IDEAL} with a scenario of the report's constants"
        raise UserError("--engine", problem, "Use --scenario calibrated.")
    scenario = scenario.model_copy(update={**formats_of(arguments, spec), "engine": engine.name})
    gpus, profiles = gpus_of(arguments)
    choice = EngineChoice(engine, tuple(load_names(MODEL_NAMES)))
    if not several(arguments):
        for model, problem in unplaceable({spec.name: spec}, gpus, scenario, choice).items():
            raise UserError(model, problem, "Choose a larger GPU or fewer weight bits.")
    if not covers(scenario, spec):
        raise UserError(spec.name, "the report does not cover it", "Use --scenario calibrated.")
    popularity_cv = popularity_cv_of(spec, scenario, experiment.counts) if spec.architecture.moe else None
    listed = {gpu: listed for gpu, listed in gpus.items() if gpu in arguments.gpu}
    return Asked(
        spec,
        name,
        scenario,
        choice,
        gpus,
        profiles,
        reserves_for(scenario, MEMORY, listed),
        tuple(dict.fromkeys(arguments.batch or [1])),
        popularity_cv,
        popularity_cv.value if popularity_cv else scenario.given_popularity_cv,
        experiment.decode_step.context_tokens,
        link_named(experiment.decode_step.link, load_links(LINKS)),
    )


def _answers(asked: Asked, arguments: argparse.Namespace) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield the answer for every GPU and batch size, and what it is based on."""
    spec, scenario, gpus = asked.spec, asked.scenario, asked.gpus
    simulated = spec.architecture.moe and scenario.architecture == "published"
    rates = {batch: _rates(spec, batch) if simulated else None for batch in asked.batches}
    for (_, gpu), held in memories_on({spec.name: spec}, gpus, scenario, asked.engine, asked.reserves).items():
        listed, profile = gpus[gpu], asked.profiles[gpu]
        for batch in asked.batches:
            question = Question(
                spec.name,
                gpu,
                batch,
                spec.architecture,
                scenario.precision_of(spec.precision),
                replace(held.memory, popularity_cv=asked.variation),
                held.device_bytes,
                held.scenario,
                profile,
                arguments.context or asked.step_context,
                arguments.context,
                rates[batch],
                listed.unified_memory,
                read_estimators(OPERATORS, {gpu: listed})[gpu] if profile and OPERATORS.exists() else None,
                asked.link,
            )
            found = answer(question) | {"scenario": asked.name, "engine": scenario.engine}
            found["engine_budget"] = held.budget
            yield found, _rests_on(spec, question, asked.popularity_cv, reserve_told(held, asked))


def experiment_of(overlays: list[Path], only: Sequence[str] | None = None) -> Experiment:
    """Return the settings of the project with overlays over them, as the workflow merges them.

    With `only`, looks and the settings of other studies are left out, whose checks take longer than an answer.
    """
    config: dict[str, Any] = {}
    files = [EXPERIMENT, *([STYLE] if only is None else []), *overlays]
    for file in files:
        config = merged(config, read_yaml(file))
    if only is None:
        studies = load_studies()
    else:
        studies = {name: import_module(f"studies.{name}.study").STUDY for name in only}
        given = config.get("studies")
        kept = {name: given[name] for name in only if name in given} if isinstance(given, dict) else given
        config = {**{key: value for key, value in config.items() if key != "style"}, "studies": kept}
    settings = {name: study.settings for name, study in studies.items()}
    engines = model_names(ENGINES)
    return resolve(config, files, model_names(MODELS), load_gpus(GPUS), settings, engines=engines).experiment


def scenario_of(arguments: argparse.Namespace, experiment: Experiment) -> tuple[str, Scenario]:
    """Return the scenario that a command line names, or that of the configuration, and its name."""
    name = experiment.scenario if arguments.scenario is None else arguments.scenario
    if name not in experiment.scenarios:
        known = ", ".join(experiment.scenarios)
        advice = "Correct it, or name the overlay that has it: --configfile FILE"
        raise UserError("--scenario", f"unknown scenario {name!r}, expected one of {known}", advice)
    return name, experiment.scenarios[name]


def formats_of(arguments: argparse.Namespace, spec: ModelSpec) -> dict[str, str]:
    """Return the formats that the command line gives, or that models beside those of the report are shipped in."""
    given = {"precision": arguments.format, "kv_format": arguments.kv_format}
    if spec.reported is None:
        given["precision"] = arguments.format or "shipped"
    return {key: value for key, value in given.items() if value}


def gpus_of(arguments: argparse.Namespace) -> tuple[dict[str, GpuSpec], dict[str, Profile | None]]:
    """Return the requested GPUs, and the performance profile of each where it is known."""
    gpus = load_gpus(GPUS, list(dict.fromkeys(arguments.gpu)), DESCRIBE_ANOTHER)
    profiles: dict[str, Profile | None] = {name: read_profile(HARDWARE, name, spec) for name, spec in gpus.items()}
    speeds = {"--bandwidth": arguments.bandwidth, "--link": arguments.link, "--tflops": arguments.tflops}
    given = [option for option, speed in speeds.items() if speed is not None]
    if arguments.memory is None:
        if given:
            raise UserError(given[0], "describes a GPU that is not listed", "Give its memory too: --memory GIB")
        if not gpus:
            expected = "expected a GPU of config/gpus.yaml"
            raise UserError("--gpu", f"missing, {expected}", f"Name one. {DESCRIBE_ANOTHER}")
        return gpus, profiles
    if given and (arguments.bandwidth is None or arguments.link is None):
        raise UserError(given[0], "is not enough to compute times", "Give both --bandwidth and --link.")
    name = f"GPU of {arguments.memory:g} GiB"
    nominal = arguments.memory * GIB / GB
    peak = math.inf if arguments.tflops is None else arguments.tflops
    speeds = {"hbm_gb_per_s": arguments.bandwidth, "link_gb_per_s": arguments.link, "peak_tflops": peak}
    gpus[name] = GpuSpec.model_construct(memory_nominal_gb=nominal, memory_visible_gib=arguments.memory, **speeds)
    flops = peak * TFLOP
    speed = Profile(name, "datasheet", arguments.bandwidth * GB, arguments.link * GB, flops) if given else None
    return gpus, profiles | {name: speed}


def popularity_cv_of(spec: ModelSpec, scenario: Scenario, counts: list[str]) -> PopularityCV | None:
    """Return the popularity CV of the model where the scenario's routing is fitted: its own, else the pooled one.

    `counts` names the folders of counts that come first where the scenario's popularity CV is `counts`.
    """
    if not scenario.fits_routing:
        return None
    if scenario.fits_published:
        return _published(spec, scenario.routing.text)
    moe, batching = spec.architecture.moe, scenario.routing.batching
    if scenario.fits_counts and (own := _counted(spec, counts)):
        return own
    known = read_popularity_cvs(POPULARITY_CVS, batching) if POPULARITY_CVS.exists() else {}
    if spec.name in known:
        return known[spec.name].bounded(moe.experts, moe.top_k)
    return pooled_for(spec.name, moe.experts, moe.top_k, known) or _pooled_afresh(spec, batching)


def _published(spec: ModelSpec, text: str) -> PopularityCV:
    """The popularity CV by counts of published models: the model's own, else the pooled one."""
    # Only published counts need SciPy, whose import takes a while.
    from prophet_moe.routing.published import PUBLISHED, read_balancing, read_published
    from prophet_moe.routing.published_cv import popularity_cv

    moe, balancing = spec.architecture.moe, read_balancing().get(spec.name, "unknown")
    found = popularity_cv(spec.name, moe.experts, moe.top_k, read_published(), balancing, text)
    if found is None:
        raise UserError(str(PUBLISHED), "holds no counts of whole traffic", f"Restore it: git checkout {PUBLISHED}")
    return found


def _counted(spec: ModelSpec, counts: list[str]) -> PopularityCV | None:
    """The popularity CV fitted to the model's own counts; None where none of the folders has any."""
    # Only counts need Numba and SciPy, whose imports take half a second.
    from prophet_moe.routing.counted_law import own_popularity_cvs
    from prophet_moe.routing.datasets import router_in

    own = own_popularity_cvs([TRACES / name for name in counts], {spec.name: router_in(spec.name, spec)})
    return next((popularity_cv for popularity_cv in own if popularity_cv.model == spec.name), None)


def _pooled_afresh(spec: ModelSpec, batching: str) -> PopularityCV:
    """The pooled popularity CV from the fits to all traces."""
    # Only a table that is missing needs pandas and Numba, whose imports take half a second.
    from prophet_moe.routing import law_schema
    from prophet_moe.routing.cross_model import popularity_cvs
    from prophet_moe.tables import read_table

    if not FITS.exists():
        raise UserError(str(FITS), "no such file", "Get it back: git checkout tables/data, or build it: snakemake")
    moe = spec.architecture.moe
    fits = read_table(FITS, law_schema.FITS)
    (found,) = popularity_cvs(fits, {spec.name: (moe.experts, moe.top_k)}, batching)
    if not math.isfinite(found.value):
        raise UserError(str(FITS), "holds no fit to pool", "Rebuild it: rm that file, then snakemake --cores 8")
    return found


def _rates(spec: ModelSpec, batch: int) -> HitRates | None:
    """Simulated hit rates of the model at this batch, or of another of the catalogue with the same E and k."""
    moe, known = spec.architecture.moe, read_hit_rates(FRONTIER, batch)
    alike = [name for name, rates in known.items() if rates.experts == moe.experts and name != spec.name]
    alike = [] if spec.name in known else [name for name in alike if name in model_names(MODELS)]
    top_k_of = {name: found.architecture.moe.top_k for name, found in load_models(MODELS, alike).items() if alike}
    return hit_rates_for(spec.name, moe.experts, moe.top_k, known, top_k_of)


def _rests_on(spec: ModelSpec, question: Question, popularity_cv: PopularityCV | None, reserve: str) -> dict[str, str]:
    """What the answer rests on, a sentence each."""
    scenario, rests = question.scenario, {}
    if scenario.architecture == "reported":
        return {"memory": "constants that the report prints or that were fitted to its results; it gives no times"}
    rests["memory"] = f"counted from the architecture, {question.precision.named()}; {reserve}"
    memory = question.memory
    cache = f"{memory.kv_bytes_per_token_growing:,} B per token and sequence"
    if memory.kv_bytes_bounded:
        cache += f" (growing part), and {memory.kv_bytes_bounded / MB:,.1f} MB in full windows (bounded part)"
    if memory.state_bytes_per_sequence:
        cache += f"; recurrent state of {memory.state_bytes_per_sequence / MB:,.1f} MB per sequence"
    rests["KV cache"] = cache
    if spec.left_out:
        rests["left out"] = "; ".join(spec.left_out)
    rests["routing"] = routing_told(spec, scenario, popularity_cv)
    if question.profile is None:
        rests["times"] = "none, because --bandwidth and --link are missing"
    elif not question.profile.optimistic:
        rests["times"] = f"measured on {question.gpu} ({HARDWARE / question.gpu})"
    elif question.estimator:
        basis = "operators on that GPU" if question.estimator.operators else "servers on other GPUs, by bandwidth"
        rests["times"] = f"estimated from {basis} and a constant per layer that others measured (docs/times.md)"
    else:
        rests["times"] = "from datasheet peaks: each is a lower bound, their ratio is not a bound"
    if question.profile is not None and spec.architecture.moe:
        rests["hit rates"] = _rates_rest_on(question.rates, spec.name, question.batch)
    deviation = params.deviation_from_published(spec)
    if abs(deviation) > params.NOTED_DEVIATION:
        rests["note"] = f"the counted parameters are {deviation:+.1%} off the total that its authors state"
    return rests


def _rates_rest_on(rates: HitRates | None, model: str, batch: int) -> str:
    if rates is None:
        return f"none: {FRONTIER} has no model of this E and k at batch {batch:,}"
    whose = "" if rates.model == model else f" of {rates.model}, which has the same E and k"
    return f"simulated without prediction on {rates.trace} routing ({FRONTIER}){whose}"


def _engine_table(name: str, found: EngineBudget) -> Table:
    """The budget of an engine with every expert resident: what it holds, how that comes about, and its term."""
    table = Table("memory (GiB)", "bytes", "how", "term", title=f"{name}, every expert resident")
    table.columns[1].justify = "right"
    for line in found.lines:
        table.add_row(line.what, f"{line.bytes / GIB:,.3f}", line.formula, line.term)
    table.add_section()
    table.add_row("share that the engine may use", f"{found.usable_bytes / GIB:,.3f}", "", "scheduler.memory_share")
    pool = f"{found.pool_tokens:,} tokens of one sequence, {found.kv_bytes_per_token:,.0f} B each"
    table.add_row("KV pool", f"{found.pool_bytes / GIB:,.3f}", pool, "scheduler.pool")
    table.add_row("fits" if found.fits else "does not fit", "", found.why, "", style="bold")
    return table


def _engine_json(found: EngineBudget | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _table(metrics: Mapping[str, Any]) -> Table:
    table = Table("number", "value", "unit", "name in JSON")
    table.columns[1].justify = "right"
    for name, (label, unit) in NUMBERS.items():
        value = metrics[name] / GB if unit == "GB" else metrics[name]
        table.add_row(label, _printed(value), unit, _json_name(name))
    return table


def _printed(value: float | int | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if math.isnan(value):
        return "undefined"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 100 else f"{value:,.1f}"


def _json_name(name: str) -> str:
    return f"{name.removesuffix('_bytes')}_gb" if name.endswith("_bytes") else name


def _as_json(found: Mapping[str, Any], rests: Mapping[str, str]) -> dict[str, Any]:
    """An answer as JSON: sizes in GB, times in ms, null where undefined."""
    head = ("model", "gpu", "batch", "scenario", "experts", "native_context", "device_gb")
    numbers = {
        _json_name(name): value / GB if name.endswith("_bytes") else value for name, value in found["metrics"].items()
    }
    steps = {"decode_step": found["step"], "decode_step_with_most_resident": found.get("most_step")}
    result = {name: found[name] for name in head} | {"verdict": verdict(found), "rests_on": dict(rests)}
    result |= {"most_resident": found.get("most"), "context": found.get("context")}
    result |= {name: _step_json(step) for name, step in steps.items()}
    result["estimate"] = _estimate_json(found["estimate"])
    lines = [
        {"what": line.what, "baseline_bytes": line.baseline, "prophet_bytes": line.prophet} for line in found["budget"]
    ]
    engine = {"engine": found["engine"], "engine_budget": _engine_json(found["engine_budget"])}
    return without_nan(result | {"numbers": numbers, "budget": lines} | engine)


def _step_json(step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    return asdict(step) | {"slowdown": step.slowdown, "bound": asdict(step.bound) | {"slowdown": step.bound.slowdown}}


def _estimate_json(found: StepEstimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    times = {"ms": found.seconds, "low_ms": found.low, "high_ms": found.high, "bound_ms": found.bound}
    return {name: 1e3 * seconds for name, seconds in times.items()} | {"basis": found.basis}

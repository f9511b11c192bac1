"""Options of `capacity` for several GPUs: --tp, --pp, --dp and --ep; memory of each GPU, stage by stage."""

import argparse
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

from rich.table import Table

from prophet_moe.capacity.budget import Line
from prophet_moe.capacity.several_gpus import (
    Filled,
    Load,
    Spread,
    budget_of,
    check_spread,
    numbers,
    parallelism,
    spread,
    told,
    total_weights,
    whole_weights,
)
from prophet_moe.capacity.under_engine import PLAIN, EngineChoice, Held
from prophet_moe.catalog import GpuSpec, ModelSpec
from prophet_moe.catalog.link import LinkSpec
from prophet_moe.cli.terminal import console
from prophet_moe.cli.values import whole
from prophet_moe.errors import UserError
from prophet_moe.hardware.profile import Profile
from prophet_moe.params.sharding import Parallelism
from prophet_moe.routing.popularity_cv import PopularityCV
from prophet_moe.settings.fields import LARGEST_LAYERS
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import GB

MOST_GPUS = 4096
"""Most GPUs that share a layer, or replicas of attention."""
SIZES = {
    "tp": "tensor parallelism: GPUs that share the heads and widths of a layer (default: 1)",
    "pp": "pipeline parallelism: groups of GPUs that hold some layers each (default: 1)",
    "dp": "data parallelism: replicas of attention, which share the batch (default: 1)",
}
WHO = {"baseline": "all experts resident", "prophet": "Prophet's set"}
"""Names of the two ways of holding experts."""


@dataclass(frozen=True)
class Found:
    """A model on several GPUs at one batch size."""

    held: Spread
    batch: int
    load: Load


@dataclass(frozen=True)
class Asked:
    """What the command line asks, read and checked."""

    spec: ModelSpec
    name: str
    """Name of the scenario."""
    scenario: Scenario
    engine: EngineChoice
    gpus: Mapping[str, GpuSpec]
    profiles: Mapping[str, Profile | None]
    reserves: Mapping[str, int]
    batches: tuple[int, ...]
    popularity_cv: PopularityCV | None
    """The fitted popularity CV; None where the scenario gives one, or the model is dense."""
    variation: float
    """The popularity CV that counts."""
    step_context: int
    """Tokens at which decode steps are timed."""
    link: LinkSpec
    """The way that copies take in estimates."""


def add_parallelism(capacity: argparse.ArgumentParser) -> None:
    """Add the options of several GPUs to the parser of `capacity`."""
    for name, meaning in SIZES.items():
        most = LARGEST_LAYERS if name == "pp" else MOST_GPUS
        capacity.add_argument(f"--{name}", type=whole(f"--{name}", 1, most), metavar="N", help=meaning)
    expert = "expert parallelism: whole experts on the GPUs of a stage, rather than a part of each on every one"
    capacity.add_argument("--ep", action="store_true", help=expert)


def several(arguments: argparse.Namespace) -> bool:
    """Return whether the command line asks for several GPUs."""
    return arguments.ep or any((getattr(arguments, name) or 1) > 1 for name in SIZES)


def show_several(arguments: argparse.Namespace, asked: Asked) -> None:
    """Print what each GPU of every stage holds, for every kind of GPU and batch size."""
    if asked.scenario.architecture == "reported":
        problem = "the report's constants are those of one GPU"
        raise UserError("--scenario", f"got {asked.name}: {problem}", "Use --scenario calibrated, or one GPU.")
    engine = asked.engine.profile or PLAIN
    over = parallelism(arguments.tp or 1, arguments.pp or 1, arguments.dp or 1, arguments.ep, engine)
    check_spread(asked.spec.architecture, over, arguments.ep)
    answers = list(_answers(asked, over))
    if arguments.json:
        shown = [_as_json(asked, gpu, found, arguments.context) for gpu, found in answers]
        print(json.dumps(without_nan(shown), indent=2, allow_nan=False))
        return
    terminal = console()
    for gpu, found in answers:
        title = f"{asked.spec.name} on {over.gpus} x {gpu}, {over.named}, batch {found.batch:,} ({asked.name})"
        terminal.rule(title, align="left", style="default")
        for sentence in verdict(asked, found, arguments.context):
            terminal.print(sentence, highlight=False, markup=False)
        for what, sentence in _rests_on(asked, found).items():
            terminal.print(f"  {what}: {sentence}", highlight=False, markup=False)
        terminal.print(_stages_table(found))
        tightest = found.load.tightest("baseline")
        title = f"each GPU of stage {_stages_told(tightest)}"
        terminal.print(budget_table(budget_of(tightest, found.load.sequences), title))


def _answers(asked: Asked, over: Parallelism) -> Iterator[tuple[str, Found]]:
    for gpu, listed in asked.gpus.items():
        scenario, engine, reserve = asked.scenario, asked.engine, asked.reserves.get(gpu)
        held = spread(asked.spec, gpu, listed, scenario, over, engine, asked.variation, reserve)
        yield from ((gpu, Found(held, batch, held.load(batch))) for batch in asked.batches)


def _stages_told(filled: Filled) -> str:
    """Name the stages that a GPU stands for, counted from 1: `1`, `2 to 7`, or `2, 4, 6`."""
    stages = [number + 1 for number in filled.stage.numbers]
    if len(stages) > 2 and stages == list(range(stages[0], stages[-1] + 1)):
        return f"{stages[0]} to {stages[-1]}"
    return ", ".join(map(str, stages))


def verdict(asked: Asked, found: Found, context: int | None) -> list[str]:
    """The answer in sentences: all experts resident, Prophet's set, and the context that is asked for."""
    dense = asked.spec.architecture.moe is None
    whole, slots = found.held.whole, found.held.resident_experts(found.batch)
    heads = {"baseline": f"With all {whole.experts:,} experts of every MoE layer on the GPUs, the model"}
    if dense:
        heads["baseline"] = "The model is dense: it has no experts, and nothing of it can be offloaded by expert. It"
    else:
        kept = f"{slots:,g} of {found.held.local_experts:,} experts per MoE layer"
        kept += " on each GPU" if found.held.over.expert > 1 else ""
        heads["prophet"] = f"With Prophet's resident set, {kept}, the model"
    sentences = [f"{head} {_fit(found, who)}." for who, head in heads.items()]
    if context is not None:
        parts = []
        for who in heads:
            longest = found.load.context(who)
            fits = "fits" if context <= longest else "does not fit"
            parts.append(f"{fits} with {WHO[who]}" if not dense else fits)
        beyond = " It is beyond the native context of the model." if context > whole.native_context else ""
        sentences.append(f"A context of {context:,} tokens {', and '.join(parts)}.{beyond}")
    return sentences


def _fit(found: Found, who: str) -> str:
    filled, longest = found.load.tightest(who), found.load.context(who)
    native, device = found.held.whole.native_context, filled.stage.held.device_bytes
    of = f" of stage {_stages_told(filled)}" if found.held.over.pipeline > 1 else ""
    if longest < 1:
        needed = (device - filled.metrics[f"{who}_free_bytes"]) / GB
        return f"does not fit: a GPU{of} needs {needed:,.1f} GB without any KV cache, and has {device / GB:,.1f} GB"
    bound = f", bound by the GPUs{of}" if of else ""
    if longest > native:
        enough = f"the model's native one (the memory is enough for {longest:,}{bound})"
        return f"fits, with a context of up to {native:,} tokens, {enough}"
    return f"fits, with a context of up to {longest:,} tokens{bound}"


def _rests_on(asked: Asked, found: Found) -> dict[str, str]:
    """What the answer rests on, a sentence each."""
    spec, scenario = asked.spec, asked.scenario
    precision = scenario.precision_of(spec.precision)
    held, total = found.held.stages[0].held, total_weights(found.held)
    copies = total / max(1, whole_weights(spec, scenario))
    rests = {
        "memory": f"counted from the architecture, {precision.named()}; {reserve_told(held, asked)}",
        "GPUs": "; ".join(told(spec.architecture, found.held.over)),
        "weights": f"all GPUs together hold {total / GB:,.1f} GB, {copies:.3g} times the checkpoint's",
        "routing": routing_told(spec, scenario, asked.popularity_cv),
        "times": "none: prophet-moe times step --gpus N estimates those of tensor parallelism",
    }
    if found.held.over.expert > 1:
        rests["experts"] = "experts are alike; each GPU has slots for those of its own that the batch chooses"
    return rests


def reserve_told(held: Held, asked: Asked) -> str:
    """What the runtime reserve of a GPU is, and rests on."""
    basis = held.basis if asked.engine.ideal else f"of {asked.scenario.engine}, activations with it"
    return f"runtime reserve {held.scenario.runtime_reserve_mib:,.0f} MiB {basis}"


def routing_told(spec: ModelSpec, scenario: Scenario, popularity_cv: PopularityCV | None) -> str:
    """What the routing of a model rests on."""
    if spec.architecture.moe is None:
        return "none: the model is dense, it has no experts to offload"
    if popularity_cv is None:
        return f"{scenario.routing.law} as scenario gives it"
    lacks = "counts" if scenario.fits_published else "trace"
    whose = f"{popularity_cv.source}{f'; the model has no {lacks} of its own' if popularity_cv.pooled else ''}"
    return f"the popularity CV of experts is {popularity_cv.value:.3g}, {whose}"


COLUMNS = (
    *("stage", "GPUs", "layers", "weights", "of them experts", "Prophet's experts", "KV bytes a token"),
    *("context, all resident", "context, Prophet's set"),
)
"""Columns of the table of stages."""


def _stages_table(found: Found) -> Table:
    table = Table(*COLUMNS, title="each GPU: sizes in GB, contexts in tokens per sequence")
    for column in table.columns:
        column.justify = "right"
    for filled in found.load.gpus:
        held, stage = numbers(filled), filled.stage
        sizes = (f"{held[name] / GB:,.3f}" for name in ("weights_bytes", "expert_bytes", "prophet_expert_bytes"))
        contexts = (f"{int(held[f'{who}_max_context']):,}" for who in WHO)
        kv = f"{held['kv_bytes_per_token']:,g}"
        gpus = found.held.over.experts_over * len(stage.numbers)
        table.add_row(_stages_told(filled), str(gpus), str(stage.layers), *sizes, kv, *contexts)
    return table


def budget_table(lines: list[Line], title: str | None = None) -> Table:
    """The budget of a GPU, line by line, in GB."""
    table = Table("memory (GB)", *WHO.values(), title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in lines:
        last = line is lines[-1]
        table.add_row(
            line.what, f"{line.baseline / GB:,.3f}", f"{line.prophet / GB:,.3f}", style="bold" if last else None
        )
        if line is lines[0] or line is lines[-2]:
            table.add_section()
    return table


def _as_json(asked: Asked, gpu: str, found: Found, context: int | None) -> dict[str, Any]:
    """An answer as JSON: sizes in bytes of one GPU, contexts in tokens per sequence, null where undefined."""
    held, over = found.held, found.held.over
    split = {"tp": over.tensor, "pp": over.pipeline, "dp": over.data, "ep": over.expert}
    contexts = {f"{who}_max_context": found.load.context(who) for who in WHO}
    return {
        "model": asked.spec.name,
        "gpu": gpu,
        "gpus": over.gpus,
        "parallelism": split,
        "batch": found.batch,
        "sequences_per_replica": found.load.sequences,
        "scenario": asked.name,
        "engine": asked.scenario.engine,
        "experts": held.whole.experts,
        "native_context": held.whole.native_context,
        "verdict": verdict(asked, found, context),
        "rests_on": _rests_on(asked, found),
        "unique_experts": held.unique_experts(found.batch),
        "resident_experts": held.resident_experts(found.batch),
        "total_weights_bytes": total_weights(held),
        **contexts,
        **{f"{who}_fits": length >= 1 for who, length in zip(WHO, contexts.values(), strict=True)},
        "stages": [_stage_json(number, filled, found) for number, filled in _by_stage(found.load)],
    }


def _by_stage(load: Load) -> list[tuple[int, Filled]]:
    """Return a GPU of every stage in order, stages from 0."""
    return sorted(((number, filled) for filled in load.gpus for number in filled.stage.numbers), key=itemgetter(0))


def _stage_json(number: int, filled: Filled, found: Found) -> dict[str, Any]:
    stage, moe = filled.stage, found.held.spec.architecture.moe
    lines = [
        {"what": line.what, "baseline_bytes": line.baseline, "prophet_bytes": line.prophet}
        for line in budget_of(filled, found.load.sequences)
    ]
    head = {"stage": number + 1, "layers": stage.layers, "experts_on_gpu": found.held.local_experts if moe else 0}
    sizes = {"device_bytes": stage.held.device_bytes, "activation_bytes": filled.metrics["activation_bytes"]}
    return head | sizes | numbers(filled) | {"budget": lines, "engine_budget": asdict(stage.held.budget)}


def without_nan(value: Any) -> Any:
    """Return JSON-like values with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: without_nan(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

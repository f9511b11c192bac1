"""Does this model fit that GPU, and is it worth it: a verdict in words over the numbers of the capacity model.

Needs neither pandas nor Numba, so that a command answers at once.
"""

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from prophet_moe import params
from prophet_moe.capacity import reference
from prophet_moe.capacity.budget import Line, budget
from prophet_moe.capacity.hit_rates import HitRates
from prophet_moe.capacity.memory import ModelMemory, Number
from prophet_moe.capacity.reference import evaluate
from prophet_moe.catalog import Architecture
from prophet_moe.catalog.link import LinkSpec
from prophet_moe.hardware.estimate import Estimator, StepEstimate, estimate_step
from prophet_moe.hardware.pace import Basis, Pace, Paces, ProfilePace, paces_of
from prophet_moe.hardware.profile import Profile
from prophet_moe.precision import Precision
from prophet_moe.settings.scenario import Scenario
from prophet_moe.units import GB


@dataclass(frozen=True)
class Question:
    """One configuration and all that its answer rests on."""

    model: str
    gpu: str
    batch: int
    architecture: Architecture
    precision: Precision
    memory: ModelMemory
    """The memory constants of the model, with its popularity CV."""
    device_bytes: int
    scenario: Scenario
    """The scenario, with the runtime reserve of this GPU."""
    profile: Profile | None
    """What the GPU does per second; None where its bandwidths are not known."""
    step_context: int
    """Tokens in each sequence's cache at the decode step that is timed."""
    context: int | None = None
    """Tokens per sequence that are asked for."""
    rates: HitRates | None = None
    unified_memory: bool = False
    """Whether the host has no other memory than the GPU's."""
    estimator: Estimator | None = None
    """What estimates of times on this GPU are made of; None where its datasheet is not known."""
    link: LinkSpec | None = None
    """The way that copies take in estimates."""

    @property
    def paces(self) -> Paces | None:
        """Return what the GPU's times rest on; None where its bandwidths are not known."""
        if self.profile is None:
            return None
        if self.estimator is None or self.link is None:
            return Paces(ProfilePace(self.profile), ProfilePace(self.profile))
        return paces_of(self.profile, self.estimator, self.link)


@dataclass(frozen=True)
class StepTimes:
    """Milliseconds of a decode step with some experts resident, beside all of them."""

    all_resident_ms: float
    on_demand_ms: float
    """Every missing expert is fetched when the router asks for it."""
    prefetched_ms: float
    """The least that any prefetch of the same bytes can take."""

    @property
    def slowdown(self) -> float:
        """Return the time of a step on demand over that with all experts resident."""
        return self.on_demand_ms / self.all_resident_ms


@dataclass(frozen=True)
class Step(StepTimes):
    """What a decode step takes with some experts resident, at the best pace known, and by the datasheet."""

    context: int
    """Tokens in each sequence's cache."""
    resident: float
    """Experts of each MoE layer on the GPU."""
    hit_rate: float | None
    """Share of a layer's distinct experts that are resident; None: unknown, and taken to be none of them."""
    fewest_simulated: float | None
    """The fewest resident experts whose hit rate is known; None: of no number of them."""
    times: Basis
    """What these times rest on."""
    bound: StepTimes
    """The same by the datasheet: lower bounds, whose ratio is no bound."""


def step(question: Question, unique: float, resident: Number) -> Step | None:
    """Time a decode step of a configuration with some experts resident.

    Parameters
    ----------
    question : Question
        The configuration, with the profile of its GPU.
    unique : float
        Distinct experts of a layer that the batch uses, u(B).
    resident : number
        Resident experts of every MoE layer.

    Returns
    -------
    Step or None
        Milliseconds; None where the GPU's bandwidths are unknown, for the report's constants, which tell no time, and
        where missing experts would come from a disk.
    """
    paces, arch = question.paces, question.architecture
    if question.unified_memory and resident < question.memory.experts:
        return None
    if paces is None or question.scenario.architecture == "reported":
        return None
    context = min(question.step_context, arch.native_context)
    unique = min(unique, question.memory.top_k * question.batch)
    rate = 1.0 if resident >= question.memory.experts else question.rates.at(resident) if question.rates else None
    missing = unique * (1.0 - (rate or 0.0))
    best, bound = (_times(question, pace, context, unique, missing) for pace in (paces.best, paces.bound))
    fewest = question.rates.points[0][0] if question.rates else None
    return Step(*astuple(best), context, resident, rate, fewest, paces.best.basis, bound)


def _times(question: Question, pace: Pace, context: int, unique: float, missing: float) -> StepTimes:
    """Time a step at one pace, of whose `unique` experts per layer so many are `missing`."""
    arch, precision = question.architecture, question.precision
    resident = pace.step_seconds(arch, question.batch, context, unique, precision)
    copying = 0.0
    if missing:
        copying = len(arch.moe_layers) * missing * pace.copy_seconds(params.expert_bytes(arch, precision))
    return StepTimes(*(1e3 * seconds for seconds in (resident, resident + copying, max(resident, copying))))


def estimate(question: Question, unique: float) -> StepEstimate | None:
    """Estimate a decode step with all experts resident; None where `step` tells no time, or without a datasheet."""
    if question.estimator is None or question.scenario.architecture == "reported":
        return None
    context = min(question.step_context, question.architecture.native_context)
    unique = min(unique, question.memory.top_k * question.batch)
    return estimate_step(question.estimator, question.architecture, question.batch, context, unique, question.precision)


def most_resident(question: Question, context: int) -> int | None:
    """Return the most experts per layer that leave room for `context` tokens of every sequence; None if none does."""
    return reference.most_resident(question.memory, question.device_bytes, question.batch, question.scenario, context)


def answer(question: Question) -> dict[str, Any]:
    """Answer what is known of a configuration: memory, contexts, and the time of a decode step.

    Parameters
    ----------
    question : Question
        One model on one GPU at one batch size, with all that the answer rests on.

    Returns
    -------
    dict
        JSON-like: times in ms, sizes in GB of 10^9 bytes, NaN where undefined; `metrics` are those of
        `reference.evaluate`.
    """
    metrics = evaluate(question.memory, question.device_bytes, question.batch, question.scenario)
    native, experts = question.memory.native_context, question.memory.experts
    result = {
        "model": question.model,
        "gpu": question.gpu,
        "batch": question.batch,
        "device_gb": question.device_bytes / GB,
        "experts": experts,
        "native_context": native,
        "metrics": metrics,
        "step": step(question, metrics["unique_experts"], metrics["resident_experts"]),
        "estimate": estimate(question, metrics["unique_experts"]),
        "rates": question.rates,
        "dense": question.architecture.moe is None,
        "unified_memory": question.unified_memory,
        "budget": _budget(question, metrics),
    }
    timed_at = question.context or min(question.step_context, native)
    published = question.scenario.architecture == "published" and not question.memory.forced_not_fitting
    if published and question.architecture.moe:
        most = most_resident(question, timed_at)
        result["most"] = {"context": timed_at, "resident_experts": most}
        result["most_step"] = None if most is None else step(question, metrics["unique_experts"], most)
    if question.context is not None:
        cache = question.batch * question.memory.cached_bytes(question.context)
        result["context"] = {
            "tokens": question.context,
            "beyond_native": question.context > native,
            "kv_cache_gb": cache / GB,
            "baseline_left_gb": (metrics["baseline_free_bytes"] - cache) / GB,
            "prophet_left_gb": (metrics["prophet_free_bytes"] - cache) / GB,
        }
    return result


def _budget(question: Question, metrics: dict[str, Number]) -> list[Line]:
    """The budget line by line; the report's constants are not made of lines."""
    if question.scenario.architecture == "reported":
        return []
    memory, device = question.memory, question.device_bytes
    return budget(question.architecture, question.precision, memory, question.scenario, metrics, device, question.batch)


def verdict(result: Mapping[str, Any]) -> list[str]:
    """The answer in sentences: all experts resident, Prophet's set, the context asked for, what a decode step takes.

    `result` is what `answer` returns. Times are given for what fits.
    """
    metrics, experts = result["metrics"], result["experts"]
    if result["dense"]:
        return _dense(result)
    sentences = [_baseline(result), _prophet(result)]
    if "context" in result:
        sentences.append(_context(result))
    if result["step"] and metrics["prophet_fits"]:
        sentences.append(f"With Prophet's set, a {_time(result['step'], experts)}")
    most = result.get("most", {}).get("resident_experts")
    if most and (most > metrics["resident_experts"] or not metrics["prophet_fits"]):
        kept = f"all {_number(experts)} experts" if most == experts else _of(most, experts)
        sentences.append(f"A context of {result['most']['context']:,} tokens leaves memory for {kept}.")
        if result["most_step"]:
            sentences[-1] += f" With them, a {_time(result['most_step'], experts)}"
    return sentences + _estimated(result)


def _dense(result: Mapping[str, Any]) -> list[str]:
    metrics = result["metrics"]
    sentences = ["The model is dense: it has no experts, and nothing of it can be offloaded by expert."]
    if metrics["baseline_fits"]:
        sentences.append(f"It fits, {_contexts(metrics, 'baseline', result['native_context'])}.")
    else:
        sentences.append(f"It does not fit{_short(metrics['baseline_free_bytes'], result['device_gb'])}.")
    if result["step"] and metrics["baseline_fits"]:
        timed = result["step"]
        sentences.append(f"A decode step at {timed.context:,} tokens takes {_ms(timed.all_resident_ms)}.")
    return sentences + _estimated(result)


def _estimated(result: Mapping[str, Any]) -> list[str]:
    """Tell what estimated times rest on, where a step is timed at all, and the bound beside them."""
    found, timed = result["estimate"], result["step"] or result.get("most_step")
    if found is None or timed is None or timed.times != "estimated":
        return []
    between = f"{_ms(1e3 * found.low)} to {_ms(1e3 * found.high)}"
    experts = "" if result["dense"] else " with all experts resident"
    return [
        f"Times are estimated from what others measured: that step takes {between}{experts} in nine cases of ten. "
        f"By the datasheet it takes at least {_ms(timed.bound.all_resident_ms)}."
    ]


def _baseline(result: Mapping[str, Any]) -> str:
    metrics, head = (
        result["metrics"],
        f"With all {_number(result['experts'])} experts of every MoE layer on the GPU, the model",
    )
    if metrics["baseline_fits"]:
        return f"{head} fits, {_contexts(metrics, 'baseline', result['native_context'])}."
    return f"{head} does not fit{_short(metrics['baseline_free_bytes'], result['device_gb'])}."


def _prophet(result: Mapping[str, Any]) -> str:
    metrics = result["metrics"]
    kept = _of(metrics["resident_experts"], result["experts"])
    head = f"With Prophet's resident set, {kept}, the model"
    if metrics["prophet_fits"]:
        fitting = _contexts(metrics, "prophet", result["native_context"])
        others = "lie on a disk: the host has no other memory" if result["unified_memory"] else "are in host memory"
        return f"{head} fits, {fitting}. The other experts {others}."
    return f"{head} does not fit{_short(metrics['prophet_free_bytes'], result['device_gb'])}."


def _short(free: Number, device_gb: float) -> str:
    if not free < 0:
        return ""
    return f": it takes {device_gb - free / GB:,.1f} GB without any KV cache, and the GPU has {device_gb:,.1f} GB"


def _contexts(metrics: Mapping[str, Number], who: str, native: Number) -> str:
    useful, longest = metrics[f"{who}_native_context"], metrics[f"{who}_max_context"]
    if longest > native:
        return (
            f"with a context of up to {useful:,} tokens, the model's native one (the memory is enough for {longest:,})"
        )
    return f"with a context of up to {longest:,} tokens (native: {_number(native)})"


def _context(result: Mapping[str, Any]) -> str:
    asked = result["context"]
    parts = []
    for who, name in (("baseline", "all experts resident"), ("prophet", "Prophet's set")):
        left = asked[f"{who}_left_gb"]
        if asked["tokens"] <= result["metrics"][f"{who}_max_context"]:
            parts.append(f"fits with {name} ({left:,.1f} GB are left)")
        else:
            parts.append(f"does not fit with {name}" + (f" ({-left:,.1f} GB are missing)" if left < 0 else ""))
    note = " It is beyond the native context of the model." if asked["beyond_native"] else ""
    return f"A context of {asked['tokens']:,} tokens {', and '.join(parts)}.{note}"


def _time(timed: Step, experts: Number) -> str:
    whole = f"decode step at {timed.context:,} tokens takes"
    if timed.resident >= experts:
        return f"{whole} {_ms(timed.all_resident_ms)}: nothing is fetched."
    if timed.hit_rate is not None:
        basis = f"{timed.hit_rate:.1%} of the needed experts are resident"
    else:
        simulated = "" if timed.fewest_simulated is None else f" below {_number(timed.fewest_simulated)} experts"
        basis = f"the hit rate is not known{simulated}, so none of the needed experts counts as resident"
    against = (
        f"{timed.slowdown:.3g} times the {_ms(timed.all_resident_ms)} with all experts resident on such a GPU ({basis})"
    )
    least = f"Prefetching the same bytes takes at least {_ms(timed.prefetched_ms)}"
    return f"{whole} {_ms(timed.on_demand_ms)} on demand, {against}. {least}."


def _of(kept: Number, experts: Number) -> str:
    return f"{_number(kept)} of {_number(experts)} experts per MoE layer"


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:,.3g} ms" if milliseconds < 1000 else f"{milliseconds:,.0f} ms"


def _number(value: Number) -> str:
    return f"{int(value):,}" if math.isfinite(value) and value == int(value) else f"{value:,.4g}"

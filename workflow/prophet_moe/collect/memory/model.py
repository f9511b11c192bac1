"""Everything that is measured of the memory of one model."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from prophet_moe.collect import allocation, machine
from prophet_moe.collect.measurement import Rows
from prophet_moe.collect.memory.caches import cache_bytes, caches_by_kind
from prophet_moe.collect.memory.context import context_rows
from prophet_moe.collect.memory.peaks import allocator_peak, live_peak
from prophet_moe.collect.memory.plan import Lengths, Plan
from prophet_moe.collect.memory.schema import attempted, device_rows, refusal, row
from prophet_moe.collect.memory.subject import PROBE_TOKENS, Subject, build, parameter_sizes


def model_rows(name: str, plan: Plan) -> Rows:
    """Return all rows of one model; a model or pass that does not fit is a row that says so."""
    torch.manual_seed(plan.seed)
    allocation.release()
    before = allocation.allocated()
    rows = device_rows("empty")
    labels = {"model": name}
    try:
        subject = Subject(name, plan.models[name])
    except RuntimeError as error:
        needed = parameter_sizes(build(name, plan.models[name], torch.device("meta")))
        rows.append(refusal(error, needed["parameter_bytes"], "loading"))
    else:
        labels |= subject.labels()
        rows += _parameter_rows(subject, before)
        rows += attempted("first_passes", partial(_first_rows, subject), batch=1, tokens=PROBE_TOKENS)
        if subject.template is not None:
            rows += _pass_rows(subject, plan)
    return [measured | labels for measured in rows]


def _pass_rows(subject: Subject, plan: Plan) -> Rows:
    """Return the rows on everything that is measured with passes through the model."""
    rows = []
    for lengths in plan.cache_lengths:
        rows += attempted("cache", partial(_cache_rows, subject, lengths), batch=1, tokens=lengths.long)
    passes = [("prefill", 1, tokens, partial(subject.reading, 1, tokens)) for tokens in plan.prefill_tokens]
    passes += [("decode", s.batch, s.tokens, partial(subject.stepping, s.batch, s.tokens)) for s in plan.decode]
    for phase, batch, tokens, prepare in passes:
        make = partial(_peak_rows, subject, phase, prepare, plan.repeats, batch=batch, tokens=tokens)
        rows += attempted(phase, make, batch=batch, tokens=tokens)
    rows += device_rows("passes")
    if machine.on_gpu():
        for batch in plan.context.batches:
            rows += attempted("context", partial(context_rows, subject, batch, plan), batch=batch)
    return rows


def _parameter_rows(subject: Subject, before: int) -> Rows:
    """Rows on parameters and buffers, and on the allocator, which held `before` bytes before they were made."""
    rows = [row(name, value, "loading", "tensors") for name, value in parameter_sizes(subject.model).items()]
    if machine.on_gpu():
        rows.append(row("parameter_and_buffer_bytes", allocation.allocated() - before, "loading", "allocator"))
    return rows + device_rows("loading")


def _first_rows(subject: Subject) -> Rows:
    """Return the rows on what the first passes leave behind: parameters of another type, workspaces of libraries."""
    before = allocation.allocated()
    subject.first_passes()
    size = parameter_sizes(subject.model)["parameter_bytes"]
    rows = [row("parameter_bytes", size, "first_passes", "tensors")]
    if machine.on_gpu():
        template = sum(cache_bytes(cache)["storages"] for cache in caches_by_kind(subject.template).values())
        rows.append(row("workspace_bytes", allocation.allocated() - before - template, "first_passes", "allocator"))
    return rows


def _cache_rows(subject: Subject, lengths: Lengths) -> Rows:
    """Return the rows on bytes per token and per sequence whatever its length, from the caches of two lengths."""
    readings = {"self": partial(subject.reading, 1)}
    if subject.encodes:
        target = partial(subject.reading, 1, PROBE_TOKENS)
        readings = {"self": lambda tokens: target(target=tokens), "cross": partial(subject.reading, 1)}
    rows = []
    for kind, reading in readings.items():
        short, long = (
            cache_bytes(caches_by_kind(subject.run(reading(tokens)))[kind]) for tokens in (lengths.short, lengths.long)
        )
        prefix = "cross_" if kind == "cross" else ""
        for method in short:
            per_token = (long[method] - short[method]) / (lengths.long - lengths.short)
            state = short[method] - per_token * lengths.short
            sizes = {"kv_bytes_per_token": per_token, "state_bytes_per_sequence": state}
            how, where = f"{method} from {lengths.short} tokens", {"batch": 1, "tokens": lengths.long}
            rows += [row(prefix + name, value, "cache", how, **where) for name, value in sizes.items()]
    return rows


def _peak_rows(subject: Subject, phase: str, prepare: Callable[[], dict[str, Any]], repeats: int, **where: int) -> Rows:
    """Return the rows on the activation peak of one pass: by the allocator on a GPU, and by the tensors that live."""
    rows = []
    if machine.on_gpu():
        allocator_peak(subject, prepare)
        peaks = [allocator_peak(subject, prepare) for _ in range(repeats)]
        largest = row("activation_peak_bytes", max(peaks), phase, "allocator", **where)
        rows.append(largest | {"value_low": min(peaks), "repeats": repeats})
    return [*rows, row("activation_peak_bytes", live_peak(subject, prepare), phase, "live_tensors", **where)]

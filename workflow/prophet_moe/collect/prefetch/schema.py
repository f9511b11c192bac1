"""The rows of prefetch.csv, which say what one policy costs."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prophet_moe.collect.measurement import Rows, spread
from prophet_moe.collect.prefetch.bench import Bench, Replayed
from prophet_moe.files import sha256
from prophet_moe.offload.decode_loop.decisions import Scores, contents, decide, lanes, plan_prefetches, tallied
from prophet_moe.offload.decode_loop.plan import PROPHET
from prophet_moe.routing.store import TRACE
from prophet_moe.routing.trace import Trace


def policy_rows(
    bench: Bench,
    trace: Trace,
    batch: int,
    policy: str,
    often: NDArray[np.int64],
    scores: Scores | None = None,
    predictor_seconds: float | None = None,
) -> Rows:
    """Measure one policy at one batch: per capacity a `summary` row, a row per `layer`, and one per measured `step`.

    Seconds, counts and bytes are per step: of a summary and of a layer row the means over all repeats (`seconds` of
    a summary: median and quartiles of the repeats' means), of a step row those of the first repeat. Those of copies
    count from its turn on its stream to its end, added up, so that copies that share the link count twice. `requests`
    are different experts, `hits` those that need no demand copy, whether they come late or not. `often` is what
    `frequency` goes by, `scores` what `prophet` does, see `plan_prefetches`; `predictor_seconds`, what they take per
    step, only stand in its summaries.
    """
    plan, workload = bench.plan, bench.workload
    rows = lanes(trace, batch, workload.replayed_tokens, plan.sequence_tokens, plan.seed)
    history, choices = workload.history_tokens, trace.experts[rows]
    planned = plan_prefetches(policy, choices, plan.lookahead, often, scores(rows) if policy == PROPHET else None)
    inputs = bench.batch(choices[history:])
    result: Rows = []
    for slots in plan.slots(policy, bench.experts, trace.router.top_k):
        steps = decide(choices, planned, slots, plan.prefetches_per_layer)
        start = contents(steps[:history], bench.layers, slots)
        replays = [bench.replay(inputs, steps[history:], start, workload.warmup_tokens) for _ in range(plan.repeats)]
        labels = {"workload": bench.name, "policy": policy, "batch": batch, "slots": slots, "experts": bench.experts}
        labels |= {"expert_bytes": workload.expert_bytes}
        tally = tallied(steps[history + workload.warmup_tokens :])
        first, *others = _rows(labels, tally, replays)
        source = {"trace_sha256": sha256(Path(workload.trace) / TRACE), **_digest(replays)}
        result += [first | source | {"predictor_seconds": _plain(predictor_seconds)}, *others]
    return result


def _rows(labels: dict[str, Any], tally: dict[str, NDArray[np.int64]], replays: list[Replayed]) -> Rows:
    values = {name: np.stack([replay.layers[name] for replay in replays]) for name in replays[0].layers}
    values |= {name: np.broadcast_to(counts, (len(replays), *counts.shape)) for name, counts in tally.items()}
    for kind, counted in (
        ("demand", "misses"),
        ("prefetch_used", "prefetches_used"),
        ("prefetch_late", "prefetches_late"),
        ("prefetch_wrong", "prefetches_wrong"),
    ):
        if counted in values:
            values[f"{kind}_bytes"] = values.pop(counted) * labels["expert_bytes"]
    whole = {name: np.stack([replay.steps[name] for replay in replays]) for name in replays[0].steps}
    summary = spread(whole["seconds"].mean(1).tolist())
    summary |= {"hit_rate": tally["hits"].sum() / tally["requests"].sum()}
    summary |= {name: table.mean(axis=(0, 1)).sum() for name, table in values.items() if name != "seconds"}
    summary |= {name: table.mean() for name, table in whole.items() if name != "seconds"}
    rows = [{"row": "summary", **labels, "layer": None, "step": None, **summary}]
    for layer in range(tally["hits"].shape[1]):
        means = {name: table[:, :, layer].mean() for name, table in values.items()}
        rows.append({"row": "layer", **labels, "layer": layer, "step": None, **means})
    for step in range(tally["hits"].shape[0]):
        sums = {name: table[0, step].sum() for name, table in values.items()}
        sums |= {name: table[0, step] for name, table in whole.items()}
        rows.append({"row": "step", **labels, "layer": None, "step": step, **sums})
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    """Return the numbers as JSON knows them, whole ones without a fraction, others to nanoseconds."""
    if not isinstance(value, (float, np.number)):
        return value
    return int(value) if float(value).is_integer() else round(float(value), 9)


def _digest(replays: list[Replayed]) -> dict[str, Any]:
    """SHA-256 of the first replay's outputs, the same for every policy, and how many different ones there are."""
    raw = [replay.outputs.contiguous().view(torch.uint8).cpu().numpy().tobytes() for replay in replays]
    digests = [hashlib.sha256(outputs).hexdigest() for outputs in raw]
    return {"output_sha256": digests[0], "distinct_outputs": len(set(digests))}

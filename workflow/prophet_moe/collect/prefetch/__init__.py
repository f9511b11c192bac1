"""Decode with expert weights in pinned host memory: replay a trace's choices and measure what each policy costs.

What is cached, copied and evicted is decided beforehand (see offload/decode_loop); here it is carried out. A step runs

    for every layer: norm, attention stand-in, the layer asks, demand copies and prefetches are issued, its experts

on one compute stream. Copies run on two more streams, in the order of issue on each, none before the layer that issues
it has asked, and no prefetch before the demand copies of that layer have ended, but for those into slots that it used.
With `miss_priority` demand copies have a stream of their own and pass queued prefetches (both share the link), else all
are in one queue. A copy waits for the last use of its slot and for the last copy to it, an expert for its copy. The
host queues a whole step behind a kernel that holds the device back, so that it is never waited for, and synchronises
once a step: copies that nobody waited for end within their step, and that time, `drain_seconds`, is part of the step's.

`prophet` prefetches by scores that its predictor has given beforehand: no time of a step has the predictor's in it.
`predictor_seconds` of a summary is what it takes for a step's tokens, measured by itself.
"""

from functools import partial
from pathlib import Path

from prophet_moe.collect import allocation
from prophet_moe.collect.measurement import Rows, measure
from prophet_moe.collect.prefetch.bench import Bench
from prophet_moe.collect.prefetch.plan import check_workload
from prophet_moe.collect.prefetch.schema import policy_rows
from prophet_moe.collect.scoring import Predictor
from prophet_moe.offload.decode_loop.decisions import held_out, often_chosen
from prophet_moe.offload.decode_loop.plan import KIND, PROPHET, Plan, check

__all__ = ["Plan", "collect"]


def collect(plan: Plan, folder: Path) -> None:
    """Measure every workload, batch and policy and write prefetch.csv to `folder`; called again, it goes on."""
    check(plan)
    traces = {name: held_out(workload) for name, workload in plan.workloads.items()}
    often = {name: often_chosen(workload) for name, workload in plan.workloads.items()}
    predictors = {}
    for name, workload in plan.workloads.items():
        check_workload(plan, name, traces[name])
        if PROPHET in plan.policies:
            predictors[name] = Predictor(Path(workload.predictor), traces[name], plan.lookahead)
    held: dict[str, Bench] = {}

    def part(name: str, batch: int, policy: str) -> Rows:
        if name not in held:
            held.clear()
            allocation.release()
            router = traces[name].router
            held[name] = Bench(plan, name, router.experts, len(router.layers))
        if policy != PROPHET:
            return policy_rows(held[name], traces[name], batch, policy, often[name])
        predictor = predictors[name]
        timed = predictor.step_seconds(batch)
        return policy_rows(held[name], traces[name], batch, policy, often[name], predictor.scores, timed)

    parts = {
        f"{name}-b{batch}-{policy}": partial(part, name, batch, policy)
        for name in plan.workloads
        for batch in plan.batches
        for policy in plan.policies
    }
    measure(folder, KIND, plan, parts)

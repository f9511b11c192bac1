"""Checks of a prefetch plan that need its traces: what a trace does not allow is refused."""

from prophet_moe.checks import mistake
from prophet_moe.offload.decode_loop.decisions import lanes
from prophet_moe.offload.decode_loop.plan import KIND, Plan
from prophet_moe.routing.trace import Trace


def check_workload(plan: Plan, name: str, trace: Trace) -> None:
    """Refuse more tokens or experts than `trace`, the held-out one of the workload, has."""
    workload = plan.workloads[name]
    for batch in plan.batches:
        lanes(trace, batch, workload.replayed_tokens, plan.sequence_tokens, plan.seed)
    if workload.predicted_experts > trace.router.experts:
        found = f"got {workload.predicted_experts}, there are {trace.router.experts}"
        raise mistake(KIND, f"workloads.{name}.predicted_experts: {found}")

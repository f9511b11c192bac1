"""What a plan may ask for, and what of it a trace allows."""

from prophet_moe.cachesim.decode_loop.decisions import lanes
from prophet_moe.cachesim.decode_loop.plan import DTYPE_BYTES, KIND, POLICIES, PROPHET, Plan
from prophet_moe.collect.checks import check_names, check_values, mistake
from prophet_moe.routing.trace import Trace

LEAST = {"repeats": 2, "history_tokens": 0, "seed": 0}
"""The least of whole numbers in the plan that may not start at 1: quartiles need two samples."""


def check(plan: Plan) -> None:
    """Refuse values out of range and unknown names."""
    check_values(KIND, plan, LEAST)
    check_names(KIND, "policies", plan.policies, POLICIES)
    if not all(0 < share <= 1 for share in plan.capacities):
        raise mistake(KIND, f"capacities: got {plan.capacities}, expected shares above 0 and at most 1")
    for name, workload in plan.workloads.items():
        key = f"workloads.{name}"
        check_names(KIND, f"{key}.dtype", [workload.dtype], DTYPE_BYTES)
        if workload.hidden % workload.heads or workload.heads % workload.kv_heads:
            found = f"got {workload.heads} and {workload.kv_heads} kv_heads"
            raise mistake(KIND, f"{key}.heads: {found}, expected divisors of hidden and of heads")
        if PROPHET in plan.policies and not workload.predictor:
            raise mistake(KIND, f"{key}.predictor: is empty, policy {PROPHET} asks one")


def check_workload(plan: Plan, name: str, trace: Trace) -> None:
    """Refuse more tokens or experts than `trace`, the held-out one of the workload, has."""
    workload = plan.workloads[name]
    for batch in plan.batches:
        lanes(trace, batch, workload.replayed_tokens, plan.sequence_tokens, plan.seed)
    if workload.predicted_experts > trace.router.experts:
        found = f"got {workload.predicted_experts}, there are {trace.router.experts}"
        raise mistake(KIND, f"workloads.{name}.predicted_experts: {found}")

"""What is replayed, and what of it a trace allows."""

from dataclasses import dataclass
from pathlib import Path

import torch

from prophet_moe.collect.checks import check_names, check_values, mistake
from prophet_moe.collect.expert_cache import POLICIES, PROPHET, lanes
from prophet_moe.predict.context import split
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import Trace

KIND = "prefetch"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
LEAST = {"repeats": 2, "history_tokens": 0, "seed": 0}
"""The least of whole numbers in the plan that may not start at 1: quartiles need two samples."""


@dataclass(frozen=True)
class Workload:
    """Experts of one shape, routed as a trace tells; L, E and k are the trace's."""

    trace: str
    """Its folder."""
    hidden: int
    inner: int
    gated: bool
    """Whether an expert has three matrices, as in SwiGLU, or two."""
    dtype: str
    heads: int
    kv_heads: int
    copies: int
    """Distinct experts in host memory at most; expert e of layer l is number (l * E + e) modulo their count."""
    predictor: str
    """Folder of the predictor that `prophet` asks; empty: there is none."""
    predicted_experts: int
    """K of `prophet`: experts prefetched per token and layer."""
    history_tokens: int
    """Of every sequence, decided on but not run: what they leave in the cache is there at the start."""
    warmup_tokens: int
    """Run after them, not measured."""
    tokens: int
    """Measured."""

    @property
    def replayed_tokens(self) -> int:
        """Of every sequence: tokens decided on."""
        return self.history_tokens + self.warmup_tokens + self.tokens

    @property
    def expert_values(self) -> int:
        """Weights of one expert."""
        return (3 if self.gated else 2) * self.hidden * self.inner

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert."""
        return self.expert_values * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Plan:
    """What is replayed, and how."""

    workloads: dict[str, Workload]
    batches: list[int]
    capacities: list[float]
    """Slots of a layer, as shares of E, but no fewer than k; `all_resident` always has E."""
    policies: list[str]
    lookahead: int
    """Layers from the last one whose choices are known to the one that is prefetched for."""
    context: int
    """Tokens in the KV cache of every sequence."""
    sequence_tokens: int
    """Decode tokens replayed of one sequence before the next one takes its place."""
    repeats: int
    miss_priority: bool
    seed: int


def held_out(workload: Workload) -> Trace:
    """The sequences of the workload's trace that no predictor learns from."""
    return split(read_trace(Path(workload.trace)))[1]


def check(plan: Plan) -> None:
    """Refuse values out of range and unknown names."""
    check_values(KIND, plan, LEAST)
    check_names(KIND, "policies", plan.policies, POLICIES)
    if not all(0 < share <= 1 for share in plan.capacities):
        raise mistake(KIND, f"capacities: got {plan.capacities}, expected shares above 0 and at most 1")
    for name, workload in plan.workloads.items():
        key = f"workloads.{name}"
        check_names(KIND, f"{key}.dtype", [workload.dtype], DTYPES)
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

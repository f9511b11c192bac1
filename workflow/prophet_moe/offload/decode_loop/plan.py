"""What the decode loop replays. It needs neither pydantic, which a GPU machine may lack, nor PyTorch, as others may."""

from dataclasses import dataclass
from pathlib import Path

from prophet_moe.checks import check_names, check_values, mistake

ALL_RESIDENT, ON_DEMAND, FREQUENCY, PROPHET, ORACLE = POLICIES = (
    "all_resident",
    "on_demand",
    "frequency",
    "prophet",
    "oracle",
)
KIND = "prefetch"
PLAN_FILE = Path("config/measurements/prefetch.yaml")
LEAST = {"repeats": 2, "history_tokens": 0, "seed": 0}
"""The least of whole numbers in the plan that may not start at 1: quartiles need two samples."""
DTYPE_BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Workload:
    """Experts of one shape, routed as a trace tells; L, E and k are the trace's."""

    trace: str
    """Folder of the recorded trace."""
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
    """Folder of the predictor that `prophet` uses; empty: there is none."""
    predicted_experts: int
    """K of `frequency`: experts prefetched for every layer."""
    history_tokens: int
    """Of every sequence, decided on but not run: what they leave in the cache is there at the start."""
    warmup_tokens: int
    """Tokens that run after the history and are not measured."""
    tokens: int
    """Tokens of every sequence that are measured."""

    @property
    def replayed_tokens(self) -> int:
        """Return how many tokens of every sequence decisions are made for."""
        return self.history_tokens + self.warmup_tokens + self.tokens

    @property
    def expert_values(self) -> int:
        """Return the number of weights of one expert."""
        return (3 if self.gated else 2) * self.hidden * self.inner

    @property
    def expert_bytes(self) -> int:
        """Return the bytes of one expert's weights."""
        return self.expert_values * DTYPE_BYTES[self.dtype]

    @property
    def head_dim(self) -> int:
        """Return the size of one attention head."""
        return self.hidden // self.heads

    @property
    def qkv_width(self) -> int:
        """Return how many numbers queries, keys and values of a token have."""
        return self.hidden + 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Plan:
    """What the decode loop replays, and with which policies and sizes."""

    workloads: dict[str, Workload]
    batches: list[int]
    capacities: list[float]
    """Slots of a layer, as shares of E, but no fewer than k; `all_resident` always has E."""
    policies: list[str]
    lookahead: int
    """Layers from the last one whose choices are known to the farthest that is prefetched for."""
    prefetches_per_layer: int
    """Prefetches begun at most after each layer; what waits is dropped unless the next plan names it, too."""
    context: int
    """Tokens in the KV cache of every sequence."""
    sequence_tokens: int
    """Decode tokens replayed of one sequence before the next one takes its place."""
    repeats: int
    miss_priority: bool
    """Whether demand copies have a stream of their own and pass queued prefetches."""
    seed: int

    def slots(self, policy: str, experts: int, top_k: int) -> list[int]:
        """Return the numbers of slots of a layer that `policy` is run with."""
        shares = [1.0] if policy == ALL_RESIDENT else self.capacities
        return list(dict.fromkeys(max(top_k, round(share * experts)) for share in shares))


def check(plan: Plan, kind: str = KIND) -> None:
    """Refuse values out of range and unknown names; `kind` says whose plan it is."""
    check_values(kind, plan, LEAST)
    check_names(kind, "policies", plan.policies, POLICIES)
    if not all(0 < share <= 1 for share in plan.capacities):
        raise mistake(kind, f"capacities: got {plan.capacities}, expected shares above 0 and at most 1")
    for name, workload in plan.workloads.items():
        key = f"workloads.{name}"
        check_names(kind, f"{key}.dtype", [workload.dtype], DTYPE_BYTES)
        if workload.hidden % workload.heads or workload.heads % workload.kv_heads:
            got = f"got {workload.heads} and {workload.kv_heads} kv_heads"
            raise mistake(kind, f"{key}.heads: {got}, expected divisors of hidden and of heads")
        if PROPHET in plan.policies and not workload.predictor:
            raise mistake(kind, f"{key}.predictor: is empty, policy {PROPHET} asks one")

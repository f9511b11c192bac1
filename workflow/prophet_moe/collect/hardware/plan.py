"""What is measured of the hardware, and what a plan may ask for."""

from dataclasses import dataclass

from torch.nn.attention import SDPBackend

from prophet_moe.checks import check_names, check_values, mistake

KIND = "hardware"
MEMORY = ("pinned", "pageable")
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
LEAST = {"repeats": 2, "latency_repeats": 2, "latent_values": 0}
"""The least of whole numbers in the plan that may not start at 1: quartiles need two samples."""


@dataclass(frozen=True)
class TransferPlan:
    """Which copies between host and device, and on the device, are measured."""

    sizes: list[int]
    """Bytes of one copy."""
    memory: list[str]
    streams: list[int]
    """Streams that copy at once, each its own bytes."""
    calls_per_sample: int
    """Copies per stream between two events, at most."""
    bytes_per_sample: int
    """Fewer copies are made where this many bytes are moved already; at least one."""
    repeats: int
    latency_repeats: int
    """Single copies of the smallest size, by events and by the wall clock."""


@dataclass(frozen=True)
class Sampling:
    """How the time of a kernel is sampled: operands taken in turns, calls and repeats."""

    rotated_bytes: int
    """Calls take turns among copies of weights or KV cache of at least this many bytes, more than a cache holds."""
    calls_per_sample: int
    """Calls between two events; raised to a multiple of the copies."""
    repeats: int


@dataclass(frozen=True)
class Expert:
    """An expert of a model: gated has three matrices and SiLU, otherwise two and ReLU."""

    model: str
    hidden: int
    inner: int
    gated: bool


@dataclass(frozen=True)
class ExpertPlan:
    """Experts, and numbers of tokens that one is handed."""

    shapes: list[Expert]
    tokens: list[int]


@dataclass(frozen=True)
class Geometry:
    """The attention of a model; its KV cache has `head_dim` numbers per token and KV head for keys, as for values."""

    model: str
    heads: int
    kv_heads: int
    head_dim: int
    latent_values: int
    """0, or how many of the numbers of the one latent that is key and value are the value (MLA)."""


@dataclass(frozen=True)
class AttentionPlan:
    """Attention of one token per sequence: every geometry at every batch, context and kernel of PyTorch's."""

    geometries: list[Geometry]
    batches: list[int]
    contexts: list[int]
    backends: list[str]


@dataclass(frozen=True)
class Matmul:
    """A matrix product of (tokens, hidden) with (hidden, inner) that runs beside a copy."""

    tokens: int
    hidden: int
    inner: int


@dataclass(frozen=True)
class OverlapPlan:
    """A pinned copy to the device beside a chain of products that lasts about as long."""

    bytes: int
    matmuls: list[Matmul]
    repeats: int


@dataclass(frozen=True)
class Plan:
    """The whole plan of config/measurements/hardware.yaml: copies, experts, attention and overlap."""

    transfers: TransferPlan
    kernels: Sampling
    experts: ExpertPlan
    attention: AttentionPlan
    overlap: OverlapPlan


def check(plan: Plan) -> None:
    """Refuse values out of range, unknown kinds of memory and backends, and heads that cannot share a KV cache."""
    check_values(KIND, plan, LEAST)
    check_names(KIND, "transfers.memory", plan.transfers.memory, MEMORY)
    check_names(KIND, "attention.backends", plan.attention.backends, BACKENDS)
    for number, shape in enumerate(plan.attention.geometries):
        expected = ""
        if shape.heads % shape.kv_heads:
            expected = f"kv_heads: got {shape.kv_heads}, expected a divisor of the {shape.heads} heads"
        elif shape.latent_values and shape.kv_heads != 1:
            expected = f"kv_heads: got {shape.kv_heads}, expected 1 where there is a latent"
        elif shape.latent_values > shape.head_dim:
            expected = f"latent_values: got {shape.latent_values}, expected at most head_dim ({shape.head_dim})"
        if expected:
            raise mistake(KIND, f"attention.geometries[{number}].{expected}")

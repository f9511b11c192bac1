"""An estimate of a decode step, with an interval, beside its bound.

Where a GPU has fitted operators (`operators`), a layer takes the sum of its operators and a constant for what no table
has: norms, rotary positions, routing, launches. Elsewhere a step takes its roofline over a share of the bandwidth, and
another constant per layer. Constants and intervals are fitted to published times (`observed.times`) and lie in
resources/operators/constants.json with the rows that fixed them. Intervals come from residuals of groups that the
constants had not seen, of the GPU and engine where there are enough.

On n GPUs each reads 1/n of the matrices, of the experts and of the KV heads (of which it has at least one, and of a
latent all), routers and norms whole; the GPUs sum their outputs after every mixer and every FFN. The roofline of
`roofline` stays the bound: an estimate is never below it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prophet_moe import params
from prophet_moe.catalog import GpuSpec
from prophet_moe.catalog.architecture import Architecture, Block, Latent, Moe, letters
from prophet_moe.errors import UserError
from prophet_moe.hardware.operators import MICROSECOND, TFLOP, Operators, operators_for
from prophet_moe.hardware.roofline import attention_reads
from prophet_moe.params.cache import mixer_state
from prophet_moe.params.weights import Weights, block_weights, key_value_weights, stack_weights
from prophet_moe.precision import BF16, Precision
from prophet_moe.units import GB
from prophet_moe.validation import StrictModel, read_json, validate

CONSTANTS = "constants.json"
"""Name of the file of constants in the folder of fitted operators."""
ANY = ""
"""In place of the name of a GPU or an engine: all of them."""


class Operation(NamedTuple):
    """One launch of a decode step on one GPU: what it moves and computes."""

    kind: str
    """moe_layer, gemm, attention, mla or all_reduce of `operators`; `vectors` and `state` are read beside these."""
    format: str
    """Format of weights or cache; the number of GPUs of a sum over them."""
    bytes: float
    flops: float
    experts: float
    """Distinct experts of an MoE layer whose weights, or parts of them, are on this GPU; 0 of other operators."""
    group: str
    """What the roofline counts as one: weights, experts, a read of attention, state. Sums over GPUs are not in it."""


@dataclass(frozen=True)
class Split:
    """How a model is spread over GPUs."""

    gpus: int = 1
    by_expert: bool = False
    """Whether a GPU has whole experts (expert parallel), and not a part of each (tensor parallel)."""


ONE = Split()
"""All of the model on one GPU."""


class LayerConstants(StrictModel):
    """What a layer takes beside its operators, or a step beside its roofline, and the rows that fixed it."""

    layer_us: float
    """Microseconds per layer."""
    hbm_share: float = 1.0
    """Share of the roofline's speed that is reached."""
    rows: int
    groups: int
    """Combinations of model, engine and GPU among the rows."""


class Residuals(StrictModel):
    """Quantiles of measured over estimated time, of groups that the constants had not seen."""

    gpu: str
    engine: str
    """Empty where the residuals are of all GPUs or of all engines."""
    operators: bool
    """Whether the estimates are sums of operators."""
    low: float
    """The 0.05 quantile."""
    high: float
    """The 0.95 quantile."""
    rows: int
    groups: int


class Constants(StrictModel):
    """The whole file of constants, resources/operators/constants.json."""

    source: str
    """The file of observations that they were fitted to."""
    with_operators: LayerConstants
    without_operators: LayerConstants
    residuals: list[Residuals]

    def residuals_of(self, gpu: str, engine: str, operators: bool) -> Residuals:
        """Return the residuals of a GPU and engine, else of the GPU, else of all."""
        found = {(each.gpu, each.engine): each for each in self.residuals if each.operators == operators}
        return found.get((gpu, engine)) or found.get((gpu, ANY)) or found[ANY, ANY]


BARE = Constants(
    source="none",
    with_operators=LayerConstants(layer_us=0.0, rows=0, groups=0),
    without_operators=LayerConstants(layer_us=0.0, rows=0, groups=0),
    residuals=[],
)
"""No constants: operators and rooflines as they are, to which constants are fitted."""


def read_constants(path: Path) -> Constants:
    """Read the fitted constants of estimates; a mistake in the file is a UserError."""
    return validate(Constants, read_json(path), str(path), "Fit them again: prophet-moe times fit")


def read_estimators(folder: Path, gpus: Mapping[str, GpuSpec]) -> dict[str, "Estimator"]:
    """Return what estimates of each GPU are made of: constants and fitted operators of `folder`, resources/operators.

    A mistake in one of its files is a UserError.
    """
    constants = read_constants(folder / CONSTANTS)
    return {name: Estimator(name, spec, operators_for(folder, name, spec), constants) for name, spec in gpus.items()}


@dataclass(frozen=True)
class StepEstimate:
    """Seconds of one decode step: the estimate, nine tenths of what similar servers take, and the bound."""

    seconds: float
    low: float
    high: float
    bound: float
    basis: str
    """What the estimate rests on: `operators`, or `share of bandwidth`."""
    parts: Mapping[str, float]
    """Seconds by kind of operator, and `rest`."""


@dataclass(frozen=True)
class Estimator:
    """What estimates of one GPU are made of."""

    gpu: str
    spec: GpuSpec
    operators: Operators | None
    constants: Constants

    @property
    def basis(self) -> str:
        """Return what estimates of this GPU rest on, in words."""
        return "operators" if self.operators else "share of bandwidth"

    def operation_seconds(self, operation: Operation) -> float:
        """Return the seconds of one operation, by the fits of its kind, or by the share of the roofline."""
        if self.operators is None:
            return self.bound_seconds([operation]) / self.constants.without_operators.hbm_share
        kind, format, size, flops, experts, _ = operation
        if kind == "vectors":  # read by the kernels of the constant
            return self.operators.fit("gemm", format).moving_seconds(self.spec, size, flops)
        return self.operators.fit("attention" if kind == "state" else kind, format).seconds(
            self.spec, size, flops, experts
        )

    def expert_seconds(self, arch: Architecture, tokens: float, precision: Precision) -> float:
        """Return the seconds that one more distinct expert, which computes `tokens` tokens, adds to an MoE layer."""
        expert = expert_operation(arch, 1, tokens, precision)
        return self.operation_seconds(expert) - self.operation_seconds(expert._replace(bytes=0, flops=0, experts=0))

    def bound_seconds(self, operations: Iterable[Operation]) -> float:
        """Return the roofline of operations: for each group the longer of its bytes and its FLOPs at the peaks."""
        sums: dict[str, tuple[float, float]] = {}
        for each in operations:
            if each.kind != "all_reduce":
                size, flops = sums.get(each.group, (0.0, 0.0))
                sums[each.group] = size + each.bytes, flops + each.flops
        bandwidth, peak = self.spec.hbm_gb_per_s * GB, self.spec.peak_tflops * TFLOP
        return sum(max(size / bandwidth, flops / peak) for size, flops in sums.values())

    def parts(self, operations: Sequence[Operation], layers: int) -> dict[str, float]:
        """Return the seconds by kind of operator, and `rest`: the constant of `layers` layers."""
        if self.operators is None:
            share, each = self.constants.without_operators.hbm_share, self.constants.without_operators.layer_us
            return {"roofline": self.bound_seconds(operations) / share, "rest": layers * each * MICROSECOND}
        found: dict[str, float] = {}
        for operation in operations:
            found[operation.kind] = found.get(operation.kind, 0.0) + self.operation_seconds(operation)
        return {**found, "rest": layers * self.constants.with_operators.layer_us * MICROSECOND}


def layer_operations(
    arch: Architecture, block: Block, batch: int, context: int, used: float, precision: Precision, split: Split = ONE
) -> Iterator[Operation]:
    """Yield the operations of one layer on each GPU; `used` are the distinct experts of the whole batch."""
    gpus = split.gpus
    parts = [each for each in block_weights(arch, block) if each.component != "routed_experts"]
    mixer = arch.mixers[block.mixer] if block.mixer else None
    ffn = arch.ffns[block.ffn] if block.ffn else None
    if arch.encoder and mixer:
        for each in key_value_weights(mixer, arch.hidden):
            parts.remove(each)
    yield from _products(parts, batch, precision, gpus)
    if mixer:
        kind = "mla" if isinstance(mixer, Latent) and precision.mla_cache == "latent" else "attention"
        kv = "bf16" if precision.kv in ("fp32", "bf16") else "fp8"
        for number, read in enumerate(attention_reads(mixer, precision)):
            entries = batch * read.entries(context)
            size = entries * read.shape.cached_values * read.value_bytes / min(gpus, read.shape.kv_heads)
            scored = "attention" if read.scores_only else kind
            yield Operation(scored, kv, size, entries * read.flops / gpus, 0, f"read {number}")
        if state := mixer_state(mixer, arch.hidden, precision):
            yield Operation("state", "bf16", 2 * batch * state.bytes / gpus, 0, 0, "state")
    if isinstance(ffn, Moe) and used:
        yield expert_operation(arch, used, batch * ffn.top_k, precision, split)
    if gpus > 1:
        for _ in filter(None, (mixer, ffn)):
            yield Operation("all_reduce", str(gpus), 2 * batch * arch.hidden, 0, 0, "sums")


def expert_operation(
    arch: Architecture, used: float, tokens: float, precision: Precision, split: Split = ONE
) -> Operation:
    """Return what `used` distinct experts of a layer do on each GPU for `tokens` tokens, one per expert and token."""
    size = used * params.expert_bytes(arch, precision) / split.gpus
    flops = 2 * tokens * params.expert_parameters(arch) / split.gpus
    format = precision.components.get("routed_experts", precision.default)
    return Operation("moe_layer", format, size, flops, used / split.gpus if split.by_expert else used, "experts")


def _products(parts: Iterable[Weights], batch: int, precision: Precision, gpus: int) -> Iterator[Operation]:
    """Yield one product for the matrices that share an input, as engines join them, and one entry for all vectors."""
    joined: dict[tuple[str | int, ...], list[Weights]] = {}
    for each in parts:
        vector = each.plain and each.rows == 1
        key = ("vectors",) if vector else (each.component, each.columns, each.part, each.plain)
        joined.setdefault(key, []).append(each)
    for key, members in joined.items():
        size, weights = params.stored_bytes(members, precision), sum(each.parameters for each in members)
        first = members[0]
        whole = first.plain or first.component in params.UNQUANTISED
        own = precision.components.get(first.part) or precision.components.get(first.component, precision.default)
        shared = 1 if whole else gpus
        kind, format = ("vectors" if key == ("vectors",) else "gemm"), ("bf16" if whole else own)
        yield Operation(kind, format, size / shared, 2 * weights * batch / shared, 0, "weights")


def head_operation(arch: Architecture, batch: int, precision: Precision, split: Split = ONE) -> Operation:
    """Return the product with the output embedding on each GPU, which has a part of the vocabulary."""
    head = Weights("embeddings", arch.vocab, arch.hidden)
    format = precision.components.get("embeddings", precision.default)
    size = params.stored_bytes([head], precision) / split.gpus
    return Operation("gemm", format, size, 2 * head.parameters * batch / split.gpus, 0, "head")


def step_operations(
    arch: Architecture,
    batch: int,
    context: int,
    unique_experts: float | Sequence[float],
    precision: Precision = BF16,
    split: Split = ONE,
) -> list[list[Operation]]:
    """Return the operations of every layer of the decoder on each GPU; its last norm counts with the first layer.

    `unique_experts` is u(B), one number or one per MoE layer of the decoder.
    """
    _check(arch, batch, context, split, unique_experts)
    moe = arch.moe_layers
    used = dict(zip(moe, np.broadcast_to(np.asarray(unique_experts, float), len(moe)).tolist(), strict=True))
    known: dict[tuple[str, float], list[Operation]] = {}
    layers = []
    for number, letter in enumerate(letters(arch.pattern)):
        key = letter, used.get(number, 0.0)
        if key not in known:
            known[key] = list(layer_operations(arch, arch.blocks[letter], batch, context, key[1], precision, split))
        layers.append(known[key])
    once = list(_products(stack_weights(arch, arch.pattern), batch, precision, split.gpus))
    return [layers[0] + once, *layers[1:]]


def estimate_step(
    estimator: Estimator,
    arch: Architecture,
    batch: int,
    context: int,
    unique_experts: float | Sequence[float],
    precision: Precision = BF16,
    split: Split = ONE,
    engine: str = ANY,
) -> StepEstimate:
    """Estimate the seconds of a step that decodes one token in each sequence of a batch.

    Parameters
    ----------
    estimator : Estimator
        The GPU with its operators and constants.
    arch : Architecture
        The model; of an encoder-decoder the decoder decodes.
    batch, context : int
        Sequences, and cached tokens of each.
    unique_experts : float or sequence of float
        u(B), one number or one per MoE layer of the decoder.
    precision : Precision
        Formats of weights, cache and state.
    split : Split
        GPUs, and whether a GPU has whole experts.
    engine : str
        The engine whose residuals make the interval where there are enough of it.

    Returns
    -------
    StepEstimate
        The estimate, its interval of 90 %, and the bound by the datasheet.

    Raises
    ------
    UserError
        Where a number is impossible.
    """
    layers = step_operations(arch, batch, context, unique_experts, precision, split)
    head = head_operation(arch, batch, precision, split)
    bound = sum(estimator.bound_seconds(layer) for layer in layers) + estimator.bound_seconds([head])
    parts: dict[str, float] = {}
    for operations, count in [*((layer, 1) for layer in layers), ([head], 0)]:
        for kind, seconds in estimator.parts(operations, count).items():
            parts[kind] = parts.get(kind, 0.0) + seconds
    seconds = max(bound, sum(parts.values()))
    spread = estimator.constants.residuals_of(estimator.gpu, engine, estimator.operators is not None)
    low, high = max(bound, seconds * min(1.0, spread.low)), seconds * max(1.0, spread.high)
    return StepEstimate(seconds, low, high, bound, estimator.basis, parts)


def _check(arch: Architecture, batch: int, context: int, split: Split, unique_experts: float | Sequence[float]) -> None:
    for name, value in (("batch", batch), ("context", context), ("gpus", split.gpus)):
        if not (math.isfinite(value) and value >= 1):
            raise UserError(f"decode step: {name}", f"got {value}, expected at least 1", "Correct it.")
    if split.by_expert and arch.moe and arch.moe.experts < split.gpus:
        problem = f"got {split.gpus}, expected at most {arch.moe.experts}, the experts of a layer"
        raise UserError("decode step: gpus", problem, "Correct it.")
    most = min(arch.moe.experts, arch.moe.top_k * batch) if arch.moe else 0
    wrong = [each for each in np.ravel(unique_experts) if arch.moe and not 0 < each <= most * (1 + 1e-9)]
    if wrong:
        problem = f"got {wrong[0]:g}, expected above 0 and at most {most}, the experts that {batch} tokens can use"
        raise UserError("decode step: unique_experts", problem, "Correct it.")

"""An estimate of a decode step beside its bound: operators as measured, and one constant per layer for the rest.

Where a GPU has operator tables (`operators`), a layer takes the sum of its operators and a constant; elsewhere its
roofline over a share of the bandwidth, and a constant. On n GPUs every GPU reads 1/n of the matrices, of the experts
and of the KV heads (of which it has at least one, and of a latent all), and the GPUs sum their outputs after every
mixer and every FFN. The roofline of `roofline` stays the bound: an estimate is never below it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from prophet_moe import params
from prophet_moe.catalog import GpuSpec
from prophet_moe.catalog.architecture import Architecture, Block, Dense, Latent, Moe, letters
from prophet_moe.hardware.operators import TFLOP, Operators
from prophet_moe.hardware.roofline import attention_reads
from prophet_moe.params.cache import mixer_state
from prophet_moe.params.weights import Weights, block_weights, key_value_weights, stack_weights
from prophet_moe.precision import BF16, Precision
from prophet_moe.units import GB


class Operation(NamedTuple):
    """One launch of a decode step on one GPU: what it moves and computes."""

    kind: str
    """moe_layer, gemm, attention, mla or all_reduce of `operators`; `vectors` and `state` move bytes with others."""
    format: str
    """Format of weights or cache; the number of GPUs of a sum over them."""
    bytes: float
    flops: float
    experts: float
    """Distinct experts of an MoE layer whose weights are on this GPU; 0 of other operators."""
    group: str
    """What the roofline counts as one: weights, experts, a read of attention, state, sums."""


def layer_operations(
    arch: Architecture, block: Block, batch: int, context: int, used: float, precision: Precision, gpus: int = 1
) -> Iterator[Operation]:
    """Yield the operations of one layer on each of `gpus` GPUs; `used` are the distinct experts of the whole batch."""
    parts = [each for each in block_weights(arch, block) if each.component != "routed_experts"]
    mixer = arch.mixers[block.mixer] if block.mixer else None
    ffn = arch.ffns[block.ffn] if block.ffn else None
    if arch.encoder and mixer:
        for each in key_value_weights(mixer, arch.hidden):
            parts.remove(each)
    yield from _products(parts, batch, precision, gpus)
    if mixer:
        kv = precision.kv if precision.kv in ("bf16", "fp8") else "fp8"
        kind = "mla" if isinstance(mixer, Latent) and precision.mla_cache == "latent" else "attention"
        for number, read in enumerate(attention_reads(mixer, precision)):
            shape = read.shape
            split = max(1 / gpus, 1 / shape.kv_heads)
            entries = batch * read.entries(context)
            size = entries * shape.cached_values * read.value_bytes * split
            yield Operation(kind, kv, size, entries * read.flops / gpus, 0, f"read {number}")
        if state := mixer_state(mixer, arch.hidden, precision):
            yield Operation("state", "bf16", 2 * batch * state.bytes / gpus, 0, 0, "state")
    if isinstance(ffn, Moe) and used:
        expert = params.expert_bytes(arch, precision)
        flops = 2 * batch * ffn.top_k * params.expert_parameters(arch)
        format = precision.components.get("routed_experts", precision.default)
        yield Operation("moe_layer", format, used * expert / gpus, flops / gpus, used, "experts")
    if gpus > 1:
        for part in (mixer, ffn):
            if part is not None:
                yield Operation("all_reduce", str(gpus), 2 * batch * arch.hidden, 0, 0, "sums")


def _products(parts: Iterable[Weights], batch: int, precision: Precision, gpus: int) -> Iterator[Operation]:
    """Yield one product for the matrices that share an input, as engines join them, and one entry for all vectors."""
    joined: dict[tuple, list[Weights]] = {}
    for each in parts:
        vector = each.plain and each.rows == 1
        key = ("vectors",) if vector else (each.component, each.columns, each.part, each.plain)
        joined.setdefault(key, []).append(each)
    for key, members in joined.items():
        size, weights = params.stored_bytes(members, precision), sum(each.parameters for each in members)
        if key == ("vectors",):
            yield Operation("vectors", "bf16", size, 2 * weights * batch, 0, "weights")
            continue
        first = members[0]
        plain = first.plain or first.component == "router"
        format = "bf16" if plain else precision.components.get(first.component, precision.default)
        split = 1 if plain else gpus
        yield Operation("gemm", format, size / split, 2 * weights * batch / split, 0, "weights")


def head_operation(arch: Architecture, batch: int, precision: Precision, gpus: int = 1) -> Operation:
    """Return the product with the output embedding, on each of `gpus` GPUs."""
    head = Weights("embeddings", arch.vocab, arch.hidden)
    format = precision.components.get("embeddings", precision.default)
    size = params.stored_bytes([head], precision) / gpus
    return Operation("gemm", format, size, 2 * head.parameters * batch / gpus, 0, "head")


def step_operations(
    arch: Architecture, batch: int, context: int, used: float, precision: Precision = BF16, gpus: int = 1
) -> Iterator[tuple[int, tuple[Operation, ...]]]:
    """Yield how many layers are alike and the operations of one, for every kind of layer of the decoder."""
    for letter, count in Counter(letters(arch.pattern)).items():
        yield count, tuple(layer_operations(arch, arch.blocks[letter], batch, context, used, precision, gpus))

"""What ways of serving a model keep on the GPU, leave in host memory, and copy in a decode step. Bytes of weights.

* `all_resident`: every weight is on the GPU.
* `every_expert`: routed experts are in host memory. A step copies all of a layer, needed or not, into room for one.
* `needed_experts`: the same, but a layer copies what its router chose, into room for that.
* `slots`: each layer has slots for some experts, and the others are in host memory.
* `streamed`: all weights but the embeddings are in host memory. A step copies layer by layer, into room for two: a
  layer computes while the next one is copied. DeepSpeed's ZeRO-Inference does so with the embeddings as well, and its
  first release keeps the KV cache on the GPU (arXiv 2207.00032; microsoft/DeepSpeed, docs/_posts/2022-09-10-zero-
  inference.md). FlexGen may keep that in host memory too, and its zig-zag schedule shares each copy among as many
  sequences as a block of batches holds (arXiv 2303.06865): one step of such a block is a step of that many sequences.
"""

from dataclasses import dataclass

from prophet_moe import params
from prophet_moe.catalog import Architecture
from prophet_moe.catalog.architecture import letters
from prophet_moe.params.weights import block_weights, stack_weights
from prophet_moe.precision import Precision

BUFFERED_LAYERS = 2
"""Layers that streaming holds at once: one that computes, and the next one."""


@dataclass(frozen=True)
class Sizes:
    """What the weights of a model consist of, in bytes; encoder and decoder together but for `layers`."""

    experts: float
    """Routed experts per MoE layer, E."""
    expert_bytes: float
    layers: float
    """MoE layers that a decode step runs, those of the decoder."""
    encoder_layers: float
    """MoE layers of an encoder, which a decode step does not run."""
    kept_bytes: float
    """What streaming keeps on the GPU: the embeddings."""
    decoder_bytes: float
    """All other weights of the decoder that are no routed experts."""
    encoder_bytes: float
    """The same of an encoder."""
    blocks: float
    """Layers of the decoder, of any kind."""

    @property
    def other_bytes(self) -> float:
        """Return the bytes of weights that are no routed experts."""
        return self.kept_bytes + self.decoder_bytes + self.encoder_bytes

    @property
    def routed_bytes(self) -> float:
        """Return the bytes of all routed experts."""
        return (self.layers + self.encoder_layers) * self.layer_bytes

    @property
    def layer_bytes(self) -> float:
        """Return the bytes of a layer's routed experts."""
        return self.experts * self.expert_bytes

    @property
    def total_bytes(self) -> float:
        """Return the bytes of all weights."""
        return self.other_bytes + self.routed_bytes


@dataclass(frozen=True)
class Placement:
    """Where weights are, and what a decode step copies. Bytes on the GPU and in host memory add up to all weights."""

    gpu_bytes: float
    """Weights that are on the GPU."""
    buffer_bytes: float
    """Room on the GPU for copies of others."""
    host_bytes: float
    """Weights that are in host memory."""
    gpu_expert_bytes: float
    """Routed experts on the GPU, and room for copies of them."""
    moved_bytes: float
    """What a step copies."""
    copies: float
    """In how many pieces."""


def sizes_of(arch: Architecture, precision: Precision) -> Sizes:
    """Return the sizes of a published architecture in given formats, exact to the byte."""
    stored = params.weight_bytes(arch, precision)
    embeddings = stored.get("embeddings", 0)
    others = sum(size for part, size in stored.items() if part not in ("embeddings", "routed_experts"))
    decoder = others
    if arch.encoder:
        parts = [*stack_weights(arch, arch.pattern)]
        for letter in letters(arch.pattern):
            parts += [each for each in block_weights(arch, arch.blocks[letter]) if each.component != "routed_experts"]
        decoder = params.stored_bytes(parts, precision)
    return Sizes(
        experts=arch.moe.experts,
        expert_bytes=params.expert_bytes(arch, precision),
        layers=len(arch.moe_layers),
        encoder_layers=params.encoder_moe_layers(arch),
        kept_bytes=embeddings,
        decoder_bytes=decoder,
        encoder_bytes=others - decoder,
        blocks=sum(1 for _ in letters(arch.pattern)),
    )


def all_resident(sizes: Sizes) -> Placement:
    """Return the placement of the baseline: every weight on the GPU."""
    return Placement(sizes.total_bytes, 0.0, 0.0, sizes.routed_bytes, 0.0, 0.0)


def every_expert(sizes: Sizes) -> Placement:
    """Return the placement that copies every expert in each step, a layer in one piece."""
    layer = sizes.layer_bytes
    return Placement(sizes.other_bytes, layer, sizes.routed_bytes, layer, sizes.layers * layer, sizes.layers)


def needed_experts(sizes: Sizes, unique: float) -> Placement:
    """Return the placement that copies the `unique` experts of a layer that a step needs, u(B), and keeps none."""
    room, copies = min(sizes.experts, -(-unique // 1)) * sizes.expert_bytes, sizes.layers * unique
    return Placement(sizes.other_bytes, room, sizes.routed_bytes, room, copies * sizes.expert_bytes, copies)


def slots(sizes: Sizes, count: float, unique: float, miss_share: float) -> Placement:
    """Return the placement with `count` slots in each layer, of whose `unique` needed experts a share is missing.

    All experts of an encoder stay on the GPU, as the memory model of docs/model.md has it.
    """
    held = (sizes.encoder_layers * sizes.experts + sizes.layers * count) * sizes.expert_bytes
    copies = sizes.layers * unique * miss_share
    host = sizes.layers * (sizes.experts - count) * sizes.expert_bytes
    return Placement(sizes.other_bytes + held, 0.0, host, held, copies * sizes.expert_bytes, copies)


def streamed(sizes: Sizes, host_cache_bytes: float = 0.0) -> Placement:
    """Return the placement that streams the weights of every layer, and a KV cache on the host of so many bytes."""
    room = BUFFERED_LAYERS * (sizes.layer_bytes + sizes.decoder_bytes / sizes.blocks)
    moved = sizes.decoder_bytes + sizes.layers * sizes.layer_bytes + host_cache_bytes
    host = sizes.total_bytes - sizes.kept_bytes
    pieces = sizes.blocks * (2 if host_cache_bytes else 1)
    return Placement(sizes.kept_bytes, room, host, BUFFERED_LAYERS * sizes.layer_bytes, moved, pieces)

"""The part of a model that one GPU of several holds, as an architecture of its own: whatever counts a model counts it.

Tensor parallelism splits heads, inner widths and the rows of embeddings; one KV head per GPU is the least. What every
GPU holds whole: routers, norms, the down-projections and the cache of latent attention, index branches. Expert
parallelism splits the experts themselves, and pipeline parallelism the layers. Source: the linear layers of vLLM
(`ColumnParallelLinear`, `RowParallelLinear`, `ReplicatedLinear`, `QKVParallelLinear`) and what its logs print.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise

from prophet_moe.catalog.architecture import (
    Architecture,
    Compressed,
    Dense,
    Ffn,
    GatedDeltaNet,
    KimiDelta,
    Latent,
    Lightning,
    Mamba1,
    Mamba2,
    Mixer,
    ShortConv,
    Softmax,
    letters,
)
from prophet_moe.errors import UserError
from prophet_moe.params.weights import Weights, weights


@dataclass(frozen=True)
class Parallelism:
    """How a model is spread over GPUs. All sizes are 1 for one GPU."""

    tensor: int = 1
    """GPUs that share the matrices of a layer, tp."""
    pipeline: int = 1
    """Groups of GPUs that hold some layers each, pp."""
    expert: int = 1
    """GPUs that share whole experts, ep; 1: experts are split like other matrices."""
    data: int = 1
    """Copies of attention among the GPUs of a pipeline stage, dp."""
    attention_inside: bool = False
    """Whether the copies of attention divide the tensor-parallel GPUs (SGLang's DP attention), rather than multiply
    them (vLLM)."""
    layers: tuple[int, ...] = ()
    """Layers of every pipeline stage; none given: as even as can be, the first stages one more."""

    @property
    def attention(self) -> int:
        """Return the GPUs that share one attention."""
        return max(1, self.tensor // self.data) if self.attention_inside else self.tensor

    @property
    def experts_over(self) -> int:
        """Return the GPUs that share the experts of a layer, whole or in parts."""
        return self.tensor if self.attention_inside else self.tensor * self.data

    @property
    def gpus(self) -> int:
        """Return the number of all GPUs."""
        return self.experts_over * self.pipeline

    @property
    def named(self) -> str:
        """Return the layout in words, such as `tp 8`, `dp 8, ep 8` or `pp 2, tp 4`; `1 GPU` where there is one."""
        sizes = (("pp", self.pipeline), ("dp", self.data), ("tp", self.tensor), ("ep", self.expert))
        return ", ".join(f"{name} {size}" for name, size in sizes if size > 1) or "1 GPU"

    def stage_layers(self, depth: int) -> tuple[int, ...]:
        """Return the number of layers of every pipeline stage of a model of `depth` layers."""
        if self.layers:
            return self.layers
        each, more = divmod(depth, self.pipeline)
        # vLLM gives what is left over to the stages before the last one; the last holds the head.
        return tuple(each + (self.pipeline - 1 - more <= stage < self.pipeline - 1) for stage in range(self.pipeline))


ONE_GPU = Parallelism()
"""A model on one GPU, which holds all of it."""


def check_parallelism(arch: Architecture, over: Parallelism, name: str = "parallelism") -> None:
    """Refuse a way of spreading that engines refuse, too: heads, experts and layers must divide."""
    if over.attention_inside and over.tensor % over.data:
        raise UserError(name, f"dp {over.data} divides no tp {over.tensor}", "Choose a divisor of tp.")
    if over.pipeline > len(arch.layers()):
        problem = f"pp {over.pipeline} is more than the {len(arch.layers())} layers of the model"
        raise UserError(name, problem, "Choose fewer stages.")
    if over.layers and (len(over.layers) != over.pipeline or sum(over.layers) != len(arch.layers())):
        problem = (
            f"stages of {', '.join(map(str, over.layers))} layers, expected {len(arch.layers())} in {over.pipeline}"
        )
        raise UserError(name, problem, "Correct them.")
    if over.expert > 1 and over.expert != over.experts_over:
        problem = f"ep {over.expert}, expected 1 or all {over.experts_over} GPUs of a stage"
        raise UserError(name, problem, "Engines spread experts over tp x dp GPUs.")
    for mixer in arch.mixers.values():
        heads = getattr(mixer, "heads", None) or getattr(mixer, "value_heads", None)
        if heads and heads % over.attention:
            problem = f"{over.attention} GPUs do not divide the {heads} heads of a {mixer.kind} layer"
            raise UserError(name, problem, "Choose a divisor.")


def shard(arch: Architecture, over: Parallelism, stage: int = 0, vocab_multiple: int = 1) -> Architecture:
    """Return what one GPU of a pipeline stage holds: an architecture with its heads, widths, experts and layers.

    Its embeddings are those of a first and last stage; `stage_weights` leaves out those that a stage lacks.
    """
    padded = -(-arch.vocab // vocab_multiple) * vocab_multiple
    return arch.model_copy(
        update={
            "vocab": _split(padded, over.attention),
            "mixers": {name: _mixer(mixer, over.attention) for name, mixer in arch.mixers.items()},
            "ffns": {name: _ffn(ffn, over) for name, ffn in arch.ffns.items()},
            "pattern": [stage_patterns(arch, over)[stage]],
            "other": {name: _split(size, over.attention) for name, size in arch.other.items()},
        }
    )


def stage_patterns(arch: Architecture, over: Parallelism) -> tuple[str, ...]:
    """Return the layers of every pipeline stage, a letter of the architecture's pattern each."""
    pattern, ends = "".join(letters(arch.pattern)), accumulate(over.stage_layers(len(arch.layers())), initial=0)
    return tuple(pattern[first:end] for first, end in pairwise(ends))


def stage_weights(arch: Architecture, first: bool, last: bool) -> Iterator[Weights]:
    """Yield the weights of a shard without the embedding that only a first stage has, and the head of a last one."""
    for each in weights(arch):
        is_head = each.component == "embeddings" and (each.part == "output_embedding" or each.plain)
        if is_head and not last:
            continue
        if each.component == "embeddings" and not is_head and not first and not (arch.tied_embeddings and last):
            continue
        yield each


def _split(size: int, parts: int) -> int:
    return -(-size // parts)


def _mixer(mixer: Mixer, over: int) -> Mixer:
    """Return a mixer with the heads of one GPU."""
    match mixer:
        case Softmax():
            parts = {"heads": _split(mixer.heads, over), "kv_heads": _split(mixer.kv_heads, over)}
        case Latent() | KimiDelta() | Lightning():
            parts = {"heads": _split(mixer.heads, over)}
        case Compressed():
            parts = {"heads": _split(mixer.heads, over), "o_groups": _split(mixer.o_groups, over)}
        case Mamba1():
            parts = {"inner": _split(mixer.inner, over)}
        case Mamba2():
            parts = {"heads": _split(mixer.heads, over), "groups": _split(mixer.groups, over)}
        case GatedDeltaNet():
            parts = {"key_heads": _split(mixer.key_heads, over), "value_heads": _split(mixer.value_heads, over)}
        case ShortConv():
            parts = {}  # No engine splits it: some thousand weights per layer.
    return mixer.model_copy(update=parts)


def _ffn(ffn: Ffn, over: Parallelism) -> Ffn:
    """Return an FFN with the widths, or with the experts, of one GPU."""
    wide = over.attention
    if isinstance(ffn, Dense):
        return ffn.model_copy(update={"ffn": _split(ffn.ffn, wide)})
    if over.expert == 1:
        routed = {"ffn": _split(ffn.ffn, over.experts_over)}
    else:
        # The router still has an output for every expert, those of other GPUs without weights here.
        here = _split(ffn.experts, over.expert)
        routed = {"experts": here, "zero_experts": ffn.zero_experts + ffn.experts - here}
    shared = {"shared_ffn": _split(ffn.shared_ffn, wide), "dense_beside": _split(ffn.dense_beside, wide)}
    return ffn.model_copy(update={**routed, **shared})

"""Peak bytes of activations, by the widest of the blocks that run one after another."""

from prophet_moe.catalog.architecture import (
    Architecture,
    Block,
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
    Moe,
    ShortConv,
    Softmax,
)


def activation_bytes_per_token(arch: Architecture, bits: int = 16) -> int:
    """Return the peak activation bytes per token in flight, the widest of the blocks that run one after another.

    Every block keeps the residual and its normalised copy; then attention holds Q, K, V and its output (fused kernels,
    no score matrix); an MoE block holds the router logits in FP32 and, for each of the k chosen experts, the gathered
    input, the inner activations and the output; a dense or shared FFN its inner activations and output; linear
    attention and Mamba the projected input with its gate, the convolved input, the step sizes and the output.
    """
    streams = max(1, arch.hyper_connections)
    widest = max(_block(arch, block, bits) for block in arch.blocks.values())
    return ((1 + streams) * arch.hidden + widest) * bits // 8


def logits_bytes_per_sequence(arch: Architecture, bits: int = 16) -> int:
    """Return the bytes of the last position's logits, kept as computed and in FP32 for sampling."""
    return arch.vocab * (bits + 32) // 8


def _block(arch: Architecture, block: Block, bits: int) -> int:
    mixed = _mixer(arch.mixers[block.mixer], arch.hidden) if block.mixer else 0
    return max(mixed, _ffn(arch.ffns[block.ffn], arch.hidden, bits) if block.ffn else 0)


def _mixer(mixer: Mixer, hidden: int) -> int:
    """Return the values that a mixer holds per token at its peak."""
    match mixer:
        case Softmax(heads=heads, kv_heads=kv_heads):
            return (heads + kv_heads) * (mixer.head_dim + mixer.value_dim)
        case Latent(heads=heads):
            return 2 * heads * (mixer.head_dim + mixer.v_head_dim)
        case Compressed(heads=heads, head_dim=head_dim):
            return 2 * heads * head_dim + head_dim + mixer.o_groups * mixer.o_lora_rank
        case Mamba1(inner=inner):
            return 5 * inner + mixer.dt_rank + 2 * mixer.state
        case Mamba2(heads=heads, head_dim=head_dim):
            return 4 * heads * head_dim + heads + 4 * mixer.groups * mixer.state
        case GatedDeltaNet(value_heads=value_heads):
            keys, values = mixer.key_heads * mixer.key_dim, value_heads * mixer.value_dim
            return 4 * keys + 4 * values + 2 * value_heads
        case KimiDelta(heads=heads, head_dim=head_dim):
            return 9 * heads * head_dim + heads
        case Lightning(heads=heads, head_dim=head_dim):
            return 5 * heads * head_dim
        case ShortConv():
            return 5 * hidden


def _ffn(ffn: Ffn, hidden: int, bits: int) -> int:
    """Return the values that an FFN holds per token at its peak."""
    copies = 3 if ffn.gated else 2

    def dense(inner: int, width: int = hidden) -> int:
        return copies * inner + width if inner else 0

    match ffn:
        case Dense():
            return dense(ffn.ffn)
        case Moe():
            width = ffn.latent or hidden
            routed = ffn.top_k * (width + dense(ffn.ffn, width))
            logits = (ffn.experts + ffn.zero_experts) * 32 // bits
            there_and_back = 2 * ffn.latent if ffn.latent else 0
            return routed + logits + there_and_back + dense(ffn.shared_ffn) + dense(ffn.dense_beside)

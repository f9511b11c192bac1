"""Exact accounting: parameters by component, KV-cache bytes and activation bytes of a published architecture.

Sources of the formulas: the class of each architecture in Hugging Face Transformers (which the tests under tests/peers
instantiate and compare), Switch Transformer (arXiv 2101.03961), DeepSeek-V2 (2405.04434, section 2.1: MLA),
Jamba (2403.19887) and Mamba (2312.00752).
"""

import math
from dataclasses import dataclass, fields
from decimal import Decimal

from prophet_moe.catalog import Architecture, ModelSpec
from prophet_moe.precision import BF16, Precision

NOTED_DEVIATION = 0.01
"""Share by which a count may differ from the published total before it is noted: authors round, and count heads."""


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by component. All but `routed_experts` are always resident, shared experts and gates included."""

    routed_experts: int
    shared_experts: int
    router: int
    dense_ffn: int
    attention: int
    mamba: int
    embeddings: int
    norms: int

    @property
    def total(self) -> int:
        """Return the number of all parameters of the model."""
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def non_expert(self) -> int:
        """Return the number of parameters that are not in a routed expert."""
        return self.total - self.routed_experts


def moe_layers(arch: Architecture) -> int:
    """Return the layers that hold an MoE block, over all stacks."""
    return sum(len(arch.moe.placement.layers(depth)) for depth in _stacks(arch))


def encoder_moe_layers(arch: Architecture) -> int:
    """Return the layers of the encoder that hold an MoE block; 0 without an encoder."""
    return len(arch.moe.placement.layers(arch.encoder_layers))


def attention_layers(arch: Architecture) -> int:
    """Return the decoder layers that keep a KV cache."""
    return len(arch.attention.placement.layers(arch.layers))


def expert_parameters(arch: Architecture) -> int:
    """Return the number of parameters of one routed expert."""
    return _ffn(arch, arch.moe.ffn)


def parameter_counts(arch: Architecture) -> ParameterCounts:
    """Count every parameter of `arch` by component, from its published shapes.

    Parameters
    ----------
    arch : Architecture
        The published architecture of a model.

    Returns
    -------
    ParameterCounts
        Exact whole numbers; shared experts and gates are counted apart from routed experts.

    References
    ----------
    The class of each architecture in Hugging Face Transformers, and the papers at the head of this module.
    """
    moe, layers = moe_layers(arch), sum(_stacks(arch))
    return ParameterCounts(
        routed_experts=moe * arch.moe.experts * expert_parameters(arch),
        shared_experts=moe * _ffn(arch, arch.moe.shared_ffn),
        router=moe * arch.hidden * (arch.moe.experts + arch.moe.shared_gate),
        dense_ffn=(layers - moe) * _ffn(arch, arch.dense_ffn) + moe * _ffn(arch, arch.residual_ffn),
        attention=_attention(arch),
        mamba=_mamba(arch),
        embeddings=(1 if arch.tied_embeddings else 2) * arch.vocab * arch.hidden,
        norms=_norms(arch),
    )


def deviation_from_published(spec: ModelSpec) -> float:
    """Return by what share counted parameters differ from the stated total, beyond the rounding of its digits.

    Negative where fewer are counted; 0 where the two agree within half a unit of the last digit that is stated.
    """
    stated = Decimal(str(spec.published_total_b))
    digits = max(0, -stated.normalize().as_tuple().exponent)
    apart = parameter_counts(spec.architecture).total / 1e9 - spec.published_total_b
    beyond = max(0.0, abs(apart) - 0.5 * 10.0**-digits)
    return math.copysign(beyond, apart) / spec.published_total_b


def active_parameters(arch: Architecture) -> int:
    """Return the parameters that one token uses: everything but the routed experts it does not choose."""
    return parameter_counts(arch).non_expert + moe_layers(arch) * arch.moe.top_k * expert_parameters(arch)


def _stacks(arch: Architecture) -> tuple[int, int]:
    return arch.encoder_layers, arch.layers


def _ffn(arch: Architecture, inner: int) -> int:
    return (3 if arch.moe.gated else 2) * arch.hidden * inner


def _attention(arch: Architecture) -> int:
    attention, hidden = arch.attention, arch.hidden
    if attention.kind == "MLA":
        query = hidden * attention.q_lora_rank + attention.q_lora_rank * attention.heads * attention.head_dim
        latent = hidden * (attention.kv_lora_rank + attention.rope_head_dim)
        expand = attention.kv_lora_rank * attention.heads * (attention.nope_head_dim + attention.v_head_dim)
        output = attention.heads * attention.v_head_dim * hidden
        norms = attention.q_lora_rank + attention.kv_lora_rank
        return attention_layers(arch) * (query + latent + expand + output + norms)

    query, key = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    block = hidden * (query + 2 * key) + query * hidden
    if attention.qkv_bias:
        block += query + 2 * key
    if attention.qk_norm == "per_head":
        block += 2 * attention.head_dim
    if attention.qk_norm == "full_width":
        block += query + key

    cross = attention_layers(arch) if arch.encoder_layers else 0
    tables = sum(1 for depth in _stacks(arch) if depth) * attention.relative_buckets * attention.heads
    return (arch.encoder_layers + attention_layers(arch) + cross) * block + tables


def source_projections(arch: Architecture) -> int:
    """Weights of the key and value projections of one decoder layer's cross-attention, 0 without an encoder.

    They are used once per source, when it has been encoded: a decode step reads the cached keys and values instead.
    """
    if not arch.encoder_layers:
        return 0
    key = arch.attention.kv_heads * arch.attention.head_dim
    return 2 * key * (arch.hidden + arch.attention.qkv_bias)


def _mamba(arch: Architecture) -> int:
    if arch.mamba is None:
        return 0
    m, hidden = arch.mamba, arch.hidden
    in_projection = hidden * 2 * m.inner
    convolution = m.inner * m.conv + m.inner
    selection = m.inner * (m.dt_rank + 2 * m.state)
    step = m.dt_rank * m.inner + m.inner
    transition_and_skip = m.inner * m.state + m.inner
    inner_norms = m.dt_rank + 2 * m.state
    out_projection = m.inner * hidden
    block = in_projection + convolution + selection + step + transition_and_skip + inner_norms + out_projection
    return _mamba_layers(arch) * block


def _mamba_layers(arch: Architecture) -> int:
    return arch.layers - attention_layers(arch) if arch.mamba else 0


def _norms(arch: Architecture) -> int:
    cross = attention_layers(arch) if arch.encoder_layers else 0
    final = sum(1 for depth in _stacks(arch) if depth)
    return arch.hidden * (arch.norms_per_layer * sum(_stacks(arch)) + cross + final)


def kv_bytes_per_token(arch: Architecture, precision: Precision = BF16) -> int:
    """Return KV-cache bytes per token of context and sequence.

    Parameters
    ----------
    arch : Architecture
        The published architecture of a model.
    precision : Precision
        Bits per value of the cache, and what MLA caches.

    Returns
    -------
    int
        Bytes over all layers that keep a cache.

    Notes
    -----
    MHA and GQA keep K and V of every KV head; MLA keeps the shared latent and one rotary key ("latent", as vLLM, SGLang
    and Transformers 5 do) or the expanded heads ("decompressed", Transformers 4). In an encoder-decoder a target token
    costs self-attention K and V and a source token costs cross-attention K and V, which have the same size: context is
    source plus target tokens.

    References
    ----------
    DeepSeek-V2 (arXiv 2405.04434), section 2.1, for MLA.
    """
    attention = arch.attention
    if attention.kind != "MLA":
        values = 2 * attention.kv_heads * attention.head_dim
    elif precision.mla_cache == "latent":
        values = attention.kv_lora_rank + attention.rope_head_dim
    else:
        values = attention.heads * (attention.head_dim + attention.v_head_dim)
    return attention_layers(arch) * values * precision.kv_bits // 8


def state_bytes_per_sequence(arch: Architecture, precision: Precision = BF16) -> int:
    """Return the bytes of recurrent state per sequence: convolution window and SSM state of Mamba layers."""
    if arch.mamba is None:
        return 0
    bits = arch.mamba.conv * precision.kv_bits + arch.mamba.state * precision.ssm_state_bits
    return _mamba_layers(arch) * arch.mamba.inner * bits // 8


def activation_bytes_per_token(arch: Architecture, bits: int = 16) -> int:
    """Return the peak activation bytes per token in flight, the widest of the blocks that run one after another.

    Every block keeps the residual and its normalised copy; then attention holds Q, K, V and its output (fused kernels,
    no score matrix); an MoE block holds the router logits in FP32 and, for each of the k chosen experts, the gathered
    input, the inner activations and the output; a dense or shared FFN its inner activations and output; Mamba the
    projected input with its gate, the convolved input, the step sizes and the scan's output.
    """
    hidden = arch.hidden
    copies = 3 if arch.moe.gated else 2

    def ffn(inner: int) -> int:
        return (copies * inner + hidden) if inner else 0

    attention = arch.attention
    value_dim = attention.v_head_dim if attention.kind == "MLA" else attention.head_dim
    key_heads = attention.heads if attention.kind == "MLA" else attention.kv_heads
    query_and_output = attention.heads * (attention.head_dim + value_dim)
    key_and_value = key_heads * (attention.head_dim + value_dim)

    routed = arch.moe.top_k * (hidden + ffn(arch.moe.ffn))
    router_logits = arch.moe.experts * 32 // bits
    moe = routed + router_logits + ffn(arch.moe.shared_ffn) + ffn(arch.residual_ffn)
    mamba = 0
    if arch.mamba:
        mamba = 5 * arch.mamba.inner + arch.mamba.dt_rank + 2 * arch.mamba.state
    widest = max(query_and_output + key_and_value, moe, ffn(arch.dense_ffn), mamba)
    return (2 * hidden + widest) * bits // 8


def logits_bytes_per_sequence(arch: Architecture, bits: int = 16) -> int:
    """Return the bytes of the last position's logits, kept as computed and in FP32 for sampling."""
    return arch.vocab * (bits + 32) // 8

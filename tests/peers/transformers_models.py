"""The Hugging Face Transformers model of each catalogue entry, built from the entry's architecture.

Numbers come from the catalogue. The exceptions are what a class demands and the catalogue does not hold, and what a
surrogate adds: those are taken from the model's own source, so that they check the catalogue.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers as hf
from importing import component_of
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.mixtral.modeling_mixtral import MixtralRMSNorm
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense

from prophet_moe.catalog import Architecture, load_models
from prophet_moe.catalog.architecture import letters
from prophet_moe.params import encoder_moe_layers

MODEL_FILES = Path(__file__).parents[2] / "config" / "models"
CATALOGUE = {name: spec.architecture for name, spec in load_models(MODEL_FILES).items()}

ABSENT = "absent"
"""Component of the parameters that a surrogate class has and the model has not."""

LLAMA_LIKE = {
    "routed_experts": r"\.mlp\.experts\.",
    "shared_experts": r"\.mlp\.shared_experts?\.",
    "router": r"\.mlp\.gate\.|\.shared_expert_gate\.",
    "dense_ffn": r"\.mlp\.(gate|up|down)_proj\.|\.residual_mlp\.",
    "attention": r"\.self_attn\.",
    "embeddings": r"\.embed_tokens\.|^lm_head\.",
    "norms": r"\.layers\.\d+\.\w+norm\.|^model\.norm\.",
}
DEEPSEEK_MOE = LLAMA_LIKE | {"router": r"\.mlp\.gate\.", ABSENT: r"\.shared_expert_gate\."}
DBRX = {
    "routed_experts": r"\.ffn\.experts\.",
    "router": r"\.ffn\.router\.",
    "attention": r"\.attn\.",
    "embeddings": r"\.wte\.|^lm_head\.",
    "norms": r"\.norm_[12f]\.",
}
JAMBA = {
    "routed_experts": r"\.feed_forward\.experts\.",
    "router": r"\.feed_forward\.router\.",
    "dense_ffn": r"\.feed_forward\.(gate|up|down)_proj\.",
    "attention": r"\.self_attn\.",
    "state_mixer": r"\.mamba\.",
    "embeddings": r"\.embed_tokens\.|^lm_head\.",
    "norms": r"\.layers\.\d+\.\w+norm\.|\.final_layernorm\.",
}
T5_LIKE = {
    "routed_experts": r"\.experts\.",
    "router": r"\.router\.",
    "dense_ffn": r"\.(mlp|DenseReluDense)\.w",
    "attention": r"\.(Self|EncDec)Attention\.",
    "embeddings": r"^shared\.|^lm_head\.",
    "norms": r"layer_norm\.",
}


def _decoder_fields(arch: Architecture) -> dict:
    """Fields that the decoder-only classes share."""
    attention = arch.mixers["attention"]
    return {
        "vocab_size": arch.vocab,
        "hidden_size": arch.hidden,
        "num_hidden_layers": len(arch.layers()),
        "num_attention_heads": attention.heads,
        # MLA has a key and a value per head.
        "num_key_value_heads": getattr(attention, "kv_heads", attention.heads),
        "num_experts_per_tok": arch.moe.top_k,
        "max_position_embeddings": arch.native_context,
        "tie_word_embeddings": arch.tied_embeddings,
    }


def _dense_layers(arch: Architecture) -> list[int]:
    return [layer for layer in range(len(arch.layers())) if layer not in arch.moe_layers]


def _dense_width(arch: Architecture) -> dict[str, int]:
    """Width of the dense FFN; where no layer has one, the class's default stands."""
    return {"intermediate_size": arch.ffns["dense"].ffn} if "dense" in arch.ffns else {}


def _every(layers: Sequence[int]) -> tuple[int, int]:
    """First of the layers and the distance to the next."""
    return layers[0], layers[1] - layers[0]


def _mixtral(arch: Architecture) -> hf.MixtralConfig:
    return hf.MixtralConfig(
        **_decoder_fields(arch),
        head_dim=arch.mixers["attention"].head_dim,
        intermediate_size=arch.moe.ffn,
        num_local_experts=arch.moe.experts,
    )


def _qwen2_moe(arch: Architecture) -> hf.Qwen2MoeConfig:
    return hf.Qwen2MoeConfig(
        **_decoder_fields(arch),
        **_dense_width(arch),
        head_dim=arch.mixers["attention"].head_dim,
        moe_intermediate_size=arch.moe.ffn,
        num_experts=arch.moe.experts,
        shared_expert_intermediate_size=arch.moe.shared_ffn,
        mlp_only_layers=_dense_layers(arch),
        qkv_bias=arch.mixers["attention"].bias == "qkv",
    )


def _qwen3_moe(arch: Architecture) -> hf.Qwen3MoeConfig:
    return hf.Qwen3MoeConfig(
        **_decoder_fields(arch),
        **_dense_width(arch),
        head_dim=arch.mixers["attention"].head_dim,
        moe_intermediate_size=arch.moe.ffn,
        num_experts=arch.moe.experts,
        mlp_only_layers=_dense_layers(arch),
    )


def _olmoe(arch: Architecture) -> hf.OlmoeConfig:
    return hf.OlmoeConfig(
        **_decoder_fields(arch),
        head_dim=arch.mixers["attention"].head_dim,
        intermediate_size=arch.moe.ffn,
        num_experts=arch.moe.experts,
    )


def _deepseek_fields(arch: Architecture) -> dict:
    attention = arch.mixers["attention"]
    return _decoder_fields(arch) | {
        "intermediate_size": arch.ffns["dense"].ffn,
        "moe_intermediate_size": arch.moe.ffn,
        "n_routed_experts": arch.moe.experts,
        "n_shared_experts": arch.moe.shared_experts,
        "first_k_dense_replace": arch.moe_layers[0],
        "q_lora_rank": attention.q_lora_rank,
        "kv_lora_rank": attention.kv_lora_rank,
        "qk_nope_head_dim": attention.nope_head_dim,
        "qk_rope_head_dim": attention.rope_head_dim,
        "v_head_dim": attention.v_head_dim,
        # Routing groups hold no parameters; one group suits any number of experts.
        "n_group": 1,
        "topk_group": 1,
    }


def _deepseek_v2(arch: Architecture) -> hf.DeepseekV2Config:
    return hf.DeepseekV2Config(**_deepseek_fields(arch))


def _deepseek_v3(arch: Architecture) -> hf.DeepseekV3Config:
    return hf.DeepseekV3Config(**_deepseek_fields(arch))


def _dbrx(arch: Architecture) -> hf.DbrxConfig:
    attention, moe = arch.mixers["attention"], arch.moe
    return hf.DbrxConfig(
        d_model=arch.hidden,
        n_heads=attention.heads,
        n_layers=len(arch.layers()),
        max_seq_len=arch.native_context,
        vocab_size=arch.vocab,
        tie_word_embeddings=arch.tied_embeddings,
        # The forward pass demands rope_theta and clip_qkv (databricks/dbrx, config.json); they hold no parameters.
        attn_config={"kv_n_heads": attention.kv_heads, "rope_theta": 5e5, "clip_qkv": 8},
        ffn_config={"ffn_hidden_size": moe.ffn, "moe_num_experts": moe.experts, "moe_top_k": moe.top_k},
    )


def _jamba(arch: Architecture) -> hf.JambaConfig:
    mamba = arch.mixers["mamba"]
    first_attention, every_attention = _every([n for n, block in enumerate(arch.layers()) if block.mixer != "mamba"])
    first_moe, every_moe = _every(arch.moe_layers)
    return hf.JambaConfig(
        **_decoder_fields(arch),
        head_dim=arch.mixers["attention"].head_dim,
        intermediate_size=arch.ffns["dense"].ffn,
        num_experts=arch.moe.experts,
        expert_layer_offset=first_moe,
        expert_layer_period=every_moe,
        attn_layer_offset=first_attention,
        attn_layer_period=every_attention,
        mamba_d_state=mamba.state,
        mamba_d_conv=mamba.conv,
        mamba_expand=mamba.inner // arch.hidden,
        mamba_dt_rank=mamba.dt_rank,
    )


def _t5_fields(arch: Architecture) -> dict:
    attention = arch.mixers["attention"]
    return {
        "vocab_size": arch.vocab,
        "d_model": arch.hidden,
        "d_kv": attention.head_dim,
        "d_ff": arch.ffns["dense"].ffn,
        "num_layers": len(list(letters(arch.encoder.pattern))),
        "num_decoder_layers": len(arch.layers()),
        "num_heads": attention.heads,
        "relative_attention_num_buckets": attention.relative_buckets,
    }


def _switch(arch: Architecture) -> hf.SwitchTransformersConfig:
    return hf.SwitchTransformersConfig(
        **_t5_fields(arch),
        num_experts=arch.moe.experts,
        num_sparse_encoder_layers=encoder_moe_layers(arch),
        num_sparse_decoder_layers=len(arch.moe_layers),
        tie_word_embeddings=arch.tied_embeddings,
    )


def _t5(arch: Architecture) -> hf.T5Config:
    return hf.T5Config(**_t5_fields(arch), feed_forward_proj="gated-gelu")


def _add_grok_norms(model: nn.Module, arch: Architecture) -> None:
    """Grok-1 also normalises what attention and MoE return (xai-org/grok-1, model.py)."""
    for layer in model.model.layers:
        layer.attention_output_norm = MixtralRMSNorm(arch.hidden)
        layer.moe_output_norm = MixtralRMSNorm(arch.hidden)


def _add_arctic_residual(model: nn.Module, arch: Architecture) -> None:
    """Arctic runs a normalised gated MLP, as wide as the hidden state, beside every MoE block (vLLM, arctic.py)."""
    config = hf.LlamaConfig(hidden_size=arch.hidden, intermediate_size=arch.hidden)
    for layer in model.model.layers:
        layer.residual_mlp = LlamaMLP(config)
        layer.residual_norm = MixtralRMSNorm(arch.hidden)


def _make_sparse(model: nn.Module, arch: Architecture) -> None:
    """Turn T5 v1.1 into Switch-XXL: experts in every other FFN, separate logits table (flaxformer, switch_xxl.gin)."""
    for stack in (model.encoder, model.decoder):
        for block in stack.block[1::2]:
            block.layer[-1].DenseReluDense = nn.ModuleDict(
                {
                    "router": nn.Linear(arch.hidden, arch.moe.experts, bias=False),
                    "experts": nn.ModuleList(T5DenseGatedActDense(stack.config) for _ in range(arch.moe.experts)),
                }
            )
    model.lm_head = nn.Linear(arch.hidden, arch.vocab, bias=False)


@dataclass(frozen=True)
class Peer:
    """How Transformers builds one model, and the component that each of its parameters belongs to."""

    kind: type[hf.PreTrainedModel]
    config: Callable[[Architecture], hf.PretrainedConfig]
    components: dict[str, str]
    """Pattern of the parameter names, by component."""
    complete: Callable[[nn.Module, Architecture], None] = lambda model, arch: None
    """Adds the parameters that a surrogate class lacks; the result only counts, it does not run."""
    surrogate: bool = False
    """Whether the class is another family's, since Transformers has none of the model's own."""

    def build(self, arch: Architecture) -> hf.PreTrainedModel:
        """The model with the fields of `arch` and random weights."""
        return self.kind(self.config(arch))


MIXTRAL = Peer(hf.MixtralForCausalLM, _mixtral, LLAMA_LIKE)
QWEN2_MOE = Peer(hf.Qwen2MoeForCausalLM, _qwen2_moe, LLAMA_LIKE)
SWITCH = Peer(hf.SwitchTransformersForConditionalGeneration, _switch, T5_LIKE)
PEERS = {
    "DBRX-132B": Peer(hf.DbrxForCausalLM, _dbrx, DBRX),
    "DeepSeek-MoE-16B": replace(QWEN2_MOE, components=DEEPSEEK_MOE, surrogate=True),
    "DeepSeek-V2-236B": Peer(hf.DeepseekV2ForCausalLM, _deepseek_v2, LLAMA_LIKE),
    "DeepSeek-V3-671B": Peer(hf.DeepseekV3ForCausalLM, _deepseek_v3, LLAMA_LIKE),
    "Grok-1-314B": replace(MIXTRAL, complete=_add_grok_norms, surrogate=True),
    "Jamba-1.5-Large": Peer(hf.JambaForCausalLM, _jamba, JAMBA),
    "Mixtral-8x22B": MIXTRAL,
    "Mixtral-8x7B": MIXTRAL,
    "OLMoE-1B-7B": Peer(hf.OlmoeForCausalLM, _olmoe, LLAMA_LIKE),
    "Qwen1.5-MoE-A2.7B": QWEN2_MOE,
    "Qwen2-MoE-57B": QWEN2_MOE,
    "Qwen3-235B": Peer(hf.Qwen3MoeForCausalLM, _qwen3_moe, LLAMA_LIKE),
    "Snowflake-Arctic-480B": replace(MIXTRAL, complete=_add_arctic_residual, surrogate=True),
    "Switch-Base-128": SWITCH,
    "Switch-Large-128": SWITCH,
    "Switch-XXL-128": Peer(hf.T5ForConditionalGeneration, _t5, T5_LIKE, _make_sparse, surrogate=True),
}


def count_parameters(name: str, arch: Architecture) -> Counter[str]:
    """Parameters by component of `name`'s peer with the fields of `arch`; nothing is allocated."""
    peer = PEERS[name]
    with torch.device("meta"):
        model = peer.build(arch)
        peer.complete(model, arch)
    counts = Counter()
    for parameter, tensor in model.named_parameters():
        counts[component_of(parameter, peer.components)] += tensor.numel()
    del counts[ABSENT]
    return counts

"""A tiny model with random weights of every MoE class that the collector supports."""

from collections.abc import Callable

import torch
import transformers as hf

VOCABULARY = 128
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
DEEPSEEK = {
    **COMMON,
    **LATENT,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}

CONFIGS: dict[str, Callable[[], hf.PretrainedConfig]] = {
    "Mixtral": lambda: hf.MixtralConfig(**COMMON, num_key_value_heads=2, num_local_experts=4, head_dim=8),
    "OLMoE": lambda: hf.OlmoeConfig(**COMMON, num_key_value_heads=2, num_experts=8, num_experts_per_tok=4),
    "Qwen2-MoE": lambda: hf.Qwen2MoeConfig(
        **COMMON,
        num_key_value_heads=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_experts=8,
        num_experts_per_tok=2,
        mlp_only_layers=[0],
    ),
    "Qwen3-MoE": lambda: hf.Qwen3MoeConfig(
        **COMMON, num_key_value_heads=2, moe_intermediate_size=16, num_experts=8, num_experts_per_tok=2, head_dim=8
    ),
    "DeepSeek-V2": lambda: hf.DeepseekV2Config(**DEEPSEEK, n_group=1, topk_group=1, topk_method="greedy"),
    "DeepSeek-V3": lambda: hf.DeepseekV3Config(**DEEPSEEK, n_group=2, topk_group=1),
    "gpt-oss": lambda: hf.GptOssConfig(
        **COMMON, num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=4, head_dim=8
    ),
    "Jamba": lambda: hf.JambaConfig(
        **COMMON,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_d_state=8,
        mamba_dt_rank=4,
    ),
    "DBRX": lambda: hf.DbrxConfig(
        d_model=32,
        n_heads=4,
        n_layers=3,
        max_seq_len=256,
        vocab_size=VOCABULARY,
        ffn_config={"ffn_hidden_size": 32, "moe_num_experts": 8, "moe_top_k": 2, "hidden_size": 32},
        attn_config={"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    ),
    "Switch": lambda: hf.SwitchTransformersConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=32,
        num_heads=4,
        num_layers=4,
        num_decoder_layers=4,
        num_sparse_encoder_layers=2,
        num_sparse_decoder_layers=2,
        num_experts=8,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    ),
}


def small_model(name: str, dtype: torch.dtype = torch.float32) -> hf.PreTrainedModel:
    """The model of that class; routers are drawn wide enough to prefer some experts clearly."""
    torch.manual_seed(0)
    config = CONFIGS[name]()
    kind = hf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else hf.AutoModelForCausalLM
    model = kind.from_config(config).eval().to(dtype)
    with torch.no_grad():
        for path, weight in model.named_parameters():
            if ".gate.weight" in path or ".router." in path:
                weight.normal_()
    return model

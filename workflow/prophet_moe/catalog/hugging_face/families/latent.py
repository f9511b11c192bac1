"""Families with latent attention (MLA): DeepSeek, Kimi, GLM-5, LongCat and others."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from prophet_moe.catalog.hugging_face.config import Config, runs
from prophet_moe.catalog.hugging_face.families import common
from prophet_moe.catalog.hugging_face.families.common import Fields, sizes


def latent_mixer(config: Config, **more: Any) -> Fields:
    """Return the latent attention of DeepSeek's fields.

    Files state `q_lora_rank`, if only as null for queries that are projected at once. Tools that drop nulls leave it
    out, which is noted.
    """
    heads, nope = config.size("num_attention_heads"), config.size("qk_nope_head_dim")
    rope = config.size("qk_rope_head_dim")
    config.ignore("head_dim")  # of the rotary part, of hidden / heads or of the cache: no weight has this width
    if config.count("num_key_value_heads", default=heads) not in (heads, 1):
        config.refuse("num_key_value_heads", f"differs from num_attention_heads, {heads}: every head has its own")
    if config.size("qk_head_dim", "q_head_dim", default=nope + rope) != nope + rope:
        config.refuse("qk_head_dim", f"is not qk_nope_head_dim + qk_rope_head_dim, {nope + rope}")
    if "q_lora_rank" not in config.fields:
        config.note("q_lora_rank is not stated: queries are taken to be projected at once, as null would say")
    return {
        "kind": "latent",
        "heads": heads,
        "q_lora_rank": config.size("q_lora_rank", default=None),
        "kv_lora_rank": config.size("kv_lora_rank"),
        "nope_head_dim": nope,
        "rope_head_dim": rope,
        "v_head_dim": config.size("v_head_dim"),
        "bias": common.bias(config),
    } | more


def indexer(config: Config) -> Fields:
    """Return the index branch of sparse attention."""
    return {
        "heads": config.size("index_n_heads"),
        "head_dim": config.size("index_head_dim"),
        "top_k": config.size("index_topk"),
    }


def dense_ffn(config: Config) -> Fields:
    """Return the dense FFN of the layers without experts."""
    config.only("mlp_bias", False, default=False)
    return common.dense(config)


def experts(config: Config, shared_width: int | None = None) -> Fields:
    """Return the experts; a shared expert is as wide as a routed one, or has a width of its own."""
    moe = routed_experts(config)
    shared = common.shared_count(config, "n_shared_experts", "num_shared_experts")
    return moe | common.shared_experts(shared, shared * (shared_width or moe["ffn"]))


def routed_experts(config: Config) -> Fields:
    """Return the experts that a router chooses."""
    return common.moe_ffn(
        config,
        ("n_routed_experts", "num_experts", "num_local_experts"),
        top_k=("num_experts_per_tok", "num_experts_per_token"),
    )


def sparse_layers(config: Config) -> list[bool]:
    """Return which layers hold experts: as listed, or from the first on, of which every so many."""
    if config.has("mlp_layer_types"):
        config.only("moe_layer_freq", 1, default=1)
    return common.sparse_layers(config)


def layer_kinds(config: Config, name: str, layers: int, known: Sequence[str]) -> list[str]:
    """Return a list of one kind per layer, each of them known."""
    kinds = config.items(name, length=layers)
    unknown = next((kind for kind in kinds if kind not in known), None)
    if unknown is not None:
        config.refuse(name, f"got {unknown!r}, expected {' or '.join(map(repr, known))}")
    return kinds


def deepseek_v3(config: Config, moe_norms: int = 2) -> Fields:
    """DeepSeek-V2, V3, R1, Kimi-K2, Moonlight, GLM-4.7-Flash, Mistral-Small-4: MLA, dense layers, then experts."""
    config.ignore("llama_4_scaling")
    sparse = sparse_layers(config)
    return sizes(config) | {
        "mixers": {"attention": latent_mixer(config)},
        "ffns": {"moe": experts(config), "dense": dense_ffn(config)},
        "blocks": {
            "D": {"mixer": "attention", "ffn": "dense"},
            "M": {"mixer": "attention", "ffn": "moe", "norms": moe_norms},
        },
        "pattern": runs(["M" if moe else "D" for moe in sparse]),
    }


def deepseek(config: Config) -> Fields:
    """DeepSeek-MoE-16B: softmax attention over all tokens, experts as in DeepSeek-V2."""
    mixer = common.grouped_attention(config, multi_head=True, bias=common.bias(config))
    sparse = sparse_layers(config)
    return sizes(config) | {
        "mixers": {"attention": mixer},
        "ffns": {"moe": experts(config), "dense": dense_ffn(config)},
        "blocks": {"D": {"mixer": "attention", "ffn": "dense"}, "M": {"mixer": "attention", "ffn": "moe"}},
        "pattern": runs(["M" if moe else "D" for moe in sparse]),
    }


def youtu(config: Config) -> Fields:
    """Youtu-LLM, a dense model with latent attention."""
    config.ignore("embedding_initializer_range")
    return sizes(config, tied=True) | {
        "mixers": {"attention": latent_mixer(config)},
        "ffns": {"dense": dense_ffn(config)},
        "blocks": {"D": {"mixer": "attention", "ffn": "dense"}},
        "pattern": runs(["D"] * config.size("num_hidden_layers")),
    }


def indexed(config: Config) -> Fields:
    """DeepSeek-V3.2 and GLM-5: sparse latent attention, with an indexer in every layer or in some of them.

    A layer without one attends to what the indexer before it chose, and keeps no index key.
    """
    layers, index = config.size("num_hidden_layers"), indexer(config)
    if config.has("layer_types"):
        layer_kinds(config, "layer_types", layers, ("indexed_attention", "deepseek_sparse_attention"))
    own = indexed_layers(config, layers)
    sparse = sparse_layers(config)
    mixer = latent_mixer(config)
    return sizes(config) | {
        "mixers": {"indexed": mixer | {"indexer": index}, "shared": mixer | {"sparse_top_k": index["top_k"]}},
        "ffns": {"moe": experts(config), "dense": dense_ffn(config)},
        "blocks": {
            "D": {"mixer": "indexed", "ffn": "dense"},
            "d": {"mixer": "shared", "ffn": "dense"},
            "M": {"mixer": "indexed", "ffn": "moe"},
            "m": {"mixer": "shared", "ffn": "moe"},
        },
        "pattern": runs([_cased("M" if moe else "D", upper) for moe, upper in zip(sparse, own, strict=True)]),
    }


def indexed_layers(config: Config, layers: int) -> list[bool]:
    """Return which layers have an indexer of their own: as listed, by a pattern of F and S, or every so many."""
    every, offset = config.count("index_topk_freq", default=1), config.count("index_skip_topk_offset", default=None)
    if every > 1 and offset is None and not config.has("indexer_types", "index_topk_pattern"):
        config.refuse("index_skip_topk_offset", f"is missing, expected the first layers before index_topk_freq {every}")
    said = []
    if config.has("indexer_types"):
        kinds = layer_kinds(config, "indexer_types", layers, ("full", "shared"))
        said.append(("indexer_types", [kind == "full" for kind in kinds]))
    if config.has("index_topk_pattern"):
        pattern = config.get("index_topk_pattern")
        names = {"full": "F", "shared": "S"}
        marks = [names.get(str(mark), mark) for mark in pattern] if isinstance(pattern, str | list) else []
        if len(marks) != layers or any(mark not in ("F", "S") for mark in marks):
            config.refuse("index_topk_pattern", f"expected {layers} marks F or S, one per layer")
        said.append(("index_topk_pattern", [mark == "F" for mark in marks]))
    if offset is not None:
        periodic = [max(layer - offset + 1, 0) % max(every, 1) == 0 for layer in range(layers)]
        said.append(("index_topk_freq", periodic))
    for name, own in said[1:]:
        if own != said[0][1]:
            config.refuse(name, f"contradicts {said[0][0]}, expected the same layers")
    own = said[0][1] if said else [True] * layers
    if not own[0]:
        config.refuse(said[0][0], "gives the first layer no indexer of its own, expected one")
    return own


def _cased(letter: str, upper: bool) -> str:
    return letter if upper else letter.lower()


COMPRESSED_KINDS = {
    "sliding_attention": "W",
    "compressed_sparse_attention": "C",
    "heavily_compressed_attention": "H",
}
"""Letters of DeepSeek-V4's layers: a window alone, entries of few tokens with an indexer, entries of many tokens."""
COMPRESS_RATIOS = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
"""Layers of DeepSeek-V4 by the tokens of an entry, as its published file gives them."""


def deepseek_v4(config: Config) -> Fields:
    """DeepSeek-V4: compressed attention of three kinds, experts in every layer, residual streams beside each other."""
    layers = config.size("num_hidden_layers")
    config.only("num_key_value_heads", 1, default=1)
    config.only("attention_bias", False, default=False)
    config.only("mlp_bias", False, default=False)
    config.ignore("qk_rope_head_dim", "qk_nope_head_dim", "compress_rope_parameters")  # rotary positions
    config.ignore("num_hash_layers")  # the first layers choose experts by a table of token ids
    if config.has("mlp_layer_types"):
        layer_kinds(config, "mlp_layer_types", layers, ("hash_moe", "moe"))
    width = config.size("head_dim")
    mixer = {
        "kind": "compressed",
        "heads": config.size("num_attention_heads"),
        "head_dim": width,
        "q_lora_rank": config.size("q_lora_rank"),
        "o_lora_rank": config.size("o_lora_rank"),
        "o_groups": config.size("o_groups"),
        "window": config.size("sliding_window"),
    }
    few, many = _compress_rates(config)
    config.get("intermediate_size", "moe_intermediate_size")  # the class calls the expert's width by both names
    return sizes(config) | {
        "hyper_connections": config.size("hc_mult"),
        "mixers": {
            "local": mixer,
            "sparse": mixer | {"compress": few, "overlap": True, "indexer": indexer(config)},
            "heavy": mixer | {"compress": many},
        },
        "ffns": {"moe": experts(config)},
        "blocks": {
            "W": {"mixer": "local", "ffn": "moe"},
            "C": {"mixer": "sparse", "ffn": "moe"},
            "H": {"mixer": "heavy", "ffn": "moe"},
        },
        "pattern": runs([COMPRESSED_KINDS[kind] for kind in _compressed_layers(config, layers)]),
    }


def deepseek_ref(config: Config) -> Fields:
    """DeepSeek-V4 under the `model_type` of its reference code."""
    if "DeepseekV4ForCausalLM" not in config.items("architectures"):
        config.refuse("architectures", "names no DeepSeek-V4, expected DeepseekV4ForCausalLM of this model_type")
    return deepseek_v4(config)


def _compressed_layers(config: Config, layers: int) -> list[str]:
    """Return the kind of every layer; `compress_ratios` also covers the draft layers, which come last."""
    listed = layer_kinds(config, "layer_types", layers, tuple(COMPRESSED_KINDS)) if config.has("layer_types") else None
    if listed is not None and not config.has("compress_ratios"):
        return listed
    ratios, draft = config.items("compress_ratios"), config.count("num_nextn_predict_layers", default=0)
    if len(ratios) not in (layers, layers + draft):
        expected = f"{layers}, one per layer, or {layers + draft} with the draft layers"
        config.refuse("compress_ratios", f"has {len(ratios)} entries, expected {expected}")
    unknown = next((ratio for ratio in ratios if ratio not in COMPRESS_RATIOS), None)
    if unknown is not None:
        config.refuse("compress_ratios", f"got {unknown!r}, expected {' or '.join(map(str, COMPRESS_RATIOS))}")
    kinds = [COMPRESS_RATIOS[ratio] for ratio in ratios[:layers]]
    if listed not in (None, kinds):
        config.refuse("layer_types", "contradicts compress_ratios, expected the same kinds of layers")
    return kinds


def _compress_rates(config: Config) -> tuple[int, int]:
    """Return the tokens of an entry of the two kinds of compressed layers."""
    if not config.has("compress_rates"):
        return 4, 128
    rates = config.below("compress_rates")
    found = rates.size("compressed_sparse_attention"), rates.size("heavily_compressed_attention")
    rates.refuse_unread()
    return found


def longcat_flash(config: Config) -> Fields:
    """LongCat-Flash: a layer is two attentions with dense FFNs; its experts stand beside the first of them."""
    layers = config.size("num_layers")
    if config.size("num_hidden_layers", default=layers) not in (layers, 2 * layers):
        config.refuse("num_hidden_layers", f"expected num_layers, {layers}, or twice as many")
    config.only("zero_expert_type", "identity", default="identity")
    config.only("attention_method", "MLA", "mla", default="MLA")
    config.ignore("mla_scale_q_lora", "mla_scale_kv_lora")
    dense = config.size("ffn_hidden_size", "intermediate_size")
    moe = common.moe_ffn(
        config,
        ("n_routed_experts", "num_local_experts"),
        top_k=("moe_topk", "num_experts_per_tok"),
        ffn=("expert_ffn_hidden_size", "moe_intermediate_size"),
        zero_experts=config.count("zero_expert_num"),
        dense_beside=dense,
        router_bias=config.flag("router_bias", default=False),
    )
    return sizes(config) | {
        "mixers": {"attention": latent_mixer(config)},
        "ffns": {"moe": moe, "dense": {"kind": "dense", "ffn": dense}},
        "blocks": {"A": {"mixer": "attention", "ffn": "moe"}, "B": {"mixer": "attention", "ffn": "dense"}},
        "pattern": runs(["A", "B"] * layers),
    }


FAMILIES: Mapping[str, Callable[[Config], Fields]] = {
    "deepseek": deepseek,
    "deepseek_v2": deepseek_v3,
    "deepseek_v3": deepseek_v3,
    "kimi_k2": deepseek_v3,
    "glm4_moe_lite": deepseek_v3,
    "mistral4": deepseek_v3,
    "sarvam_mla": deepseek_v3,
    "axk1": partial(deepseek_v3, moe_norms=3),
    "deepseek_v32": indexed,
    "glm_moe_dsa": indexed,
    "deepseek_ref": deepseek_ref,
    "deepseek_v4": deepseek_v4,
    "longcat_flash": longcat_flash,
    "youtu": youtu,
}

REFUSED: Mapping[str, str] = {
    "axk2": "the norms of its layers have gates, and its queries are projected together with a gate on the output",
    "mistral_large4_text": "its layers read the latents of earlier ones, and its indexer scales scores with weights",
}
"""Families with latent attention that no schema of this project expresses, with the reason."""

"""What a config.json means to Hugging Face Transformers, beside what `import_config` makes of it.

A test gives the fields of a checkpoint's config.json, shrunk so that the model runs on a CPU:

    check_counts(fields)      every component of the class built on the meta device is the imported one
    check_cache(fields)       what the running model keeps, in bytes, is what the imported architecture keeps
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
import transformers as hf

from prophet_moe.catalog import Architecture
from prophet_moe.catalog.hugging_face import import_config
from prophet_moe.params import caches, parameter_counts, state_bytes_per_sequence

BATCH = 2
COMPONENTS = {
    "routed_experts": r"\.experts\.",
    "shared_experts": r"\.shared_(experts?|mlp)\.",
    "router": r"\.(mlp|ffn|feed_forward|block_sparse_moe|moe)\.(gate|router)\.|\.shared_expert_gate\.",
    "latent_projections": r"\.latent_\w+\.",
    "dense_ffn": r"\.(mlp|feed_forward)\.(gate|up|down|gate_up)_proj\.|\.(mlp|DenseReluDense)\.w[io]",
    "indexer": r"\.indexer\.",
    "attention": r"\.self_attn\.(?!indexer\.)|\.attn\.|\.(Self|EncDec)Attention\.",
    "state_mixer": r"\.mamba\.|\.linear_attn\.|\.mixer\.|\.conv\.",
    "embeddings": r"\.embed_tokens\.|\.wte\.|\.embeddings\.|^lm_head\.|^shared\.",
    "norms": r"\.layers\.\d+\.\w*norm\w*\.|^model(\.\w+)?\.\w*norm\w*\.|\.norm_[12f]\.|\.(final_)?layer_norm\.",
}
"""Pattern of the names of parameters, by component; a family with other names gives its own for some of them."""

OTHER_PARTS = r"\.visual\.|\.vision_tower\.|\.multi_modal_projector\.|\.audio_tower\."
"""Pattern of the names of parameters beside the language model, which imports leave out."""


def transformers_config(fields: Mapping[str, Any]) -> hf.PreTrainedConfig:
    """The config of the class that Transformers has for a `model_type`; its attention needs no extra package."""
    others = {name: value for name, value in fields.items() if name not in ("model_type", "architectures", "auto_map")}
    return hf.AutoConfig.for_model(fields["model_type"], **others, attn_implementation="eager")


def saved(config: hf.PreTrainedConfig) -> dict[str, Any]:
    """All fields of a config, as Transformers would write them."""
    return config.to_dict()


def imported(fields: Mapping[str, Any]) -> Architecture:
    """What this project makes of the fields."""
    return import_config(fields, "config.json").architecture


def model_class(config: hf.PreTrainedConfig) -> type:
    """The class that builds a language model of a config, inside a model that also sees where there is no other."""
    classes = (hf.AutoModelForCausalLM, hf.AutoModelForSeq2SeqLM, hf.AutoModelForImageTextToText)
    return next(each for each in classes if type(config) in each._model_mapping)


def counts_of_class(config: hf.PreTrainedConfig, components: Mapping[str, str]) -> Counter[str]:
    """Parameters by component of the class; nothing is allocated."""
    with torch.device("meta"):
        model = model_class(config).from_config(config)
    counts: Counter[str] = Counter()
    for name, tensor in model.named_parameters():
        if not re.search(OTHER_PARTS, name):
            counts[component_of(name, components)] += tensor.numel()
    return counts


def check_counts(fields: Mapping[str, Any], components: Mapping[str, str] | None = None) -> None:
    """Every component is exact, of the fields as published and as Transformers writes them."""
    config = transformers_config(fields)
    expected = counts_of_class(config, COMPONENTS | (components or {}))
    for each in (fields, saved(config)):
        counted = asdict(parameter_counts(imported(each)))
        assert {component: count for component, count in counted.items() if count} == expected


def check_cache(fields: Mapping[str, Any], lengths: Sequence[int] = (5, 8)) -> None:
    """After reading so many tokens in BF16, a sequence keeps the bytes that the imported architecture says.

    Of a window, Transformers keeps one token less between steps: the next token is the last of it.
    """
    arch = imported(fields)
    with torch.device("cpu"):
        config = transformers_config(fields)
        model = model_class(config).from_config(config)
    model = model.to(torch.bfloat16).requires_grad_(False).eval()
    for length in lengths:
        tokens = torch.ones(BATCH, length, dtype=torch.long)
        kept = model(input_ids=tokens, use_cache=True).past_key_values
        windows = (replace(each, window=each.window and each.window - 1) for each in caches(arch))
        expected = sum(each.bytes(length) for each in windows) + state_bytes_per_sequence(arch)
        assert bytes_per_sequence(kept) == expected


def bytes_per_sequence(cache: Any) -> float:
    """Bytes of all tensors of a cache, for one sequence of the batch."""
    return sum(tensor.nbytes for tensor in _cached_tensors(cache)) / BATCH


def _cached_tensors(cache: Any) -> Iterator[torch.Tensor]:
    """K and V of attention layers, windows of convolutions and states of others."""
    for layer in cache.layers:
        for held in vars(layer).values():
            entries = held.values() if isinstance(held, dict) else [held]
            yield from (each for each in entries if isinstance(each, torch.Tensor) and each.is_floating_point())


def component_of(parameter: str, patterns: Mapping[str, str]) -> str:
    """The one component whose pattern is found in the parameter's name."""
    found = [component for component, pattern in patterns.items() if re.search(pattern, parameter)]
    if len(found) != 1:
        raise ValueError(f"parameter {parameter} belongs to {found or 'no component'}, expected exactly one")
    return found[0]

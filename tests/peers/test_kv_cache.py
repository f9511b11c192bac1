"""Cache bytes equal what Hugging Face Transformers keeps after a forward pass of a shrunken model in BF16."""

import pytest
import torch
from importing import BATCH, bytes_per_sequence
from transformers_models import CATALOGUE, PEERS

from prophet_moe.catalog import Architecture
from prophet_moe.catalog.architecture import Ffn, Mixer
from prophet_moe.params import caches, state_bytes_per_sequence
from prophet_moe.precision import BF16, Precision

DECODERS = [name for name, arch in CATALOGUE.items() if arch.encoder is None]
ENCODER_DECODERS = [name for name, arch in CATALOGUE.items() if arch.encoder]
MLA = [name for name, arch in CATALOGUE.items() if arch.mixers["attention"].kind == "latent"]
NARROWER = dict.fromkeys(("heads", "kv_heads", "head_dim", "nope_head_dim", "rope_head_dim", "v_head_dim"), 4) | (
    dict.fromkeys(("q_lora_rank", "kv_lora_rank", "inner", "dt_rank"), 16)
)
"""How many times smaller a field of a shrunken mixer is."""
AT_MOST = {"experts": 4, "top_k": 2, "ffn": 32, "shared_ffn": 32}
"""Largest value of a field of a shrunken FFN."""


def shrink(arch: Architecture) -> Architecture:
    """Keep kinds, ratios and order of layers, but leave every run twice, a few narrow experts, 1/16 of the width."""
    small = {
        "hidden": arch.hidden // 16,
        "vocab": 64,
        "mixers": {name: _narrow_mixer(mixer) for name, mixer in arch.mixers.items()},
        "ffns": {name: _narrow_ffn(ffn) for name, ffn in arch.ffns.items()},
        "pattern": _twice(arch.pattern),
    }
    if arch.encoder:
        small["encoder"] = arch.encoder.model_copy(update={"pattern": _twice(arch.encoder.pattern)})
    return arch.model_copy(update=small)


def _narrow_mixer(mixer: Mixer) -> Mixer:
    sizes = {field: value // NARROWER[field] for field, value in mixer if field in NARROWER and value}
    return mixer.model_copy(update=sizes)


def _narrow_ffn(ffn: Ffn) -> Ffn:
    return ffn.model_copy(update={field: min(value, AT_MOST[field]) for field, value in ffn if field in AT_MOST})


def _twice(pattern: list[str]) -> list[str]:
    return [f"2 x {run.split()[-1]}" for run in pattern]


def kept_bytes(arch: Architecture, tokens: int, precision: Precision = BF16) -> int:
    """What a sequence of `tokens` keeps by our count, without states."""
    return sum(cache.bytes(tokens) for cache in caches(arch, precision))


def build(name: str, arch: Architecture) -> torch.nn.Module:
    """A model that runs, with random weights."""
    return PEERS[name].build(arch).to(torch.bfloat16).requires_grad_(False).eval()


def tokens(length: int) -> torch.Tensor:
    """A batch of `length` tokens."""
    return torch.ones(BATCH, length, dtype=torch.long)


def cache_of(model: torch.nn.Module, **inputs: torch.Tensor):
    """What the model keeps after reading `inputs`."""
    return model(**inputs).past_key_values


@pytest.mark.parametrize("name", DECODERS)
def test_cache_is_kv_per_token_and_state_per_sequence(name):
    """Attention keeps K and V (or the MLA latent) of every token; Mamba keeps the same whatever the length."""
    arch = shrink(CATALOGUE[name])
    model = build(name, arch)
    for length in (5, 8):
        measured = bytes_per_sequence(cache_of(model, input_ids=tokens(length)))
        assert measured == kept_bytes(arch, length) + state_bytes_per_sequence(arch)


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_target_fills_self_attention_and_source_cross_attention(name):
    """So context is source plus target tokens, and either kind costs the same."""
    arch = shrink(CATALOGUE[name])
    source, target = 7, 5
    cache = cache_of(build(name, arch), input_ids=tokens(source), decoder_input_ids=tokens(target))
    assert bytes_per_sequence(cache.self_attention_cache) == kept_bytes(arch, target)
    assert bytes_per_sequence(cache.cross_attention_cache) == kept_bytes(arch, source)


@pytest.mark.parametrize("name", MLA)
def test_decompressed_mla_is_the_expanded_latent(name):
    """The K and V that Transformers 4 kept are what Transformers 5 expands from its cache at every step."""
    arch, length = shrink(CATALOGUE[name]), 5
    model = build(name, arch)
    cache = cache_of(model, input_ids=tokens(length))
    expanded = [
        tensor
        for layer, kept in zip(model.model.layers, cache.layers, strict=True)
        for tensor in layer.self_attn.expand_kv(kept.keys, kept.values)
    ]
    measured = sum(tensor.nbytes for tensor in expanded) / BATCH
    assert measured == kept_bytes(arch, length, Precision(mla_cache="decompressed"))

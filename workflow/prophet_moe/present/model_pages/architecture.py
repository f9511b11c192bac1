"""The sections of a model's page that rest on its architecture alone: what it is made of, and its bytes."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pandas as pd

from prophet_moe import params
from prophet_moe.catalog import Architecture, ModelSpec
from prophet_moe.catalog.architecture import Block, Latent, Mixer, Moe, Softmax, letters
from prophet_moe.present.model_pages.words import NONE, counted, listed, number, section
from prophet_moe.present.style import gigabytes
from prophet_moe.units import GB, MB

KINDS = {
    "compressed": "compressed attention",
    "mamba1": "Mamba-1",
    "mamba2": "Mamba-2",
    "gated_delta_net": "Gated DeltaNet",
    "kimi_delta": "Kimi Delta Attention",
    "lightning": "lightning attention",
    "short_conv": "short convolution",
}
"""Kinds of mixers besides softmax and latent attention in words."""
CONSTANTS = {
    "layers": "layers with experts",
    "experts": "routed experts of a layer",
    "top_k": "routed experts of a token (k)",
    "native_context": "native context (tokens)",
    "total_params_b": "parameters (10^9)",
    "active_params_b": "active parameters (10^9)",
    "expert_mb": "one expert (MB)",
    "expert_total_gb": "all routed experts (GB)",
    "non_expert_gb": "everything else (GB)",
    "kv_bytes_per_token": "KV cache of a token (bytes)",
}
"""Constants that the catalogue sets beside those of the report, in order, and what they are called."""


def attention(arch: Architecture) -> str:
    """Return what mixes the tokens of a model in a few words: GQA, MLA, or "GQA and Mamba-1, hybrid"."""
    names = " and ".join(dict.fromkeys(_mixer(mixer) for mixer in arch.mixers.values()))
    states = [name for name in arch.mixers if not arch.keeps_cache(name)]
    return names + ", hybrid" * (0 < len(states) < len(arch.mixers)) + ", encoder-decoder" * bool(arch.encoder)


def architecture_section(spec: ModelSpec, catalog: pd.DataFrame) -> dict[str, Any]:
    """Return the section on layers, experts and attention, with the report's constants beside the published ones.

    `catalog` has the rows of this model in `model_catalog`.
    """
    arch, moe = spec.architecture, spec.architecture.moe
    encoder = [arch.blocks[letter] for letter in letters(arch.encoder.pattern)] if arch.encoder else []
    stacks = [arch.layers(), encoder] if encoder else [arch.layers()]
    begins = ("Its decoder has", "Its encoder has") if encoder else ("It has",)
    text = [_layers(begin, arch, stack) for begin, stack in zip(begins, stacks, strict=True)]
    text += filter(None, (_heads(mixer) for mixer in arch.mixers.values()))
    named = [f"{spec.hugging_face} on Hugging Face"] if spec.hugging_face else []
    named += [f"arXiv {spec.arxiv}"] if spec.arxiv else []
    named += [f"licence {spec.licence}"] if spec.licence else []
    text.append(f"Source: {'; '.join([*named, spec.sources[0]])} (config/models/{spec.name}.yaml).")
    text += [f"Left out: {', '.join(spec.left_out)}."] if spec.left_out else []
    text.append(
        "The right column has the report's value where it differs, and whether it is printed (exact), inferred from "
        "what is printed, or assumed (unknown)."
    )
    own = {
        "layers": " + ".join(str(len(stack)) for stack in stacks),
        "hidden size": number(arch.hidden),
        "vocabulary": number(arch.vocab),
        "attention": attention(arch),
        "inner width of an expert": number(moe.ffn),
        "shared experts of a layer": str(moe.shared_experts),
    }
    rows = [[name, value, NONE] for name, value in own.items()]
    rows += [
        [CONSTANTS[row.Index], number(row.published), _beside(row.published, row.reported, row.status)]
        for row in catalog.set_index("quantity").loc[list(CONSTANTS)].itertuples()
    ]
    return section("Architecture", text, ["quantity", "published", "report"], rows)


def bytes_section(arch: Architecture) -> dict[str, Any]:
    """Return the section on the bytes of weights by component, of the KV cache and of states, at 16 bits."""
    held = {name: size for name, size in params.weight_bytes(arch).items() if size}
    total = sum(held.values())
    layers = params.moe_layers(arch)
    ordered = sorted(held.items(), key=lambda part: -part[1])
    rows = [
        [name.replace("_", " ").replace("ffn", "FFN"), f"{size / GB:,.3f}", f"{100 * size / total:.2f}"]
        for name, size in [*ordered, ("all", total)]
    ]
    text = [
        f"Every weight has 16 bits. One expert of a layer takes {number(params.expert_bytes(arch) / MB)} MB, and "
        f"{counted(layers, 'layer')} have {layers * arch.moe.experts:,} of them.",
        *_kept(arch),
    ]
    return section("Bytes by component", text, ["component", "GB", "share (%)"], rows)


def _kept(arch: Architecture) -> list[str]:
    """Sentences on what a sequence keeps: its KV cache and its state."""
    kept, state = params.caches(arch), params.state_bytes_per_sequence(arch)
    growing, windows = params.growing_bytes_per_token(kept), params.bounded_bytes(kept)
    which = ", whether it is of the source or of the target" if arch.encoder else ""
    text = [f"A token adds {number(float(growing))} bytes to the KV cache of its sequence{which}."]
    if windows:
        text.append(f"Layers with a window keep {gigabytes(windows / GB)} GB more once it is full.")
    if state:
        text.append(f"The state of a sequence takes {number(state / MB)} MB beside it, whatever its length.")
    full = sum(cache.bytes(arch.native_context) for cache in kept) + state
    text.append(f"At the native context of {arch.native_context:,} tokens, a sequence keeps {gigabytes(full / GB)} GB.")
    return text


def _layers(begin: str, arch: Architecture, blocks: Sequence[Block]) -> str:
    """A sentence on the layers of a stack by kind, in the order of their first one."""
    kinds = Counter(_block(arch, block) for block in blocks)
    if len(kinds) == 1:
        return f"{begin} {counted(len(blocks), 'layer')}, each with {next(iter(kinds))}."
    return f"{begin} {len(blocks)} layers: {listed(f'{count} with {kind}' for kind, count in kinds.items())}."


def _block(arch: Architecture, block: Block) -> str:
    parts = [_mixer(arch.mixers[block.mixer])] if block.mixer else []
    match arch.ffns[block.ffn] if block.ffn else None:
        case Moe(dense_beside=beside):
            parts.append("experts beside a dense FFN" if beside else "experts")
        case None:
            pass
        case _:
            parts.append("a dense FFN")
    return " and ".join(parts)


def _mixer(mixer: Mixer) -> str:
    match mixer:
        case Softmax(heads=heads, kv_heads=kv_heads):
            return "MHA" if heads == kv_heads else "MQA" if kv_heads == 1 else "GQA"
        case Latent():
            return "MLA"
    return KINDS[mixer.kind]


def _heads(mixer: Mixer) -> str:
    """A sentence on the heads of an attention; empty of other mixers."""
    match mixer:
        case Softmax(heads=heads, kv_heads=kv_heads, head_dim=width, window=window):
            limited = f", in a window of {window:,} tokens" if window else ""
            return f"{_mixer(mixer)} has {heads} query heads and {kv_heads} KV heads of width {width}{limited}."
        case Latent(heads=heads, kv_lora_rank=latent, rope_head_dim=rotary):
            return f"MLA has {heads} heads, and keeps a latent vector of {latent} and a rotary key of {rotary} values."
    return ""


def _beside(published: float, reported: float, status: str) -> str:
    """The report's value where it differs from the published one by more than its own rounding; else "same"."""
    if pd.isna(reported):
        return NONE
    digits = max(0, -Decimal(str(reported)).normalize().as_tuple().exponent)
    return "same" if round(published, digits) == reported else f"{number(reported)} ({status})"

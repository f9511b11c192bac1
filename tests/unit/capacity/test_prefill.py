"""Prefill with streamed experts: against a plain count chunk by chunk, by hand, and its limits."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.capacity.prefill import LIMITS, attention_seconds, prefill_time, prefill_times
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.catalog import Architecture, load_gpus
from prophet_moe.catalog.architecture import Compressed, Latent, Mixer, Softmax
from prophet_moe.catalog.link import load_links
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.precision import BF16, FORMATS, Precision
from prophet_moe.settings.scenario import CALIBRATED
from studies.prefill.study import PrefillSettings
from tests import examples  # noqa: F401
from tests.architectures import LINEAR, architectures
from tests.conftest import ROOT
from tests.unit.hardware.test_hardware import MODELS, decoder_weights, expert_biases
from tests.unit.hardware.test_roofline import DENSE

DECODERS = sorted(name for name, arch in MODELS.items() if not arch.encoder)
GPUS = load_gpus(ROOT / "config/gpus.yaml")
V100 = datasheet_profile("V100-32GB", GPUS["V100-32GB"])
PINNED, PEAK = (load_links(ROOT / "config/links.yaml")[name] for name in ("pinned", "datasheet"))
ENDLESS = replace(V100, hbm_bytes_per_second=1e30)
"""A GPU that operations alone limit."""


def is_compressed(arch: Architecture) -> bool:
    """Whether entries of the cache stand for several tokens, of which tests say bounds."""
    return any(isinstance(mixer, Compressed) for mixer in arch.mixers.values())


def plain_expert_bytes(arch: Architecture, name: str) -> int:
    """Bytes of one routed expert: its matrices in a format, and its biases of 16 bits."""
    width, inner = arch.moe.latent or arch.hidden, arch.moe.ffn
    matrices = [(inner, width)] * (2 if arch.moe.gated else 1) + [(width, inner)]
    return sum(FORMATS[name].bytes(*matrix) for matrix in matrices) + 2 * expert_biases(arch)


def plain_streaming_bytes(arch: Architecture, batch: int, context: int, resident: int, chunk: int, name: str) -> int:
    """Bytes that all chunks copy, counted chunk after chunk."""
    left, copied = batch * context, 0
    while left > 0:
        tokens = min(chunk, left)
        needed = min(arch.moe.experts, arch.moe.top_k * tokens)
        copied += len(arch.moe_layers) * max(0, needed - resident) * plain_expert_bytes(arch, name)
        left -= tokens
    return copied


def plain_pairs(context: int, most: int | None = None) -> int:
    """Pairs of a token and one that it attends to: itself and those before, or the last ones, or those chosen."""
    return sum(min(i, most or context) for i in range(1, context + 1))


def plain_attention(mixer: Mixer, context: int) -> int:
    """Operations of causal attention in one layer, of entries that stand for one token."""
    match mixer:
        case Softmax(heads=heads):
            return 2 * heads * (mixer.head_dim + mixer.value_dim) * plain_pairs(context, mixer.window)
        case Latent(heads=heads, indexer=indexer):
            most = indexer.top_k if indexer else mixer.sparse_top_k
            width = mixer.nope_head_dim + mixer.rope_head_dim + mixer.v_head_dim
            scored = 2 * indexer.heads * indexer.head_dim * plain_pairs(context) if indexer else 0
            return 2 * heads * width * plain_pairs(context, most) + scored
    return 0


def plain_flops(arch: Architecture, batch: int, context: int) -> int:
    """Operations of a prefill: two per weight and token, attention to every token before it, and the last logits."""
    used = len(arch.moe_layers) * arch.moe.top_k * params.expert_parameters(arch) if arch.moe else 0
    layers = Counter(block.mixer for block in arch.layers() if block.mixer)
    attention = sum(count * plain_attention(arch.mixers[name], context) for name, count in layers.items())
    weights = 2 * batch * context * (decoder_weights(arch) + used)
    return weights + batch * attention + 2 * batch * arch.vocab * arch.hidden


@given(
    name=st.sampled_from(DECODERS),
    batch=st.integers(1, 8),
    context=st.integers(1, 5000),
    chunk=st.integers(1, 4096),
    share=st.floats(0, 1),
    form=st.sampled_from(sorted(FORMATS)),
)
@settings(deadline=None, max_examples=60)
def test_prefill_streams_what_plain_count_says(name, batch, context, chunk, share, form):
    arch, precision = MODELS[name], Precision(form)
    resident = int(share * arch.moe.experts)
    time = prefill_time(arch, V100, batch, context, resident, chunk, precision)
    copied = plain_streaming_bytes(arch, batch, context, resident, chunk, form)
    assert time.streaming_seconds == pytest.approx(copied / V100.link_bytes_per_second)
    assert time.chunks == -(-batch * context // chunk)
    assert time.seconds == max(time.compute_seconds, time.streaming_seconds)
    everything = prefill_time(arch, V100, batch, context, arch.moe.experts, chunk, precision)
    assert everything.seconds == everything.compute_seconds == time.compute_seconds


@given(
    name=st.sampled_from([name for name in DECODERS if not is_compressed(MODELS[name])]),
    batch=st.integers(1, 4),
    context=st.integers(1, 5000),
)
@settings(deadline=None, max_examples=40)
def test_prefill_with_endless_bandwidth_is_its_operations(name, batch, context):
    time = prefill_time(MODELS[name], ENDLESS, batch, context, 1, 2048, BF16)
    expected = plain_flops(MODELS[name], batch, context) / V100.flops_per_second
    assert time.compute_seconds == pytest.approx(expected, rel=1e-6)


def of_mixer(mixer: dict) -> Architecture:
    """A model of one layer, which mixes and has a small dense FFN."""
    fields = {"hidden": 8, "vocab": 8, "native_context": 8, "blocks": {"A": {"mixer": "m", "ffn": "f"}}}
    parts = {"mixers": {"m": mixer}, "ffns": {"f": {"kind": "dense", "ffn": 8}}, "pattern": ["A"]}
    return Architecture.model_validate(fields | parts)


@given(st.integers(1, 300), st.integers(1, 400), st.integers(1, 5))
def test_prefill_of_a_window_attends_to_its_tokens(window, context, batch):
    """By brute force: token i attends to min(i, window) tokens, its own among them."""
    arch = of_mixer({"kind": "softmax", "heads": 6, "kv_heads": 2, "head_dim": 16, "window": window})
    pairs = sum(min(i, window) for i in range(1, context + 1))
    seconds = attention_seconds(arch, ENDLESS, batch, context, BF16)
    assert seconds * V100.flops_per_second == pytest.approx(batch * pairs * 4 * 6 * 16)
    moved = attention_seconds(arch, replace(V100, flops_per_second=1e30), batch, context, BF16)
    assert moved * V100.hbm_bytes_per_second == pytest.approx(batch * context * 2 * 2 * 2 * 16)


@given(st.integers(1, 300), st.integers(1, 400))
def test_prefill_of_sparse_attention_scores_all_tokens(top_k, context):
    """By brute force: every earlier token is scored, and at most top_k are attended to with expanded heads."""
    sizes = {"heads": 4, "q_lora_rank": 8, "kv_lora_rank": 16, "nope_head_dim": 8, "rope_head_dim": 4, "v_head_dim": 6}
    arch = of_mixer({"kind": "latent", "indexer": {"heads": 3, "head_dim": 5, "top_k": top_k}} | sizes)
    attended = sum(min(i, top_k) for i in range(1, context + 1))
    scored = sum(range(1, context + 1))
    seconds = attention_seconds(arch, ENDLESS, 1, context, BF16)
    assert seconds * V100.flops_per_second == pytest.approx(2 * 4 * 18 * attended + 2 * 3 * 5 * scored)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 400), st.none() | st.integers(1, 60))
def test_prefill_of_entries_lies_between_whole_ones(window, tokens, context, top_k):
    """An entry of several tokens grows with them: no more than one whole entry a token apart from either rounding."""
    sizes = {"heads": 4, "head_dim": 8, "q_lora_rank": 8, "o_lora_rank": 8, "o_groups": 2, "window": window}
    indexer = {"indexer": {"heads": 2, "head_dim": 8, "top_k": top_k}} if top_k else {}
    arch = of_mixer({"kind": "compressed", "compress": tokens} | sizes | indexer)
    done = attention_seconds(arch, ENDLESS, 1, context, BF16) * V100.flops_per_second

    def operations(entries: Callable[[int], int]) -> int:
        counted = [entries(i) for i in range(1, context + 1)]
        windowed = sum(min(i, window) for i in range(1, context + 1))
        chosen = sum(min(count, top_k or count) for count in counted)
        return 4 * 4 * 8 * (windowed + chosen) + (2 * 2 * 8 * sum(counted) if top_k else 0)

    least, most = operations(lambda i: i // tokens), operations(lambda i: -(-i // tokens))
    assert least * (1 - 1e-9) <= done <= most * (1 + 1e-9)


@given(architectures(tuple(LINEAR)), st.integers(1, 8), st.integers(1, 5000))
def test_prefill_of_states_has_no_attention(arch, batch, context):
    assert attention_seconds(arch, V100, batch, context, BF16) == 0


@given(st.integers(1, 8), st.integers(1, 5000), st.integers(1, 4096))
def test_dense_model_is_prefilled_without_streaming(batch, context, chunk):
    time = prefill_time(DENSE, ENDLESS, batch, context, 1, chunk, BF16)
    assert (time.streamed_bytes, time.streaming_seconds) == (0, 0)
    assert time.seconds == time.compute_seconds
    assert time.compute_seconds * V100.flops_per_second == pytest.approx(plain_flops(DENSE, batch, context))


def test_prefill_chunk_of_qwen_streams_56_experts_a_layer():
    """By hand: 24 layers of 60 - 4 experts of 3 x 2048 x 1408 weights over PCIe 3.0, 1.48 s for each 2,048 tokens."""
    slowed = replace(V100, flops_per_second=0.5 * V100.flops_per_second)
    time = prefill_time(MODELS["Qwen1.5-MoE-A2.7B"], slowed, 1, 8192, 4, 2048, BF16)
    assert time.chunks == 4
    assert time.streamed_bytes == 24 * 56 * 3 * 2048 * 1408 * 2
    assert time.seconds == pytest.approx(4 * 1.476, rel=1e-3)
    assert time.seconds / time.compute_seconds == pytest.approx(9.1, abs=0.1)


def test_prefill_table_covers_decoders_that_fit(grids, models, gpus):
    grid = grids["calibrated"]
    grid = grid[grid["case"] == ESTIMATE]
    profiles = {name: datasheet_profile(name, spec) for name, spec in gpus.items()}
    table = prefill_times(models, profiles, grid, CALIBRATED, PrefillSettings().compute_share, PINNED)
    counted = grid[grid["encoder_moe_layers"] == 0]
    assert len(table) == sum((counted[column] >= 1).sum() for column in LIMITS.values())
    assert (table["slowdown"] >= 1).all()
    assert not table["model"].str.startswith("Switch").any()
    fast = prefill_times(models, profiles, grid, CALIBRATED, 1, PINNED)
    assert (fast["all_resident_s"] <= table["all_resident_s"]).all()
    assert (fast["streaming_s"] == table["streaming_s"]).all()


def test_prefill_streams_at_the_share_of_the_link(grids, models, gpus):
    """A datasheet's link is cut to what copies reach; slowdown_bound keeps the datasheet's; a measured one is kept."""
    grid = grids["calibrated"]
    grid = grid[(grid["case"] == ESTIMATE) & (grid["gpu"] == "A100-80GB")]
    datasheet = datasheet_profile("A100-80GB", gpus["A100-80GB"])
    of = {
        name: prefill_times(models, {"A100-80GB": profile}, grid, CALIBRATED, 0.5, link)
        for name, profile, link in (
            ("pinned", datasheet, PINNED),
            ("peak", datasheet, PEAK),
            ("measured", replace(datasheet, source="measured"), PINNED),
        )
    }
    np.testing.assert_allclose(of["pinned"]["streaming_s"] * PINNED.share, of["peak"]["streaming_s"])
    np.testing.assert_allclose(of["pinned"]["slowdown_bound"], of["peak"]["slowdown"])
    np.testing.assert_allclose(of["measured"]["slowdown"], of["peak"]["slowdown"])

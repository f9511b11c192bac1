"""Decode steps of layers that differ: windows, sparse and compressed attention, states, formats, and dense models."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.capacity.memory import model_memory
from prophet_moe.catalog import Architecture, ModelSpec
from prophet_moe.catalog.architecture import Mixer, Softmax
from prophet_moe.errors import UserError
from prophet_moe.hardware.pace import ProfilePace
from prophet_moe.hardware.profile import AttentionShape, Curve
from prophet_moe.hardware.roofline import (
    all_resident_seconds,
    attention_reads,
    decoder_layers,
    expert_shape,
    layer_times,
    link_bound_seconds,
    on_demand_seconds,
)
from prophet_moe.offload.simulator.timing import times_of
from prophet_moe.params.cache import mixer_cache
from prophet_moe.precision import BF16, FORMATS, KV_FORMATS, Precision
from prophet_moe.settings.scenario import CALIBRATED, Scenario
from prophet_moe.units import MB
from tests import examples  # noqa: F401
from tests.architectures import ATTENTION, LINEAR, architectures
from tests.unit.hardware.test_hardware import A100, MODELS, expert_biases, step_bytes, step_flops

MEMORY_BOUND = dataclasses.replace(A100, flops_per_second=math.inf)
COMPUTE_BOUND = dataclasses.replace(A100, hbm_bytes_per_second=math.inf)
HBM = A100.hbm_bytes_per_second
LONG = 131_072
FORMAT_NAMES = st.sampled_from(sorted(FORMATS))
PLAIN_CACHES = sorted(KV_FORMATS.keys() - {"fp8_sparse_mla"})
"""Formats of KV caches that every kind of attention has."""


def distinct_experts(arch: Architecture, batch: int, share: float) -> float:
    """Between one expert and as many as the batch can choose; 0 of a dense model."""
    most = min(arch.moe.experts, arch.moe.top_k * batch) if arch.moe else 0
    return min(1.0, most) + share * max(0.0, most - 1)


@given(architectures(), st.integers(1, 64), st.integers(1, 300), st.floats(0, 1))
def test_step_of_any_layers_is_its_bytes_or_operations(arch, batch, context, share):
    """With endless compute the bytes over the bandwidth, with endless bandwidth the operations over the peak."""
    unique = distinct_experts(arch, batch, share)
    moved = layer_times(arch, MEMORY_BOUND, batch, context, unique).compute_seconds.sum()
    assert moved * HBM == pytest.approx(step_bytes(arch, batch, context, unique))
    done = layer_times(arch, COMPUTE_BOUND, batch, context, unique).compute_seconds.sum()
    assert done * A100.flops_per_second == pytest.approx(step_flops(arch, batch, context))


@given(architectures(), st.integers(1, 8), st.integers(1, 300), st.integers(1, 300))
def test_step_never_gets_shorter_with_more_context(arch, batch, context, more):
    unique = distinct_experts(arch, batch, 0.5)
    short, long = (layer_times(arch, A100, batch, tokens, unique) for tokens in (context, context + more))
    assert (short.compute_seconds <= long.compute_seconds).all()


def attention_seconds(arch: Architecture, context: int, batch: int = 1, precision: Precision = BF16) -> float:
    """Seconds of all attention in a step."""
    reads = [read for layer in decoder_layers(arch, precision) for read in layer.reads]
    return sum(read.seconds(MEMORY_BOUND, batch, context) for read in reads)


def test_half_the_layers_of_gpt_oss_attend_to_all_tokens():
    """18 x WF at 131,072 tokens: half of what 36 full layers take, and the windows of 128 tokens beside it."""
    arch = MODELS["gpt-oss-120b"]
    assert arch.pattern == ["18 x SF"]
    full = arch.model_copy(update={"pattern": ["36 x F"]})
    windows = 18 * 2 * 128 * 2 * 8 * 64 / HBM
    assert attention_seconds(arch, LONG) == pytest.approx(attention_seconds(full, LONG) / 2 + windows)
    ours, theirs = (layer_times(model, MEMORY_BOUND, 1, LONG, 4).compute_seconds.sum() for model in (arch, full))
    assert theirs - ours == pytest.approx(18 * 2 * (LONG - 128) * 2 * 8 * 64 / HBM)


@pytest.mark.parametrize("context, read", [(1, 1), (127, 127), (128, 128), (129, 128), (LONG, 128)])
def test_windowed_layer_reads_at_most_its_window(context, read):
    arch = MODELS["gpt-oss-120b"]
    (window,), (full,) = (attention_reads(arch.mixers[name]) for name in ("local", "full"))
    assert (window.entries(context), full.entries(context)) == (read, context)
    assert window.seconds(MEMORY_BOUND, 3, context) == pytest.approx(3 * read * 2 * 2 * 8 * 64 / HBM)
    layers = layer_times(arch, MEMORY_BOUND, 3, context, 4).compute_seconds
    assert layers[1] - layers[3] == 0 and layers[1] - layers[2] == pytest.approx(
        3 * (context - read) * 2 * 2 * 8 * 64 / HBM, abs=1e-12
    )


@pytest.mark.parametrize("context, chosen", [(100, 100), (2048, 2048), (2049, 2048), (LONG, 2048)])
def test_sparse_layer_reads_every_index_key_but_few_entries(context, chosen):
    """DeepSeek-V3.2: 2,048 latents of 576 values are attended to, and every index key of 128 is scored."""
    latent = MODELS["DeepSeek-V3.2"].mixers["attn"]
    sparse = latent.model_copy(update={"indexer": latent.indexer.model_copy(update={"top_k": 2048})})
    kept, keys = attention_reads(sparse)
    assert (kept.entries(context), keys.entries(context)) == (chosen, context)
    assert kept.seconds(MEMORY_BOUND, 2, context) == pytest.approx(2 * 2 * chosen * 576 / HBM)
    assert keys.seconds(MEMORY_BOUND, 2, context) == pytest.approx(2 * 2 * context * 128 / HBM)
    assert keys.seconds(COMPUTE_BOUND, 2, context) * A100.flops_per_second == 2 * context * 2 * 64 * 128
    assert kept.flops == 2 * 128 * (576 + 512)
    follows = latent.model_copy(update={"indexer": None, "sparse_top_k": 2048})
    assert attention_reads(follows) == (kept,), "a layer that uses the choice of another scores nothing"
    everything, _ = attention_reads(latent)
    assert everything.entries(context) == context, "without top_k, attention is to all tokens"


def test_sparse_cache_of_vllm_is_read_as_it_is_kept():
    """656 bytes of a latent with its scales and its rotary key, 132 of an index key."""
    kept, keys = attention_reads(MODELS["DeepSeek-V3.2"].mixers["attn"], Precision(kv="fp8_sparse_mla"))
    assert kept.seconds(MEMORY_BOUND, 1, 1000) == pytest.approx(656_000 / HBM)
    assert keys.seconds(MEMORY_BOUND, 1, 1000) == pytest.approx(132_000 / HBM)


@pytest.mark.parametrize("context", [1, 4, 5, 128, 129, 1000, LONG])
def test_compressed_layer_reads_its_window_and_entries(context):
    """DeepSeek-V4: the last 128 tokens, and an entry for 4 tokens with its index key, or for 128 without."""
    mixers = MODELS["DeepSeek-V4-Flash"].mixers
    found = {
        name: [read.entries(context) for read in attention_reads(mixers[name])] for name in ("local", "csa", "hca")
    }
    window, every_4, every_128 = min(context, 128), math.ceil(context / 4), math.ceil(context / 128)
    assert found == {"local": [window], "csa": [window, every_4, every_4], "hca": [window, every_128]}
    chosen = mixers["csa"].indexer.model_copy(update={"top_k": 512})
    _, entries, keys = attention_reads(mixers["csa"].model_copy(update={"indexer": chosen}))
    assert (entries.entries(context), keys.entries(context)) == (min(every_4, 512), every_4)
    assert {(read.shape.cached_values, read.value_bytes) for read in (entries, keys)} == {(512, 2), (128, 2)}


@given(architectures(tuple(LINEAR)), st.integers(1, 8), st.sampled_from(["own", "fp32", "bf16"]))
def test_layer_of_a_state_reads_and_writes_it_alone(arch, batch, form):
    precision, unique = Precision(state=form), distinct_experts(arch, batch, 0.5)
    assert all(layer.reads == () for layer in decoder_layers(arch))
    short, long = (layer_times(arch, MEMORY_BOUND, batch, context, unique, precision) for context in (1, LONG))
    assert (short.compute_seconds == long.compute_seconds).all()
    states = [layer.state_bytes for layer in decoder_layers(arch, precision)]
    assert sum(states) == params.state_bytes_per_sequence(arch, precision)
    twice = layer_times(arch, MEMORY_BOUND, 2 * batch, LONG, unique, precision)
    grown = (twice.compute_seconds - long.compute_seconds) * HBM
    assert grown == pytest.approx(2 * batch * np.array(states), rel=1e-6, abs=1e-3)


def test_qwen3_next_reads_the_cache_of_every_fourth_layer():
    """12 x LLLF: three layers of gated DeltaNet with a state of 2 MiB and its convolution, one with a cache."""
    arch = MODELS["Qwen3-Next-80B-A3B"]
    layers = decoder_layers(arch)
    state = 4 * 32 * 128 * 128 + 2 * 4 * (2 * 16 * 128 + 32 * 128)
    assert [layer.state_bytes for layer in layers] == [state, state, state, 0] * 12
    assert [len(layer.reads) for layer in layers] == [0, 0, 0, 1] * 12
    assert attention_seconds(arch, LONG) == pytest.approx(12 * LONG * 2 * 2 * 2 * 256 / HBM)
    plain, halved = (layer_times(arch, MEMORY_BOUND, 5, 1, 10, Precision(state=form)) for form in ("own", "bf16"))
    saved = (plain.compute_seconds - halved.compute_seconds).sum() * HBM
    assert saved == pytest.approx(36 * 2 * 5 * 2 * 32 * 128 * 128)


def test_layer_without_keys_reads_those_of_an_earlier_one():
    own = Softmax(kind="softmax", heads=8, kv_heads=2, head_dim=64)
    assert attention_reads(own.model_copy(update={"own_kv": False})) == attention_reads(own)


@given(architectures(tuple(ATTENTION)), st.integers(1, 400), st.sampled_from(PLAIN_CACHES), st.booleans())
def test_attention_reads_the_bytes_that_memory_keeps(arch, context, kv, expanded):
    """Without a choice of entries a step reads the whole cache, in every format: its scales and its padding too."""
    precision = Precision(kv=kv, mla_cache="decompressed" if expanded else "latent")
    for mixer in map(without_choice, arch.mixers.values()):
        reads = attention_reads(mixer, precision)
        read = sum(each.entries(context) * each.shape.cached_values * each.value_bytes for each in reads)
        own = mixer.model_copy(update={"own_kv": True}) if isinstance(mixer, Softmax) else mixer
        assert read == pytest.approx(sum(cache.bytes(context) for cache in mixer_cache(own, precision)))


def without_choice(mixer: Mixer) -> Mixer:
    """The mixer, which attends to all that it keeps."""
    changes = {"sparse_top_k": None} if hasattr(mixer, "sparse_top_k") else {}
    if getattr(mixer, "indexer", None):
        changes["indexer"] = mixer.indexer.model_copy(update={"top_k": None})
    return mixer.model_copy(update=changes)


def test_sparse_layout_of_other_attention_has_no_time_either():
    with pytest.raises(UserError, match="fp8_sparse_mla: is a layout of latent attention"):
        layer_times(MODELS["gpt-oss-120b"], A100, 1, 1, 4, Precision(kv="fp8_sparse_mla"))


def measured_for(arch: Architecture, *names: str):
    """A profile that measured the experts of a model, and the attention of some of its mixers."""
    shapes = [attention_reads(arch.mixers[name])[0].shape for name in names]
    lines = {shape: {1: Curve((1.0, 1e6), (1e-6, 1.0))} for shape in shapes}
    return dataclasses.replace(A100, source="measured", attention=lines)


def test_attention_is_measured_where_all_of_it_was():
    """One kind of attention that was not measured, such as an index branch, makes a step's attention an estimate."""
    gemma, sparse = MODELS["Gemma-4-26B-A4B"], MODELS["DeepSeek-V3.2"]
    names = [name for name in gemma.mixers if gemma.mixers[name].kind == "softmax"]
    assert len({read.shape for name in names for read in attention_reads(gemma.mixers[name])}) == 2
    step = {"batch": 1, "context": 100, "unique_experts": 8}
    assert layer_times(gemma, measured_for(gemma, *names), **step).bases["attention"] == "measured"
    assert layer_times(gemma, measured_for(gemma, names[0]), **step).bases["attention"] == "measured bandwidth"
    assert layer_times(sparse, measured_for(sparse, "attn"), **step).bases["attention"] == "measured bandwidth"


def test_measured_window_takes_the_time_of_its_tokens():
    arch = MODELS["gpt-oss-120b"]
    profile = measured_for(arch, "full")
    (window,) = attention_reads(arch.mixers["local"])
    assert window.shape == AttentionShape(64, 8, 64, 0)
    at_window = profile.attention_seconds(window.shape, 1, 128)
    assert window.seconds(profile, 1, LONG) == window.seconds(profile, 1, 128) == at_window


PRECISIONS = st.builds(
    Precision,
    FORMAT_NAMES,
    st.dictionaries(st.sampled_from(["routed_experts", "shared_experts", "attention", "embeddings"]), FORMAT_NAMES),
    st.sampled_from(PLAIN_CACHES),
    st.sampled_from(["own", "fp32", "bf16"]),
)


def scenario_of(precision: Precision) -> Scenario:
    """The calibrated scenario in these formats."""
    weights = {"default": precision.default} | dict(precision.components)
    formats = {"precision": weights, "kv_format": precision.kv, "state_format": precision.state}
    return Scenario.model_validate(dict(CALIBRATED) | formats)


@given(architectures(), PRECISIONS)
def test_memory_time_and_simulator_move_the_same_bytes(arch, precision):
    assume(arch.moe_layers)
    spec = ModelSpec.model_construct(architecture=arch, reported=None, precision=None)
    memory = model_memory(spec, scenario_of(precision))
    step, size = layer_times(arch, A100, 4, 100, 1, precision), params.expert_bytes(arch, precision)
    assert step.expert_bytes == memory.expert_bytes == size
    simulated = times_of(arch, ProfilePace(A100), 3, 4, 100, precision, chunk_mb=size / MB)
    assert simulated.transfer_seconds == (step.transfer_seconds_per_expert,)
    assert step.transfer_seconds_per_expert == size / A100.link_bytes_per_second
    assert simulated.chunk_seconds == pytest.approx(step.transfer_seconds_per_expert)
    stored = params.weight_bytes(arch, precision)
    assert stored["routed_experts"] == params.moe_layers(arch) * arch.moe.experts * size
    assert memory.non_expert_bytes == sum(stored.values()) - stored["routed_experts"]


@given(architectures(), PRECISIONS, st.integers(1, 8))
def test_weights_of_layers_have_the_bytes_of_memory(arch, precision, batch):
    """All layers read the stored bytes of everything but experts, embeddings and what a stack has beside them."""
    assume(arch.encoder is None)
    stack = arch.model_copy(update={"pattern": []})
    whole, beside = (params.weight_bytes(each, precision) for each in (arch, stack))
    last_norm = 2 * arch.hidden * (2 if arch.norm == "layer" else 1)
    expected = sum(whole.values()) - whole.get("routed_experts", 0) - sum(beside.values()) + last_norm
    assert sum(layer.weight_bytes for layer in decoder_layers(arch, precision)) == expected
    head = FORMATS[precision.components.get("embeddings", precision.default)].bytes(arch.vocab, arch.hidden)
    times = layer_times(arch, MEMORY_BOUND, batch, 1, distinct_experts(arch, batch, 0), precision)
    assert times.head_seconds * HBM == pytest.approx(head)


@pytest.mark.parametrize("name", ["Mixtral-8x7B", "gpt-oss-120b"])
def test_mxfp4_experts_take_4_25_of_16_bits(name):
    """In the copy of an expert and in the time that a layer reads it; nothing else changes."""
    arch, experts = MODELS[name], Precision(components={"routed_experts": "mxfp4"})
    plain, small = (layer_times(arch, MEMORY_BOUND, 1, 100, arch.moe.top_k, p) for p in (BF16, experts))
    biases = 2 * expert_biases(arch)
    assert small.expert_bytes - biases == 4.25 / 16 * (plain.expert_bytes - biases)
    assert small.transfer_seconds_per_expert == small.expert_bytes / A100.link_bytes_per_second
    saved = (plain.compute_seconds - small.compute_seconds) * HBM
    read = arch.moe.top_k * 2 * expert_shape(arch).parameters * (1 - 4.25 / 16)
    assert saved == pytest.approx(read, rel=1e-3), "biases of 16 bits are 0.03 % of an expert of gpt-oss"
    assert small.head_seconds == plain.head_seconds


DENSE = Architecture.model_validate(
    {
        "hidden": 4096,
        "vocab": 128_256,
        "native_context": 131_072,
        "mixers": {"attention": {"kind": "softmax", "heads": 32, "kv_heads": 8, "head_dim": 128}},
        "ffns": {"dense": {"kind": "dense", "ffn": 14_336}},
        "blocks": {"D": {"mixer": "attention", "ffn": "dense"}},
        "pattern": ["32 x D"],
    }
)
"""Llama-3.1-8B, of 8,030,261,248 parameters."""


def test_dense_model_decodes_without_experts():
    """A token reads all weights but the input embedding, and its cache."""
    times = layer_times(DENSE, MEMORY_BOUND, 1, 4096, 0)
    total = params.parameter_counts(DENSE).total
    assert total == 8_030_261_248
    moved = 2 * (total - DENSE.vocab * DENSE.hidden) + 4096 * 131_072
    assert all_resident_seconds(times) * HBM == pytest.approx(moved)
    assert not times.moe.any() and (times.expert_bytes, times.transfer_seconds_per_expert) == (0, 0)
    assert on_demand_seconds(times, 0) == link_bound_seconds(times, 0) == all_resident_seconds(times)
    assert times.bases["experts"] == "datasheet"


@pytest.mark.parametrize("name", ["LongCat-Flash"])
def test_zero_experts_are_never_fetched(name):
    """Of 12 choices some are the identity: no step needs more experts than there are, nor moves one of no weights."""
    arch = MODELS[name]
    assert arch.moe.zero_experts
    layer_times(arch, A100, 10**6, 1, arch.moe.experts)
    with pytest.raises(UserError, match=f"at most {arch.moe.experts}"):
        layer_times(arch, A100, 10**6, 1, arch.moe.experts + 1)

"""What an engine holds on a GPU: lines that add up, and terms that do what their profile says."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.capacity.engine import Serving, cache_of, engine_budget, inside, sharded
from prophet_moe.catalog import load_models
from prophet_moe.catalog.engine import load_engines
from prophet_moe.params.sharding import Parallelism
from prophet_moe.precision import BF16, Precision
from prophet_moe.units import GIB, MIB
from tests.architectures import architectures
from tests.conftest import ROOT

ENGINES = load_engines(ROOT / "config/engines")
MODELS = load_models(ROOT / "config/models") | load_models(ROOT / "config/models/current")
FP8 = Precision("fp8_block128", {"embeddings": "bf16", "output_embedding": "bf16"})
MXFP4 = Precision(components={"routed_experts": "mxfp4"})
H100 = 79.11
DIVERSE = ("Mixtral-8x7B", "DeepSeek-V3.1", "gpt-oss-120b", "Jamba-1.5-Large", "Switch-Base-128")
"""Models with grouped queries, a latent, windows, states and an encoder."""


def asked(engine="vllm-0.10", model="Qwen3-30B-A3B", precision=BF16, total=H100, **more) -> Serving:
    return Serving(ENGINES[engine], MODELS[model].architecture, precision, total, **more)


def weights(serving: Serving) -> float:
    return engine_budget(serving).group_bytes("weights")


def line(serving: Serving, what: str) -> float:
    return sum(found.bytes for found in engine_budget(serving).lines if found.what == what)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "model", ["Mixtral-8x7B", "DeepSeek-V3.1", "gpt-oss-120b", "Jamba-1.5-Large", "Switch-Base-128"]
)
def test_lines_and_pool_add_up_to_the_share(engine, model):
    serving = asked(engine, model)
    found = engine_budget(serving)
    taken = sum(found.group_bytes(group) for group in inside(serving.engine))
    assert found.pool_bytes + taken == pytest.approx(found.usable_bytes)
    assert found.usable_bytes <= H100 * GIB
    assert all(held.formula and held.bytes > 0 for held in found.lines)
    assert {held.term for held in found.lines if held.term} <= set(serving.engine.given_terms()) | {
        "reservation.forward"
    }


@given(architectures(), st.sampled_from([8.0, 40.0, 80.0]))
def test_ideal_engine_holds_the_plain_model(arch, total):
    found = engine_budget(Serving(ENGINES["ideal"], arch, Precision(), total))
    assert found.group_bytes("weights") == sum(params.weight_bytes(arch).values())
    assert found.kv_bytes_per_token == float(params.growing_bytes_per_token(params.caches(arch)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", ["Mixtral-8x7B", "DeepSeek-V3.1", "gpt-oss-120b", "Qwen3-Next-80B-A3B"])
def test_more_gpus_never_need_more_memory_each(engine, model):
    held = [asked(engine, model, over=Parallelism(gpus)) for gpus in (1, 2, 4, 8)]
    for fewer, more in pairwise(held):
        assert line(more, "routed experts") <= line(fewer, "routed experts")
        assert weights(more) <= weights(fewer)


@given(architectures(), st.sampled_from(sorted(ENGINES)), st.floats(1, 300))
def test_pool_holds_the_tokens_that_it_is_said_to_hold(arch, engine, total):
    serving = Serving(ENGINES[engine], arch, Precision(), total)
    found = engine_budget(serving)
    kept = cache_of(serving, sharded(serving))
    needed = sum(cache.bytes(found.pool_tokens) for cache in kept)
    assert found.pool_tokens == 0 or needed <= found.pool_bytes
    if found.fits:
        assert found.pool_bytes > 0 and found.pool_tokens > 0


def test_rotary_table_has_a_row_per_position():
    assert line(asked(rotary_positions=262144), "table of rotary positions") == 262144 * 128 * 2
    assert (
        line(asked(rotary_positions=1024, rotary_width=64, rotary_bytes=4), "table of rotary positions") == 1024 * 256
    )
    assert line(asked("ideal"), "table of rotary positions") == 0


def test_latent_model_has_a_rotary_table_of_its_shared_key():
    serving = asked(model="DeepSeek-V3.1", rotary_positions=163840)
    assert line(serving, "table of rotary positions") == 163840 * 64 * 2


def test_marlin_pads_odd_widths_of_mxfp4_experts_alone():
    padded = asked(model="gpt-oss-120b", precision=MXFP4)
    assert "3072 x 2944" in next(x.formula for x in engine_budget(padded).lines if x.what == "routed experts")
    plain = replace(padded, precision=Precision())
    assert "padded" not in next(x.formula for x in engine_budget(plain).lines if x.what == "routed experts")


def test_allocator_keeps_at_most_one_mib_of_a_tensor():
    rounded, exact = asked(model="gpt-oss-120b", precision=MXFP4), ENGINES["vllm-0.10"]
    terms = exact.weights.model_copy(update={"allocator_rounds": False})
    plain = replace(rounded, engine=exact.model_copy(update={"weights": terms}))
    assert weights(rounded) - weights(plain) == 36 * MIB


WHAT = "absorbed matrices of latent attention"
HEADS, LATENT, QUERIES, HIDDEN, ROPE = 16, 512, 1536, 7168, 64
"""DeepSeek-V3 over 8 GPUs: the heads of one, and its widths."""


def test_absorbed_products_are_held_in_the_checkpoints_format():
    """Tensors of vLLM 0.7 by their shapes: W_Q_UK and W_UV_O with scales, W_QR, and kv_b_proj in 16 bits."""
    eight = asked("vllm-0.7", "DeepSeek-V3.1", FP8, over=Parallelism(8))
    products = HEADS * LATENT * (QUERIES + HIDDEN)
    scales = HEADS * LATENT // 128 * (QUERIES + HIDDEN) // 128 * 4
    rotary, up = HEADS * ROPE * QUERIES * 2, HEADS * LATENT * (128 + 128) * 2
    assert line(eight, WHAT) == 61 * (products + scales + rotary + up)
    assert line(replace(eight, precision=Precision()), WHAT) == 61 * (2 * products + rotary)
    assert line(asked("vllm-0.7", precision=FP8), WHAT) == 0


def test_later_generations_hold_up_projections_alone():
    for name in ("vllm-0.8-v0", "vllm-0.10", "vllm"):
        later = asked(name, "DeepSeek-V3.1", FP8, over=Parallelism(8))
        assert line(later, WHAT) == 61 * HEADS * LATENT * (128 + 128) * 2
        assert line(replace(later, precision=Precision()), WHAT) == 0


def test_prompts_of_latent_models_are_whole_in_vllm_0_7():
    latent, other = (asked("vllm-0.7", name, context=128000) for name in ("DeepSeek-V3.1", "Qwen3-30B-A3B"))
    assert (latent.most_tokens, other.most_tokens) == (128000, 2048)
    assert replace(latent, tokens=4096).most_tokens == 4096
    assert replace(latent, engine=ENGINES["vllm-0.8-v0"]).most_tokens == 2048


def test_fused_shared_expert_is_whole_on_every_gpu():
    old, new = (asked(name, "DeepSeek-V3.1", FP8, over=Parallelism(8)) for name in ("sglang-0.4", "sglang"))
    more = weights(old) - weights(new)
    assert more == pytest.approx(7 * line(new, "shared experts"))
    assert more / GIB == pytest.approx(2.1, abs=0.1)


def test_latent_entries_are_padded_where_an_engine_does():
    per_token = [engine_budget(asked(name, "DeepSeek-V3.1")).kv_bytes_per_token for name in ("vllm-0.7", "vllm-0.10")]
    assert per_token == [61 * 640 * 2, 61 * 576 * 2]


def test_sparse_latent_cache_has_a_layout_of_its_own():
    serving = asked("sglang", "DeepSeek-V3.2", replace(FP8, kv="fp8"))
    assert engine_budget(serving).kv_bytes_per_token == 61 * (656 + 132)


def test_sampler_reserves_for_all_sequences_on_the_last_stage():
    serving = asked(over=Parallelism(pipeline=2), gpu="H100 80GB")
    first, last = (engine_budget(replace(serving, stage=stage)) for stage in (0, 1))
    assert last.group_bytes("activations") == 151936 * 1024 * 38.5
    assert first.group_bytes("activations") == 8192 * params.activation_bytes_per_token(serving.arch)


def test_small_card_and_a100_have_smaller_defaults():
    assert asked(total=44.4).most_sequences == 256
    assert asked(total=79.25, gpu="A100-80GB").most_sequences == 256
    assert asked(gpu="H100 80GB").most_sequences == 1024
    assert asked(sequences=6, tokens=4096).most_sequences == 6


def test_old_generation_takes_as_many_tokens_as_a_sequence():
    assert asked("vllm-0.7", context=8192).most_tokens == 8192
    assert asked("vllm-0.7", context=128000).most_tokens == 2048


def test_eager_engine_has_no_graphs():
    assert engine_budget(asked(eager=True)).group_bytes("graphs") == 0
    assert engine_budget(asked()).group_bytes("graphs") == pytest.approx(48 * 0.043 * GIB)


def test_communication_needs_more_over_a_fast_link():
    def libraries(gpu: str, total: float, tp: int) -> float:
        return engine_budget(asked(gpu=gpu, total=total, over=Parallelism(tp))).group_bytes("non_torch") / GIB

    assert libraries("H100 80GB", H100, 1) == pytest.approx(0.22)
    assert libraries("48 GB card", 44.4, 4) == pytest.approx(0.22)
    assert libraries("A100-SXM4-40GB", 39.5, 4) == pytest.approx(1.3)
    assert libraries("A100-PCIE-40GB", 39.5, 4) == pytest.approx(0.22)


def test_experts_in_host_memory_are_not_counted():
    whole, part = asked("sglang"), asked("sglang", resident_experts=32)
    assert line(part, "routed experts") * 4 == line(whole, "routed experts")


def test_windows_of_llama_cpp_keep_a_batch_beside_them():
    serving = asked("llama.cpp", "gpt-oss-120b", tokens=1024)
    windows = [cache.window for cache in cache_of(serving, sharded(serving)) if cache.window]
    assert windows == [1280]


def test_windows_of_vllm_keep_whole_blocks():
    serving = asked("vllm-0.10", "gpt-oss-120b", tokens=1024)
    windows = [cache.window for cache in cache_of(serving, sharded(serving)) if cache.window]
    assert windows == [73 * 16]


@pytest.mark.parametrize(
    ("serving", "told"),
    [
        (asked(total=40.0), "the weights alone take"),
        (asked(model="gpt-oss-120b", precision=MXFP4, gpu="H100 80GB"), "lack before any KV cache"),
        (asked(context=10**6), "1,000,000 are asked"),
        (asked(memory_share=0.999, sequences=8), "lack beside the share"),
    ],
)
def test_model_that_does_not_fit_says_why(serving, told):
    found = engine_budget(serving)
    assert found.fits is False
    assert told in found.why


def test_unknown_memory_gives_lines_and_no_pool():
    found = engine_budget(asked(total=None))
    assert found.lines and found.pool_bytes is None and found.fits is None

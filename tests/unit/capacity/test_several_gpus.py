"""A model on several GPUs: parts add up, one GPU is no special case, and an engine's pool is what studies count."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.capacity.engine import engine_budget
from prophet_moe.capacity.memory import model_memory
from prophet_moe.capacity.several_gpus import check_spread, numbers, parallelism, spread, total_weights, whole_weights
from prophet_moe.capacity.under_engine import NO_ENGINE, PLAIN, EngineChoice, plain_shard, serving
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.catalog.engine import load_engines
from prophet_moe.errors import UserError
from prophet_moe.params.sharding import Parallelism
from prophet_moe.settings.scenario import CALIBRATED, Routing
from tests.conftest import ROOT

ENGINES = load_engines(ROOT / "config/engines")
MODELS = load_models(ROOT / "config/models")
GPU = "H200-141GB"
LISTED = load_gpus(ROOT / "config/gpus.yaml", [GPU])[GPU]
SCENARIO = CALIBRATED.model_copy(update={"routing": Routing(variation=1.0)})


def on(model: str, over: Parallelism, batch: int = 16, engine=NO_ENGINE, scenario=SCENARIO):
    return spread(MODELS[model], GPU, LISTED, scenario, engine, over, batch, 1.0)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_shard_of_one_gpu_is_the_whole_model(name):
    spec = MODELS[name]
    for scenario in (SCENARIO, SCENARIO.model_copy(update={"precision": "shipped", "draft_layers": True})):
        asked, whole = serving(spec, GPU, LISTED, scenario, PLAIN), model_memory(spec, scenario)
        assert plain_shard(asked, whole, engine_budget(asked), scenario) == whole


@pytest.mark.parametrize("name", ["Qwen3-235B", "DeepSeek-V3-671B", "Mixtral-8x22B", "Jamba-1.5-Large", "OLMoE-1B-7B"])
@pytest.mark.parametrize("expert", [False, True])
def test_parts_hold_the_whole_model_at_least_once(name, expert):
    over = parallelism(2, 2, 2, expert, PLAIN)
    found = on(name, over)
    arch = MODELS[name].architecture
    assert [stage.layers for stage in found.stages] == list(over.stage_layers(len(arch.layers())))
    assert over.gpus == 8 and found.sequences == 8
    experts = sum(numbers(stage)["expert_bytes"] * over.experts_over for stage in found.stages)
    whole = params.moe_layers(arch) * arch.moe.experts * params.expert_bytes(arch)
    assert whole <= experts <= whole * 1.001
    copies = total_weights(found) / whole_weights(MODELS[name], SCENARIO)
    assert 1 <= copies < 1.5, "attention is held twice, by each replica"


def test_one_kv_head_is_the_least_on_a_gpu():
    """Qwen3-235B has 4 KV heads of 128: over 2, 4 and 8 GPUs a token costs 2, 1 and 1 in 94 layers."""
    per_token = [numbers(on("Qwen3-235B", Parallelism(tp)).stages[0])["kv_bytes_per_token"] for tp in (2, 4, 8)]
    assert per_token == [94 * heads * 2 * 128 * 2 for heads in (2, 1, 1)]


def test_latent_cache_gains_from_replicas_alone():
    eight = on("DeepSeek-V3-671B", Parallelism(8)), on("DeepSeek-V3-671B", Parallelism(1, data=8))
    tensor, data = (numbers(found.stages[0])["kv_bytes_per_token"] for found in eight)
    assert tensor == data == 61 * 576 * 2
    assert (eight[0].sequences, eight[1].sequences) == (16, 2)


def test_resident_experts_are_rounded_up_to_whole_ones_a_gpu():
    found = on("Qwen3-235B", parallelism(8, 1, 1, True, PLAIN), batch=1)
    metrics, memory = found.stages[0].metrics, found.stages[0].held.memory
    one = params.expert_bytes(MODELS["Qwen3-235B"].architecture)
    assert metrics["resident_experts"] == 8
    assert metrics["prophet_expert_bytes"] == 94 * one
    assert memory.experts * memory.expert_bytes == 16 * one


@given(
    st.sampled_from(["Qwen3-235B", "DeepSeek-V3-671B", "Mixtral-8x22B", "Jamba-1.5-Large"]),
    st.sampled_from([None, "vllm-0.10", "sglang", "llama.cpp"]),
    st.booleans(),
    st.sampled_from([1, 16, 64]),
)
def test_more_gpus_never_shorten_the_context(name, profile, expert, batch):
    engine = EngineChoice(ENGINES[profile]) if profile else NO_ENGINE
    found = [on(name, parallelism(tp, 1, 1, expert and tp > 1, PLAIN), batch, engine) for tp in (2, 4, 8)]
    for who in ("baseline", "prophet"):
        contexts = [each.context(who) for each in found]
        assert all(fewer <= more for fewer, more in pairwise(contexts))
    for each in found:
        for stage in each.stages:
            lines = stage.lines
            taken = sum(line.baseline for line in lines[1:-1])
            assert lines[0].baseline - taken == pytest.approx(lines[-1].baseline, abs=4096)


@pytest.mark.parametrize("profile", ["vllm-0.10", "vllm", "sglang"])
@pytest.mark.parametrize("stages", [1, 2])
def test_free_memory_of_a_stage_is_the_pool_of_the_engine(profile, stages):
    found = on("Qwen3-235B", Parallelism(8, stages), 1, EngineChoice(ENGINES[profile]))
    for stage in found.stages:
        budget = stage.held.budget
        assert budget.fits
        assert stage.metrics["baseline_free_bytes"] == pytest.approx(budget.pool_bytes, abs=4096)
        assert abs(stage.metrics["baseline_max_context"] - budget.pool_tokens) <= 16


def test_replicas_of_sglang_divide_the_tensor_parallel_gpus():
    assert parallelism(8, 1, 8, True, ENGINES["sglang"]).gpus == 8
    assert parallelism(8, 1, 8, True, ENGINES["vllm"]).gpus == 64


@pytest.mark.parametrize(
    ("model", "sizes", "told"),
    [
        ("Qwen3-235B", (3, 1, 1, False), "3 GPUs do not divide the 64 heads"),
        ("Qwen3-235B", (1, 95, 1, False), "pp 95 is more than the 94 layers"),
        ("Qwen3-235B", (1, 1, 1, True), "a stage has one GPU"),
        ("Mixtral-8x7B", (8, 1, 2, True), "16 GPUs for the 8 experts"),
        ("Switch-Base-128", (1, 2, 1, False), "2 stages of an encoder-decoder"),
    ],
)
def test_split_that_no_engine_has_is_refused(model, sizes, told):
    with pytest.raises(UserError) as refused:
        check_spread(MODELS[model].architecture, parallelism(*sizes, PLAIN), sizes[3])
    assert told in str(refused.value) and "\n" not in str(refused.value)

"""A model on several GPUs: a plain placement, parts that add up, an engine's pool, and what a resident set covers."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.capacity import reference
from prophet_moe.capacity.engine import engine_budget
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.capacity.several_gpus import (
    Spread,
    budget_of,
    check_spread,
    numbers,
    parallelism,
    spread,
    total_weights,
    weights_of,
    whole_weights,
)
from prophet_moe.capacity.under_engine import NO_ENGINE, PLAIN, EngineChoice, plain_shard, serving
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.catalog.engine import load_engines
from prophet_moe.errors import UserError
from prophet_moe.params.sharding import ONE_GPU, Parallelism
from prophet_moe.serving.parallel import layouts
from prophet_moe.settings.scenario import CALIBRATED, Routing
from tests.conftest import ROOT
from tests.unit.serving.placement import placed

ENGINES = load_engines(ROOT / "config/engines")
MODELS = load_models(ROOT / "config/models") | load_models(
    ROOT / "config/models/current", ["DeepSeek-V3.1", "Kimi-K2", "GLM-4.5", "Qwen3-Coder-480B-A35B"]
)
DECODERS = [name for name, spec in MODELS.items() if not spec.architecture.encoder]
BF16_BYTES = 2
GPU = "H200-141GB"
LISTED = load_gpus(ROOT / "config/gpus.yaml", [GPU])[GPU]
SCENARIO = CALIBRATED.model_copy(update={"routing": Routing(variation=1.0)})


def on(model: str, over: Parallelism, engine=NO_ENGINE, scenario=SCENARIO, popularity_cv=1.0) -> Spread:
    """Return what every H200 holds of a model that is spread in a layout."""
    return spread(MODELS[model], GPU, LISTED, scenario, over, engine, popularity_cv)


@st.composite
def spreads(draw):
    """Any model of the catalogue in any layout that engines accept."""
    name = draw(st.sampled_from(DECODERS))
    found = layouts(MODELS[name].architecture, draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 32, 64])))
    return on(name, draw(st.sampled_from(found)) if found else ONE_GPU, scenario=CALIBRATED, popularity_cv=0.5)


@settings(max_examples=60, deadline=None)
@given(spreads())
def test_fullest_gpu_holds_what_a_plain_placement_counts(held):
    gpus = placed(held.spec.architecture, held.over)
    assert len(gpus) == held.over.gpus
    counted = [weights_of(stage)[1] for stage in held.stages]
    assert max(counted) == BF16_BYTES * max(gpu.expert_parameters for gpu in gpus)
    kept = [BF16_BYTES * gpu.kv_values for gpu in gpus]
    assert max(stage.memory.kv_bytes_per_token for stage in held.stages) == max(kept)


@settings(max_examples=30, deadline=None)
@given(spreads())
def test_stages_that_hold_the_same_are_every_stage_once(held):
    gpus = placed(held.spec.architecture, held.over)
    assert sorted(number for stage in held.stages for number in stage.numbers) == list(range(held.over.pipeline))
    for stage in held.stages:
        assert {len(gpu.layers) for gpu in gpus if gpu.stage in stage.numbers} == {stage.layers}


@settings(max_examples=30, deadline=None)
@given(spreads())
def test_gpus_of_a_stage_hold_every_expert_together(held):
    gpus = placed(held.spec.architecture, held.over)
    whole = held.whole.moe_layers * held.whole.experts * held.whole.expert_bytes
    assert BF16_BYTES * sum(gpu.expert_parameters for gpu in gpus) == whole


@pytest.mark.parametrize("name", ["OLMoE-1B-7B", "DeepSeek-V3-671B", "Jamba-1.5-Large", "Switch-Base-128"])
@pytest.mark.parametrize("batch", [1, 16])
def test_one_gpu_agrees_with_the_capacity_model(name, batch):
    held = on(name, ONE_GPU, scenario=CALIBRATED, popularity_cv=0)
    found = held.load(batch).tightest("prophet")
    device = device_bytes(LISTED, CALIBRATED)
    expected = reference.evaluate(model_memory(MODELS[name], CALIBRATED), device, batch, CALIBRATED)
    assert found.metrics == pytest.approx(expected, nan_ok=True)


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
    assert over.gpus == 8 and found.sequences(16) == found.load(16).sequences == 8
    experts = sum(weights_of(stage)[1] * len(stage.numbers) * over.experts_over for stage in found.stages)
    whole = params.moe_layers(arch) * arch.moe.experts * params.expert_bytes(arch)
    assert whole <= experts <= whole * 1.001
    copies = total_weights(found) / whole_weights(MODELS[name], SCENARIO)
    assert 1 <= copies < 1.5, "attention is held twice, by each replica"


def test_one_kv_head_is_the_least_on_a_gpu():
    """Qwen3-235B has 4 KV heads of 128: over 2, 4 and 8 GPUs a token costs 2, 1 and 1 in 94 layers."""
    per_token = [on("Qwen3-235B", Parallelism(tp)).stages[0].memory.kv_bytes_per_token for tp in (2, 4, 8)]
    assert per_token == [94 * heads * 2 * 128 * 2 for heads in (2, 1, 1)]


def test_latent_cache_gains_from_replicas_alone():
    loads = [on("DeepSeek-V3-671B", over).load(16) for over in (Parallelism(8), Parallelism(1, 1, 8, 8))]
    tensor, data = (numbers(load.gpus[0])["kv_bytes_per_token"] for load in loads)
    assert tensor == data == 61 * 576 * 2
    assert [load.sequences for load in loads] == [16, 2]


@pytest.mark.parametrize("engine", [NO_ENGINE, EngineChoice(ENGINES["sglang"])])
def test_slots_of_whole_experts_are_of_a_gpu(engine):
    """A token may choose several of its 8 experts on one of 8 GPUs: one slot on each of them is not enough."""
    found = on("Qwen3-235B", parallelism(8, 1, 1, True, PLAIN), engine)
    filled = found.load(1).gpus[0]
    one = params.expert_bytes(MODELS["Qwen3-235B"].architecture)
    assert 1 < found.resident_experts(1) < found.local_experts == filled.stage.memory.experts == 16
    assert filled.metrics["prophet_expert_bytes"] == 94 * found.resident_experts(1) * one
    assert weights_of(filled.stage)[1] == 94 * 16 * one


@settings(max_examples=25, deadline=None)
@given(spreads(), st.sampled_from([1, 4, 16, 64]))
def test_resident_set_lies_between_the_mean_and_all_experts(held, batch):
    local, top_k = held.local_experts, held.whole.top_k
    unique = held.unique_experts(batch) * local / held.whole.experts
    by_mean, by_most = (
        replace(held, scenario=CALIBRATED.model_copy(update={"resident": rule})).resident_experts(batch)
        for rule in ("mean", "never_overflows")
    )
    assert min(local, unique) <= by_mean + 1e-6
    assert held.resident_experts(batch) <= by_most == min(local, top_k * batch)


@pytest.mark.parametrize("gpus", [2, 4, 8])
@pytest.mark.parametrize("batch", [4, 16])
def test_resident_set_of_every_gpu_covers_the_quantile(gpus, batch):
    """Tokens that choose alike: in 99 of 100 layer-steps no GPU needs more of its own experts than it has slots."""
    name = "DeepSeek-MoE-16B"
    over = Parallelism(gpus, expert=gpus)
    slots = on(name, over, scenario=CALIBRATED, popularity_cv=0).resident_experts(batch)
    moe, steps = MODELS[name].architecture.moe, 4000
    experts, top_k = moe.experts, moe.top_k
    draws = np.random.default_rng(0).random((steps, batch, experts)).argpartition(top_k, axis=2)[:, :, :top_k]
    used = np.zeros((steps, experts), bool)
    used[np.arange(steps)[:, None], draws.reshape(steps, -1)] = True
    needed = used.reshape(steps, gpus, -1).sum(axis=2)
    covered = (needed <= slots).all(axis=1).mean()
    assert covered >= CALIBRATED.resident.quantile - 0.004
    assert (needed <= slots - 2).all(axis=1).mean() < CALIBRATED.resident.quantile


def test_experts_of_a_stage_without_moe_layers_are_parts():
    """DeepSeek-V3 begins with 3 dense layers: the first of 32 stages has none with experts."""
    first, *_, last = on("DeepSeek-V3-671B", Parallelism(8, 32)).stages
    assert (first.memory.moe_layers, last.memory.moe_layers) == (0, 1)
    assert first.memory.expert_bytes == last.memory.expert_bytes


def test_stages_have_the_layers_that_the_engine_gives_them():
    """vLLM 0.6 leaves the layers that do not divide to the last stage: of 94, 23 on three stages and 25 on it."""
    found = on("Qwen3-235B", Parallelism(8, 4), EngineChoice(ENGINES["vllm-0.6"]))
    assert [stage.layers for stage in found.stages for _ in stage.numbers] == [23, 23, 23, 25]
    assert [stage.memory.moe_layers for stage in found.stages for _ in stage.numbers] == [23, 23, 23, 25]


@given(
    st.sampled_from(["Qwen3-235B", "DeepSeek-V3-671B", "Mixtral-8x22B", "Jamba-1.5-Large"]),
    st.sampled_from([None, "vllm-0.10", "sglang", "llama.cpp"]),
    st.booleans(),
    st.sampled_from([1, 16, 64]),
)
def test_more_gpus_never_shorten_the_context(name, profile, expert, batch):
    engine = EngineChoice(ENGINES[profile]) if profile else NO_ENGINE
    found = [on(name, parallelism(tp, 1, 1, expert, PLAIN), engine).load(batch) for tp in (2, 4, 8)]
    for who in ("baseline", "prophet"):
        contexts = [each.context(who) for each in found]
        assert all(fewer <= more for fewer, more in pairwise(contexts))
    for each in found:
        for filled in each.gpus:
            lines = budget_of(filled, each.sequences)
            taken = sum(line.baseline for line in lines[1:-1])
            assert lines[0].baseline - taken == pytest.approx(lines[-1].baseline, abs=4096)


@pytest.mark.parametrize("profile", ["vllm-0.10", "vllm", "sglang"])
@pytest.mark.parametrize("stages", [1, 2])
def test_free_memory_of_a_stage_is_the_pool_of_the_engine(profile, stages):
    for filled in on("Qwen3-235B", Parallelism(8, stages), EngineChoice(ENGINES[profile])).load(1).gpus:
        budget, metrics = filled.stage.held.budget, filled.metrics
        assert budget.fits
        assert metrics["baseline_free_bytes"] == pytest.approx(budget.pool_bytes, abs=4096)
        assert abs(metrics["baseline_max_context"] - budget.pool_tokens) <= 16


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

"""The part of a model on one GPU of several: nothing is lost, and nothing is split that engines hold whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.catalog import load_models
from prophet_moe.catalog.architecture import Architecture, Latent, Softmax
from prophet_moe.errors import UserError
from prophet_moe.params.sharding import ONE_GPU, Parallelism, check_parallelism, shard, stage_weights
from tests.architectures import architectures
from tests.conftest import ROOT

MODELS = {
    name: spec.architecture
    for folder in ("config/models", "config/models/current")
    for name, spec in load_models(ROOT / folder).items()
}
SERVED = ("Mixtral-8x7B", "Qwen3-235B", "DeepSeek-V3.1", "Qwen3-Next-80B-A3B", "gpt-oss-120b", "Jamba-1.5-Large")


def held(arch: Architecture, over: Parallelism, stage: int = 0) -> int:
    """Bytes of weights on a GPU of a stage."""
    here = shard(arch, over, stage)
    return params.stored_bytes(stage_weights(here, stage == 0, stage == over.pipeline - 1))


@pytest.mark.parametrize("name", MODELS)
def test_one_gpu_holds_the_whole_model(name):
    arch = MODELS[name]
    assert held(arch, ONE_GPU) == sum(params.weight_bytes(arch).values())
    assert params.caches(shard(arch, ONE_GPU)) == params.caches(arch)


@given(architectures())
def test_one_gpu_holds_the_whole_of_any_architecture(arch):
    assert held(arch, ONE_GPU) == sum(params.weight_bytes(arch).values())
    assert params.caches(shard(arch, ONE_GPU)) == params.caches(arch)
    assert params.states(shard(arch, ONE_GPU)) == params.states(arch)


@given(architectures(), st.sampled_from([2, 3, 4, 8]))
def test_more_tensor_parallel_gpus_never_hold_more_each(arch, over):
    fewer, more = shard(arch, Parallelism(over)), shard(arch, Parallelism(2 * over))
    assert held(arch, Parallelism(2 * over)) <= held(arch, Parallelism(over)) <= held(arch, ONE_GPU)
    assert params.growing_bytes_per_token(params.caches(more)) <= params.growing_bytes_per_token(params.caches(fewer))
    if arch.moe:
        assert params.weight_bytes(more)["routed_experts"] <= params.weight_bytes(fewer)["routed_experts"]


@pytest.mark.parametrize("name", SERVED)
def test_tensor_parallel_gpus_hold_all_experts_together(name):
    arch = MODELS[name]
    whole = params.weight_bytes(arch)["routed_experts"]
    biases = 0 if not arch.moe.bias else whole  # the output bias of an expert is on every GPU
    for over in (2, 4, 8):
        parts = over * params.weight_bytes(shard(arch, Parallelism(over)))["routed_experts"]
        assert whole <= parts <= whole + biases
        whole_experts = params.weight_bytes(shard(arch, Parallelism(over, expert=over)))["routed_experts"]
        assert over * whole_experts == whole


@pytest.mark.parametrize("name", SERVED)
def test_expert_parallel_gpus_hold_the_whole_router(name):
    arch = MODELS[name]
    for over in (Parallelism(4), Parallelism(4, expert=4)):
        assert params.weight_bytes(shard(arch, over))["router"] == params.weight_bytes(arch)["router"]


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["Mixtral-8x7B", "DeepSeek-V3.1", "Qwen3-235B"])
def test_pipeline_stages_hold_the_whole_model_together(name, stages):
    arch, over = MODELS[name], Parallelism(pipeline=stages)
    parts = sum(held(arch, over, stage) for stage in range(stages))
    last_norms = (stages - 1) * 2 * arch.hidden
    assert parts == sum(params.weight_bytes(arch).values()) + last_norms


def test_layers_that_do_not_divide_go_before_the_last_stage():
    assert Parallelism(pipeline=2).stage_layers(61) == (31, 30)
    assert Parallelism(pipeline=4).stage_layers(61) == (15, 15, 16, 15)
    assert Parallelism(pipeline=3, layers=(20, 20, 21)).stage_layers(61) == (20, 20, 21)


def test_one_kv_head_is_the_least_on_a_gpu():
    arch = MODELS["Qwen3-235B"]
    per_token = [params.growing_bytes_per_token(params.caches(shard(arch, Parallelism(tp)))) for tp in (1, 2, 4, 8, 16)]
    assert [per_token[0] / size for size in per_token] == [1, 2, 4, 4, 4]


def test_latent_cache_is_whole_on_every_gpu():
    arch = MODELS["DeepSeek-V3.1"]
    assert params.caches(shard(arch, Parallelism(8))) == params.caches(arch)
    mixer = next(iter(shard(arch, Parallelism(8)).mixers.values()))
    assert isinstance(mixer, Latent)
    assert (mixer.heads, mixer.q_lora_rank, mixer.kv_lora_rank) == (16, 1536, 512)


def test_attention_copies_inside_tensor_parallelism_are_whole():
    over = Parallelism(4, expert=4, data=4, attention_inside=True)
    here = shard(MODELS["Qwen3-30B-A3B"], over)
    mixer = next(iter(here.mixers.values()))
    assert isinstance(mixer, Softmax)
    assert (over.gpus, over.attention, mixer.heads, here.moe.experts) == (4, 1, 32, 32)


def test_attention_copies_beside_tensor_gpus_share_experts():
    over = Parallelism(2, expert=8, data=4)
    here = shard(MODELS["Qwen3-30B-A3B"], over)
    assert (over.gpus, next(iter(here.mixers.values())).heads, here.moe.experts) == (8, 16, 16)


@pytest.mark.parametrize(
    ("over", "told"),
    [
        (Parallelism(3), "3 GPUs do not divide the 32 heads"),
        (Parallelism(pipeline=49), "pp 49 is more than the 48 layers"),
        (Parallelism(pipeline=2, layers=(20, 20)), "expected 48 in 2"),
        (Parallelism(4, expert=3), "ep 3, expected 1 or all 4 GPUs"),
        (Parallelism(4, data=3, attention_inside=True), "dp 3 divides no tp 4"),
    ],
)
def test_spreading_that_engines_refuse_is_refused(over, told):
    with pytest.raises(UserError) as refused:
        check_parallelism(MODELS["Qwen3-30B-A3B"], over)
    assert told in str(refused.value)


def test_layout_names_say_every_size():
    assert ONE_GPU.named == "1 GPU"
    assert Parallelism(4, 2, 8, 2).named == "pp 2, dp 2, tp 4, ep 8"

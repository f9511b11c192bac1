"""Bytes between GPUs: the formulas against counting, and what each layout sends."""

import pytest

from prophet_moe.catalog import load_models
from prophet_moe.params.sharding import ONE_GPU, Parallelism
from prophet_moe.serving import exchange as module
from prophet_moe.serving.exchange import exchange
from tests.conftest import ROOT
from tests.unit.serving import placement

DEEPSEEK = load_models(ROOT / "config/models", ["DeepSeek-V3-671B"])["DeepSeek-V3-671B"].architecture
MOE_LAYERS, TOP_K, HIDDEN, LAYERS = 58, 8, 7168, 61


def test_one_gpu_sends_nothing():
    assert exchange(DEEPSEEK, ONE_GPU).total == 0


@pytest.mark.parametrize(("experts", "gpus"), [(8, 2), (8, 4), (9, 4), (60, 8), (5, 5)])
def test_remote_share_is_that_of_counted_pairs(experts, gpus):
    assert placement.remote_share(experts, gpus) == pytest.approx(1 - 1 / gpus)


@pytest.mark.parametrize(("experts", "top_k", "gpus"), [(8, 2, 2), (8, 3, 4), (9, 2, 4), (6, 6, 3), (7, 1, 7)])
def test_remote_gpus_are_those_of_counted_choices(experts, top_k, gpus):
    counted = placement.remote_gpus(experts, top_k, gpus)
    assert module.remote_gpus(experts, top_k, gpus) == pytest.approx(counted)


@pytest.mark.parametrize("gpus", [2, 8, 64])
def test_all_to_all_is_tokens_by_choices_by_width(gpus):
    sent = exchange(DEEPSEEK, Parallelism(1, 1, gpus, gpus), dispatch_bytes=1)
    remote = 1 - 1 / gpus
    assert sent.dispatch == pytest.approx(MOE_LAYERS * TOP_K * HIDDEN * 1 * remote)
    assert sent.combine == pytest.approx(MOE_LAYERS * TOP_K * HIDDEN * 2 * remote)
    assert sent.sums == sent.stages == 0
    assert sent.once_per_gpu <= sent.all_to_all * (1 + 1e-12)


def test_tensor_parallel_gpus_send_two_rings_per_layer():
    for over in (Parallelism(8), Parallelism(8, expert=8)):
        sent = exchange(DEEPSEEK, over)
        assert sent.sums == 2 * LAYERS * 2 * 7 * HIDDEN * 2
        assert sent.all_to_all == 0


def test_pipeline_stages_send_one_vector_each():
    assert exchange(DEEPSEEK, Parallelism(pipeline=4)).total == 3 * HIDDEN * 2


def test_copies_of_several_gpus_gather_what_they_dispatched():
    sent = exchange(DEEPSEEK, Parallelism(4, 1, 8, 2))
    dense = LAYERS - MOE_LAYERS
    assert sent.sums == (2 * 3 * (LAYERS + dense) + 3 * MOE_LAYERS) * HIDDEN * 2

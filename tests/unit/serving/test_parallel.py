"""Models over several GPUs: the closed form against a plain placement, and what a resident set covers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.capacity import reference
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.errors import UserError
from prophet_moe.params.sharding import ONE_GPU, Parallelism
from prophet_moe.serving.parallel import layout_name, layouts, spread
from prophet_moe.settings.scenario import CALIBRATED
from tests.conftest import ROOT
from tests.unit.serving.placement import placed

MODELS = load_models(ROOT / "config/models") | load_models(
    ROOT / "config/models/current", ["DeepSeek-V3.1", "Kimi-K2", "GLM-4.5", "Qwen3-Coder-480B-A35B"]
)
DECODERS = [name for name, spec in MODELS.items() if not spec.architecture.encoder]
A100 = load_gpus(ROOT / "config/gpus.yaml", ["A100-80GB"])["A100-80GB"]
DEVICE = device_bytes(A100, CALIBRATED)
BF16_BYTES = 2


@st.composite
def spreads(draw, names=tuple(DECODERS)):
    """Any model of the catalogue in any layout that engines accept."""
    spec = MODELS[draw(st.sampled_from(names))]
    found = layouts(spec.architecture, draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 32, 64])))
    over = draw(st.sampled_from(found)) if found else ONE_GPU
    return spread(spec, CALIBRATED, over, 0.5)


@settings(max_examples=60, deadline=None)
@given(spreads())
def test_fullest_gpu_holds_what_a_plain_placement_counts(held):
    arch = held.spec.architecture
    gpus = placed(arch, held.over)
    assert len(gpus) == held.over.gpus
    counted = [(each.memory.moe_layers * each.memory.experts * each.memory.expert_bytes) for each in held.stages]
    assert max(counted) == BF16_BYTES * max(gpu.expert_parameters for gpu in gpus)
    kept = [BF16_BYTES * gpu.kv_values for gpu in gpus]
    assert max(each.memory.kv_bytes_per_token for each in held.stages) == max(kept)


@settings(max_examples=30, deadline=None)
@given(spreads())
def test_gpus_of_a_stage_hold_every_expert_together(held):
    gpus = placed(held.spec.architecture, held.over)
    whole = held.whole.moe_layers * held.whole.experts * held.whole.expert_bytes
    assert BF16_BYTES * sum(gpu.expert_parameters for gpu in gpus) == whole


@pytest.mark.parametrize("name", ["OLMoE-1B-7B", "DeepSeek-V3-671B", "Jamba-1.5-Large", "Switch-Base-128"])
@pytest.mark.parametrize("batch", [1, 16])
def test_one_gpu_agrees_with_the_capacity_model(name, batch):
    spec = MODELS[name]
    held = spread(spec, CALIBRATED, ONE_GPU, communication_gib=1.0)
    found = held.metrics(DEVICE, batch)
    expected = reference.evaluate(model_memory(spec, CALIBRATED), DEVICE, batch, CALIBRATED)
    assert {name: found[name] for name in expected} == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("over", "heads"), [(2, 2), (4, 1), (8, 1)])
def test_tensor_parallel_gpus_hold_at_least_one_kv_head(over, heads):
    mixer = next(iter(MODELS["Qwen3-235B"].architecture.mixers.values()))
    held = spread(MODELS["Qwen3-235B"], CALIBRATED, Parallelism(over))
    layers = len(MODELS["Qwen3-235B"].architecture.layers())
    assert held.stages[0].memory.kv_bytes_per_token == layers * heads * 2 * mixer.head_dim * BF16_BYTES


def test_tensor_parallel_gpus_repeat_the_latent():
    spec = MODELS["DeepSeek-V3-671B"]
    alone = spread(spec, CALIBRATED, ONE_GPU).stages[0].memory.kv_bytes_per_token
    for over in (Parallelism(8), Parallelism(1, 1, 8, 8)):
        assert spread(spec, CALIBRATED, over).stages[0].memory.kv_bytes_per_token == alone
    assert spread(spec, CALIBRATED, Parallelism(1, 1, 8, 8)).sequences(16) == 2
    assert spread(spec, CALIBRATED, Parallelism(8)).sequences(16) == 16


@settings(max_examples=25, deadline=None)
@given(spreads(), st.sampled_from([1, 4, 16, 64]))
def test_resident_set_lies_between_the_mean_and_all_experts(held, batch):
    local, top_k = held.stages[0].memory.experts, held.whole.top_k
    unique = held.unique_experts(batch) * local / held.whole.experts
    mean = held.scenario.model_copy(update={"resident": "mean"})
    most = held.scenario.model_copy(update={"resident": "never_overflows"})
    by_mean = spread(held.spec, mean, held.over, 0.5).resident_experts(batch)
    by_most = spread(held.spec, most, held.over, 0.5).resident_experts(batch)
    assert min(local, unique) <= by_mean + 1e-6
    assert held.resident_experts(batch) <= by_most == min(local, top_k * batch)


@pytest.mark.parametrize("gpus", [2, 4, 8])
@pytest.mark.parametrize("batch", [4, 16])
def test_resident_set_of_every_gpu_covers_the_quantile(gpus, batch):
    """Tokens that choose alike: in 99 of 100 layer-steps no GPU needs more of its own experts than it has slots."""
    spec = MODELS["DeepSeek-MoE-16B"]
    slots = spread(spec, CALIBRATED, Parallelism(gpus, expert=gpus)).resident_experts(batch)
    experts, top_k, steps = spec.architecture.moe.experts, spec.architecture.moe.top_k, 4000
    draws = np.random.default_rng(0).random((steps, batch, experts)).argpartition(top_k, axis=2)[:, :, :top_k]
    used = np.zeros((steps, experts), bool)
    used[np.arange(steps)[:, None], draws.reshape(steps, -1)] = True
    needed = used.reshape(steps, gpus, -1).sum(axis=2)
    covered = (needed <= slots).all(axis=1).mean()
    assert covered >= CALIBRATED.resident.quantile - 0.004
    assert (needed <= slots - 2).all(axis=1).mean() < CALIBRATED.resident.quantile


def test_more_slots_leave_less_context():
    held = spread(MODELS["Qwen3-235B"], CALIBRATED, Parallelism(4))
    slots = held.most_slots(DEVICE, 16, 1024)
    assert held.metrics(DEVICE, 16, slots)["prophet_max_context"] >= 1024
    assert held.metrics(DEVICE, 16, slots + 1)["prophet_max_context"] < 1024
    assert held.most_slots(DEVICE, 16, 10**8) is None


def test_layouts_are_what_engines_accept():
    found = layouts(MODELS["Mixtral-8x7B"].architecture, 16)
    assert {over.gpus for over in found} == {16}
    assert max(over.expert for over in found) == 8
    assert all(over.expert == over.experts_over for over in found if over.data > 1)
    assert max(over.tensor for over in layouts(MODELS["Qwen3-235B"].architecture, 64)) == 8
    assert [over.pipeline for over in layouts(MODELS["Switch-Base-128"].architecture, 2)] == [1, 1, 1]


def test_layout_names_say_every_size():
    assert layout_name(ONE_GPU) == "1 GPU"
    assert layout_name(Parallelism(4, 2, 8, 2)) == "pp 2, dp 2, tp 4, ep 8"


def test_impossible_layouts_end_in_one_line():
    with pytest.raises(UserError, match="7 GPUs do not divide"):
        spread(MODELS["Mixtral-8x7B"], CALIBRATED, Parallelism(7))
    with pytest.raises(UserError, match="expected at least 1"):
        layouts(MODELS["Mixtral-8x7B"].architecture, 0)

"""Layouts over several GPUs: which there are, their names, and the most expert slots beside a context."""

import pytest

from prophet_moe.capacity.several_gpus import spread
from prophet_moe.capacity.under_engine import NO_ENGINE, EngineChoice
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.catalog.engine import load_engines
from prophet_moe.errors import UserError
from prophet_moe.params.sharding import ONE_GPU, Parallelism
from prophet_moe.serving.parallel import layouts, most_slots, with_communication
from prophet_moe.settings.scenario import CALIBRATED
from tests.conftest import ROOT

MODELS = load_models(ROOT / "config/models", ["Mixtral-8x7B", "Qwen3-235B", "Switch-Base-128"])
A100 = load_gpus(ROOT / "config/gpus.yaml", ["A100-80GB"])["A100-80GB"]
VLLM = EngineChoice(load_engines(ROOT / "config/engines")["vllm-0.10"])


@pytest.mark.parametrize("over", [Parallelism(4), Parallelism(4, expert=4)])
def test_more_slots_leave_less_context(over):
    held = spread(MODELS["Qwen3-235B"], "A100-80GB", A100, CALIBRATED, over)
    slots = most_slots(held, 16, 1024)
    assert slots < held.local_experts
    assert held.load(16, slots).context("prophet") >= 1024 > held.load(16, slots + 1).context("prophet")
    assert most_slots(held, 16, 10**8) is None


@pytest.mark.parametrize(
    ("over", "engine", "gib"), [(Parallelism(8), NO_ENGINE, 1.5), (ONE_GPU, NO_ENGINE, 0), (Parallelism(8), VLLM, 0)]
)
def test_communication_takes_memory_of_several_gpus(over, engine, gib):
    """An engine has a term of its own."""
    without, held = (
        spread(MODELS["Mixtral-8x7B"], "A100-80GB", A100, scenario, over, engine).load(4)
        for scenario in (CALIBRATED, with_communication(CALIBRATED, over, 1.5))
    )
    taken = without.gpus[0].metrics["baseline_free_bytes"] - held.gpus[0].metrics["baseline_free_bytes"]
    assert taken == gib * 2**30


def test_layouts_are_what_engines_accept():
    found = layouts(MODELS["Mixtral-8x7B"].architecture, 16)
    assert {over.gpus for over in found} == {16}
    assert max(over.expert for over in found) == 8
    assert all(over.expert == over.experts_over for over in found if over.data > 1)
    assert max(over.tensor for over in layouts(MODELS["Qwen3-235B"].architecture, 64)) == 8
    assert [over.pipeline for over in layouts(MODELS["Switch-Base-128"].architecture, 2)] == [1, 1, 1]


def test_impossible_layouts_end_in_one_line():
    with pytest.raises(UserError, match="7 GPUs do not divide"):
        spread(MODELS["Mixtral-8x7B"], "A100-80GB", A100, CALIBRATED, Parallelism(7))
    with pytest.raises(UserError, match="expected at least 1"):
        layouts(MODELS["Mixtral-8x7B"].architecture, 0)

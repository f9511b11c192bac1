"""The batch from which all experts are needed, by the power law and by any other."""

from dataclasses import replace

import pytest

from prophet_moe.capacity.memory import model_memory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.capacity.saturation import LARGEST_BATCH, power_law_batch, saturating_batch
from prophet_moe.settings.scenario import CALIBRATED, REPORTED


def test_power_law_batch_is_where_the_law_reaches_all():
    assert power_law_batch(64, 8, 1.0) == 8
    assert 8 * power_law_batch(64, 8, 0.9) ** 0.9 == pytest.approx(64)


@pytest.mark.parametrize("scenario", [CALIBRATED, REPORTED], ids=["calibrated", "reported"])
@pytest.mark.parametrize("name", ["OLMoE-1B-7B", "Mixtral-8x7B", "DeepSeek-V3-671B"])
def test_saturating_batch_is_the_first_with_all_experts(models, popularity_cvs, name, scenario):
    memory = replace(model_memory(models[name], scenario), popularity_cv=popularity_cvs[name].value)
    batch = saturating_batch(memory, scenario)

    def resident(at):
        return evaluate(memory, 1, at, scenario)["resident_experts"]

    assert resident(batch) == memory.experts > resident(batch - 1)


def test_saturating_batch_of_very_skewed_routing_is_none(models):
    memory = replace(model_memory(models["DeepSeek-V3-671B"], CALIBRATED), popularity_cv=30.0)
    assert saturating_batch(memory, CALIBRATED) is None
    assert evaluate(memory, 1, LARGEST_BATCH, CALIBRATED)["resident_experts"] < memory.experts


def test_saturating_batch_of_a_model_that_uses_all_is_one(models):
    memory = replace(model_memory(models["Mixtral-8x7B"], CALIBRATED), top_k=8)
    assert saturating_batch(memory, CALIBRATED) == 1

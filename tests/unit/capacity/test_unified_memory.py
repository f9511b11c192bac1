"""A GPU that shares the host's memory: what has no slot lies on a disk, and no time is told for it."""

import pytest

from prophet_moe.capacity.answer import Question, answer, verdict
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.settings.scenario import CALIBRATED
from tests.conftest import ROOT

SPARK = "DGX-Spark-128GB"


def asked(unified_memory: bool) -> dict:
    """The answer about a model that fits only with slots, with and without a memory of the host's own."""
    (spec,) = load_models(ROOT / "config/models/current", ["Qwen3-Next-80B-A3B"]).values()
    (gpu,) = load_gpus(ROOT / "config/gpus.yaml", [SPARK]).values()
    assert gpu.unified_memory
    memory, precision = model_memory(spec, CALIBRATED), CALIBRATED.precision_of(spec.precision)
    device, profile = device_bytes(gpu, CALIBRATED), datasheet_profile(SPARK, gpu)
    question = (spec.name, SPARK, 1, spec.architecture, precision, memory, device, CALIBRATED, profile, 4096)
    return answer(Question(*question, unified_memory=unified_memory))


@pytest.mark.parametrize("unified", [True, False])
def test_slots_on_unified_memory_are_told_without_time(unified):
    found = asked(unified)
    text = " ".join(verdict(found))
    assert ("The other experts lie on a disk: the host has no other memory." in text) == unified
    assert ("The other experts are in host memory." in text) != unified
    assert (found["step"] is None) == (found["most_step"] is None) == unified
    assert ("decode step" in text) != unified

"""The budget line by line: what takes memory and what is left add up to the device, whatever the model is made of."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.capacity.budget import COMPONENTS, budget
from prophet_moe.capacity.memory import model_memory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.params import ParameterCounts
from prophet_moe.units import GB
from tests import examples  # noqa: F401
from tests.architectures import architectures
from tests.unit.capacity.test_capacity import scenarios, spec_of


@given(architectures(), scenarios(), st.integers(1, 200) | st.just(10**6), st.sampled_from([1, 16, 100]))
def test_lines_of_a_budget_add_up_to_the_device(arch, scenario, device_gb, batch):
    spec, device = spec_of(arch), device_gb * GB
    memory = model_memory(spec, scenario)
    metrics = evaluate(memory, device, batch, scenario)
    precision = scenario.precision_of(spec.precision)
    whole, *taken, free = budget(arch, precision, memory, scenario, metrics, device, batch)
    assert whole.baseline == whole.prophet == device
    for column in ("baseline", "prophet"):
        sizes = [getattr(line, column) for line in taken]
        assert all(size >= 0 for size in sizes)
        assert sum(sizes) + getattr(free, column) == pytest.approx(device, rel=1e-12)
    assert len({line.what for line in taken}) == len(taken)


def test_budget_knows_every_component_by_name():
    counted = {field.name for field in fields(ParameterCounts)}
    assert set(COMPONENTS) == counted - {"routed_experts"}

"""The capacity model under an engine: the same pool as the engine's own budget, and no change under `ideal`."""

import pytest

from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.memory import device_bytes, model_memory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.capacity.under_engine import serving, under_engine
from prophet_moe.catalog.engine import load_engines
from prophet_moe.errors import UserError
from prophet_moe.settings.experiment import Experiment, resolve
from prophet_moe.settings.scenario import CALIBRATED
from tests.conftest import ROOT

ENGINES = load_engines(ROOT / "config/engines")
OTHERS = [name for name in ENGINES if name != "ideal"]
NAMES = ("Mixtral-8x7B", "DeepSeek-V3-671B", "OLMoE-1B-7B", "Jamba-1.5-Large")


def held(models, gpus, engine, model, gpu="H100-80GB"):
    spec = models[model]
    asked = serving(spec, gpu, gpus[gpu], CALIBRATED, ENGINES[engine])
    return under_engine(asked, model_memory(spec, CALIBRATED), CALIBRATED)


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("model", NAMES)
def test_free_memory_is_the_pool_of_the_engine(engine, model, models, gpus):
    found = held(models, gpus, engine, model)
    usable = device_bytes(gpus["H100-80GB"], found.scenario)
    metrics = evaluate(found.memory, usable, 1, found.scenario)
    state = found.memory.state_bytes_per_sequence
    lacking = metrics["baseline_free_bytes"] + state - found.budget.pool_bytes
    # Where the rest of the card cannot hold what lies outside the share, the pool is smaller than an engine believes.
    assert lacking <= 2
    if found.budget.fits:
        assert lacking == pytest.approx(0, abs=2)


@pytest.mark.parametrize("model", NAMES)
def test_ideal_engine_changes_nothing(model, models, gpus):
    found = held(models, gpus, "ideal", model)
    assert found.memory == model_memory(models[model], CALIBRATED)
    assert found.scenario == CALIBRATED


def test_grid_under_ideal_is_the_grid_without_an_engine(models, gpus):
    chosen = {name: models[name] for name in NAMES}
    scenario = CALIBRATED.model_copy(update={"routing": CALIBRATED.routing.model_copy(update={"variation": 1.0})})
    plain = capacity_grid(chosen, gpus, [1, 16], scenario, {})
    assert capacity_grid(chosen, gpus, [1, 16], scenario, {}, engine=ENGINES["ideal"]).equals(plain)


def test_grid_under_an_engine_has_the_rows_of_the_grid(models, gpus):
    chosen = {name: models[name] for name in NAMES}
    scenario = CALIBRATED.model_copy(update={"routing": CALIBRATED.routing.model_copy(update={"variation": 1.0})})
    plain = capacity_grid(chosen, gpus, [1, 16], scenario, {})
    found = capacity_grid(chosen, gpus, [1, 16], scenario, {}, engine=ENGINES["vllm-0.10"])
    keys = ["model", "gpu", "batch_size"]
    assert found[keys].equals(plain[keys])
    assert (found["baseline_max_context"] <= plain["baseline_max_context"]).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"calibrated": {"engine": "vllm-10"}}, "scenarios.calibrated.engine"),
        ({"reported": {"engine": "vllm-0.10"}}, "expected ideal with the architectures of the report"),
    ],
)
def test_engine_of_a_scenario_that_cannot_be_is_refused(changes, told):
    config = Experiment().model_dump(mode="json", exclude={"studies"})
    for name, values in changes.items():
        config["scenarios"][name].update(values)
    with pytest.raises(UserError) as refused:
        resolve(config, [], NAMES, ["V100-32GB", "A100-40GB", "A100-80GB", "H100-80GB"], {}, engines=ENGINES)
    assert told in str(refused.value)

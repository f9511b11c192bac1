"""The capacity model under an engine: the same pool as the engine's own budget, and no change under `ideal`."""

from dataclasses import replace

import pytest

from prophet_moe import params
from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.memory import model_memory
from prophet_moe.capacity.placement import unplaceable
from prophet_moe.capacity.reference import evaluate
from prophet_moe.capacity.under_engine import NO_ENGINE, EngineChoice, memories_on, read_engine
from prophet_moe.catalog import Architecture
from prophet_moe.catalog.engine import load_engines
from prophet_moe.errors import UserError
from prophet_moe.settings.experiment import Experiment, resolve
from prophet_moe.settings.scenario import CALIBRATED
from tests.conftest import ROOT

ENGINES = load_engines(ROOT / "config/engines")
OTHERS = [name for name in ENGINES if name != "ideal"]
NAMES = ("Mixtral-8x7B", "DeepSeek-V3-671B", "OLMoE-1B-7B", "Jamba-1.5-Large")


def held(models, gpus, engine, model, gpu="H100-80GB", scenario=CALIBRATED):
    chosen = {model: models[model]}, {gpu: gpus[gpu]}
    return memories_on(*chosen, scenario, EngineChoice(ENGINES[engine]))[model, gpu]


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("model", NAMES)
def test_free_memory_is_the_pool_of_the_engine(engine, model, models, gpus):
    found = held(models, gpus, engine, model)
    metrics = evaluate(found.memory, found.device_bytes, 1, found.scenario)
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


def test_engine_counts_the_cache_of_draft_layers(models, gpus):
    """Their weights and their cache: the engine's own budget has both, and so has what studies count with."""
    arch = models["DeepSeek-V3-671B"].architecture
    arch = Architecture.model_validate(arch.model_dump() | {"draft": {"pattern": ["M"], "own_embeddings": True}})
    models = models | {"drafting": models["DeepSeek-V3-671B"].model_copy(update={"architecture": arch})}
    with_draft = CALIBRATED.model_copy(update={"draft_layers": True})
    plain, found = (held(models, gpus, "sglang", "drafting", scenario=given) for given in (CALIBRATED, with_draft))
    assert found.memory.kv_bytes_per_token - plain.memory.kv_bytes_per_token == 576 * 2
    more = found.memory.non_expert_bytes - plain.memory.non_expert_bytes
    assert more == params.draft_bytes(arch)
    assert found.budget.group_bytes("weights") - plain.budget.group_bytes("weights") == more


def test_engine_decides_what_no_gpu_can_hold(models, gpus):
    """Jamba's weights beside experts fit no whole card; under an engine they must fit its share."""
    chosen = {name: models[name] for name in ("OLMoE-1B-7B", "Snowflake-Arctic-480B")}
    small = {"V100-32GB": gpus["V100-32GB"]}
    assert unplaceable(chosen, small, CALIBRATED) == {}
    tight = CALIBRATED.model_copy(update={"usable_memory_share": 0.05})
    assert set(unplaceable(chosen, small, tight, EngineChoice(ENGINES["vllm-0.10"]))) == {"Snowflake-Arctic-480B"}


def test_engine_of_a_job_is_read_from_its_files():
    files = [ROOT / "config/engines/vllm-0.10.yaml", ROOT / "config/model_names.yaml"]
    assert read_engine([]) is NO_ENGINE
    assert read_engine(files).profile == ENGINES["vllm-0.10"] and read_engine(files).names


def test_grid_under_ideal_is_the_grid_without_an_engine(models, gpus):
    chosen = {name: models[name] for name in NAMES}
    scenario = CALIBRATED.model_copy(update={"routing": CALIBRATED.routing.model_copy(update={"variation": 1.0})})
    plain = Configured(chosen, gpus, scenario)
    ideal = replace(plain, engine=EngineChoice(ENGINES["ideal"]))
    assert capacity_grid(ideal, [1, 16]).equals(capacity_grid(plain, [1, 16]))


def test_grid_under_an_engine_has_the_rows_of_the_grid(models, gpus):
    chosen = {name: models[name] for name in NAMES}
    scenario = CALIBRATED.model_copy(update={"routing": CALIBRATED.routing.model_copy(update={"variation": 1.0})})
    without = Configured(chosen, gpus, scenario)
    under = replace(without, engine=EngineChoice(ENGINES["vllm-0.10"]))
    plain, found = (capacity_grid(configured, [1, 16]) for configured in (without, under))
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

"""What a study's memory is computed from: read from the files and parameters of its job, and counted per model."""

from types import SimpleNamespace

import pytest

from prophet_moe.capacity.configured import Configured, read_configured
from prophet_moe.capacity.memory import covers
from prophet_moe.capacity.under_engine import NO_ENGINE
from prophet_moe.settings.scenario import CALIBRATED, REPORTED, Routing
from tests.conftest import ROOT

NAMES = ("OLMoE-1B-7B", "Mixtral-8x7B")
FILES = {"models": [ROOT / f"config/models/{name}.yaml" for name in NAMES], "gpus": ROOT / "config/gpus.yaml"}
PARAMETERS = {"scenario": CALIBRATED.model_dump(mode="json"), "gpus": ["A100-80GB", "H100-80GB"]}
ENGINE = [ROOT / "config/engines/vllm-0.10.yaml", ROOT / "config/model_names.yaml"]


def test_job_without_routing_reserves_and_engine_has_none():
    found = read_configured(SimpleNamespace(**FILES), PARAMETERS)
    assert (tuple(found.models), list(found.gpus), found.scenario) == (NAMES, PARAMETERS["gpus"], CALIBRATED)
    assert (found.popularity_cvs, found.reserves) == ({}, {}) and found.engine is NO_ENGINE


def test_job_with_routing_and_engine_has_them(tmp_path):
    files = SimpleNamespace(**FILES, variations=[ROOT / "tables/data/routing_variation.csv"], engine=ENGINE)
    found = read_configured(files, PARAMETERS | {"memory": str(tmp_path)}, ["V100-32GB"])
    assert list(found.gpus) == ["V100-32GB"] and found.reserves == {}
    assert set(NAMES) <= set(found.popularity_cvs) and not found.engine.ideal
    assert found.held()["OLMoE-1B-7B", "V100-32GB"].budget is not None


def test_popularity_cv_is_fitted_or_the_scenarios_own(models, gpus, popularity_cvs):
    fitted = Configured(models, gpus, CALIBRATED, popularity_cvs)
    assert fitted.popularity_cv(NAMES[0]) == popularity_cvs[NAMES[0]].value
    for routing, value in ((Routing(variation=0.75), 0.75), (Routing(law="uniform_occupancy"), 0.0)):
        assert fitted.under(CALIBRATED.model_copy(update={"routing": routing})).popularity_cv(NAMES[0]) == value


@pytest.mark.parametrize("scenario", [CALIBRATED, REPORTED])
def test_constants_are_of_models_that_a_scenario_covers(models, gpus, popularity_cvs, scenario):
    configured = Configured(models, gpus, scenario, popularity_cvs)
    found = configured.constants()
    assert list(found) == [name for name, spec in models.items() if covers(scenario, spec)]
    assert all(memory.popularity_cv == configured.popularity_cv(name) for name, memory in found.items())

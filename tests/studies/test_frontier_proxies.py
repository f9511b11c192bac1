"""Which routing each model is replayed on."""

from types import SimpleNamespace

import pytest

from prophet_moe.errors import UserError
from prophet_moe.files import write_json
from studies.frontier.proxies import proxies


def calibrate(folder, name: str, experts: int, top_k: int, points: int = 2) -> None:
    """Write what is read of fitted routing."""
    content = {"experts": experts, "top_k": top_k, "fitted": [0] * points, "left_out": []}
    write_json(folder / f"{name}.json", content)


@pytest.fixture
def here():
    """Two recorded traces, one of them with a predictor."""
    shapes = {"predicted": (8, 2), "without-predictor": (64, 8)}
    return SimpleNamespace(traces=list(shapes), predicted=["predicted"], router_shape=shapes.__getitem__)


@pytest.fixture
def three_models(models):
    """Models of 8, 16 and 64 experts."""
    return {name: models[name] for name in ("Mixtral-8x7B", "DBRX-132B", "OLMoE-1B-7B")}


def test_proxies_are_traces_of_equal_shape_or_nearest_routing(tmp_path, here, three_models):
    calibrate(tmp_path, "sixteen", 16, 4)
    calibrate(tmp_path, "sixty-four", 64, 8)
    assert proxies(["predicted", "without-predictor"], here, tmp_path, three_models) == {
        "predicted": ["Mixtral-8x7B"],
        "sixteen": ["DBRX-132B"],
        "sixty-four": ["OLMoE-1B-7B"],
    }


def test_proxies_leave_out_traces_that_are_not_asked_for(tmp_path, here, three_models):
    calibrate(tmp_path, "sixteen", 16, 4)
    assert proxies([], here, tmp_path, three_models) == {"sixteen": list(three_models)}


def test_proxies_leave_out_traces_that_are_not_listed(tmp_path, here, three_models):
    calibrate(tmp_path, "sixteen", 16, 4)
    found = proxies(["predicted", "unlisted"], here, tmp_path, three_models)
    assert found == {"predicted": ["Mixtral-8x7B"], "sixteen": ["DBRX-132B", "OLMoE-1B-7B"]}


def test_proxies_of_equal_distance_rest_on_more_points(tmp_path, here, three_models):
    calibrate(tmp_path, "a-few", 16, 4, points=1)
    calibrate(tmp_path, "many", 16, 4, points=3)
    assert list(proxies([], here, tmp_path, three_models)) == ["many"]


def test_proxies_without_any_routing_name_the_folder(tmp_path, here, three_models):
    with pytest.raises(UserError, match="no calibrated routing is there"):
        proxies([], here, tmp_path, three_models)

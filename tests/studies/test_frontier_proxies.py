"""Which routing each model is replayed on, and that it needs the experts of the law that its memory rests on."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.catalog.model import load_model
from prophet_moe.errors import UserError
from prophet_moe.files import write_json
from prophet_moe.offload.proxies import HISTORY
from prophet_moe.routing import statistics
from prophet_moe.routing.calibrated import read_calibrated
from prophet_moe.routing.law import dirichlet_occupancy
from prophet_moe.routing.published import read_balancing, read_published
from prophet_moe.routing.published_cv import popularity_cvs
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.synthetic import generate
from prophet_moe.routing.trace import Router
from prophet_moe.settings.scenario import Formats
from studies.frontier import replay_frontier
from studies.frontier.compute import REPLAYED
from studies.frontier.proxies import proxies
from studies.frontier.study import FrontierSettings
from tests.conftest import ROOT

MODEL_FILES = {path.stem: path for path in sorted((ROOT / "config/models").glob("*.yaml"))}
SHAPES = {name: load_model(path).architecture.moe for name, path in MODEL_FILES.items()}
PUBLISHED = popularity_cvs(
    {name: (moe.experts, moe.top_k) for name, moe in SHAPES.items()},
    read_published(ROOT / "resources/observations/routing.csv"),
    read_balancing(ROOT / "resources/observations/balancing.csv"),
)
BATCHES = (2, 3, 5, 8, 13, 21, 34, 64)
DRAWN = 0.01
"""Relative error of u(B) that is chance of the batches drawn."""


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


@pytest.fixture(scope="module")
def source_of_model(models):
    """The routing that each model is replayed on, as the build chooses it."""
    traces = FrontierSettings().traces
    shapes = {name: read_trace(ROOT / "resources/traces" / name).router for name in traces}
    here = SimpleNamespace(
        traces=traces, predicted=traces, router_shape=lambda name: (shapes[name].experts, shapes[name].top_k)
    )
    chosen = proxies(traces, here, ROOT / "resources/routing", models)
    return {model: source for source, served in chosen.items() for model in served}


def distinct_replayed(source: str, name: str) -> np.ndarray:
    """u(B) at BATCHES of the tokens of different sequences that a model is replayed on."""
    trace = ROOT / "resources/traces" / source
    if trace.exists():
        return statistics.distinct_by_batch(read_trace(trace), BATCHES, "staggered", samples=400).mean(axis=1)
    router = Router(name, SHAPES[name].experts, SHAPES[name].top_k, tuple(range(4)))
    calibrated = read_calibrated(ROOT / f"resources/routing/{source}.json")
    drawn = generate(calibrated.parameters(router, PUBLISHED[name].value), 600, HISTORY + 2, seed=3)
    late = drawn.select(drawn.position >= HISTORY)
    return statistics.distinct_by_batch(late, BATCHES, "staggered", samples=400).mean(axis=1)


def law(name: str, popularity_cv: float) -> np.ndarray:
    """u(B) at BATCHES by the law of the model at a popularity CV."""
    shape = (np.full(len(BATCHES), float(value)) for value in (SHAPES[name].experts, SHAPES[name].top_k, popularity_cv))
    return dirichlet_occupancy(*shape, np.array(BATCHES))


@pytest.mark.parametrize("name", MODEL_FILES)
def test_replayed_routing_needs_the_experts_of_the_law(source_of_model, name):
    """Within the interval of the published law at every batch size; generated routing within 4 % of its estimate."""
    source, published = source_of_model[name], PUBLISHED[name]
    found = distinct_replayed(source, name)
    assert (found >= (1 - DRAWN) * law(name, published.high)).all()
    assert (found <= (1 + DRAWN) * law(name, published.low)).all()
    if source not in FrontierSettings().traces:
        np.testing.assert_allclose(found, law(name, published.value), rtol=0.04)


def test_replay_generates_at_the_popularity_of_the_memory(tmp_path, monkeypatch, grids):
    """Two models of the same E and k are replayed on routing of their own popularity CV: that of the grid."""
    names, given = ["OLMoE-1B-7B", "Qwen2-MoE-57B"], []
    monkeypatch.setattr(replay_frontier, "generated", lambda calibrated, router, cv, *rest: given.append(cv))
    monkeypatch.setattr(replay_frontier, "slowdowns", lambda *rest: pd.DataFrame(columns=REPLAYED))
    grids["calibrated"].to_parquet(tmp_path / "grid.parquet")
    files = SimpleNamespace(
        models=[MODEL_FILES[name] for name in names],
        grid=tmp_path / "grid.parquet",
        gpus=ROOT / "config/gpus.yaml",
        trace=[],
        calibrated=[ROOT / "resources/routing/qwen3-30b-a3b.json"],
        discrimination=[ROOT / "resources/statistics/gpt-oss-20b-decode/discrimination.csv"],
        slowdowns=tmp_path / "slowdowns.parquet",
        links=ROOT / "config/links.yaml",
        operators=[ROOT / "resources/operators/constants.json"],
    )
    parameters = {"name": "any", "settings": {}, "profiles": str(tmp_path), "context": 4096, "copy_chunk_mb": 16.0}
    parameters |= {"link": "pinned"}
    replay_frontier.build(files, parameters | {"formats": Formats().model_dump(mode="json")})
    grid = grids["calibrated"]
    memory = grid[grid["case"] == ESTIMATE].groupby("model")["popularity_cv"].first()
    assert sorted(given) == sorted(memory[names])
    assert sorted(given) == pytest.approx(sorted(PUBLISHED[name].value for name in names), rel=1e-5)


def test_docs_say_what_routing_each_model_rests_on(source_of_model):
    """The table of docs/routing.md: popularity CV with its interval, its source, and what is replayed."""
    lines = ["| model | popularity CV | rests on | replayed routing |", "|---|---|---|---|"]
    for name, published in PUBLISHED.items():
        pooled = f"pooled over {len(published.source.split(','))} models"
        counted = f"own counts, {', '.join(re.findall(r'RO-[0-9]+', published.source))}"
        interval = f"{published.value:.2f} ({published.low:.2f} to {published.high:.2f})"
        source = source_of_model[name]
        kind = "recorded" if source in FrontierSettings().traces else "generated"
        lines.append(f"| {name} | {interval} | {pooled if published.pooled else counted} | {kind}, {source} |")
    table = "\n".join(lines)
    assert table in (ROOT / "docs/routing.md").read_text(), f"put this table into docs/routing.md:\n{table}"

"""The models that people serve today: they load, count exactly, and say what is left out and what deviates."""

import json
from dataclasses import asdict

import pytest

from prophet_moe import params
from prophet_moe.catalog import load_models, model_names
from prophet_moe.cli import model as commands
from prophet_moe.cli.model import described, find_model
from prophet_moe.units import GIB
from tests.conftest import ROOT

FOLDER = ROOT / "config/models/current"
CURRENT = load_models(FOLDER)
GOLDEN = {
    path.stem: json.loads(path.read_text())
    for path in (ROOT / "tests/golden/architectures").glob("*.json")
    if path.stem in CURRENT
}
CHECKPOINTS = {
    "gpt-oss-120b": (60.8 * GIB, 0.001),
    "gpt-oss-20b": (12.8 * GIB, 0.002),
    "Kimi-K2": (1.03e12, 0.001),
    "Kimi-K2-Thinking": (594e9, 0.001),
}
"""Sizes that the authors or others state, bytes, with what rounding leaves open."""


def test_current_models_are_a_group_apart_from_the_grid():
    assert len(CURRENT) >= 30
    assert not set(CURRENT) & set(model_names(ROOT / "config/models"))
    assert all(spec.reported is None and spec.architecture.moe for spec in CURRENT.values())


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_current_model_with_golden_counts_is_exact(name):
    arch, golden = CURRENT[name].architecture, GOLDEN[name]
    counts, kept = params.parameter_counts(arch), params.caches(arch)
    assert {part: count for part, count in asdict(counts).items() if count} == golden["counts"]
    assert params.active_parameters(arch) == golden["active"]
    assert params.growing_bytes_per_token(kept) == golden["kv_growing_bytes_per_token"]
    assert params.bounded_bytes(kept) == golden["kv_bounded_bytes"]
    assert params.state_bytes_per_sequence(arch) == golden["state_bytes"]
    assert arch.native_context == golden["native_context"]


def test_current_models_hold_all_golden_ones():
    golden = (ROOT / "tests/golden/architectures").glob("*.json")
    assert {path.stem for path in golden if "architecture" in json.loads(path.read_text())} == set(GOLDEN)


@pytest.mark.parametrize("name", sorted(CURRENT))
def test_current_model_is_near_its_stated_total_or_says_why(name):
    spec = CURRENT[name]
    assert spec.hugging_face and spec.sources
    deviation = params.deviation_from_published(spec)
    assert abs(deviation) < 0.04
    assert abs(deviation) <= params.NOTED_DEVIATION or spec.notes


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_current_checkpoint_has_the_stated_size(name):
    size, rounding = CHECKPOINTS[name]
    assert described(CURRENT[name])["checkpoint_bytes"] == pytest.approx(size, rel=rounding)


def test_model_of_both_folders_is_that_of_the_user(tmp_path, monkeypatch):
    """Who adds a model to config/models/ gets it, whatever the group of today's models holds."""
    text = (FOLDER / "gpt-oss-20b.yaml").read_text()
    (tmp_path / "gpt-oss-20b.yaml").write_text(text.replace("hugging_face: openai/", "hugging_face: mine/"))
    monkeypatch.setattr(commands, "CURRENT", FOLDER)
    monkeypatch.setattr(commands, "MODELS", tmp_path)
    assert find_model("gpt-oss-20b").hugging_face == "mine/gpt-oss-20b"
    assert find_model("gpt-oss-120b").hugging_face == "openai/gpt-oss-120b"

"""Tables of published routing: each model left out, and the pools."""

import pytest

from prophet_moe.routing.published import PUBLISHED, read_published
from studies.routing_law.published_routing import pools, transfer
from studies.routing_law.study import PUBLISHED_POOLS, PUBLISHED_TRANSFER
from tests.conftest import ROOT

ROWS = read_published(ROOT / PUBLISHED)
TRANSFER, POOLS = transfer(ROWS), pools(ROWS)


def test_columns_are_those_declared():
    assert list(TRANSFER.columns) == [column.name for column in PUBLISHED_TRANSFER.columns]
    assert list(POOLS.columns) == [column.name for column in PUBLISHED_POOLS.columns]


def test_ten_models_are_left_out_beside_uniform_occupancy():
    whole = TRANSFER[TRANSFER["traffic"] == "whole"]
    assert whole["model"].nunique() == 10
    errors = whole[whole["clean"]].groupby("basis")["error_pct"].mean()
    assert errors["balanced_alike"] < errors["all_others"] < errors["uniform_occupancy"]


def test_the_qwen3_case_lies_outside_the_interval():
    clean = TRANSFER[TRANSFER["clean"] & (TRANSFER["basis"] == "all_others") & (TRANSFER["traffic"] == "whole")]
    assert set(clean[~clean["inside"].astype(bool)]["model"]) == {"Qwen3-30B-A3B"}
    (worst,) = clean[~clean["inside"].astype(bool)]["worst_residual_pct"]
    assert worst == pytest.approx(37.5, abs=0.1)


def test_docs_tell_the_qwen3_case_in_these_numbers():
    of = TRANSFER[TRANSFER["observation"] == "RO-002"].set_index("basis")
    text = " ".join((ROOT / "docs/routing.md").read_text().split())
    others = of.loc["all_others"]
    assert f"({others['low']:g} to {others['high']:.2f}, its own is {others['own']:.2f})" in text
    assert f"With counts of its own it is met within {abs(of.loc['own', 'worst_residual_pct']):.1f} %" in text


def test_pools_are_by_balancing_and_domain():
    of = POOLS.set_index(["balancing", "domain"])
    assert of.loc[("any", "any"), "models"] == 10
    assert of.loc[("auxiliary_loss", "web"), "popularity_cv"] == pytest.approx(0.185, abs=5e-4)
    assert of.loc[("auxiliary_loss", "prompts"), "popularity_cv"] == pytest.approx(0.402, abs=5e-4)
    single = of[of["models"] == 1]
    assert single["low"].isna().all() and single["high"].isna().all()

"""The popularity CV by published counts: own, pooled, its interval, and what E and k allow."""

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.catalog import load_models
from prophet_moe.routing.law import dirichlet_occupancy
from prophet_moe.routing.popularity_cv import POOLED
from prophet_moe.routing.published import BALANCING, PUBLISHED, PublishedRouting, read_balancing, read_published
from prophet_moe.routing.published_cv import FEWEST, pool_for, pooled, popularity_cv, spread_of_texts, values
from tests.conftest import ROOT

ROWS = read_published(ROOT / PUBLISHED)
GRID = load_models(ROOT / "config/models")


def row(model="A", effective_cv=0.5, **changes) -> PublishedRouting:
    """A row of a model of its own name, as far as possible that of the first committed row."""
    named = {"id": f"{model} {effective_cv}", "model": model, "stands_for": "", "effective_cv": effective_cv}
    return ROWS[0].model_copy(update=named | changes)


def test_values_are_means_over_clean_texts_of_whole_traffic():
    broken = {"clean": False, "note": "broken"}
    rows = [row("A", 0.2), row("A", 0.4), row("A", 0.9, traffic="domain"), row("A", 0.8, **broken)]
    rows += [row("B", 0.6, **broken), row("C", 0.7, traffic="domain")]
    assert values(rows) == pytest.approx({"A": 0.3, "B": 0.6})


def test_values_of_a_domain_are_of_models_that_have_it():
    rows = [row("A", 0.2, domain="web"), row("A", 0.4, domain="prompts"), row("B", 0.6, domain="web")]
    assert values(rows, "prompts") == {"A": 0.4}
    assert values(rows, "web") == {"A": 0.2, "B": 0.6}


def test_pools_are_of_models_balanced_alike_if_enough():
    bias = [row(name, 0.6, balancing="bias") for name in "ABC"[: FEWEST - 1]]
    loss = [row(name, 0.1, balancing="auxiliary_loss") for name in "DEF"]
    assert pool_for(bias + loss, "auxiliary_loss").value == pytest.approx(0.1)
    assert set(pool_for(bias + loss, "bias").models) == set("ABDEF")
    assert set(pool_for(bias + loss).models) == set("ABDEF")
    unknown = [row(name, 0.9, balancing="unknown") for name in "XYZ"]
    assert len(pool_for(bias + loss + unknown, "unknown").models) == 8


def test_a_pool_of_one_model_has_no_end():
    pool = pooled([row("A", 0.2)])
    assert (pool.value, pool.low, pool.high) == (0.2, 0.0, inf)
    assert pooled([]) is None


def test_spread_of_texts_is_pooled_within_models():
    rows = [row("A", 0.2), row("A", 0.4), row("B", 0.5), row("B", 0.8), row("C", 0.9)]
    spread, freedom = spread_of_texts(rows)
    assert (spread, freedom) == (pytest.approx(sqrt((2 * 0.1**2 + 2 * 0.15**2) / 2)), 2)
    assert spread_of_texts([row("A")]) == (inf, 0)


def test_a_mixture_stands_aside_where_its_domains_are_known():
    domains = [row("A", value, traffic="domain", source="a/b@1 x") for value in (0.4, 0.6)]
    mixture, elsewhere = row("A", 0.5, source="a/b@1 y"), row("A", 0.2, source="c/d@1 z")
    assert spread_of_texts([*domains, mixture]) == spread_of_texts(domains)
    assert spread_of_texts([*domains, mixture, elsewhere])[1] == 2


@pytest.mark.parametrize(
    ("name", "value", "source"),
    [
        ("Mixtral-8x7B", 0.129, "C4"),
        ("Mixtral-8x22B", 0.139, "C4"),
        ("DeepSeek-MoE-16B", 0.159, "MiniPile"),
        ("OLMoE-1B-7B", 0.402, "Alpaca"),
        ("DeepSeek-V3-671B", 0.710, "DeepSeek-R1"),
        ("Qwen1.5-MoE-A2.7B", 0.208, "1 of 24 MoE layers"),
    ],
)
def test_models_of_the_grid_have_their_own_counts(name, value, source):
    moe = GRID[name].architecture.moe
    found = popularity_cv(name, moe.experts, moe.top_k, ROWS)
    assert found.value == pytest.approx(value, abs=5e-4)
    assert source in found.source and not found.pooled


def test_other_models_of_the_grid_have_the_pool_of_their_kind():
    balancing = read_balancing(ROOT / BALANCING)
    moe = GRID["Qwen3-235B"].architecture.moe
    other = popularity_cv("Qwen3-235B", moe.experts, moe.top_k, ROWS, balancing["Qwen3-235B"])
    assert other.pooled and other.value == pytest.approx(0.459, abs=5e-4), "not by that of Qwen3-30B-A3B alone"
    dbrx = popularity_cv("DBRX-132B", 16, 4, ROWS, balancing["DBRX-132B"])
    assert dbrx.value == pytest.approx(0.231, abs=5e-4)
    assert "gpt-oss" not in dbrx.source and dbrx.source.startswith(POOLED)


def test_a_domain_that_a_model_lacks_keeps_its_other_counts():
    assert popularity_cv("Mixtral-8x7B", 8, 2, ROWS, domain="prompts").value == pytest.approx(0.129, abs=5e-4)
    assert popularity_cv("OLMoE-1B-7B", 64, 8, ROWS, domain="prompts").value == pytest.approx(0.506, abs=1e-3)
    assert popularity_cv("Another", 64, 8, ROWS, "auxiliary_loss", "prompts").value == pytest.approx(0.402, abs=5e-4)


def test_no_counts_give_no_popularity_cv():
    assert popularity_cv("A", 8, 2, []) is None


shapes = st.integers(1, 512).flatmap(lambda experts: st.tuples(st.just(experts), st.integers(1, experts)))
ways = st.sampled_from(["auxiliary_loss", "global_batch_loss", "bias", "unknown"])
domains = st.sampled_from(["any", "web", "prompts"])


@given(shape=shapes, name=st.sampled_from([*GRID, "gpt-oss-20b", "Another"]), balancing=ways, domain=domains)
def test_intervals_hold_the_value_and_what_is_possible(shape, name, balancing, domain):
    found = popularity_cv(name, *shape, ROWS, balancing, domain)
    assert 0 <= found.low <= found.value <= found.high <= sqrt(shape[0] / shape[1] - 1)


@given(shape=shapes, batch=st.integers(1, 512), balancing=ways)
def test_distinct_experts_of_an_interval_are_possible(shape, batch, balancing):
    experts, top_k = shape
    found = popularity_cv("Another", experts, top_k, ROWS, balancing)
    ends = np.array([found.high, found.value, found.low])
    wide = (np.full(3, float(number)) for number in (experts, top_k))
    fewest, estimate, most = dirichlet_occupancy(*wide, ends, np.full(3, float(batch)))
    limit = min(experts, top_k * batch)
    assert top_k * (1 - 1e-9) <= fewest <= estimate * (1 + 1e-9) <= most * (1 + 2e-9) <= limit * (1 + 3e-9)


@given(st.lists(st.floats(0, 2), min_size=2, max_size=8))
def test_pools_are_no_narrower_than_a_text_more(effective):
    rows = [row(str(number), value) for number, value in enumerate(effective)] + [row("0", 0.3), row("1", 0.6)]
    pool, own = pooled(rows), popularity_cv("0", 64, 1, rows)
    assert pool.low <= pool.value <= pool.high
    text_more = (own.high - own.value) / sqrt(1 / 2 + 1)
    assert pool.high - pool.value >= text_more * (1 - 1e-9)

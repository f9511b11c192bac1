"""The closed form of a product's far factors against the plain loop, and batches that no loop would finish."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.capacity import reference
from prophet_moe.capacity.memory import ModelMemory
from prophet_moe.routing import distinct, urn
from prophet_moe.routing.law import dirichlet_occupancy
from prophet_moe.settings.fields import LARGEST_BATCH
from prophet_moe.settings.scenario import CALIBRATED, Routing

CORRELATIONS = st.one_of(
    st.sampled_from([0.0, 1.0]), st.floats(0, 1), st.floats(-300, 0).map(lambda digits: 10.0**digits)
)
BATCHES = st.integers(urn.MULTIPLIED + 1, 3000)


def single(share: float, rho: float, i: int) -> float:
    """Factor i of the product that misses one expert."""
    return ((1 - rho) * (1 - share) + i * rho) / (1 - rho + i * rho)


def pair(share: float, rho: float, i: int, both: float) -> float:
    """Factor i of the product that misses two experts."""
    chosen = (1 - rho) * share / (1 - rho + i * rho)
    return 1 - 2 * chosen + chosen * chosen * both


@settings(deadline=None, max_examples=200)
@given(share=st.floats(1e-6, 1), rho=CORRELATIONS, batch=BATCHES)
def test_rest_is_the_product_of_a_plain_loop(share, rho, batch):
    expected = math.prod(single(share, rho, i) for i in range(urn.MULTIPLIED, batch))
    assert urn.rest(share, rho, batch) == pytest.approx(expected, rel=1e-10, abs=1e-25)


@settings(deadline=None, max_examples=200)
@given(
    router=st.integers(2, 512).flatmap(lambda experts: st.tuples(st.just(experts), st.integers(1, experts))),
    rho=CORRELATIONS,
    batch=BATCHES,
)
def test_rest_of_both_is_the_product_of_a_plain_loop(router, rho, batch):
    experts, top_k = router
    share, both = top_k / experts, (top_k - 1) / top_k * experts / (experts - 1)
    expected = math.prod(pair(share, rho, i, both) for i in range(urn.MULTIPLIED, batch))
    assert urn.rest_of_both(share, rho, both, batch) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_rest_of_an_expert_that_all_choose_is_near_zero():
    """Found by the property test: of E = 2, k = 1 two experts are missed by no token, whatever is hardly correlated."""
    assert urn.rest(1.0, 1e-19, 65) == pytest.approx(64e-19, rel=1e-9)
    assert urn.rest_of_both(0.5, 1e-19, 0.0, 65) == pytest.approx(64e-19, rel=1e-9)


@pytest.mark.parametrize("batch", [1, urn.MULTIPLIED - 1, urn.MULTIPLIED])
def test_rest_of_a_batch_that_is_multiplied_out_is_one(batch):
    assert urn.rest(0.3, 0.2, batch) == urn.rest_of_both(0.3, 0.2, 0.9, batch) == 1.0


@pytest.mark.parametrize("popularity_cv", [0.0, 1e-9, 0.5, 3.0, 1e6])
def test_largest_batch_is_counted_at_once_in_both_ways(popularity_cv):
    """The loops took seconds in Python, and did not end for 10^12."""
    row = [np.array([number]) for number in (128.0, 8.0, popularity_cv, float(LARGEST_BATCH))]
    unique = dirichlet_occupancy(*row)
    spread = distinct.deviation(unique, *row)
    started = time.process_time()
    scalar = reference.unique_experts(Routing(), 128, 8, popularity_cv, LARGEST_BATCH)
    assert reference.deviation(scalar, 128, 8, popularity_cv, LARGEST_BATCH) == pytest.approx(spread[0], abs=1e-6)
    assert time.process_time() - started < 2
    assert scalar == pytest.approx(unique[0], rel=1e-12)
    assert 8 <= scalar <= 128


def test_reference_of_a_batch_of_any_size_ends():
    memory = ModelMemory(128, 8, 48, 10**7, 10**9, 10**5, 0, 10**4, 10**5, 40960, 0, 0, popularity_cv=0.5)
    started = time.process_time()
    assert reference.evaluate(memory, 80 * 10**9, 10**12, CALIBRATED)["prophet_max_context"] == 0
    assert time.process_time() - started < 2

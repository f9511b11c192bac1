"""Laws for u(B) against enumeration and their bounds."""

from itertools import combinations, product

import numpy as np
import pytest

from prophet_moe.routing.law import uniform_occupancy, unique_experts
from prophet_moe.settings import Routing


@pytest.mark.parametrize(("experts", "top_k", "batch"), [(4, 1, 3), (4, 2, 2), (5, 2, 3), (6, 3, 2), (3, 3, 2)])
def test_uniform_occupancy_is_the_mean_over_all_outcomes(experts, top_k, batch):
    choices = list(combinations(range(experts), top_k))
    outcomes = [len(set().union(*tokens)) for tokens in product(choices, repeat=batch)]
    law = uniform_occupancy(np.array([experts], float), np.array([top_k], float), np.array([batch], float))
    assert law[0] == pytest.approx(np.mean(outcomes), rel=1e-12)


@pytest.mark.parametrize("routing", [Routing(), Routing(law="power_law")], ids=lambda r: r.law)
def test_laws_grow_with_the_batch_up_to_all_experts(routing):
    batch = np.arange(1.0, 2049.0)
    unique = unique_experts(routing, np.full_like(batch, 64), np.full_like(batch, 6), batch)
    assert unique[0] == pytest.approx(6)
    assert np.all(np.diff(unique) >= 0)
    assert unique[-1] == pytest.approx(64)

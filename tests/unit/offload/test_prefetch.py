"""From predictions to prefetch plans, against plain NumPy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.offload.simulator.batching import ABSENT, DecodeBatches
from prophet_moe.offload.simulator.prefetch import Needs, ahead, batch_needs, true_needs
from prophet_moe.offload.simulator.simulation import Hierarchy
from prophet_moe.predict.context import LIKELY


@st.composite
def forecasts(draw) -> tuple[DecodeBatches, np.ndarray]:
    """A round with tokens missing here and there, and probabilities in tenths, so that many are equal."""
    steps, batch, layers, experts = (draw(st.integers(1, most)) for most in (4, 3, 3, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = np.arange(steps * batch).reshape(steps, batch)
    rows[random.random(rows.shape) < 0.2] = ABSENT
    rows[:, 0] = np.arange(steps) * batch
    choices = random.integers(experts, size=(steps * batch, layers, 1)).astype(np.uint16)
    predictions = (random.integers(11, size=(steps * batch, layers, experts)) / 10).astype(np.float32)
    return DecodeBatches(choices, rows, experts), predictions


def plain_needs(batches: DecodeBatches, predictions: np.ndarray) -> list[list[list[int]]]:
    """By step and layer the likely ids, the likeliest first, then by number."""
    found = []
    for rows in batches.rows:
        unused = np.ones(predictions.shape[1:], np.float32)
        for row in rows[rows != ABSENT]:
            unused *= np.float32(1) - predictions[row]
        probability = np.float32(1) - unused
        ranked = np.argsort(-probability, axis=1, kind="stable")
        found.append(
            [
                [layer * batches.experts + int(e) for e in order if probability[layer, e] > LIKELY]
                for layer, order in enumerate(ranked)
            ]
        )
    return found


def listed(needs, batches: DecodeBatches) -> list[list[list[int]]]:
    """The same of compact needs."""
    parts = [needs.ids[begin:end].tolist() for begin, end in zip(needs.starts, needs.starts[1:], strict=False)]
    return [parts[first : first + batches.layers] for first in range(0, len(parts), batches.layers)]


@settings(deadline=None)
@given(case=forecasts())
def test_needs_of_a_batch_are_its_unions(case):
    batches, predictions = case
    assert listed(batch_needs(batches, predictions), batches) == plain_needs(batches, predictions)


@settings(deadline=None)
@given(case=forecasts())
def test_true_needs_are_what_is_accessed(case):
    batches, _ = case
    exact = np.zeros((len(batches.choices), batches.layers, batches.experts), np.float32)
    np.put_along_axis(exact, batches.choices.astype(int), 1, axis=2)
    assert listed(true_needs(batches), batches) == plain_needs(batches, exact)


def test_true_needs_of_many_experts_are_in_order():
    random = np.random.default_rng(0)
    choices = random.integers(130, size=(40, 2, 9)).astype(np.uint16)
    batches = DecodeBatches(choices, np.arange(40).reshape(10, 4), 130)
    expected = [
        [(layer * 130 + np.unique(choices[rows, layer])).tolist() for layer in range(2)] for rows in batches.rows
    ]
    assert listed(true_needs(batches), batches) == expected


@settings(deadline=None)
@given(
    case=forecasts(),
    distances=st.sets(st.integers(1, 3), min_size=1),
    capacity=st.integers(1, 5),
    per_layer=st.booleans(),
    before_pass=st.booleans(),
    next_step=st.booleans(),
    shared=st.booleans(),
)
def test_plans_are_the_needs_of_the_layers_ahead(case, distances, capacity, per_layer, before_pass, next_step, shared):
    batches, predictions = case
    needs, layers = batch_needs(batches, predictions), batches.layers
    hierarchy = Hierarchy((capacity,), per_layer)
    likely = {distance: needs if shared else Needs(*needs) for distance in distances}
    prefetches = ahead(batches, likely, hierarchy, before_pass=before_pass, next_step=next_step).array()
    plain = [layer for step in plain_needs(batches, predictions) for layer in step]
    for step in range(len(batches.rows)):
        for point in range(layers + 1):
            expected = []
            for distance in sorted(distances) if point or before_pass else ():
                target = point - 1 + distance
                if step * layers + target < len(plain) and (target < layers or next_step):
                    # Two layers on is never the same layer again, so that a layer's room is its own.
                    expected += plain[step * layers + target][: capacity if per_layer else capacity - len(expected)]
            found = prefetches[step, point].tolist()
            assert found[: len(expected)] == expected
            assert set(found[len(expected) :]) <= {-1}


def test_a_memo_is_kept_for_its_own_predictions_only():
    batches = DecodeBatches(np.zeros((1, 1, 1), np.uint16), np.zeros((1, 1), np.int64), 2)
    for likely in (0, 1) * 20:
        predictions = np.zeros((1, 1, 2), np.float32)
        predictions[0, 0, likely] = 1
        assert batch_needs(batches, predictions).ids.tolist() == [likely]
        del predictions

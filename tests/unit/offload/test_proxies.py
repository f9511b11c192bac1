"""Generated routing that stands in for a model has the locality that was published and the experts of its law."""

import numpy as np
import pytest

from prophet_moe.offload.proxies import HISTORY, generated
from prophet_moe.offload.replay import SampleSize, run
from prophet_moe.offload.simulator.prefetch import true_needs
from prophet_moe.offload.simulator.simulation import Hierarchy, Times
from prophet_moe.offload.strategies import strategies
from prophet_moe.predict.discrimination import read_discrimination
from prophet_moe.routing.calibrated import read_calibrated
from prophet_moe.routing.law import dirichlet_occupancy
from prophet_moe.routing.trace import Router, check, sequence_starts
from tests.conftest import ROOT

SIZE = SampleSize(64, 128)
POPULARITY_CV = 0.7
POWER = ROOT / "resources/statistics/gpt-oss-20b-decode/discrimination.csv"


@pytest.fixture(scope="module")
def samples():
    """Samples for a router of Qwen3-235B's shape."""
    calibrated = read_calibrated(ROOT / "resources/routing/qwen3-30b-a3b.json")
    router = Router("Qwen3-235B", 128, 8, (0, 1, 2, 3))
    return generated(calibrated, router, POPULARITY_CV, read_discrimination(POWER), SIZE, 2)


def test_samples_are_traces_of_the_models_shape(samples):
    for sample in samples:
        trace = check(sample.trace, "sample")
        assert (trace.router.experts, trace.router.top_k) == (128, 8)
        assert np.diff(sequence_starts(trace)).tolist() == [SIZE.tokens] * 64
        assert trace.position.min() == HISTORY
        assert sample.share == 0
    assert samples[0].trace.experts.tobytes() != samples[1].trace.experts.tobytes()


def test_hit_rate_at_a_quarter_is_that_of_real_models(samples):
    """At 25 % resident fine-grained models hit 67 to 87 % (published curves); the small trace of 64 experts, 39 %."""
    on_demand, times = strategies()["on_demand"], Times(np.ones(4), np.zeros(2), (1.0,))
    for sample in samples:
        outcome = run(sample.parts(1), sample.predictions.training, on_demand, Hierarchy((32,)), times)
        assert 0.67 < outcome.hit_rate < 0.87


@pytest.mark.parametrize("batch", [4, 16, 64])
def test_batches_need_the_experts_of_the_law(samples, batch):
    """u(B) at the popularity CV asked for, another than that of the calibrated routing, within 8 %."""
    found = []
    for sample in samples:
        for batches, _ in sample.parts(batch):
            found.append(len(true_needs(batches).ids) / (len(batches.rows) * batches.layers))
    shape = (np.array([value], float) for value in (128, 8, POPULARITY_CV, batch))
    assert np.mean(found) == pytest.approx(float(dirichlet_occupancy(*shape)[0]), rel=0.08)


def test_foretold_probabilities_fit_the_tokens_replayed(samples):
    sample = samples[0]
    chosen = sample.trace.experts[:, 3]
    given = sample.predictions.prophet(1)[:, 3]
    of_chosen = np.take_along_axis(given, chosen.astype(np.int64), axis=1).mean()
    assert of_chosen > 4 * given.mean(), "a token's own experts are said to be much likelier than any"

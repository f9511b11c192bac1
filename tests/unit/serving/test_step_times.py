"""Times of steps: equal to the estimates of decode steps, and what prompts add; limits by the budget of an engine."""

import numpy as np
import pytest

from prophet_moe import params
from prophet_moe.capacity.engine import engine_budget
from prophet_moe.capacity.under_engine import serving
from prophet_moe.catalog import load_gpus
from prophet_moe.catalog.engine import load_engine
from prophet_moe.catalog.model import load_model
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import Estimator, estimate_step, read_constants
from prophet_moe.hardware.operators import read_operators
from prophet_moe.routing.law import uniform_occupancy
from prophet_moe.serving.limits import limits_of
from prophet_moe.serving.step_times import decode_seconds, knots, tabulate
from prophet_moe.settings.scenario import CALIBRATED
from tests.conftest import ROOT

FITS = ROOT / "resources/operators"
SHIPPED = CALIBRATED.model_copy(update={"precision": "shipped"})
VLLM = load_engine(ROOT / "config/engines/vllm.yaml")


def asked_of(model, gpu):
    """A model as vLLM serves it on a GPU."""
    spec = load_model(next((ROOT / "config/models").rglob(f"{model}.yaml")))
    return serving(spec, gpu, load_gpus(ROOT / "config/gpus.yaml", [gpu])[gpu], SHIPPED, VLLM)


@pytest.fixture(scope="module", params=[("Qwen1.5-MoE-A2.7B", True), ("gpt-oss-20b", True), ("OLMoE-1B-7B", False)])
def case(request):
    """Estimator, model, u(B) and tables: with operators and without, with windows and without."""
    name, with_operators = request.param
    asked, gpu = asked_of(name, "A100-80GB"), load_gpus(ROOT / "config/gpus.yaml", ["A100-80GB"])["A100-80GB"]
    operators = read_operators(FITS, "A100-80GB") if with_operators else None
    estimator = Estimator("A100-80GB", gpu, operators, read_constants(FITS / "constants.json"))
    moe = asked.arch.moe

    def unique(tokens):
        batch = np.array(tokens, float)
        return uniform_occupancy(np.full_like(batch, moe.experts), np.full_like(batch, moe.top_k), batch)

    most = {"most_sequences": 96, "most_tokens": 600, "most_context": 4096}
    times = tabulate(estimator, asked.arch, asked.precision, unique=unique, **most, compute_share=0.5)
    return estimator, asked, unique, times


@pytest.mark.parametrize("batch", [1, 6, 96])
@pytest.mark.parametrize("context", [512, 4096])
def test_decode_step_at_a_knot_is_the_estimate(case, batch, context):
    estimator, asked, unique, times = case
    used = unique([batch])[0]
    expected = estimate_step(estimator, asked.arch, batch, context, used, asked.precision).seconds
    assert decode_seconds(times, batch, context) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("batch", "context"), [(5, 700), (41, 3333), (77, 1900)])
def test_decode_step_between_knots_is_near_the_estimate(case, batch, context):
    estimator, asked, unique, times = case
    used = unique([batch])[0]
    expected = estimate_step(estimator, asked.arch, batch, context, used, asked.precision).seconds
    assert decode_seconds(times, batch, context) == pytest.approx(expected, rel=0.02)


def test_prompts_take_more_with_their_tokens_and_context(case):
    tables = case[-1].tables
    assert (np.diff(tables.matrices[1:]) >= 0).all() and (np.diff(tables.head) >= 0).all()
    assert (np.diff(tables.prefill_attention) >= 0).all() and (np.diff(tables.attention[1:], axis=1) >= -1e-12).all()
    assert tables.prefill_attention[-1] > tables.prefill_attention[0] > 0


def test_knots_end_at_both_ends():
    assert knots(1) == [1] and knots(9) == [1, 2, 3, 4, 6, 8, 9] and knots(12)[-1] == 12


def test_limits_are_those_of_the_budget():
    asked = asked_of("Qwen1.5-MoE-A2.7B", "A100-80GB")
    limits, budget = limits_of(asked), engine_budget(asked)
    per_token = params.caches(asked.arch, asked.precision)[0].bytes(1)
    assert limits.capacity == int(budget.pool_bytes // budget.kv_bytes_per_token)
    assert budget.kv_bytes_per_token == per_token and limits.overhead == 0
    assert (limits.sequences, limits.tokens) == (asked.most_sequences, asked.most_tokens)
    assert limits.longest == asked.arch.native_context


def test_windows_are_overhead_of_a_sequence():
    """Half of the layers of gpt-oss keep all tokens, the other half 128: as many as 128 tokens of the first half."""
    assert limits_of(asked_of("gpt-oss-20b", "A100-80GB")).overhead == 128


def test_model_that_leaves_no_cache_is_an_error():
    with pytest.raises(UserError, match="A100-80GB: "):
        limits_of(asked_of("Mixtral-8x7B", "A100-80GB"))


def test_given_pool_takes_the_place_of_the_budget():
    asked = asked_of("Qwen1.5-MoE-A2.7B", "A100-80GB")
    per_token = engine_budget(asked).kv_bytes_per_token
    assert limits_of(asked, 1000.5 * per_token).capacity == 1000
    with pytest.raises(UserError):
        limits_of(asked, -1.0)


def test_more_seconds_are_those_of_a_step_with_such_tokens(case):
    _, _, _, times = case
    more = np.linspace(0, 1, times.most_tokens + 1)
    longer = times.with_more(more)
    for batch in (1, 6, 96):
        beside = decode_seconds(longer, batch, 1024) - decode_seconds(times, batch, 1024)
        assert beside == pytest.approx(more[batch])

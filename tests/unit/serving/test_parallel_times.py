"""Times of a step over several GPUs: the parts that layouts share, and what slots cost."""

import pytest

from prophet_moe.capacity.several_gpus import Spread
from prophet_moe.capacity.several_gpus import spread as spread_over
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.catalog.link import load_links
from prophet_moe.hardware.estimate import Estimator, Split, estimate_step, read_constants
from prophet_moe.hardware.operators import read_operators
from prophet_moe.params.sharding import ONE_GPU, Parallelism
from prophet_moe.serving.exchange import exchange
from prophet_moe.serving.parallel_times import fetch_seconds, step_times
from prophet_moe.settings.scenario import CALIBRATED
from tests.conftest import ROOT

GPUS = load_gpus(ROOT / "config/gpus.yaml", ["H200-141GB", "L40S-48GB"])
CONSTANTS = read_constants(ROOT / "resources/operators/constants.json")
ESTIMATORS = {
    "H200-141GB": Estimator(
        "H200-141GB", GPUS["H200-141GB"], read_operators(ROOT / "resources/operators", "H200-141GB"), CONSTANTS
    ),
    "L40S-48GB": Estimator("L40S-48GB", GPUS["L40S-48GB"], None, CONSTANTS),
}
SPEC = load_models(ROOT / "config/models", ["DeepSeek-V3-671B"])["DeepSeek-V3-671B"]
PINNED = load_links(ROOT / "config/links.yaml")["pinned"]


def spread(over: Parallelism) -> Spread:
    """Return what every GPU holds of DeepSeek-V3 in a layout."""
    return spread_over(SPEC, "H200-141GB", GPUS["H200-141GB"], CALIBRATED, over)


def times(over: Parallelism, gpu: str = "H200-141GB", batch: int = 32, link: float = 400.0):
    """Times of a step of DeepSeek-V3 in a layout."""
    traffic = exchange(SPEC.architecture, over)
    return step_times(spread(over), ESTIMATORS[gpu], batch, 4096, traffic, link)


@pytest.mark.parametrize("gpu", ESTIMATORS)
@pytest.mark.parametrize("over", [ONE_GPU, Parallelism(8), Parallelism(8, expert=8), Parallelism(4, 4)])
def test_step_without_copies_is_the_estimate_of_its_split(gpu, over):
    unique = spread(over).unique_experts(32)
    split = Split(over.tensor, over.expert > 1)
    expected = estimate_step(ESTIMATORS[gpu], SPEC.architecture, 32, 4096, unique, split=split)
    assert times(over, gpu).seconds == pytest.approx(expected.seconds)


@pytest.mark.parametrize("gpu", ESTIMATORS)
def test_copies_read_fewer_latents_than_tensor_parallel_gpus(gpu):
    """Every tensor-parallel GPU reads the latents of all sequences; a copy reads those of its own."""
    copies = Parallelism(1, 1, 8, 8)
    at = {batch: [times(over, gpu, batch).seconds for over in (copies, Parallelism(8))] for batch in (8, 512)}
    assert at[512][0] - at[8][0] < at[512][1] - at[8][1]


def test_all_to_all_takes_its_bytes_over_the_link():
    over = Parallelism(1, 1, 8, 8)
    fast, slow = times(over, link=400.0), times(over, link=40.0)
    assert slow.all_to_all == pytest.approx(10 * fast.all_to_all)
    assert slow.seconds - fast.seconds == pytest.approx(slow.all_to_all - fast.all_to_all)
    assert fast.all_to_all == pytest.approx(32 * exchange(SPEC.architecture, over).all_to_all / 8 / 400e9)
    assert fast.low < fast.seconds < fast.high


def test_fetches_shrink_with_hits_and_with_gpus():
    one, eight = spread(ONE_GPU), spread(Parallelism(8))

    def seconds(held, hit_rate):
        return fetch_seconds(held, ESTIMATORS["H200-141GB"], 32, hit_rate, PINNED)

    assert seconds(one, 1.0) == 0
    assert seconds(one, 0.25) == pytest.approx(1.5 * seconds(one, 0.5))
    assert seconds(one, 0.5) / 8 < seconds(eight, 0.5) < seconds(one, 0.5) / 4
    whole = spread(Parallelism(8, expert=8))
    copies = 58 * one.unique_experts(32) / 8 / 2
    expected = PINNED.seconds(GPUS["H200-141GB"], whole.stages[0].memory.expert_bytes, copies)
    assert seconds(whole, 0.5) == pytest.approx(expected)

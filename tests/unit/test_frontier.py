"""The frontier's memory is that of the record, its times those of replays, and its gains what the points allow."""

import numpy as np
import pandas as pd
import pytest

from prophet_moe.cachesim.timing import expert_bytes, standing_for, times_of
from prophet_moe.capacity.frontier import STRATEGIES, context_gained, frontier, nearest_trace, slowdowns
from prophet_moe.capacity.memory import model_memory
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.capacity.reference import evaluate
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.precision import BF16
from prophet_moe.predict.network import read_network
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import Router
from prophet_moe.settings import Simulation
from prophet_moe.units import GB
from tests.conftest import ROOT

NAME, MODEL, GPU = "small-6x8-top2", "Mixtral-8x7B", "A100-80GB"
SHARES = [0.25, 0.5, 1.0]
PLAN = Simulation(sequences=8, batch_sizes=[1, 4], sweep_batch_sizes=[4], frontier_tokens=6, frontier_shares=SHARES)
CONTEXT, PRECISION = 4096, BF16


@pytest.fixture(scope="module")
def grid(grids) -> pd.DataFrame:
    """The calibrated capacity grid at its estimate."""
    grid = grids["calibrated"]
    return grid[grid["case"] == ESTIMATE]


@pytest.fixture(scope="module")
def replayed(grid, models, gpus) -> pd.DataFrame:
    """Slowdowns of one model, on two GPUs."""
    trace, network = read_trace(ROOT / "resources/traces" / NAME), read_network(ROOT / "resources/predictors" / NAME)
    profiles = {name: datasheet_profile(name, gpus[name]) for name in (GPU, "H100-80GB")}
    mine = grid[(grid["model"] == MODEL) & grid["gpu"].isin(list(profiles)) & grid["batch_size"].isin([1, 4, 64])]
    return slowdowns(trace, network, {MODEL: models[MODEL]}, profiles, mine, CONTEXT, PRECISION, PLAN)


def router(experts: int, top_k: int) -> Router:
    return Router("", experts, top_k, (0,))


def test_a_model_stands_on_the_trace_whose_router_is_most_like_its_own():
    routers = {"wide": router(128, 1), "middle": router(64, 8), "narrow": router(8, 2)}
    nearest = {name: nearest_trace(found.experts, found.top_k, routers) for name, found in routers.items()}
    assert nearest == {name: name for name in routers}
    assert nearest_trace(256, 8, routers) == "middle", "two doublings of E, against one of E and three of k"
    assert nearest_trace(16, 2, routers) == "narrow"
    assert nearest_trace(64, 2, {"b": router(128, 2), "a": router(32, 2)}) == "a", "of equals the first by name"


def test_every_configuration_is_replayed_once(replayed):
    keys = ["model", "gpu", "batch_size", "strategy", "resident_share"]
    assert not replayed.duplicated(keys).any()
    assert len(replayed) == 2 * 3 * len(STRATEGIES) * len(SHARES), "batches of 1, 4 and 64 sequences"
    assert set(replayed["resident_share"]) == set(SHARES)


def test_with_all_experts_resident_nothing_slows_down(replayed):
    resident = replayed[replayed["resident_share"] == 1]
    np.testing.assert_allclose(resident["slowdown"], 1)
    np.testing.assert_allclose(resident["hit_rate"], 1)
    fewer = replayed[replayed["resident_share"] < 1]
    assert (fewer["slowdown"] > 1).all()
    assert (fewer["hit_rate"] < 1).all()


@pytest.mark.parametrize("model", ["DeepSeek-V3-671B", "Mixtral-8x7B"])
def test_an_expert_of_the_trace_stands_for_so_many_of_the_models(models, gpus, model):
    """Bytes and compute of a step are the model's, however many experts the trace asks for."""
    arch, profile = models[model].architecture, datasheet_profile(GPU, gpus[GPU])
    batch, requests, unique = 16, 10.0, 0.75 * arch.moe.experts
    own = times_of(arch, profile, 4, batch, CONTEXT, PRECISION, PLAN.copy_chunk_mb)
    times = standing_for(arch, profile, 4, batch, CONTEXT, unique, requests, PRECISION, PLAN.copy_chunk_mb)
    assert requests * times.fetch[0] == pytest.approx(
        unique * expert_bytes(arch, PRECISION) / (gpus[GPU].link_gb_per_s * GB)
    )
    tokens = batch * arch.moe.top_k / unique
    expert = profile.expert_seconds(arch.hidden, arch.moe.ffn, arch.moe.gated, tokens)
    np.testing.assert_allclose(requests * times.work[1:], unique * expert)
    assert times.work[0] == 0
    np.testing.assert_array_equal(times.other, own.other)


def test_where_prophet_keeps_what_the_record_says_it_has_the_context_of_the_record(grid, experiment):
    """At the resident experts of the capacity model, which are whole ones, both count the same memory."""
    scenario = experiment.scenarios["calibrated"]
    times = grid[["model", "gpu", "batch_size"]].assign(
        strategy="prophet",
        resident_share=grid["resident_experts"] / grid["experts"],
        trace=NAME,
        slowdown=1.5,
        hit_rate=0.5,
        waves=False,
    )
    points = frontier(grid, times, scenario)
    assert points["resident_experts"].tolist() == grid["resident_experts"].tolist()
    assert points["max_context"].tolist() == grid["prophet_max_context"].tolist()
    fits = grid["baseline_fits"].to_numpy(bool)
    np.testing.assert_allclose(
        points["kv_extension_factor"].to_numpy(float)[fits], grid["kv_extension_factor"].to_numpy(float)[fits]
    )
    assert points.loc[~fits, "kv_extension_factor"].isna().all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_memory_of_any_share_is_the_references(grid, experiment, models, strategy):
    """One formula: what each strategy holds at any number of resident experts is what reference.evaluate says."""
    scenario = experiment.scenarios["calibrated"]
    times = grid[["model", "gpu", "batch_size"]].assign(
        strategy=strategy, resident_share=0.3, trace=NAME, slowdown=1.5, hit_rate=0.5, waves=False
    )
    points = frontier(grid, times, scenario)
    memories = {name: model_memory(spec, scenario) for name, spec in models.items()}
    for point, row in zip(points.itertuples(), grid.itertuples(), strict=True):
        expected = evaluate(
            memories[row.model],
            int(row.device_bytes),
            row.batch_size,
            scenario,
            resident=int(point.resident_experts),
            staging_kept=STRATEGIES[strategy],
            predictor_kept=strategy == "prophet",
        )
        assert point.max_context == expected["prophet_max_context"]
        assert point.baseline_max_context == expected["baseline_max_context"]
        assert point.saved_gb == pytest.approx(expected["expert_savings_bytes"] / GB)


def test_without_prediction_nothing_is_staged_and_all_resident_is_the_baseline(grid, experiment):
    shared = grid[["model", "gpu", "batch_size"]].assign(trace=NAME, slowdown=1.0, hit_rate=1.0, waves=False)
    times = pd.concat([shared.assign(strategy=name, resident_share=1.0) for name in STRATEGIES])
    points = frontier(grid, times, experiment.scenarios["calibrated"])
    context = points.pivot_table(index=["model", "gpu", "batch_size"], columns="strategy", values="max_context")
    baseline = grid.set_index(["model", "gpu", "batch_size"])["baseline_max_context"].reindex(context.index)
    assert context["on_demand"].tolist() == baseline.tolist()
    assert context["perfect_prefetch"].tolist() == baseline.tolist(), "with everything resident nothing is staged"
    assert (context["prophet"] <= baseline).all(), "its predictor takes memory"
    assert (context["prophet"] < baseline).any()
    assert (points["saved_gb"] == 0).all()


def test_the_gain_is_the_best_of_what_is_fast_enough():
    points = pd.DataFrame(
        {
            "model": "M",
            "gpu": "G",
            "batch_size": 1,
            "strategy": "prophet",
            "trace": NAME,
            "slowdown": [1.0, 1.04, 1.3, 1.9],
            "max_context": [900, 1500, 1400, 3000],
            "baseline_max_context": 1000,
        }
    )
    (row,) = context_gained(points, [1, 1.05, 1.5, 2]).to_dict("records")
    assert [row[f"max_context_at_{limit}x"] for limit in ("1", "1.05", "1.5", "2")] == [1000, 1500, 1500, 3000]
    assert row["kv_extension_at_2x"] == 3
    (none,) = context_gained(points.assign(baseline_max_context=0), [1]).to_dict("records")
    assert none["max_context_at_1x"] == 900
    assert np.isnan(none["kv_extension_at_1x"])

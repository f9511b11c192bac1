"""The frontier's memory is that of the record, its times those of replays, and its gains what the points allow."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.capacity.configured import Configured
from prophet_moe.capacity.grid import capacity_grid
from prophet_moe.capacity.limits import CONFIGURATION, reach
from prophet_moe.capacity.memory import model_memory
from prophet_moe.capacity.record import ESTIMATE
from prophet_moe.capacity.reference import evaluate
from prophet_moe.capacity.under_engine import EngineChoice, memories_on
from prophet_moe.catalog import load_models
from prophet_moe.catalog.engine import load_engine
from prophet_moe.catalog.link import load_links
from prophet_moe.errors import UserError
from prophet_moe.hardware.pace import read_paces
from prophet_moe.offload.proxies import recorded
from prophet_moe.offload.replay import SampleSize
from prophet_moe.offload.simulator.timing import proxy_times, times_of
from prophet_moe.params import expert_bytes
from prophet_moe.precision import BF16
from prophet_moe.predict.network import read_network
from prophet_moe.routing.nearest import Candidate, source_of
from prophet_moe.routing.store import read_trace
from prophet_moe.settings.experiment import Experiment
from prophet_moe.settings.fields import LARGEST_CONTEXT
from prophet_moe.settings.scenario import CALIBRATED as CALIBRATED_SCENARIO
from prophet_moe.settings.scenario import Formats, Routing
from prophet_moe.units import GB, MIB
from studies.frontier.compute import STRATEGIES, context_gained, frontier, joined, reserves_of, slowdowns, to_replay
from studies.frontier.study import FrontierSettings
from tests.conftest import ROOT
from tests.unit.capacity.test_capacity import spec_of
from tests.unit.hardware.test_hardware import MODELS

NAME, MODEL, GPU = "small-6x8-top2", "Mixtral-8x7B", "A100-80GB"
SHARES = [0.125, 0.5, 0.9375, 0.99]
PLAN = FrontierSettings(samples=2, sequences=8, tokens=12, shares=SHARES, layers=4)
CHUNK_MB = Experiment().replay.copy_chunk_mb
CONTEXT = 4096


@pytest.fixture(scope="module")
def grid(grids) -> pd.DataFrame:
    """The calibrated capacity grid at its estimate."""
    grid = grids["calibrated"]
    return grid[grid["case"] == ESTIMATE]


def paces_of_gpus(gpus, *names: str):
    """Paces of GPUs by name, as a build has them where nothing was measured."""
    link = load_links(ROOT / "config/links.yaml")["pinned"]
    chosen = {name: gpus[name] for name in names}
    return read_paces(ROOT / "resources/hardware", ROOT / "resources/operators", chosen, link)


@pytest.fixture(scope="module")
def replayed(grid, models, gpus) -> pd.DataFrame:
    """Slowdowns of one model, on two GPUs."""
    trace, network = read_trace(ROOT / "resources/traces" / NAME), read_network(ROOT / "resources/predictors" / NAME)
    paces = paces_of_gpus(gpus, GPU, "H100-80GB")
    mine = grid[(grid["model"] == MODEL) & grid["gpu"].isin(list(paces)) & grid["batch_size"].isin([1, 16])]
    samples = recorded(trace, network, SampleSize(16, PLAN.tokens), PLAN.samples)
    return slowdowns(NAME, samples, {MODEL: models[MODEL]}, paces, mine, CONTEXT, Formats(), PLAN, CHUNK_MB)


TRACES = {"wide": (128, 1), "narrow": (8, 2)}
CALIBRATED = {"fine": Candidate(128, 8, 7), "other": Candidate(128, 8, 3), "coarse": Candidate(32, 4, 10)}


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((128, 1), "wide"),
        ((8, 2), "narrow"),
        ((128, 8), "fine"),
        ((256, 8), "fine"),
        ((60, 4), "coarse"),
        ((16, 2), "coarse"),
    ],
)
def test_source_is_a_trace_of_the_same_shape_or_nearest(shape, expected):
    assert source_of(*shape, TRACES, CALIBRATED) == expected


def test_source_of_a_model_without_any_is_a_user_error():
    with pytest.raises(UserError, match="no trace has 64 experts and top-k 8"):
        source_of(64, 8, TRACES, {})


def test_slowdowns_have_each_point_once_a_sample(replayed):
    keys = [*CONFIGURATION, "strategy", "resident_experts", "sample"]
    assert not replayed.duplicated(keys).any()
    points = {8, 4}, "shares of one expert, fewer than k, and of all, which round to 8, are left out"
    assert set(replayed["resident_experts"]) == points[0], points[1]
    assert len(replayed) == 2 * 2 * len(STRATEGIES) * 2 * PLAN.samples


def test_batches_too_large_to_replay_are_left_out(models, gpus, popularity_cvs):
    """A grid may have batches of 10^6, whose replay would not end."""
    chosen = {name: models[name] for name in ("Switch-Base-128", "Jamba-1.5-Large")}
    configured = Configured(chosen, gpus, Experiment().scenarios["calibrated"], popularity_cvs)
    grid = capacity_grid(configured, (1, 64, 65, 10**6))
    rows = to_replay(grid, FrontierSettings())
    assert set(rows["batch_size"]) == {1, 64}
    assert set(rows["case"]) == {ESTIMATE}
    assert set(rows["model"]) == {"Switch-Base-128"}


def test_slowdown_is_one_where_all_experts_are_resident(replayed):
    resident = replayed["resident_experts"] == 8
    assert (replayed.loc[resident, ["slowdown", "hit_rate"]] == 1).all(axis=None)
    assert (replayed.loc[~resident, "slowdown"] > 1).all()
    assert (replayed.loc[~resident, "hit_rate"] < 1).all()


def test_bound_of_slowdowns_is_of_the_first_sample_alone(replayed):
    """Slowdowns by the datasheet differ from the estimated ones: both the step and the copies are shorter."""
    bound, all_resident = replayed["slowdown_bound"], replayed["resident_experts"] == 8
    assert bound.notna().equals(replayed["sample"] == 0)
    found = replayed[bound.notna() & ~all_resident]
    assert (found["slowdown_bound"] > 1).all()
    assert (found["slowdown_bound"] != found["slowdown"]).all()
    assert (bound[bound.notna() & all_resident] == 1).all()
    assert set(replayed["times"]) == {"estimated"}


def test_larger_batches_take_more_sequences(replayed):
    share = replayed.groupby("batch_size")["sampled_share"].first()
    assert share[16] == pytest.approx(2 * share[1]), "8 sequences, or as many as the batch"


@pytest.mark.parametrize("which", ["best", "bound"])
@pytest.mark.parametrize("model", ["DeepSeek-V3-671B", "Mixtral-8x7B"])
def test_an_expert_of_the_trace_stands_for_so_many_of_the_models(models, gpus, model, which):
    """Bytes and compute of a step are the model's, however many experts the trace asks for."""
    arch, paces = models[model].architecture, paces_of_gpus(gpus, GPU)[GPU]
    batch, requests, unique = 16, 10.0, 0.75 * arch.moe.experts
    pace = getattr(paces, which)
    own = times_of(arch, pace, 4, batch, CONTEXT, BF16, CHUNK_MB)
    times = proxy_times(arch, pace, 4, batch, CONTEXT, unique, requests, BF16, CHUNK_MB)
    copied = unique * pace.copy_seconds(expert_bytes(arch, BF16))
    assert requests * times.transfer_seconds[0] == pytest.approx(copied)
    if which == "bound":
        assert copied == pytest.approx(unique * expert_bytes(arch, BF16) / (gpus[GPU].link_gb_per_s * GB))
    expert = pace.expert_seconds(arch, batch * arch.moe.top_k / unique, BF16)
    np.testing.assert_allclose(requests * times.expert_seconds[1:], unique * expert)
    assert times.expert_seconds[0] == 0
    np.testing.assert_array_equal(times.non_expert_seconds, own.non_expert_seconds)


def points_of(grid, resident: pd.Series) -> pd.DataFrame:
    """What `slowdowns` returns, with made times."""
    made = grid[CONFIGURATION].assign(resident_experts=resident, sample=0, slowdown=1.5, hit_rate=0.5, waves=False)
    made = made.assign(slowdown_bound=1.4, times="estimated")
    made = pd.concat([made.assign(strategy=name) for name in STRATEGIES], ignore_index=True)
    return made.assign(trace=NAME, sampled_share=0.0)


def test_memory_of_points_is_the_references(grid, experiment, models, gpus):
    """Slots and Prophet's predictor, and no staging buffer: what the simulator has is what memory counts."""
    scenario = experiment.scenarios["calibrated"]
    rows = joined(grid, points_of(grid, np.ceil(grid["experts"] / 3)), memories_on(models, gpus, scenario), scenario)
    some = rows.sample(60, random_state=1)
    for row in some.itertuples():
        memory = model_memory(models[row.model], scenario)
        plain = evaluate(
            memory,
            row.device_bytes,
            row.batch_size,
            scenario,
            resident=row.resident_experts,
            staging_kept=False,
            predictor_kept=row.strategy == "prophet",
        )
        assert max(0, row.tokens) == plain["prophet_max_context"], row


def test_all_resident_is_the_baseline(grid, experiment, models, gpus):
    scenario = experiment.scenarios["calibrated"]
    points = frontier(joined(grid, points_of(grid, grid["experts"]), memories_on(models, gpus, scenario), scenario))
    context = points.pivot_table(index=CONFIGURATION, columns="strategy", values="max_context")
    baseline = grid.set_index(CONFIGURATION)["baseline_max_context"].reindex(context.index)
    assert context["on_demand"].tolist() == baseline.tolist()
    assert context["perfect_prefetch"].tolist() == baseline.tolist()
    assert (context["prophet"] <= baseline).all(), "its predictor takes memory"
    assert (context["prophet"] < baseline).any()
    assert (points["saved_gb"] == 0).all()


@pytest.mark.parametrize("measured", [None, 700 * MIB])
@pytest.mark.parametrize("profile", ["ideal", "vllm-0.10", "llama.cpp", "sglang"])
def test_frontier_begins_at_the_grid_under_any_engine(profile, measured, gpus):
    """Windows, a latent and states, in the layout of the engine; a measured reserve where no engine has its own."""
    chosen = load_models(ROOT / "config/models", ["DeepSeek-V2-236B", "Jamba-1.5-Large", "OLMoE-1B-7B"])
    chosen |= load_models(ROOT / "config/models/current", ["gpt-oss-20b"])
    scenario = CALIBRATED_SCENARIO.model_copy(update={"routing": Routing(variation=0), "engine": profile})
    engine = EngineChoice(load_engine(ROOT / f"config/engines/{profile}.yaml"))
    reserves = {"H100-80GB": measured} if measured else {}
    grid = capacity_grid(Configured(chosen, gpus, scenario, {}, reserves, engine), (1, 16))
    held = memories_on(chosen, gpus, scenario, engine, reserves_of(grid))
    points = frontier(joined(grid, points_of(grid, grid["experts"]), held, scenario))
    found = points[points["strategy"] == "on_demand"]
    assert found["max_context"].tolist() == found["baseline_max_context"].tolist()
    assert found["max_context"].gt(0).any()


def test_context_of_states_alone_is_read_where_experts_fit(gpus):
    """No token takes memory: below 0 a token stands for a byte, so that every limit has a context to read."""
    arch = MODELS["Qwen3-Next-80B-A3B"].model_copy(update={"pattern": ["48 x L"]})
    scenario = CALIBRATED_SCENARIO.model_copy(update={"routing": Routing(variation=0)})
    configured = Configured({"States": spec_of(arch)}, gpus, scenario)
    grid = capacity_grid(configured, (1, 16))
    with np.errstate(divide="raise", invalid="raise"):
        held = configured.held()
        shares = [joined(grid, points_of(grid, np.ceil(share * grid["experts"])), held, scenario) for share in (1, 0.1)]
    rows = pd.concat([rows.assign(sample=sample) for rows in shares for sample in (0, 1)])
    assert np.isfinite(rows["tokens"]).all()
    assert set(rows.loc[rows["tokens"] >= 0, "tokens"]) == {LARGEST_CONTEXT}
    gained = context_gained(rows.assign(slowdown=np.where(rows["resident_experts"] == 512, 1.0, 2.0)), [1, 3])
    assert gained["max_context_at_3x"].notna().all()


def curve(slowdown: list[list[float]], tokens: list[float], baseline: float) -> pd.DataFrame:
    """Rows of `joined` for one configuration: slowdowns by sample, then by resident experts 16, 12, 8, 4."""
    rows = [
        {"resident_experts": experts, "sample": sample, "slowdown": value, "slowdown_bound": value, "tokens": room}
        for sample, values in enumerate(slowdown)
        for experts, value, room in zip((16, 12, 8, 4), values, tokens, strict=True)
    ]
    named = {"model": "M", "gpu": "G", "batch_size": 1, "strategy": "prophet", "trace": NAME, "sampled_share": 0.0}
    named |= {"times": "estimated"}
    return pd.DataFrame(rows).assign(**named, baseline_max_context=baseline)


def test_gain_is_read_linearly_within_each_limit():
    points = curve([[1, 1.2, 1.6, 3]] * 2, [1000, 1400, 1800, 2200], 1000)
    (row,) = context_gained(points, [1, 1.1, 1.6, 9]).to_dict("records")
    assert [row[f"max_context_at_{limit}x"] for limit in ("1", "1.1", "1.6", "9")] == [1000, 1200, 1800, 2200]
    held = [row[f"resident_experts_at_{limit}x"] for limit in ("1", "1.1", "1.6", "9")]
    assert held == pytest.approx([16, 14, 8, 4])
    assert row["kv_extension_at_1.1x"] == pytest.approx(1.2)
    assert row["kv_extension_at_1.1x_low"] == row["kv_extension_at_1.1x_high"] == pytest.approx(1.2)


def test_gain_without_a_baseline_starts_where_it_fits():
    """Context is read between the first point that fits and the last that does not, not between it and nothing."""
    (row,) = context_gained(curve([[1, 2, 3, 5]] * 2, [-3000, -2000, -1000, 1000], 0), [2, 4, 5]).to_dict("records")
    assert [row[f"max_context_at_{limit}x"] for limit in ("2", "4", "5")] == [0, 0, 1000]
    assert np.isnan(row["kv_extension_at_5x"])


def test_bound_of_a_gain_is_read_from_the_datasheets_slowdowns():
    points = curve([[1, 1.2, 1.6, 3]] * 2, [1000, 1400, 1800, 2200], 1000)
    points["slowdown_bound"] = np.where(points["sample"] == 0, 2 * points["slowdown"] - 1, np.nan)
    (row,) = context_gained(points, [1.2]).to_dict("records")
    assert row["kv_extension_at_1.2x"] == pytest.approx(1.4)
    assert row["kv_extension_at_1.2x_bound"] == pytest.approx(1.2)


def test_interval_of_a_gain_comes_from_the_samples():
    spread = curve([[1, 1.2, 1.6, 3], [1, 1.4, 1.9, 3.5]], [1000, 1400, 1800, 2200], 1000)
    (row,) = context_gained(spread, [1.2]).to_dict("records")
    assert row["kv_extension_at_1.2x_low"] < row["kv_extension_at_1.2x"] < row["kv_extension_at_1.2x_high"]
    (shared,) = context_gained(spread.assign(sampled_share=0.5), [1.2]).to_dict("records")
    assert shared["kv_extension_at_1.2x_high"] > row["kv_extension_at_1.2x_high"], "samples that share sequences"


def reached_by_search(slowdown: list[float], extension: list[float], limit: float) -> float:
    """What `reach` says, by walking finely along every segment between neighbours."""
    slow, long = [1, *slowdown], [1, *extension]
    slow, long = [max(slow[: end + 1]) for end in range(len(slow))], [max(long[: end + 1]) for end in range(len(long))]
    best = 1.0
    for start in range(len(slow) - 1):
        for share in np.linspace(0, 1, 2001):
            if slow[start] + share * (slow[start + 1] - slow[start]) <= limit:
                best = max(best, long[start] + share * (long[start + 1] - long[start]))
    return best


AMOUNTS = st.lists(st.floats(0.9, 6).map(lambda value: round(value, 3)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=40)
@given(AMOUNTS, AMOUNTS, st.floats(1, 8).map(lambda value: round(value, 3)))
def test_reach_is_the_best_of_a_fine_search(slowdown, extension, limit):
    number = min(len(slowdown), len(extension))
    found = reach(np.array([1, *slowdown[:number]]), np.array([1, *extension[:number]]), [limit])
    assert found[0] == pytest.approx(reached_by_search(slowdown[:number], extension[:number], limit), abs=0.01)


def test_reach_between_two_points_is_linear():
    found = reach(np.array([1.0, 2.0]), np.array([1.0, 1.5]), [1, 1.2, 2, 9])
    assert found == pytest.approx([1, 1.1, 1.5, 1.5])

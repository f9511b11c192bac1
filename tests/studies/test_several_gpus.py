"""Table 18: the fewest GPUs against every layout tried one by one; counts against servers of others; the figure."""

from dataclasses import replace

import pandas as pd
import pytest

from prophet_moe.capacity.hit_rates import HitRates
from prophet_moe.capacity.several_gpus import Spread, spread
from prophet_moe.capacity.under_engine import EngineChoice
from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.catalog.engine import load_engines
from prophet_moe.catalog.link import load_links
from prophet_moe.hardware.estimate import Estimator, read_constants
from prophet_moe.hardware.operators import read_operators
from prophet_moe.observed.context import load_context
from prophet_moe.observed.schema import KINDS, read_observations
from prophet_moe.params.sharding import ONE_GPU, Parallelism
from prophet_moe.serving.parallel import layouts, with_communication
from prophet_moe.settings.scenario import CALIBRATED, REPORTED, Scenario
from prophet_moe.settings.style import Style
from studies.several_gpus.compute import ALL, AT_RANDOM, Asked, Machine, several_gpus
from studies.several_gpus.figure import draw, findings, headline, of_first_gpu
from studies.several_gpus.parallel_observed import held_against
from studies.several_gpus.study import SeveralGpusSettings
from tests.conftest import ROOT
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped, visible_texts

SETTINGS = SeveralGpusSettings(gpu_counts=[1, 2, 4, 8, 16, 32], layout_counts=[1, 8, 16])
MODELS = load_models(ROOT / "config/models", ["DeepSeek-V3-671B", "Mixtral-8x22B", "OLMoE-1B-7B", "Switch-XXL-128"])
CURRENT = load_models(ROOT / "config/models/current", ["gpt-oss-120b"])
CONSTANTS = read_constants(ROOT / "resources/operators/constants.json")


def machine(name: str) -> Machine:
    """GPUs of one kind, with their operators."""
    spec = load_gpus(ROOT / "config/gpus.yaml", [name])[name]
    fits = read_operators(ROOT / "resources/operators", name)
    host = load_links(ROOT / "config/links.yaml")["pinned"]
    return Machine(name, spec, Estimator(name, spec, fits, CONSTANTS), host)


MACHINES = [machine(name) for name in SETTINGS.gpus]


@pytest.fixture(scope="module")
def made() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Table 18 and the table of layouts of some models, without a popularity CV."""
    return several_gpus(MODELS, CURRENT, MACHINES, CALIBRATED, SETTINGS, {})


def on_a100(name: str, over: Parallelism, scenario: Scenario) -> Spread:
    """A model over A100 with the buffers of communication."""
    here = with_communication(scenario, over, SETTINGS.communication_gib)
    return spread(MODELS[name], MACHINES[0].name, MACHINES[0].spec, here, over)


def longest(name: str, count: int, batch: int, who: str) -> int:
    """The longest context of any layout on A100."""
    found = (on_a100(name, over, CALIBRATED).load(batch) for over in layouts(MODELS[name].architecture, count))
    return max((load.context(who) for load in found), default=0)


@pytest.mark.parametrize("name", ["DeepSeek-V3-671B", "Mixtral-8x22B"])
@pytest.mark.parametrize("batch", [1, 16])
def test_fewest_gpus_are_those_of_all_layouts(made, name, batch):
    table = made[0].set_index(["model", "gpu", "batch_size"])
    row = table.loc[name, "A100-80GB", batch]
    for who in ("baseline", "prophet"):
        enough = [count for count in SETTINGS.gpu_counts if longest(name, count, batch, who) >= row["context"]]
        assert row[f"{who}_gpus"] == min(enough)
    only = [count for count in SETTINGS.gpu_counts if row["prophet_gpus"] <= count < row["baseline_gpus"]]
    assert row["prophet_only"] == " ".join(map(str, only))
    assert row["gpus_saved"] == row["baseline_gpus"] - row["prophet_gpus"]


def test_every_gain_of_slots_has_its_price(made):
    table, _ = made
    gained = table[table["gpus_saved"] > 0]
    assert len(gained) and (gained["slots"] < gained["local_experts"]).all()
    assert (gained["slowdown_on_demand"] > gained["slowdown_least"]).all() and (gained["host_gb"] > 0).all()
    same = table[table["gpus_saved"] == 0]
    assert len(same) and (same["slowdown_on_demand"] == 1).all() and (same["host_gb"] == 0).all()
    limited = table.dropna(subset=["gpus_within_limit"])
    assert (limited["gpus_within_limit"] >= limited["prophet_gpus"]).all()
    assert (limited["gpus_within_limit"] <= limited["baseline_gpus"]).all()


def test_most_gains_of_slots_cost_tenfold_time(made):
    """The README says so."""
    gained = made[0][made[0]["gpus_saved"] > 0]
    assert gained["slowdown_on_demand"].median() > 10


def test_slots_need_no_more_gpus_than_all_experts(made):
    """Where every expert just fits, the predictor's memory does not; nothing has to be predicted then."""
    all_of_them = CALIBRATED.model_copy(update={"resident": "never_overflows"})
    held = on_a100("OLMoE-1B-7B", ONE_GPU, all_of_them)
    load = held.load(8)
    context = load.context("baseline")
    assert load.context("prophet") < context
    slots = Asked(MACHINES[0], 8, context, SETTINGS).slots(held)
    assert (slots.number, slots.fetching, slots.slowdown) == (64, 0, 1)
    assert (made[0]["gpus_saved"].dropna() >= 0).all()


def test_simulated_hits_take_the_place_of_chance(made):
    """Between simulated points hit rates are linear; below them, and without any, slots hold experts at random."""
    rates = HitRates("OLMoE-1B-7B", "made-up", 64, [(16, 0.5), (32, 0.8), (64, 1.0)])
    asked = Asked(MACHINES[0], 1, 4096, SETTINGS, rates)
    assert asked.hit_rate(0.375) == (pytest.approx(0.65), "made-up")
    assert asked.hit_rate(0.125) == (0.125, AT_RANDOM)
    assert asked.hit_rate(1) == (1.0, ALL)
    assert Asked(MACHINES[0], 1, 4096, SETTINGS).hit_rate(0.375) == (0.375, AT_RANDOM)
    assert set(made[0]["hit_rate_basis"]) == {ALL, AT_RANDOM}


def test_models_borrow_hit_rates_of_equal_experts():
    """DeepSeek-V3.1 has the experts and choices of DeepSeek-V3, whose simulation stands for it."""
    small = SETTINGS.model_copy(update={"gpu_counts": [8], "layout_counts": [8], "batch_sizes": [1]})
    borrowing = load_models(ROOT / "config/models/current", ["DeepSeek-V3.1"])
    lender = {"DeepSeek-V3-671B": MODELS["DeepSeek-V3-671B"]}
    simulated = {1: {"DeepSeek-V3-671B": HitRates("DeepSeek-V3-671B", "made-up", 256, [(16, 0.9), (256, 1.0)])}}
    found, _ = several_gpus(lender, borrowing, MACHINES[:1], CALIBRATED, small, {}, simulated)
    assert found["hit_rate_basis"].tolist() == ["made-up", "made-up"]
    assert found["hit_rate"].between(0.9, 1).all()


def test_costs_are_gpus_over_millions_of_tokens(made):
    table, described = made
    row = table[(table["model"] == "OLMoE-1B-7B") & (table["gpu"] == "A100-80GB") & (table["batch_size"] == 16)].iloc[0]
    held = described[(described["model"] == "OLMoE-1B-7B") & (described["gpus"] == 1)].iloc[0]
    hours = 1e6 / (16 * held["baseline_max_context"])
    assert row["baseline_gpu_hours"] == pytest.approx(hours)
    assert row["baseline_usd"] == pytest.approx(hours * SETTINGS.usd_per_gpu_hour["A100-80GB"])


def test_costs_without_a_price_are_in_gpu_hours_alone():
    free = SETTINGS.model_copy(update={"usd_per_gpu_hour": {}})
    found = Asked(MACHINES[0], 16, 4096, free).costs("baseline", 2, 1000)
    assert found["baseline_gpu_hours"] == pytest.approx(125) and pd.isna(found["baseline_usd"])


def test_links_beyond_a_machine_are_the_network():
    first = MACHINES[0]
    assert first.between(8, SETTINGS) == pytest.approx(0.82 * 300)
    assert first.between(16, SETTINGS) == pytest.approx(0.86 * 50)
    without = SETTINGS.model_copy(update={"nvlink_gb_per_s": {}})
    assert first.between(8, without) == first.links(without)["pcie"]


def test_layouts_name_the_longest_and_what_each_holds(made):
    _, described = made
    assert (described.groupby(["model", "gpus"])["longest"].sum() <= 1).all()
    eight = described[(described["model"] == "DeepSeek-V3-671B") & (described["gpus"] == 8)].set_index("layout")
    assert eight.loc["tp 8", "fit_state"] == "prophet_only"
    assert eight.loc["tp 8", "kv_bytes_per_token_per_gpu"] == eight.loc["dp 8, ep 8", "kv_bytes_per_token_per_gpu"]
    assert eight.loc["dp 8, ep 8", "dispatch_kb_per_token"] == pytest.approx(58 * 8 * 7168 * 2 * 7 / 8 / 1000)
    assert set(eight.loc["tp 8", ["dispatch_kb_per_token", "combine_kb_per_token"]]) == {0}


def test_models_of_today_count_in_their_own_formats(made):
    table, _ = made
    formats = table.drop_duplicates("model").set_index("model")["formats"]
    assert "mxfp4" in formats["gpt-oss-120b"] and "mxfp4" not in formats["OLMoE-1B-7B"]


def test_several_gpus_count_published_under_any_scenario():
    small = SETTINGS.model_copy(update={"gpu_counts": [1], "layout_counts": [1], "batch_sizes": [1]})
    table, _ = several_gpus({"OLMoE-1B-7B": MODELS["OLMoE-1B-7B"]}, {}, MACHINES[:1], REPORTED, small, {})
    assert table["baseline_gpus"].tolist() == [1]


def test_several_gpus_hold_what_the_engine_of_the_scenario_does():
    """vLLM takes no reserve of the scenario: its terms hold communication, and its reservation follows no batch."""
    small = SETTINGS.model_copy(update={"gpu_counts": [1, 2, 4], "layout_counts": [4], "batch_sizes": [16]})
    scenario = CALIBRATED.model_copy(update={"engine": "vllm-0.10"})
    engine = EngineChoice(load_engines(ROOT / "config/engines")["vllm-0.10"])
    asked = {"Mixtral-8x22B": MODELS["Mixtral-8x22B"]}, {}, MACHINES[:1], scenario
    described = [
        several_gpus(*asked, small.model_copy(update=changed), {}, engine=engine)[1]
        for changed in ({}, {"communication_gib": 50.0})
    ]
    pd.testing.assert_frame_equal(*described)
    row = described[0].set_index("layout").loc["tp 4"]
    held = spread(MODELS["Mixtral-8x22B"], "A100-80GB", MACHINES[0].spec, scenario, Parallelism(4), engine)
    ideal = on_a100("Mixtral-8x22B", Parallelism(4), CALIBRATED)
    assert row["baseline_max_context"] == held.load(16).context("baseline") != ideal.load(16).context("baseline")


def test_measured_reserve_takes_memory_of_each_gpu():
    small = SETTINGS.model_copy(update={"gpu_counts": [4], "layout_counts": [4], "batch_sizes": [16]})
    asked = {"Mixtral-8x22B": MODELS["Mixtral-8x22B"]}, {}
    measured = [replace(MACHINES[0], reserve=reserve) for reserve in (2**30, 3 * 2**30)]
    one, three = (several_gpus(*asked, [each], CALIBRATED, small, {})[1]["other_gb_per_gpu"] for each in measured)
    assert (three - one).tolist() == pytest.approx([2 * 2**30 / 1e9] * len(one))


@pytest.fixture(scope="module")
def held() -> pd.DataFrame:
    """Counts and predictions beside the servers of others."""
    rows = read_observations(ROOT / "resources/observations/memory.csv", KINDS["memory"])
    return held_against(rows, load_context(ROOT))


def test_counts_of_one_gpu_are_near_what_servers_print(held):
    """DeepSeek-V3 apart: its engines add absorbed matrices, pad the latent, and split stages by rules of their own."""
    assert (held["gpus"] > 1).all() and held["id"].nunique() >= 10
    own = held["model"].str.contains("DeepSeek-(?:V3|R1)")
    weights = held[(held["quantity"] == "weights") & ~own]
    cache = held[(held["quantity"] == "kv_bytes_per_token") & ~own]
    assert len(weights) >= 5 and weights["counted_error_pct"].abs().max() < 0.3
    assert len(cache) >= 5 and cache["counted_error_pct"].abs().max() < 0.1
    assert held.loc[held["quantity"] == "weights", "predicted_error_pct"].abs().max() < 0.6


def test_findings_name_gain_and_price(made):
    table, _ = made
    assert "slowdown" in headline(table) and "nan" not in findings(table)
    assert set(of_first_gpu(table)["gpu"]) == {"A100-80GB"}
    assert "OLMoE-1B-7B" not in set(of_first_gpu(table)["model"])


@pytest.mark.parametrize("models", [list(MODELS)[:2], ["OLMoE-1B-7B"]])
def test_texts_of_several_gpus_can_be_read(made, models):
    table, described = (each[each["model"].isin(models)] for each in made)
    figure = draw(table, described, models, Style())
    assert_nothing_is_clipped({"several_gpus": figure})
    assert_no_texts_touch({"several_gpus": figure})
    assert min(text.get_fontsize() for text in visible_texts(figure)) >= 6


@pytest.mark.parametrize(
    ("model", "batch", "before", "after"),
    [("Snowflake-Arctic-480B", 1, 262, None), ("Switch-Large-128", 16, 75.6, 7.8), ("DeepSeek-V2-236B", 1, 356, 13)],
)
def test_reports_numbers_per_gpu_are_of_whole_models(model, batch, before, after):
    """The report says "per GPU" of what its constants give for all experts of a model (000:383, 000:394, 000:408)."""
    rows = pd.read_csv(ROOT / "tables/reported/data/prophet_kv_extension_data.csv")
    row = rows[(rows["model"] == model) & (rows["batch_size"] == batch)].iloc[0]
    assert row["baseline_expert_gb"] == pytest.approx(before, rel=0.003)
    assert after is None or row["prophet_expert_gb"] == pytest.approx(after, rel=0.03)

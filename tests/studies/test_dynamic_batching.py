"""Dynamic batching: shares and savings of runs, the claims of report 002, and what was recorded."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from prophet_moe.catalog.engine import load_engine
from prophet_moe.catalog.model import load_model
from prophet_moe.errors import UserError
from prophet_moe.routing.datasets import load_datasets, located
from prophet_moe.serving.arrival_law import FOLDER, fit, read_law
from prophet_moe.serving.arrivals import READERS
from prophet_moe.serving.batching import Limits, serve
from prophet_moe.settings.scenario import CALIBRATED
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from prophet_moe.validation import read_json
from studies.dynamic_batching.compute import (
    AS_SHIPPED,
    STATED,
    Claim,
    Service,
    answered,
    claims,
    classes,
    described,
    distribution,
    judged,
    lasting,
    runs,
    service_of,
)
from studies.dynamic_batching.figure import deployments, draw, findings, headline
from studies.dynamic_batching.selection import model_files
from studies.dynamic_batching.study import (
    CLAIMS,
    DISTRIBUTION,
    DYNAMIC_BATCHING,
    DynamicBatchingSettings,
    ServedModel,
)
from tests.conftest import ROOT
from tests.unit.serving.builders import random_arrivals, small_times

LIMITS = Limits(capacity=200, sequences=8, tokens=24, longest=60)
SETTINGS = DynamicBatchingSettings(instances=[1, 4])
ROWS = read_table(ROOT / FOLDER / "recorded_batching.csv", DYNAMIC_BATCHING)
BATCHES = read_table(ROOT / FOLDER / "recorded_distribution.csv", DISTRIBUTION)


@pytest.fixture(scope="module")
def service():
    """A made-up model whose u(B) is the least of 2 B and its 16 experts."""
    return Service(
        "model",
        "gpu",
        LIMITS,
        small_times(LIMITS),
        (0.8, 1.2),
        5e8,
        16,
        10**9,
        lambda b: np.minimum(16, 2 * np.array(b)),
    )


def test_described_run_is_what_its_requests_say(service):
    served = serve(random_arrivals(5, 60, pace=0.05), service.times, LIMITS)
    row = described(served, service, SETTINGS)
    sizes = np.concatenate([np.repeat(b, round(n)) for b, n in enumerate(served.batches.decoded)])
    assert row["batch_p50"] == np.quantile(sizes, 0.5, method="inverted_cdf")
    assert row["tokens_within_2_pct"] == pytest.approx(100 * (sizes <= 2).mean())
    assert row["savings_pct"] == pytest.approx(100 * np.mean(1 - np.minimum(16, 2 * sizes) / 16))
    assert row["savings_with_prompts_pct"] <= row["savings_pct"]
    assert row["saved_gb"] == pytest.approx(row["savings_with_prompts_pct"] / 100)
    assert 0 < row["kv_mean_pct"] < row["kv_most_pct"] <= 100 and row["first_token_p50"] <= row["first_token_p99"]


def test_trace_of_which_nothing_fits_is_one_line(service):
    long = random_arrivals(5, 10)
    long.prompts[:] = LIMITS.longest
    with pytest.raises(UserError, match="none of its requests decodes on model on gpu"):
        runs([service], {"azure-code": long}, "fitted", SETTINGS)


def test_pool_is_extended_by_what_rare_batches_leave_out(service):
    alone = serve(random_arrivals(5, 60, pace=5.0), service.times, LIMITS, 4)
    row = described(alone, service, SETTINGS)
    assert row["batch_p99"] == 1 and row["pool_extension"] == pytest.approx(1 + 14 / 16 * 2)


def test_claims_tell_both_ends_of_the_times_of_steps(service):
    arrivals = {"azure-code": random_arrivals(5, 200, pace=0.05)}
    rows, _, found = answered([service], arrivals, "fitted", SETTINGS)
    assert list(found.columns) == [column.name for column in CLAIMS.columns] and set(found["trace"]) == {"azure-code"}
    slow = runs([service.at(1.2)], arrivals, "fitted", SETTINGS, ["least_loaded"])[0]
    assert set(slow["dispatch"]) == {"least_loaded"}
    assert (slow["token_p50"].to_numpy() >= rows.loc[rows["dispatch"] == "least_loaded", "token_p50"].to_numpy()).all()


def test_distribution_adds_up_to_all_time_and_tokens(service):
    served = serve(random_arrivals(5, 60, pace=0.05), service.times, LIMITS)
    found = pd.DataFrame(distribution(served, service))
    assert found["time_pct"].sum() == pytest.approx(100) and found["tokens_pct"].sum() == pytest.approx(100)
    assert found.loc[found["batch_from"] == 0, "tokens_pct"].item() == 0
    assert found["savings_pct"].dropna().is_monotonic_decreasing


def test_classes_double_and_leave_no_gap():
    assert classes(10) == [(0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 10)]


def test_runs_on_more_instances_have_smaller_batches(service):
    rows, found = runs([service], {"azure-code": random_arrivals(5, 60, pace=0.05)}, "fitted", SETTINGS)
    assert list(rows.columns) == [column.name for column in DYNAMIC_BATCHING.columns]
    assert list(found.columns) == [column.name for column in DISTRIBUTION.columns]
    for _, group in rows.groupby("dispatch"):
        assert group["batch_mean"].is_monotonic_decreasing and group["savings_pct"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("keeps_up", "shares", "verdict", "enough", "needed"),
    [
        ([True, True, True], [96, 97, 98], "holds", 1, 1),
        ([False, True, True], [99, 20, 96], "holds on more GPUs", 2, 4),
        ([True, True, True], [1, 2, 3], "does not hold", 1, None),
        ([False, False, False], [99, 99, 99], "does not hold", None, None),
    ],
)
def test_claim_is_judged_where_instances_keep_up(keeps_up, shares, verdict, enough, needed):
    columns = {"instances": [1, 2, 4], "keeps_up": keeps_up, "requests_within_2_pct": shares}
    rows = pd.DataFrame(columns | {"busy_pct": [90, 50, 30], "kv_mean_pct": [80, 20, 5]})
    found = judged(Claim("", "", 2, 95, ()), rows)
    assert (found["verdict"], found["instances_enough"], found["instances_needed"]) == (verdict, enough, needed)


def test_claims_are_those_of_the_report_for_every_model():
    found = claims(ROWS, ROWS, ROWS)
    assert (found["verdict"] == found["verdict_fast"]).all() and (found["verdict"] == found["verdict_slow"]).all()
    models = ROWS["model"].nunique()
    assert len(found) == models * sum(len(claim.traces) for claim in STATED)
    assert {(row.report, row.claimed_pct) for row in found.itertuples()} == {
        ("002:111", 95),
        ("002:112", 98),
        ("002:113", 80),
    }
    needed, enough = found["instances_needed"].dropna(), found["instances_enough"]
    assert (needed >= enough[needed.index]).all()


def test_recorded_results_rest_on_times_of_today(popularity_cvs):
    """Where this fails, limits or times have changed: PROPHET_DATA=<folder> snakemake --cores 1 record_arrivals."""
    recorded, settings = read_json(ROOT / FOLDER / "recorded.json"), DynamicBatchingSettings()
    given = {"dynamic_batching": settings, "scenario": CALIBRATED}
    assert recorded["parameters"] == lasting({name: each.model_dump(mode="json") for name, each in given.items()})
    config, operators = ROOT / "config", ROOT / "resources/operators"
    files = SimpleNamespace(
        gpus=config / "gpus.yaml",
        names=config / "model_names.yaml",
        operators=sorted(operators.glob("*.json")),
    )
    engine = load_engine(config / f"engines/{settings.engine}.yaml")
    for each in settings.served:
        spec = load_model(next((config / "models").rglob(f"{each.model}.yaml")))
        shipped = CALIBRATED.model_copy(update=AS_SHIPPED)
        told = service_of(spec, each.gpu, engine, shipped, popularity_cvs, settings.compute_share, files).told
        kept = recorded["rests_on"][each.model]
        assert kept["limits"] == told["limits"] and kept["gpu"] == told["gpu"]
        assert kept["step_ms"] == pytest.approx(told["step_ms"], rel=1e-3)
        assert kept["savings_pct"] == pytest.approx(told["savings_pct"], abs=0.05)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("Qwen3-30B-A3", "did you mean 'Qwen3-30B-A3B'"),
        ("Switch-Base-128", "is an encoder-decoder, expected a decoder"),
    ],
)
def test_model_that_cannot_be_served_is_one_line(model, message):
    with pytest.raises(UserError, match=message):
        model_files([ServedModel(model=model, gpu="A100-80GB")], ROOT / "config/models", "config/experiment.yaml")


@pytest.mark.parametrize("changed", [{"instances": [2, 1]}, {"instances": [1, 4096]}, {"served": []}])
def test_settings_that_are_impossible_are_refused(changed):
    with pytest.raises(ValidationError):
        DynamicBatchingSettings(**changed)


def test_recorded_runs_keep_within_their_limits():
    assert (ROWS["kv_most_pct"] <= 100).all() and (ROWS["savings_with_prompts_pct"] <= ROWS["savings_pct"]).all()
    assert set(ROWS["trace"]) == set(READERS) and set(ROWS["arrivals"]) == {"recorded"}
    sums = BATCHES.groupby(["trace", "model", "instances"])[["time_pct", "tokens_pct"]].sum()
    assert sums.to_numpy() == pytest.approx(100, rel=1e-4)


@pytest.mark.skipif("PROPHET_DATA" not in os.environ, reason="PROPHET_DATA names no folder with recorded arrivals")
@pytest.mark.parametrize("name", READERS)
def test_law_is_that_of_the_recorded_arrivals(name):
    data, number, read = READERS[name]
    listed = load_datasets(ROOT / "config/datasets.yaml").datasets[data]
    paths = located(data, listed, [Path(each) for each in os.environ["PROPHET_DATA"].split(":")])
    if paths is None:
        pytest.skip("these arrivals are not here")
    law = read_law(ROOT / FOLDER / f"{name}.json")
    source = {key: getattr(law, key) for key in ("dataset", "sha256", "licence", "citation")}
    assert law.sha256 == listed.files[number].sha256
    again = fit(read(paths[number], name), **source)
    assert (again.requests, again.prefixes, again.prompt.quantiles) == (
        law.requests,
        law.prefixes,
        law.prompt.quantiles,
    )
    for one, other in (
        (again, law),
        (again.prompt, law.prompt),
        (again.output, law.output),
        (again.gaps[0], law.gaps[0]),
    ):
        numbers = {key: value for key, value in other.model_dump().items() if isinstance(value, float)}
        assert {key: getattr(one, key) for key in numbers} == pytest.approx(numbers, rel=1e-3)


def test_figure_draws_half_enough_and_eight_times_the_instances():
    one = ROWS[(ROWS["dispatch"] == "least_loaded") & (ROWS["model"] == ROWS["model"].iloc[0])]
    one = one[one["trace"] == "azure-conversation"]
    found = [run["instances"] for run in deployments(one)]
    enough = one.loc[one["keeps_up"], "instances"].min()
    assert found == [enough / 2, enough, 8 * enough]
    none = list(deployments(one.assign(keeps_up=False)))
    assert [run["instances"] for run in none] == [one["instances"].max()]


def test_figure_and_findings_tell_the_use_of_the_pool():
    assert "KV pool is in use" in headline(ROWS) and findings(BATCHES, ROWS).count("\n* ") == 9
    assert headline(ROWS.assign(savings_with_prompts_pct=50.0)).startswith("Nowhere")
    figure = draw(BATCHES, ROWS, Style())
    panels = [ax for part in figure.subfigs for ax in part.axes]
    assert len(panels) == 4 and panels[-1].get_xscale() == "log"

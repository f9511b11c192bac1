"""Table 22: outcomes held against the plain reference, shares against a function whose indices are known."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from prophet_moe.capacity.memory import model_memory
from prophet_moe.capacity.reference import evaluate
from prophet_moe.catalog.link import load_links
from prophet_moe.hardware.estimate import Estimator, estimate_step, read_estimators
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.settings.scenario import CALIBRATED
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from prophet_moe.units import GB
from studies.sensitivity import compute
from studies.sensitivity.compute import ALL, GAINED, SLOWDOWN, Study, model_of, one_at_a_time, outcomes, sensitivity
from studies.sensitivity.figure import draw, draw_maps, findings, headline, maps, matter, order, ranges, shares
from studies.sensitivity.inputs import Input, at_reference, changed
from studies.sensitivity.study import SENSITIVITY, SensitivitySettings
from tests.conftest import ROOT
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped, visible_texts

SETTINGS = SensitivitySettings(models=["OLMoE-1B-7B", "Qwen1.5-MoE-A2.7B", "Switch-Base-128"], base_samples=256)
OPERATORS = ROOT / "resources/operators"


@pytest.fixture(scope="module")
def study(gpus, experiment) -> Study:
    """The default study, with few samples."""
    link = load_links(ROOT / "config/links.yaml")["pinned"]
    reference = experiment.reference
    around = (reference.gpu, reference.batch_size, CALIBRATED, link, DecodeStep(), SETTINGS)
    return Study(gpus, experiment.batch_sizes, *around)


@pytest.fixture(scope="module")
def estimators(gpus) -> dict[str, Estimator]:
    """What times are estimated with."""
    return read_estimators(OPERATORS, gpus)


@pytest.fixture(scope="module")
def varied(study, models, estimators, popularity_cvs):
    """The models that are varied."""
    return [model_of(models[name], study, estimators, popularity_cvs[name]) for name in SETTINGS.models]


@pytest.fixture(scope="module")
def table(varied, study) -> pd.DataFrame:
    """Return table 22 of the varied configurations, with shares of variance."""
    return sensitivity(varied, study)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"batch_size": 0, "gpu": 0, "kv_format": 1},
        {"weight_format": 2, "reserve_mib": 3072, "usable_memory": 0.9, "prefill_chunk": 2, "activations": 1.25},
    ],
)
def test_outcomes_are_those_of_the_plain_reference(study, varied, models, popularity_cvs, estimators, place, change):
    model = varied[place]
    found = outcomes(model, changed(study.inputs(), [change]), study)
    values = {name: each[0] for name, each in changed(study.inputs(), [change]).items()}
    batch = study.batch_sizes[int(values["batch_size"])]
    gpu = list(study.gpus)[int(values["gpu"])]
    formats = {
        "precision": SETTINGS.weight_formats[int(values["weight_format"])],
        "kv_format": SETTINGS.kv_formats[int(values["kv_format"])],
        "runtime_reserve_mib": values["reserve_mib"],
    }
    chunk = SETTINGS.prefill_chunk_tokens[int(values["prefill_chunk"])]
    activation = CALIBRATED.activation.model_copy(update={"prefill_chunk_tokens": chunk})
    scenario = CALIBRATED.model_copy(update=formats | {"activation": activation})
    spec = models[model.name]
    memory = replace(model_memory(spec, scenario), popularity_cv=popularity_cvs[model.name].value)
    memory = replace(
        memory,
        activation_bytes_per_token=memory.activation_bytes_per_token * values["activations"],
        activation_bytes_per_sequence=memory.activation_bytes_per_sequence * values["activations"],
    )
    device = math.floor(study.gpus[gpu].memory_bytes("visible") * values["usable_memory"])
    plain = evaluate(memory, device, batch, scenario)
    gained = max(0.0, 1 - plain["baseline_max_context"] / plain["prophet_max_context"])
    assert found[GAINED][0] == pytest.approx(gained, abs=1e-12)

    arch = spec.architecture
    precision = scenario.precision_of(spec.precision)
    used = min(plain["unique_experts"], memory.top_k * batch)
    context = min(4096, arch.native_context)
    step = estimate_step(estimators[gpu], arch, batch, context, used, precision).seconds
    link = study.link.copy_us * 1e-6 + memory.expert_bytes / (study.link.share * study.gpus[gpu].link_gb_per_s * GB)
    missing = (1 - values["hit_rate"]) * used if plain["resident_experts"] < memory.experts else 0
    layers = memory.moe_layers - memory.encoder_moe_layers
    assert found[SLOWDOWN][0] - 1 == pytest.approx(layers * missing * link / step, rel=0.05)


def test_build_estimates_times_as_every_study_does(tmp_path, table, experiment, popularity_cvs):
    """Of the operators of a chip, that is: an A100-40GB takes those that were fitted to an A100-80GB."""
    pd.DataFrame(popularity_cvs.values()).to_csv(tmp_path / "variations.csv", index=False)
    files = SimpleNamespace(
        models=[ROOT / f"config/models/{name}.yaml" for name in SETTINGS.models],
        gpus=ROOT / "config/gpus.yaml",
        links=ROOT / "config/links.yaml",
        variations=[tmp_path / "variations.csv"],
        operators=[OPERATORS / "constants.json"],
        table=tmp_path / "table.csv",
    )
    parameters = {"sensitivity": SETTINGS, "scenario": CALIBRATED, "decode_step": DecodeStep()}
    parameters = {key: each.model_dump(mode="json") for key, each in parameters.items()}
    parameters |= {"reference": experiment.reference.model_dump(), "batch_sizes": experiment.batch_sizes}
    compute.build(files, parameters | {"gpus": experiment.gpus})
    written = read_table(files.table, SENSITIVITY)
    assert written["value"].to_numpy() == pytest.approx(table["value"].to_numpy(), rel=1e-5, abs=1e-12)
    rows = written[(written["input"] == "gpu") & (written["model"] == ALL) & (written["outcome"] == SLOWDOWN)]
    assert {"A100-40GB", "H100-80GB"} <= set(rows["level"])


def test_hit_rate_and_link_change_no_byte(table):
    rows = table[(table["outcome"] == GAINED) & table["input"].isin(["hit_rate", "link_share"])]
    one = rows[rows["analysis"] == "one_at_a_time"]
    assert all((values == values.iloc[0]).all() for _, values in one.groupby("model")["value"])
    assert (rows.loc[rows["analysis"].isin(["first_order", "total_order"]), "value"] == 0).all()
    late = table[(table["outcome"] == SLOWDOWN) & (table["input"] == "hit_rate") & (table["model"] == "all")]
    steps = late[late["analysis"] == "one_at_a_time"].set_index("level")["value"]
    assert steps["0.9"] > steps["0.95"] > steps["0.994"] > 1


def test_memory_inputs_change_no_time(table):
    inputs = ["usable_memory", "reserve_mib", "activations", "prefill_chunk"]
    rows = table[(table["outcome"] == SLOWDOWN) & table["input"].isin(inputs)]
    assert (rows.loc[rows["analysis"] == "total_order", "value"] == 0).all()


def test_reports_values_are_among_the_levels(table):
    rows = table[table["analysis"] == "one_at_a_time"]
    levels = rows.groupby("input")["level"].agg(set)
    assert {"0.994", "0.95", "0.9"} <= levels["hit_rate"] and {"0.932", "0.9", "0.85"} <= levels["law"]
    assert levels["report_activations"] == {"0.15", "0.2", "0.25"} and {"0.75", "1.25"} == levels["activations"]


def test_shares_agree_with_a_function_whose_indices_are_known(study, varied, monkeypatch):
    """Of a sum of independent inputs, each has the share of its own variance, by itself and in all."""
    weights = {"usable_memory": 1.0, "law_interval": 3.0}

    def made(_, values, __):
        scaled = 10 * (values["usable_memory"] - 0.9), (values["law_interval"] + 1) / 2
        total = weights["usable_memory"] * scaled[0] + weights["law_interval"] * scaled[1]
        return {GAINED: total, SLOWDOWN: np.exp(total)}

    monkeypatch.setattr(compute, "outcomes", made)
    more = replace(study, settings=SETTINGS.model_copy(update={"base_samples": 4096}))
    rows = pd.DataFrame(compute.shares_of_variance(varied[:1], more))
    found = rows[rows["model"] == "all"].set_index(["analysis", "outcome", "input"])["value"]
    for analysis in ("first_order", "total_order"):
        for outcome in (GAINED, SLOWDOWN):
            assert found[analysis, outcome, "usable_memory"] == pytest.approx(0.1, abs=0.01)
            assert found[analysis, outcome, "law_interval"] == pytest.approx(0.9, abs=0.02)
            assert found[analysis, outcome, "gpu"] == pytest.approx(0, abs=1e-9)


def test_default_samples_are_a_million_configurations(study):
    default = SensitivitySettings()
    assert default.base_samples * (len(study.inputs()) + 2) * len(default.models) >= 10**6


def test_samples_that_are_no_power_of_two_are_refused():
    with pytest.raises(ValidationError, match="got 1000, expected a power of two"):
        SensitivitySettings(base_samples=1000)


def test_inputs_cover_levels_and_ranges():
    levels, between = Input("a", ("x", "y", "z"), 1), Input("b", (2.0, 4.0), 3.0, between=True)
    assert list(levels.values(np.array([0, 0.3, 0.5, 0.99, 1.0]))) == [0, 0, 1, 2, 2]
    assert list(between.values(np.array([0, 0.5, 1.0]))) == [2, 3, 4]
    assert [levels.told(step) for step in levels.steps()] == ["x", "y", "z"] and between.steps() == [2, 4]
    assert at_reference([levels, between], 2)["b"].tolist() == [3, 3]


def test_one_at_a_time_begins_with_the_reference(study, varied):
    first = next(one_at_a_time(varied, study))
    assert first["input"] == "none" and list(first) == [column.name for column in SENSITIVITY.columns]


def test_figures_say_what_matters(table):
    told = headline(table)
    assert "the hit rate changes no byte" in told and "hit rate" in told.splitlines()[1]
    assert set(matter(table, GAINED)) <= set(order(table)) == set(shares(table, GAINED).index)
    assert (ranges(table, SLOWDOWN)["min"] >= 1).all()
    assert "nan" not in findings(table) and "the same at each" in findings(table)
    assert [cells.shape for cells in maps(table).values()] == [(6, 6), (4, 6), (3, 4)]


def test_texts_of_sensitivity_can_be_read(table):
    figures = {"sensitivity": draw(table, Style()), "sensitivity_maps": draw_maps(table, Style())}
    assert_nothing_is_clipped(figures)
    assert_no_texts_touch(figures)
    assert all(min(text.get_fontsize() for text in visible_texts(figure)) >= 6 for figure in figures.values())

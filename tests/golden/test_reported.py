"""Scenario `reported` gives the numbers that the report prints, at the printed precision."""

from pathlib import Path

import pytest
import yaml

from prophet_moe.settings.scenario import REPORTED
from studies.kv_extension import compute as tables

GOLDEN = yaml.safe_load((Path(__file__).parent / "reported.yaml").read_text())


def found(entry: dict, record, models) -> float:
    """The value behind one golden entry."""
    if "cell" in entry:
        keys = (entry["model"], entry["gpu"], entry["batch"])
        return record.set_index(["model", "gpu", "batch_size"]).loc[keys, entry["cell"]] / entry.get("scale", 1)
    if "table" in entry:
        arguments = {"zero_fill": True} if entry["table"] == "average_extension" else {}
        table = getattr(tables, entry["table"])(record, **arguments)
        return table.set_index("model" if isinstance(entry["row"], str) else "num_experts").loc[
            entry["row"], entry["column"]
        ]
    if "mean" in entry:
        return record[entry["mean"]].mean()
    if "weights" in entry:
        row = record[(record["model"] == entry["model"]) & (record["batch_size"] == entry["batch"])].iloc[0]
        return models[entry["model"]].reported.non_expert_gb.value + row[entry["weights"]]
    if "raw_unique" in entry:
        top_k, batch = entry["raw_unique"]
        return top_k * batch**REPORTED.routing.exponent
    experts, top_k, batch = entry["savings"]
    same = (record["num_experts"] == experts) & (record["top_k"] == top_k) & (record["batch_size"] == batch)
    return record.loc[same, "expert_savings_pct"].iloc[0]


@pytest.mark.parametrize("entry", GOLDEN, ids=lambda entry: f"{entry['source']} {entry['claim']}")
def test_printed_number(entry, records, models):
    digits_after_point = len(entry["printed"].partition(".")[2])
    half_a_unit = 0.5 * 10**-digits_after_point
    assert found(entry, records["reported"], models) == pytest.approx(float(entry["printed"]), abs=half_a_unit * 1.0001)


@pytest.mark.parametrize("name", ["expert_total_gb", "activation_gb_per_sequence"])
def test_recorded_constants_agree_with_the_formulas(name, models):
    """The recorded totals are what the scenario's formulas give: nothing is kept twice with two values."""
    for spec in models.values():
        told = spec.reported
        if name == "expert_total_gb" and told.expert_mb.value:
            computed = told.expert_mb.value * told.experts.value * told.layers.value / 1024
        elif name == "activation_gb_per_sequence" and told.total_params_b.value:
            computed = REPORTED.activation.gb_per_billion_parameters * told.total_params_b.value
        else:
            assert getattr(told, name).value is None
            continue
        assert getattr(told, name).value == pytest.approx(computed, rel=2e-4), spec.name


def test_what_is_forced_is_marked(grids, models):
    evidence = grids["reported"].groupby("model")["evidence"].first()
    assert (evidence == "forced").sum() == 11
    assert set(evidence) == {"forced", "fitted"}
    assert all((evidence[name] == "forced") == spec.reported.forced_not_fitting for name, spec in models.items())

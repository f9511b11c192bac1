"""Plans of every model and GPU as a table: they are what the command `plan` prints."""

import json

import pytest

from prophet_moe.cli.plan import Basis
from prophet_moe.tables import write_table
from studies.planner.plans import plan_table, planned
from studies.planner.study import PLANS
from studies.prefill.study import PrefillSettings
from tests.conftest import ROOT

MODELS, GPUS, BATCHES = ["OLMoE-1B-7B", "Mixtral-8x7B"], ["V100-32GB", "A100-80GB"], [1, 16]


@pytest.fixture(scope="module")
def table(experiment):
    """The plans of two models on two GPUs at two batch sizes, under the default scenario."""
    scenario, link = experiment.scenarios[experiment.scenario], experiment.decode_step.link
    basis = Basis(experiment.scenario, scenario, link, PrefillSettings().compute_share, experiment.counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return plan_table(planned(basis, MODELS, GPUS, BATCHES))


def test_every_model_gpu_and_batch_has_its_contexts(table):
    groups = table.groupby(["model", "gpu", "batch_size"]).size()
    assert len(groups) == len(MODELS) * len(GPUS) * len(BATCHES)
    assert groups["OLMoE-1B-7B"].tolist() == [1] * 4
    assert groups["Mixtral-8x7B"].tolist() == [3] * 4


def test_rows_are_what_the_command_prints(table, command):
    code, out, _ = command("plan", "--model", "OLMoE-1B-7B", "--gpu", *GPUS, "--batch", 16, "--json")
    assert code == 0
    rows = table[(table["model"] == "OLMoE-1B-7B") & (table["batch_size"] == 16)].to_dict("records")
    printed = [(plan, context) for plan in json.loads(out) for context in plan["contexts"]]
    assert len(rows) == len(printed)
    for row, (plan, context) in zip(rows, printed, strict=True):
        assert row["gpu"] == plan["gpu"]
        assert row["advice"] == plan["recommendation"]["sentence"]
        assert row["context"] == context["context"]
        assert row["slots"] == max(0, context["slots"])
        assert row["hit_rate"] == context["hit_rate"]["middle"]
        assert row["slowdown_high"] == context["slowdown"]["high"]
        assert row["prefill_s"] == context["prefill_seconds"]
        assert row["works"] == context["works"]


def test_plans_are_written_as_declared(table, tmp_path):
    write_table(tmp_path / "plans.csv", table, PLANS)
    assert (tmp_path / "plans.csv").read_text().count("\n") == len(table) + 1

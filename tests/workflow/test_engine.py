"""A scenario under a serving engine builds like any other: every study sizes memory by its terms."""

import json

import pandas as pd
import pytest

from tests.workflow.conftest import copy_project

UNDER_VLLM = ("--configfile", "config/overlays/small.yaml", "config/overlays/vllm.yaml")
RUN = "results/runs/vllm"
SIZED = {
    "sweep": "results/calibrated/grid.parquet",
    "resident_rules": "tables/data/resident_rules.csv",
    "headline_sensitivity": "tables/data/headline_sensitivity.csv",
    "current_models": "tables/table13_current_models.csv",
}
"""Jobs that size memory and need no trace, each with an output."""


@pytest.fixture(scope="module")
def under_vllm(tmp_path_factory):
    """A copy of the small grid under vLLM, in which the jobs of SIZED ran."""
    project = copy_project(tmp_path_factory.mktemp("engine") / "project")
    project.build(*SIZED.values(), *UNDER_VLLM)
    return project


def test_workflow_under_an_engine_has_all_jobs(under_vllm):
    rules = {job.split(" ")[0] for job in under_vllm.jobs(*UNDER_VLLM)}
    assert {"frontier", "record", "kv_extension", "decode_steps", "prefill", "numbers"} <= rules


@pytest.mark.parametrize("rule", SIZED)
def test_job_that_sizes_memory_reads_the_engine(rule, under_vllm):
    sidecar = json.loads((under_vllm.root / RUN / f"{SIZED[rule]}.prov.json").read_text())
    assert "config/engines/vllm-0.10.yaml" in sidecar["inputs"]


def test_headline_under_an_engine_is_that_of_its_grid(under_vllm):
    grid = pd.read_parquet(under_vllm.root / RUN / SIZED["sweep"]).query("case == 'estimate'")
    rules = pd.read_csv(under_vllm.root / RUN / SIZED["resident_rules"]).set_index("resident")
    assert rules.loc["quantile 0.99", "fitting_rows"] == grid["baseline_fits"].sum()
    assert len(set(grid["runtime_reserve_bytes"])) > 1, "the reserve of an engine follows the model and the GPU"

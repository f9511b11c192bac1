"""Names in settings of studies that no list of the grid has, and the overlays of the report's serving scenarios."""

import pytest

from tests.workflow.test_mistakes import only_error

UNKNOWN = {
    "several_gpus: {current_models: [GLM-4.55]}": "several_gpus.current_models[0]: unknown name 'GLM-4.55'",
    "several_gpus: {usd_per_gpu_hour: {A100: 3}}": "several_gpus.usd_per_gpu_hour[0]: unknown name 'A100'",
    "several_gpus: {gpu_counts: [65]}": "several_gpus.gpu_counts[0]: got 65, expected less than or equal to 64",
    "use_cases: {cases: {A chatbot: {model: Qwen2, gpu: V100-32GB, batch_sizes: [1, 4], printed_batch: 1, "
    "printed_baseline: 1, printed_prophet: 4, printed_extension: 4}}}": "use_cases.cases[0]: unknown name 'Qwen2'",
}


@pytest.mark.parametrize("setting", UNKNOWN)
def test_an_unknown_name_of_a_study_ends_before_any_job(project, setting):
    (project.root / "mine.yaml").write_text(f"studies:\n  {setting}\n")
    done = project.snakemake("--cores", "1", "--configfile", "mine.yaml")
    assert done.returncode != 0
    assert f"mine.yaml: studies.{UNKNOWN[setting]}" in only_error(done.stdout)
    assert project.outputs() == {}


@pytest.mark.parametrize("overlay", ["chatbot", "batch_inference", "high_throughput"])
def test_overlays_of_serving_scenarios_plan_their_table(project, overlay):
    jobs = project.jobs("--configfile", f"config/overlays/{overlay}.yaml")
    assert {"use_cases", "frontier", "several_gpus"} <= jobs

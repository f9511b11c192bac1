"""Users' mistakes: one clear line, exit code above zero, nothing half-written; and a build that was interrupted."""

import json
import os
import signal
import subprocess
from functools import partial

import pytest

from tests.waiting import wait_until
from tests.workflow.conftest import SMALL, Project


def only_error(output: str) -> str:
    """The one line in which a command tells what is wrong."""
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(set(lines)) == 1, output
    return lines[0]


def edit(project: Project, name: str, old: str, new: str) -> None:
    """Change a file of the project."""
    path = project.root / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def remove(project: Project, name: str) -> None:
    """Delete a file of the project."""
    (project.root / name).unlink()


MISTAKES = {
    "unknown key": (
        lambda p: edit(p, "config/experiment.yaml", "batch_sizes:", "batch_size:"),
        "config/experiment.yaml: batch_size: unknown key; did you mean 'batch_sizes'",
    ),
    "wrong type": (
        lambda p: edit(p, "config/experiment.yaml", "workspace_mib: 32", "workspace_mib: small"),
        "config/experiment.yaml: scenarios.calibrated.workspace_mib: got 'small', expected a valid number",
    ),
    "negative batch": (
        lambda p: edit(p, "config/experiment.yaml", "[1, 4, 8, 16, 32, 64]", "[1, -4, 16]"),
        "config/experiment.yaml: batch_sizes[1]: got -4, expected greater than 0",
    ),
    "unknown model": (
        lambda p: edit(p, "config/experiment.yaml", "      - Mixtral-8x7B", "      - Mixtral-8x7b"),
        "config/experiment.yaml: studies.kv_extension.figure1_models[0]: unknown name 'Mixtral-8x7b'; did you mean",
    ),
    "unknown GPU": (
        lambda p: edit(p, "config/experiment.yaml", "[V100-32GB,", "[V100-64GB,"),
        "config/experiment.yaml: gpus[0]: unknown name 'V100-64GB'; did you mean 'V100-32GB'",
    ),
    "top_k above experts": (
        lambda p: edit(p, "config/models/DBRX-132B.yaml", "top_k: 4", "top_k: 40"),
        "config/models/DBRX-132B.yaml: architecture.ffns.moe.top_k: got 40, expected at most experts, 16",
    ),
    "a letter of no block": (
        lambda p: edit(p, "config/models/DBRX-132B.yaml", "[40 x M]", "[40 x N]"),
        "config/models/DBRX-132B.yaml: architecture.pattern: got the letter 'N', expected letters of blocks: M",
    ),
    "a dense model": (
        lambda p: edit(p, "config/models/DBRX-132B.yaml", "moe, experts: 16, top_k: 4,", "dense,"),
        "config/models/DBRX-132B.yaml: is dense, expected a model with experts",
    ),
    "a model file of earlier versions": (
        lambda p: edit(p, "config/models/DBRX-132B.yaml", "pattern: [40 x M]", "family: decoder"),
        "config/models/DBRX-132B.yaml: architecture: is in the form of earlier versions",
    ),
    "malformed YAML": (
        lambda p: edit(p, "config/models/DBRX-132B.yaml", "pattern: [40 x M]", "pattern: [40 x M"),
        "config/models/DBRX-132B.yaml: line",
    ),
    "malformed settings": (
        lambda p: edit(p, "config/style.yaml", "style:", "style: {"),
        "config/style.yaml: line",
    ),
    "missing file": (lambda p: remove(p, "config/gpus.yaml"), "config/gpus.yaml: no such file"),
    "a model that no GPU holds": (
        lambda p: edit(p, "config/experiment.yaml", "too_large: [Jamba-1.5-Large]", "too_large: []"),
        "config/models/Jamba-1.5-Large.yaml: non-expert weights take 101.3 GB, expected at most the 85.1 GB",
    ),
    "negative memory": (
        lambda p: edit(p, "config/gpus.yaml", "memory_visible_gib: 31.74", "memory_visible_gib: -1"),
        "config/gpus.yaml: V100-32GB.memory_visible_gib: got -1, expected greater than or equal to 1",
    ),
    "zero bandwidth": (
        lambda p: edit(p, "config/gpus.yaml", "link_gb_per_s: 31.5", "link_gb_per_s: 0"),
        "config/gpus.yaml: A100-40GB.link_gb_per_s: got 0, expected greater than or equal to 1",
    ),
    "an unknown policy of prefetching": (
        lambda p: edit(p, "config/measurements/prefetch.yaml", "on_demand, frequency", "on_demnd, frequency"),
        "config/measurements/prefetch.yaml: prefetch plan: policies: got 'on_demnd', expected some of all_resident",
    ),
    "an engine without a profile": (
        lambda p: edit(p, "config/experiment.yaml", "engine: ideal", "engine: vlm"),
        "config/experiment.yaml: scenarios.calibrated.engine: unknown",
    ),
    "a study without rules": (
        lambda p: remove(p, "workflow/studies/prefill/study.smk"),
        "workflow/studies/prefill/study.smk: no such file. A study has study.py, study.smk, README.md, __init__.py",
    ),
    "a study without a caption": (
        lambda p: edit(p, "workflow/studies/prefill/README.md", "### tables/data/prefill.csv", "### prefill"),
        "workflow/studies/prefill/README.md: has no caption of tables/data/prefill.csv",
    ),
    "a caption with an unknown placeholder": (
        lambda p: edit(p, "workflow/studies/prefill/README.md", "prefill.compute_share", "prefill.share"),
        "workflow/studies/prefill/README.md: caption of tables/data/prefill.csv: 'dict object' has no attribute",
    ),
    "a figure without a notebook": (
        lambda p: remove(p, "notebooks/prediction.ipynb"),
        "notebooks/prediction.ipynb: no such file. Add it: it draws a figure of study prediction",
    ),
    "a notebook that is none": (
        lambda p: (p.root / "notebooks/prediction.ipynb").write_text("x"),
        "notebooks/prediction.ipynb: line 1: malformed JSON",
    ),
    "a study without its computation": (
        lambda p: remove(p, "workflow/studies/prefill/compute.py"),
        "workflow/studies/prefill/compute.py: no such file",
    ),
    "a figure of which no one says what it shows": (
        lambda p: edit(p, "workflow/studies/prediction/study.smk", 'DRAWN["prediction"] = ', "_ = "),
        "workflow/studies/prediction/study.smk: does not say what figure prediction shows",
    ),
    "a plan of prefetching with a misspelt key": (
        lambda p: edit(p, "config/measurements/prefetch.yaml", "lookahead: 3", "look_ahead: 3"),
        "config/measurements/prefetch.yaml: look_ahead: unknown key; did you mean 'lookahead'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_file_ends_before_any_job(project, mistake):
    make, problem = MISTAKES[mistake]
    make(project)
    done = project.snakemake("--cores", "1")
    assert done.returncode != 0
    assert problem in only_error(done.stdout)
    assert project.outputs() == {}


def test_an_overlays_wrong_value_names_the_overlay(project):
    (project.root / "mine.yaml").write_text("batch_sizes: [one]")
    done = project.snakemake("--cores", "1", "--configfile", "mine.yaml")
    assert done.returncode != 0
    assert "error: mine.yaml: batch_sizes[0]: got 'one', expected a valid integer" in only_error(done.stdout)
    assert project.outputs() == {}


def test_collecting_without_its_python_ends_before_any_job(project):
    done = project.snakemake("--cores", "1", "--configfile", "config/overlays/collect_quick.yaml")
    assert done.returncode != 0
    told = "collect_quick.yaml: collect.python: got '.venv-gpu/bin/python', which is not an installed program"
    assert told in only_error(done.stdout)
    assert "Run: make gpu" in only_error(done.stdout)


def test_a_scenario_without_any_model_ends_before_any_job(project):
    model = project.root / "config/models/DBRX-132B.yaml"
    model.write_text(model.read_text().partition("\nreported:")[0] + "\n")
    (project.root / "mine.yaml").write_text("models: [DBRX-132B]")
    done = project.snakemake("--cores", "1", "--dry-run", "--configfile", "mine.yaml")
    assert done.returncode != 0
    assert "error: mine.yaml: scenarios.reported: has none of the models, DBRX-132B" in only_error(done.stdout)
    (project.root / "mine.yaml").write_text("models: [DBRX-132B]\nbuild_scenarios: [calibrated]\n")
    jobs = project.jobs("--configfile", "mine.yaml")
    assert "sweep scenario=calibrated" in jobs
    assert [job for job in jobs if "reported" in job.replace("recorded", "")] == []


def test_a_broken_record_is_told_and_leaves_no_table(small_project):
    small_project.build("tables/data/prophet_kv_extension_data.csv", *SMALL)
    record = small_project.root / "tables/data/prophet_kv_extension_data.csv"
    record.write_text(record.read_text().replace("Mixtral-8x7B,46.7028", "Mixtral-8x7B,many", 1))
    done = small_project.snakemake("tables/table2_average_extension.csv", "--cores", "1", *SMALL)
    assert done.returncode != 0
    assert "line 6: total_params_b: got 'many', expected a value of type number" in only_error(done.stdout)
    assert not list((small_project.root / "tables").glob("table[1-4]_*.csv"))
    assert only_error(done.stdout) in done.stdout.splitlines()[-8:], "the clear line is repeated at the end"


def test_a_misspelt_notebook_parameter_is_an_error(small_project):
    path = small_project.root / "notebooks/figure3_context_scaling.ipynb"
    notebook = json.loads(path.read_text())
    cell = next(cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", []))
    cell["source"] = [line.replace("gpu =", "gppu =") for line in cell["source"]]
    path.write_text(json.dumps(notebook))
    done = small_project.snakemake("figures/figure3_context_scaling.pdf", "--cores", "1", *SMALL)
    assert done.returncode != 0
    assert "unknown parameter 'gpu'; did you mean 'gppu'" in only_error(done.stdout)
    assert not (small_project.root / "figures/figure3_context_scaling.pdf").exists()


def test_a_full_disk_is_told_and_leaves_nothing_half_written(small_project):
    """A real file system without room for the grid."""
    folder = small_project.root / "results/calibrated"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    # Snakemake would remove an empty folder, which a mounted one cannot be.
    (folder / "kept").touch()
    try:
        done = small_project.snakemake("results/calibrated/grid.parquet", "--cores", "1", *SMALL)
        left = [path for path in folder.rglob("*") if path.is_file()]
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert done.returncode != 0
    assert "results/calibrated/grid.parquet: could not be written: the disk is full" in only_error(done.stdout)
    assert left == [folder / "kept"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_an_interrupted_build_resumes(small_project, how):
    """Stop everything while the first figures are drawn; what is there is whole, and the next run completes it."""
    wanted = ("figures/figure1_memory_breakdown.pdf", "figures/figure2_kv_extension_by_model.pdf", *SMALL)
    command = ["snakemake", "--cores", "2", *wanted]
    running = subprocess.Popen(
        command,
        cwd=small_project.root,
        env=small_project.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A test runner in the background ignores interrupts, and its children would too.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    log = small_project.root / "logs/figure/figure1_memory_breakdown.log"
    wait_until(log.exists, running)
    os.killpg(running.pid, how)
    assert running.wait(timeout=60) != 0

    left = small_project.outputs()
    unfinished = {name for name in left if ".partial." in name}
    assert not unfinished or how == signal.SIGKILL, "only a kill may leave a partial file, beside the output"
    assert all(left[name] for name in set(left) - unfinished)
    if how == signal.SIGKILL:
        assert small_project.snakemake("--unlock", *wanted).returncode == 0
    small_project.build(*wanted)
    assert small_project.jobs(*wanted) == set()
    assert not list(small_project.root.glob("figures/**/.partial.*"))

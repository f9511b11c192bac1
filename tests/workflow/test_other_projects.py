"""Builds of other copies: with another model and GPU, with traces of others, and beside the outputs that are there."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import yaml

from prophet_moe.files import sha256
from prophet_moe.routing.store import write_trace
from prophet_moe.routing.trace import DECODE, PREFILL
from tests.builders import uniform_trace
from tests.workflow.conftest import SMALL

MODEL = "OLMoE-1B-7B"
"""Of the catalogue, with 16 layers, 64 experts, top-8."""


def test_a_new_model_and_a_new_gpu_appear_everywhere(project):
    """One new file and one new entry; no code."""
    model = (
        (project.root / "config/models/Mixtral-8x7B.yaml")
        .read_text()
        .replace("name: Mixtral-8x7B\n", "name: Mixtral-tiny\n", 1)
    )
    model = model.replace("pattern: [32 x M]", "pattern: [8 x M]").partition("\nreported:")[
        0
    ]  # the report does not cover it
    (project.root / "config/models/Mixtral-tiny.yaml").write_text(f"{model}\n")
    gpus = project.root / "config/gpus.yaml"
    gpus.write_text(
        gpus.read_text() + "A6000-48GB: {memory_nominal_gb: 48, memory_visible_gib: 47.5, hbm_gb_per_s: 768,"
        " link_gb_per_s: 31.5, peak_tflops: 154.8, sources: [NVIDIA RTX A6000 datasheet]}\n"
    )
    (project.root / "mine.yaml").write_text(
        "models: [DeepSeek-MoE-16B, Mixtral-8x7B, Mixtral-tiny, Switch-Base-128]\ngpus: [A100-80GB, A6000-48GB]\n"
        "studies: {kv_extension: {figure3_models: [Mixtral-tiny]}}\n"
    )
    shown = ("paper/generated/table1.tex", "results/notebooks/figure2_kv_extension_by_model.ipynb")
    scaling = [f"figures/{at}figure3_context_scaling.png" for at in ("", "reported/")]
    targets = (*shown, *scaling, "tables/table11_context_gained.csv")
    done = project.snakemake(*targets, "--cores", "2", *SMALL, "mine.yaml")
    assert done.returncode == 0, done.stdout
    shows = "Switch-Base-128, DeepSeek-MoE-16B: the scenario lacks Mixtral-tiny"
    assert f"note: kv_extension.figure3_models of scenario reported shows {shows}" in done.stdout

    gained = pd.read_csv(project.root / "tables/table11_context_gained.csv")
    assert {("Mixtral-tiny", "A6000-48GB")} <= set(zip(gained["model"], gained["gpu"], strict=True))
    record = pd.read_csv(project.root / "tables/data/prophet_kv_extension_data.csv")
    assert set(record["model"]) >= {"Mixtral-tiny", "Mixtral-8x7B"}
    assert set(record["gpu"]) == {"A100-80GB", "A6000-48GB"}
    assert "Mixtral-tiny" in (project.root / "tables/table2_average_extension.csv").read_text()
    assert "Mixtral-tiny" in (project.root / "paper/generated/table1.tex").read_text()
    assert "Mixtral-tiny" in (project.root / "results/notebooks/figure2_kv_extension_by_model.ipynb").read_text()


def test_a_run_by_name_leaves_the_outputs_in_place_alone(small_project):
    table, figure = "tables/table1_kv_extension_a100_80gb.csv", "figures/figure1_memory_breakdown.png"
    small_project.build(table, *SMALL)
    before = small_project.outputs()
    (small_project.root / "talk.yaml").write_text("name: talk\nreference: {batch_size: 1}\n")
    again = {"frontier", "kv_extension scenario_dir="}
    assert small_project.jobs(table, *SMALL, "talk.yaml") == again, "what has equal parameters is taken over"
    small_project.build(table, figure, *SMALL, "talk.yaml")
    assert small_project.outputs() == before
    assert (small_project.root / "results/runs/talk" / table).read_bytes() != before[table]
    assert (small_project.root / "results/runs/talk" / figure).exists()
    assert small_project.jobs(table, *SMALL) == set(), "the way back is the command without the overlay"


def test_traces_of_prompts_and_sessions_are_told(project):
    """Traces of prefill are named so; those of too few sequences are left out of what needs more, in one line each."""
    shutil.copy(project.root / "config/overlays/small.yaml", project.root / "mine.yaml")
    overlay = (project.root / "mine.yaml").read_text()
    names = "small-6x8-top2, prompts, session, few"
    (project.root / "mine.yaml").write_text(overlay.replace("traces: [small-6x8-top2]", f"traces: [{names}]"))
    for name, lengths in (("prompts", [12] * 20), ("session", [40]), ("few", [12] * 5)):
        trace = uniform_trace(lengths, 16, 64, 8)
        trace.phase[:] = PREFILL if name == "prompts" else DECODE
        write_trace(project.root / "resources/traces" / name, replace(trace, router=replace(trace.router, model=MODEL)))
    done = project.snakemake("figures/routing_statistics.png", "--configfile", "mine.yaml", "--cores", "2")
    assert done.returncode == 0, done.stdout
    table = "so tables/data/comparative_results.csv leaves it out"
    for note in (
        "prompts holds no decode token, so its results are those of prefill and it is called prompts (prefill)",
        "session holds 1 sequence without repetition, expected at least 4. No law is fitted to it",
        f"few holds 5 sequences without repetition, expected at least 16, twice studies.comparison.sequences, {table}",
    ):
        assert f"\nnote: {note}" in done.stdout
    assert "has no timing model" not in done.stdout
    described = pd.read_csv(project.root / "tables/data/routing_statistics.csv")
    assert set(described["trace"]) >= {"small-6x8-top2", "prompts (prefill)", "session", "few"}

    jobs = project.jobs(
        "tables/data/comparative_results.csv", "tables/data/routing_variation.csv", "--configfile", "mine.yaml"
    )
    assert {"compare_strategies trace=prompts", "fit_law trace=prompts", "fit_law trace=few"} <= jobs
    assert not {"compare_strategies trace=few", "compare_strategies trace=session"} & jobs
    assert "fit_law trace=session" not in jobs


def test_traces_of_one_text_are_left_out_of_laws(project):
    """Copies of one sequence, and sequences of one piece: described, nothing fitted, and a note for each."""
    for name, copies in (("copies", True), ("pieces", False)):
        trace = uniform_trace([12] * 20, 16, 64, 8)
        if copies:
            trace.experts[:] = np.tile(trace.experts[:12], (20, 1, 1))
        origin = replace(trace.origin, notes={"sequences": [] if copies else [{"piece": "one"}] * 20})
        router = replace(trace.router, model=MODEL)
        write_trace(project.root / "resources/traces" / name, replace(trace, router=router, origin=origin))
    (project.root / "mine.yaml").write_text("traces: [small-6x8-top2, copies, pieces]\n")
    done = project.snakemake("tables/data/model_catalog.csv", "--cores", "1", *SMALL, "mine.yaml")
    assert done.returncode == 0, done.stdout
    alone = "No law is fitted to it and it is not simulated; only tables/data/routing_statistics.csv has it"
    for held in (
        "copies holds 1 sequence without repetition, expected at least 4",
        "pieces holds 20 sequences of one text, expected at least 2 texts",
    ):
        assert f"note: {held}. {alone}" in done.stdout
    jobs = project.jobs("routing_law", "comparison", *SMALL, "mine.yaml")
    assert "fit_law trace=small-6x8-top2" in jobs
    assert not {job for job in jobs if "copies" in job or "pieces" in job}


def test_prefill_data_is_named_and_found_by_a_run_of_its_own(project):
    """A relative PROPHET_DATA is meant from where the command was started, not from the folder of the run."""
    path = project.root / "there/prompts.npz"
    path.parent.mkdir()
    chosen = uniform_trace([12] * 5, 16, 64, 8).experts
    np.savez(path, expert_ids=chosen, prompt_len=np.full(5, 12, np.int32))
    listed = project.root / "config/datasets.yaml"
    content = yaml.safe_load(listed.read_text())
    told = dict.fromkeys(("project", "commit", "licence", "citation", "use", "without_address"), "of this test")
    file = {"path": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
    entry = told | {"kind": "routing", "model": MODEL, "importer": "arrays", "phase": "prefill", "files": [file]}
    content["datasets"]["others"] = entry
    listed.write_text(yaml.safe_dump(content))
    (project.root / "mine.yaml").write_text("name: mine\n")
    statistics = "results/traces/others/statistics.csv"
    done = project.snakemake(statistics, "--cores", "1", *SMALL, "mine.yaml", PROPHET_DATA="there")
    assert done.returncode == 0, done.stdout
    assert "dataset others is not available locally" not in done.stdout
    assert "note: others holds no decode token" in done.stdout
    assert set(pd.read_csv(project.root / "results/runs/mine" / statistics)["trace"]) == {"others (prefill)"}

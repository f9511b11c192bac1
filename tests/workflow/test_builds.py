"""The main job: what it makes, and exactly the dependents after a change."""

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from prophet_moe.routing import store
from prophet_moe.routing.trace import Counts, Origin, Router
from tests.conftest import ROOT
from tests.workflow.conftest import Project

PLACES = ("", "reported/")
TRACES = ROOT / "resources/traces"
FIGURES = (
    "figure1_memory_breakdown",
    "figure2_kv_extension_by_model",
    "figure3_context_scaling",
    "figure4_batch_context_tradeoff",
    "figure5_expert_count_analysis",
)
TABLES = (
    "extended/table1_kv_extension_a100_80gb.csv",
    "extended/table2_average_extension.csv",
    "extended/table3_by_expert_count.csv",
    "extended/table4_max_context_length.csv",
    "table1_kv_extension_a100_80gb.csv",
    "table2_average_extension.csv",
    "table3_by_expert_count.csv",
    "table4_max_context_length.csv",
    "data/prophet_kv_extension_data.csv",
    "data/prophet_kv_extension_data.json",
)

CALIBRATION = (
    "tables/data/routing_law_fits.csv",
    "tables/data/routing_law_residuals.csv",
    "tables/data/routing_law_transfer.csv",
    "tables/data/routing_variation.csv",
    "tables/data/prediction.csv",
    "tables/data/predicted_sets.csv",
    "tables/data/resident_rules.csv",
    "tables/data/headline_sensitivity.csv",
    "tables/data/prediction_by_domain.csv",
    "tables/table5_routing_exponents.csv",
    "tables/table6_prediction.csv",
    "tables/table7_decode_steps.csv",
    "tables/data/prefill.csv",
    "tables/table12_simulated_and_measured.csv",
    "tables/data/prefetch_validation.csv",
)
SIMULATION = (
    "tables/data/comparative_results.csv",
    "tables/data/comparative_layers.csv",
    "tables/data/strategy_sweeps.csv",
    "tables/data/expert_deduplication_results.csv",
    "tables/data/frontier.csv",
    "tables/table8_strategies.csv",
    "tables/table9_expert_deduplication.csv",
    "tables/table10_batch_scaling.csv",
    "tables/table11_context_gained.csv",
)

ROUTING_FIGURES = ("routing_statistics", "routing_law", "prediction")
COMPARED_FIGURES = ("comparative_evaluation", "expert_deduplication", "layer_detail", "strategy_sweeps")


def figure_jobs(*figures: str) -> set[str]:
    """The jobs that draw figures about traces."""
    return {f"figure at=, figure={figure}" for figure in figures}


def trace_jobs(rule: str, wildcard: str) -> set[str]:
    """The jobs of a rule that there is for every trace."""
    return {f"{rule} {wildcard}={path.parent.name}" for path in TRACES.glob("*/metadata.json")}


TRACE_FIGURES = figure_jobs(*ROUTING_FIGURES, *COMPARED_FIGURES, "frontier")
STATISTICS_FIGURE, LAW_FIGURE, PREDICTION_FIGURE = (f"figure at=, figure={figure}" for figure in ROUTING_FIGURES)
COMPARISON = {"comparison"} | figure_jobs(*COMPARED_FIGURES)
FROM_THE_REPLAYS = trace_jobs("compare_strategies", "simulated") | COMPARISON
SOURCES = set(pd.read_csv(ROOT / "tables/data/frontier.csv", usecols=["trace"])["trace"])
# Table 2 and figure 2 set the price in time beside the memory floor, and so does what the text quotes.
PRICED = {"tables at=", "latex_tables at=", "numbers"} | figure_jobs("figure2_kv_extension_by_model")
FRONTIER = {f"replay_frontier source={name}" for name in SOURCES} | {"frontier"} | figure_jobs("frontier") | PRICED
FIGURE_JOBS = {f"figure at={at}, figure={figure}" for at in PLACES for figure in FIGURES}
FROM_THE_RECORD = {
    f"{rule} at={at}" for rule in ("record", "tables", "extended_tables", "latex_tables") for at in PLACES
} | FIGURE_JOBS
SWEEPS = {"sweep scenario=calibrated", "sweep scenario=reported"}
HEADLINE = {"resident_rules", "headline_sensitivity"}
FROM_THE_GRID = SWEEPS | HEADLINE | {"decode_steps", "prefill", "numbers"} | FROM_THE_RECORD | FRONTIER
PREDICTED = trace_jobs("judge_predictors", "described")
PREDICTED_SETS = trace_jobs("size_predicted_sets", "described") | {"predicted_sets"}
FROM_THE_ROUTING = {"routing_variation"} | {job for job in FROM_THE_GRID if "reported" not in job}


def test_everything_is_there_with_its_sidecar(built):
    for name in (
        "figures/routing_statistics.pdf",
        "figures/routing_statistics.png",
        "tables/data/routing_statistics.csv",
        *CALIBRATION,
        *SIMULATION,
        *[f"figures/{figure}.pdf" for figure in (*COMPARED_FIGURES, "frontier")],
    ):
        assert json.loads((built.root / f"{name}.prov.json").read_text())["output"] == name
    for at in PLACES:
        expected = [f"figures/{at}{figure}.{kind}" for figure in FIGURES for kind in ("pdf", "png")]
        expected += [f"tables/{at}{table}" for table in TABLES]
        expected += [f"paper/generated/{at}table{number}.tex" for number in range(1, 5)]
        for name in [*expected, f"paper/generated/{at}figures.tex", "paper/generated/numbers.tex"]:
            told = json.loads((built.root / f"{name}.prov.json").read_text())
            assert told["output"] == name
            assert (built.root / name).stat().st_size > 0


def test_two_builds_are_byte_identical(built):
    """Another folder, core count, home, time zone, locale and hash seed change nothing: neither in what is committed
    nor, where `make` was run here, in the notebooks.
    """
    here, there = Project(ROOT).outputs(), built.outputs()
    assert {name for name in set(here) ^ set(there) if not name.startswith("results/")} == set()
    assert [name for name in set(here) & set(there) if here[name] != there[name]] == []


def test_outputs_hold_no_path_of_this_machine(built):
    here = str(built.root).encode()
    assert [name for name, content in built.outputs().items() if here in content or b"/site-packages/" in content] == []


def test_pdf_and_latex_carry_the_config_hash(built):
    for name in ("figures/figure1_memory_breakdown.pdf", "paper/generated/table1.tex"):
        told = json.loads((built.root / f"{name}.prov.json").read_text())
        assert told["config_hash"].encode() in (built.root / name).read_bytes()


def test_pdf_fonts_are_embedded_truetype(built):
    for path in (built.root / "figures").rglob("*.pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content, path
        assert b"/Type3" not in content, path


def test_notebooks_have_no_error_and_pages_need_no_network(built):
    for path in (built.root / "results/notebooks").rglob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        kinds = {output.output_type for cell in cells if cell.cell_type == "code" for output in cell.outputs}
        assert "error" not in kinds
        assert "stream" not in kinds, f"{path} prints or warns"
    for path in (built.root / "results/notebooks").rglob("*.html"):
        assert not re.search(r"<(script|link)[^>]+(src|href)=.https?:", path.read_text()), path


def test_nothing_to_do_after_a_build_or_a_touch(built):
    assert built.jobs() == set()
    for path in (built.root / "workflow").rglob("*.py"):
        os.utime(path)
    for path in (built.root / "config").rglob("*.yaml"):
        os.utime(path)
    assert built.jobs() == set()


@contextmanager
def edited(path: Path, old: str, new: str):
    """Replace `old` by `new` in a file for a while."""
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(before)


def test_the_essentials_need_the_fitted_law_and_the_frontier(project):
    """Figures 1-5 and tables 1-4 of every scenario, what the calibrated one rests on, its price in time, and what the
    text quotes of the rules for resident experts and of predicted sets.
    """
    made = {"catalog", "prefill", "routing_law", "routing_variation"} | SWEEPS | trace_jobs("fit_law", "described")
    made |= FRONTIER - figure_jobs("frontier")
    made |= PREDICTED_SETS | {"resident_rules"}
    made |= {f"{rule} at={at}" for rule in ("record", "tables", "latex_tables", "figures_tex") for at in PLACES}
    made |= FIGURE_JOBS
    jobs = project.jobs("essentials")
    assert {job for job in jobs if not job.startswith("recorded_statistics ")} == made


def test_counts_of_a_model_take_the_place_of_pooled_routing(project, tmp_path):
    router = Router("OLMoE-1B-7B", 64, 8, tuple(range(16)))
    popular = np.where(np.arange(64) % 2, 150, 50)
    counts = Counts(router, np.tile(popular, (1, 16, 1)), Origin("a test", "CC0-1.0"))
    store.write_counts(project.root / "resources/traces/olmoe-counts", counts)
    overlay = tmp_path / "counts.yaml"
    overlay.write_text("counts: [olmoe-counts]\nscenarios: {calibrated: {routing: {variation: counts}}}\n")
    jobs = project.jobs("results/calibrated/grid.parquet", "--configfile", str(overlay))
    assert {"counts_variation", "routing_variation", "sweep scenario=calibrated"} <= jobs
    project.build("results/routing/counts_variation.csv", "--configfile", str(overlay))
    found = pd.read_csv(project.root / "results/routing/counts_variation.csv")
    assert found["model"].tolist() == ["OLMoE-1B-7B"] and found["low"].isna().all()
    assert found["value"][0] == pytest.approx(0.5, abs=0.1)
    assert "counts_variation" not in project.jobs("results/calibrated/grid.parquet")


def test_a_style_change_redraws_only_that_figure(built):
    style = built.root / "config/style.yaml"
    with edited(
        style,
        "figure3_context_scaling: {width_in: 3.33, height_in: ",
        "figure3_context_scaling: {width_in: 3.33, height_in: 1",
    ):
        assert built.jobs() == {f"figure at={at}, figure=figure3_context_scaling" for at in PLACES}
    with edited(style, "line_width_pt: 1.2", "line_width_pt: 1.5"):
        assert built.jobs() == FIGURE_JOBS | TRACE_FIGURES


def test_a_batch_list_change_reruns_the_grid_and_what_follows(built):
    with edited(
        built.root / "config/experiment.yaml", "batch_sizes: [1, 4, 8, 16, 32, 64]", "batch_sizes: [1, 4, 8, 16]"
    ):
        assert built.jobs() == FROM_THE_GRID


def test_an_overlay_has_the_same_effect_as_an_edit(built, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("batch_sizes: [1, 4, 8, 16]\n")
    assert built.jobs("--configfile", str(overlay)) == FROM_THE_GRID


def test_a_gpu_memory_change_reruns_the_grid_and_what_follows(built):
    with edited(built.root / "config/gpus.yaml", "memory_visible_gib: 79.25", "memory_visible_gib: 79.15"):
        assert built.jobs() == FROM_THE_GRID | FROM_THE_REPLAYS | {"prefetch_validation"}


def test_a_plan_of_prefetching_changes_what_is_held_against_gpus(built):
    with edited(built.root / "config/measurements/prefetch.yaml", "lookahead: 3", "lookahead: 2"):
        assert built.jobs() == {"prefetch_validation"}


def test_a_scenario_change_leaves_the_other_scenario_alone(built):
    with edited(built.root / "config/experiment.yaml", "runtime_reserve_mib: 1024", "runtime_reserve_mib: 2048"):
        jobs = built.jobs()
    assert jobs == {job for job in FROM_THE_GRID if "reported" not in job}


def test_an_edit_of_a_library_module_reruns_what_imports_it(built):
    library = built.root / "workflow/prophet_moe"
    with edited(library / "present/figures/context_scaling.py", '"""', '"""Edited. '):
        assert built.jobs() == {f"figure at={at}, figure=figure3_context_scaling" for at in PLACES}
    with edited(library / "present/latex.py", '"""', '"""Edited. '):
        assert built.jobs() == {f"{rule} at={at}" for rule in ("latex_tables", "figures_tex") for at in PLACES} | {
            "numbers"
        }
    with edited(library / "capacity/reference.py", '"""', '"""Edited. '):
        assert built.jobs() == set()
    with edited(library / "params.py", '"""', '"""Edited. '):
        assert built.jobs() == FROM_THE_GRID | {"catalog"} | FROM_THE_REPLAYS
    with edited(library / "routing/cross_model.py", '"""', '"""Edited. '):
        assert built.jobs() == {"routing_law", LAW_FIGURE} | FROM_THE_ROUTING
    with edited(library / "capacity/headline.py", '"""', '"""Edited. '):
        assert built.jobs() == HEADLINE | {"numbers"}
    with edited(library / "predict/needed_sets.py", '"""', '"""Edited. '):
        assert built.jobs() == PREDICTED_SETS | {"numbers"}
    with edited(library / "predict/counting.py", '"""', '"""Edited. '):
        assert built.jobs() == PREDICTED | {"prediction", PREDICTION_FIGURE} | FROM_THE_REPLAYS | FRONTIER
    with edited(library / "offload/strategies/top_k.py", '"""', '"""Edited. '):
        assert built.jobs() == FROM_THE_REPLAYS | FRONTIER
    with edited(library / "offload/simulator/reference.py", '"""', '"""Edited. '):
        assert built.jobs() == set()


def test_an_edit_of_the_statistics_describes_the_traces_again(built):
    described, fitted = (trace_jobs(rule, "described") for rule in ("describe_trace", "fit_law"))
    with edited(built.root / "workflow/prophet_moe/routing/statistics.py", '"""', '"""Edited. '):
        again = described | fitted | {"routing_statistics", STATISTICS_FIGURE, "routing_law", LAW_FIGURE}
        again |= PREDICTED | {"prediction", PREDICTION_FIGURE} | trace_jobs("count_deduplication", "simulated")
        assert built.jobs() == again | FROM_THE_ROUTING | FROM_THE_REPLAYS | PREDICTED_SETS


def test_a_trace_less_reruns_what_rests_on_traces(built, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("traces: [small-6x8-top2]\n")
    less = (
        {"routing_statistics", "routing_law", "prediction", "predicted_sets", "comparison"}
        | TRACE_FIGURES
        | FROM_THE_ROUTING
    )
    less -= {"replay_frontier source=small-12x128-top1"}
    assert built.jobs("--configfile", str(overlay)) == less


def test_data_of_others_gives_its_recorded_statistics(built):
    """With the data at hand the rules compute what a visitor without it takes from resources/statistics/."""
    if "PROPHET_DATA" not in os.environ:
        pytest.skip("PROPHET_DATA does not name the folder of datasets")
    folder = "results/routing/gpt-oss-20b-decode"
    kinds = ("statistics", "law_fits", "law_residuals", "prediction", "predicted_sets", "discrimination")
    kinds += ("comparative", "comparative_layers", "strategy_sweeps", "deduplication")
    targets = [f"{folder}/{kind}.csv" for kind in kinds]
    taken = [(built.root / target).read_bytes() for target in targets]
    with_data = {"PROPHET_DATA": os.environ["PROPHET_DATA"]}
    try:
        done = built.snakemake(*targets, "--cores", "2", "--force", **with_data)
        assert done.returncode == 0, done.stdout
        assert [(built.root / target).read_bytes() for target in targets] == taken
    finally:
        built.build()


def test_a_model_file_reruns_the_grid_and_the_catalogue(built):
    with edited(built.root / "config/models/DBRX-132B.yaml", "native_context: 32768", "native_context: 16384"):
        assert built.jobs() == FROM_THE_GRID | {"catalog", "routing_variation"}


def test_verify_passes_and_finds_a_tampered_table(built):
    told = built.snakemake("--cores", "1", "verify").stdout
    assert "0 FAIL" in told
    assert [name for name in (*CALIBRATION, *SIMULATION) if name not in told] == []
    assert "0 FAIL" in built.snakemake("--cores", "1", "verify").stdout, "it checks whenever it is asked to"
    path = built.root / "tables/table2_average_extension.csv"
    before = path.read_bytes()
    with edited(path, ",24,", ",23,"):
        done = built.snakemake("--cores", "1", "verify")
    assert done.returncode != 0
    assert re.search(r"FAIL.*table2_average_extension.csv.*changed after it was made", done.stdout)
    assert path.read_bytes() == before


def test_the_report_builds_offline(built):
    done = built.snakemake("--report", "report.html")
    assert done.returncode == 0, done.stdout
    page = (built.root / "report.html").read_text()
    assert "Memory floor of every model" in page
    (built.root / "report.html").unlink()

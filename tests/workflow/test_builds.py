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

from prophet_moe.claims.verdict import VERDICTS
from prophet_moe.routing import store
from prophet_moe.routing.popularity_cv import read_popularity_cvs
from prophet_moe.routing.trace import Counts, Origin, Router
from tests.conftest import ROOT
from tests.workflow.conftest import TOLD, Project, without_readers
from tests.workflow.rules import SCENARIO_DIRS, STUDIES, figures, jobs, outputs, studies_that_read, study_jobs

BY_SCENARIO = [
    *[f"tables/{{at}}extended/{table.name}.csv" for table in STUDIES["kv_extension"].tables],
    *[f"tables/{{at}}data/prophet_kv_extension_{name}" for name in ("data.csv", "data.json", "extended.csv")],
    *[f"paper/generated/{{at}}{name}.tex" for name in ("table1", "table2", "table3", "table4", "figures")],
]
BESIDE_STUDIES = [path.format(at=at) for path in BY_SCENARIO for at in SCENARIO_DIRS]
BESIDE_STUDIES += [f"paper/generated/{name}.tex" for name in ("numbers", "paper_numbers", "supplement")]
BESIDE_STUDIES += ["tables/data/model_catalog.csv", "tables/claims.json"]
"""Outputs that belong to no study."""

EVERY_FIGURE = figures(*STUDIES) - figures(*TOLD)
# Table 2 and figure 2 set the price in time beside the memory floor, and so does what the text quotes.
PRICED = jobs("kv_extension", "latex_tables", scenario_dir="") | jobs("numbers")
PRICED |= figures("figure2_kv_extension_by_model", scenario_dir="")
GAINED = jobs("several_gpus", "use_cases") | figures("several_gpus", "figure9_graphical_abstract")
"""What reads the tables of the frontier besides, in studies of their own."""
FRONTIER = study_jobs("frontier") | PRICED | GAINED
# The study of laws and the planner read what the routing of a scenario rests on, and no grid.
GRIDDED = set(studies_that_read("GRID", "RECORD", "record_grid", "variations_of")) - {"routing_law", "planner"}
FROM_THE_GRID = study_jobs(*GRIDDED) | PRICED
FROM_THE_GRID |= jobs("sweep", "record", "latex_tables")
FROM_PUBLISHED = jobs("published_variation", "routing_variation")
FROM_PUBLISHED |= {job for job in FROM_THE_GRID if "reported" not in job}
CURRENT = study_jobs("current_models")
"""The models of today, of which the study has a grid of its own."""
OWN_BATCHES = study_jobs("alternatives") | jobs("dynamic_batching", "parallel_observed") | figures("dynamic_batching")
"""Studies that rest on the routing of a scenario, at batch sizes of their own."""
PLANNED = study_jobs("planner", "where_it_pays") | jobs("decision_tree")
"""Studies of slots for experts, which rest on a scenario and on no grid."""
PAID = study_jobs("alternatives", "where_it_pays") | jobs("decision_tree")
"""Studies of what offloading pays, and the tree that is made of them."""
OBSERVED = study_jobs("observed")
"""Predictions of observations, which rest on every model and GPU of the catalogue."""
COMPARED = jobs("compare_strategies", "comparison") | figures("comparison")
"""Replays of the comparison, and what is made of them."""
PREDICTED = jobs("evaluate_predictors", "prediction") | figures("prediction")
PREDICTED_SETS = jobs("size_predicted_sets", "predicted_sets")
LAW = jobs("routing_law", "routing_variation") | figures("routing_law")


def test_everything_is_there_with_its_sidecar(built):
    for name in (*outputs(), *BESIDE_STUDIES):
        assert json.loads((built.root / f"{name}.prov.json").read_text())["output"] == name
        assert (built.root / name).stat().st_size > 0
    made = {name for name in built.outputs() if name.startswith(("figures/", "tables/", "paper/generated/"))}
    assert {name for name in made if not name.endswith(".prov.json")} == {*outputs(), *BESIDE_STUDIES}


def test_two_builds_are_byte_identical(built):
    """Another folder, core count, home, time zone, locale and hash seed change nothing: neither in what is committed
    nor, where `make` was run here, in the notebooks.
    """
    here, there = Project(ROOT).outputs(), built.outputs()
    assert {name for name in set(here) ^ set(there) if not name.startswith("results/")} == set()
    assert [name for name in set(here) & set(there) if here[name] != there[name]] == []


def test_outputs_hold_no_path_of_this_machine(built):
    here = [str(path).encode() for path in (built.root, ROOT, "/site-packages/")]
    assert [name for name, content in built.outputs().items() if any(path in content for path in here)] == []


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


def test_essentials_need_published_counts_and_the_frontier(project):
    """Figures 1-5 and tables 1-4 of every scenario, what the calibrated one rests on, its price in time, and what the
    text quotes of the rules for resident experts and of predicted sets.
    """
    made = jobs("catalog", "sweep", "record", "latex_tables", "figures_tex", "numbers", "kv_extension")
    made |= jobs("published_variation", text="any") | jobs("replay_frontier", "frontier")
    made |= jobs("prefill", "resident_rules", "observed") | PREDICTED_SETS | figures("kv_extension")
    assert project.jobs("essentials") == made


def test_counts_of_a_model_take_the_place_of_pooled_routing(project, tmp_path):
    router = Router("OLMoE-1B-7B", 64, 8, tuple(range(16)))
    popular = np.where(np.arange(64) % 2, 150, 50)
    counts = Counts(router, np.tile(popular, (1, 16, 1)), Origin("a test", "CC0-1.0"))
    store.write_counts(project.root / "resources/traces/olmoe-counts", counts)
    overlay = tmp_path / "counts.yaml"
    overlay.write_text("counts: [olmoe-counts]\nscenarios: {calibrated: {routing: {variation: counts}}}\n")
    found = project.jobs("results/calibrated/grid.parquet", "--configfile", str(overlay))
    assert jobs("counts_variation", "routing_variation") | jobs("sweep", scenario="calibrated") <= found
    project.build("results/counts_variation.csv", "--configfile", str(overlay))
    found = pd.read_csv(project.root / "results/counts_variation.csv")
    assert found["model"].tolist() == ["OLMoE-1B-7B"] and found["low"].isna().all()
    assert found["value"][0] == pytest.approx(0.5, abs=0.1)
    assert "counts_variation" not in project.jobs("results/calibrated/grid.parquet")


def test_published_counts_take_the_place_of_traces(project, tmp_path):
    overlay = tmp_path / "published.yaml"
    overlay.write_text("scenarios: {calibrated: {routing: {variation: published, text: prompts}}}\n")
    table = "results/published_variation/prompts.csv"
    found = project.jobs("results/calibrated/grid.parquet", "--configfile", str(overlay))
    made = jobs("published_variation", text="prompts")
    assert made | jobs("sweep", scenario="calibrated") <= found
    assert not found & jobs("fit_law", "routing_variation")
    project.build(table, "--configfile", str(overlay))
    known = read_popularity_cvs(project.root / table, "staggered")
    assert known["OLMoE-1B-7B"].value == pytest.approx(0.506, abs=1e-3)
    assert known["DBRX-132B"].pooled and "Qwen3-30B-A3B" in known
    assert not made & project.jobs("results/calibrated/grid.parquet")


def test_a_style_change_redraws_only_that_figure(built):
    style, name = built.root / "config/style.yaml", "figure3_context_scaling"
    with edited(style, "figures: {}", f"figures: {{{name}: {{width_in: 7.0, height_in: 3.0}}}}"):
        assert built.jobs() == figures(name) | jobs("figures_tex"), "the paper tells the width of every figure"
    with edited(style, "line_width_pt: 1.2", "line_width_pt: 1.5"):
        assert built.jobs() == EVERY_FIGURE


AFTER_A_KEY = {
    "comparison": COMPARED,
    "frontier": FRONTIER,
    "headline": study_jobs("headline") | jobs("numbers"),
    "kv_extension": study_jobs("kv_extension") | jobs("latex_tables") | figures("figure9_graphical_abstract"),
    "observed": OBSERVED | jobs("numbers", "planner", "plans") | figures("planner"),
    "prediction": jobs("prediction", "predicted_sets", "numbers") | figures("prediction"),
    "prefill": study_jobs("prefill") | jobs("numbers"),
    "routing_law": LAW | jobs("published_routing"),
    "routing_statistics": jobs("routing_statistics") | figures("routing_statistics"),
    "where_it_pays": study_jobs("where_it_pays") | jobs("decision_tree"),
}
"""Jobs that run again after a key was added to the settings of a study, where these are not all of its own: what needs
no declaration of the study does not run, and what reads an output does."""


SETTINGS_CLASS = re.compile(r'^class \w+\(StudySettings\):\n    """.+?"""\n', re.MULTILINE | re.DOTALL)
"""The line that begins the settings class of a study, and its docstring."""


@pytest.mark.parametrize("study", STUDIES)
def test_a_key_more_in_one_study_reruns_no_other(built, study):
    path = built.root / f"workflow/studies/{study}/study.py"
    head = SETTINGS_CLASS.search(path.read_text())[0]
    with edited(path, head, f'{head}\n    added: int = 1\n    """A key more."""\n'):
        assert built.jobs() == without_readers(AFTER_A_KEY.get(study, study_jobs(study)))


@pytest.mark.parametrize(
    ("old", "new", "again"),
    [
        ("slowdown_limits: [1.05, 1.2, 2.0]", "slowdown_limits: [1.1, 1.2, 2.0]", FRONTIER - jobs("replay_frontier")),
        ("sweep_seeds: 5", "sweep_seeds: 4", COMPARED),
    ],
)
def test_a_setting_of_one_study_reruns_no_other(built, old, new, again):
    with edited(built.root / "config/experiment.yaml", old, new):
        assert built.jobs() == again


def test_a_batch_list_change_reruns_the_grid_and_what_follows(built):
    with edited(
        built.root / "config/experiment.yaml", "batch_sizes: [1, 4, 8, 16, 32, 64]", "batch_sizes: [1, 4, 8, 16]"
    ):
        assert built.jobs() == FROM_THE_GRID - CURRENT - OWN_BATCHES


def test_the_ledger_reruns_after_its_file_and_its_tables(built):
    """What it judges reaches the figure, the pages of models and the paper, and answers do not rest on it."""
    judged = {"claims", "paper_numbers", "model_pages"} | figures("claims")
    compiled = {"paper", "supplement"}
    with edited(built.root / "config/claims.yaml", "# Every claim", "# Each claim"):
        assert built.all_jobs() - compiled == judged
    with edited(built.root / "resources/reports/printed.csv", ",0.45,", ",0.46,"):
        answered = {"answers"} | figures("decision_tree")
        assert built.all_jobs() - compiled == judged | answered | study_jobs("report_tables", "alternatives")
    with edited(built.root / "config/answers.yaml", "# ", "# Edited. "):
        assert built.all_jobs() == {"answers"} | figures("decision_tree")


def test_an_overlay_has_the_same_effect_as_an_edit(built, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("batch_sizes: [1, 4, 8, 16]\n")
    assert built.jobs("--configfile", str(overlay)) == FROM_THE_GRID - CURRENT - OWN_BATCHES


def test_a_gpu_memory_change_reruns_the_grid_and_what_follows(built):
    with edited(built.root / "config/gpus.yaml", "memory_visible_gib: 79.25", "memory_visible_gib: 79.15"):
        assert built.jobs() == FROM_THE_GRID | COMPARED | OBSERVED | PLANNED | jobs("prefetch_validation")


def test_a_plan_of_prefetching_changes_what_is_held_against_gpus(built):
    with edited(built.root / "config/measurements/prefetch.yaml", "lookahead: 3", "lookahead: 2"):
        assert built.jobs() == jobs("prefetch_validation")


def test_a_scenario_change_leaves_the_other_scenario_alone(built):
    with edited(built.root / "config/experiment.yaml", "runtime_reserve_mib: 1024", "runtime_reserve_mib: 2048"):
        of_scenario = {job for job in FROM_THE_GRID if "reported" not in job} - jobs("parallel_observed")
        assert built.jobs() == of_scenario | PLANNED


EDITS = {
    "studies/kv_extension/figure3_context_scaling.py": figures("figure3_context_scaling"),
    "studies/headline/compute.py": study_jobs("headline") | jobs("numbers"),
    "studies/frontier/proxies.py": set(),
    "prophet_moe/present/latex.py": jobs("latex_tables", "figures_tex", "numbers", "plans"),
    "prophet_moe/capacity/reference.py": CURRENT
    | study_jobs("alternatives", "report_tables", "several_gpus")
    | PLANNED
    | jobs("memory_figures")
    | figures("figure6_savings_vs_batch_by_experts", "figure7_memory_by_context"),
    "prophet_moe/params/counts.py": FROM_THE_GRID | jobs("catalog") | COMPARED | OBSERVED | PLANNED,
    "prophet_moe/routing/cross_model.py": LAW | jobs("plans"),
    "prophet_moe/routing/published_cv.py": FROM_PUBLISHED - jobs("parallel_observed")
    | jobs("published_routing")
    | OBSERVED
    | PLANNED
    | study_jobs("alternatives"),
    "prophet_moe/predict/needed_sets.py": PREDICTED_SETS | jobs("numbers"),
    "prophet_moe/predict/counting.py": PREDICTED | COMPARED | FRONTIER | PAID,
    "prophet_moe/offload/strategies/top_k.py": COMPARED | FRONTIER | PAID,
    "prophet_moe/offload/simulator/reference.py": set(),
    "prophet_moe/routing/statistics.py": study_jobs("routing_statistics", "comparison", "observed")
    | jobs("fit_law")
    | LAW
    | PREDICTED
    | PREDICTED_SETS
    | FRONTIER
    | study_jobs("alternatives")
    | PLANNED,
}
"""Jobs that run again after an edit of a module."""


@pytest.mark.parametrize("module", EDITS)
def test_an_edit_of_a_module_reruns_what_imports_it(built, module):
    with edited(built.root / "workflow" / module, '"""', '"""Edited. '):
        assert built.jobs() == EDITS[module]


def test_a_trace_less_reruns_what_rests_on_traces(built, tmp_path):
    """Switch models, which the trace left out stood for, take a calibrated routing of the same number of experts."""
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("traces: [small-6x8-top2]\n")
    less = jobs("routing_statistics", "prediction", "predicted_sets", "comparison") | LAW
    less |= FRONTIER - jobs("replay_frontier") | jobs("replay_frontier", source="gpt-oss-120b-top2")
    less |= figures("routing_statistics", "routing_law", "prediction", "comparison")
    assert built.jobs("--configfile", str(overlay)) == less


def test_data_of_others_gives_its_recorded_statistics(built):
    """With the data at hand the rules compute what a visitor without it takes from resources/statistics/."""
    if "PROPHET_DATA" not in os.environ:
        pytest.skip("PROPHET_DATA does not name the folder of datasets")
    name = "gpt-oss-20b-decode"
    kinds = ("statistics", "law_fits", "law_residuals", "prediction", "predicted_sets", "discrimination")
    kinds += ("comparative", "comparative_layers", "strategy_sweeps", "deduplication")
    targets = [f"results/traces/{name}/{kind}.csv" for kind in kinds]
    recorded = [(built.root / f"resources/statistics/{name}/{kind}.csv").read_bytes() for kind in kinds]
    with_data = {"PROPHET_DATA": os.environ["PROPHET_DATA"]}
    try:
        done = built.snakemake(*targets, "--cores", "2", "--force", **with_data)
        assert done.returncode == 0, done.stdout
        assert [(built.root / target).read_bytes() for target in targets] == recorded
    finally:
        built.build()


def test_a_model_file_reruns_the_grid_and_the_catalogue(built):
    with edited(built.root / "config/models/DBRX-132B.yaml", "native_context: 32768", "native_context: 16384"):
        assert built.jobs() == FROM_THE_GRID | FROM_PUBLISHED | OBSERVED | PLANNED | jobs("catalog")


def test_verify_passes_and_finds_a_tampered_table(built):
    told = built.snakemake("--cores", "1", "verify").stdout
    assert "0 FAIL" in told
    assert [name for name in (*outputs(), *BESIDE_STUDIES) if name not in told] == []
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
    assert "Mean KV extension by memory alone" in page
    (built.root / "report.html").unlink()


def test_a_build_has_its_page_and_its_crate(built):
    """Both are made from the outputs of a build: the page tells every verdict, the crate every output."""
    built.build("report_page", "crate")
    page = (built.root / "results/report/index.html").read_text()
    assert all(f'"{verdict}"' in page or f">{verdict}" in page for verdict in VERDICTS)
    crate = json.loads((built.root / "results/crate/ro-crate-metadata.json").read_text())
    told = {entity["@id"] for entity in crate["@graph"]}
    assert {*outputs(), *BESIDE_STUDIES} <= told

"""Pages of models say what the tables have, in the JSON of the report page and in the LaTeX of the supplement."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prophet_moe import params
from prophet_moe.capacity.limits import CONFIGURATION, CONTEXT_GAINED
from prophet_moe.capacity.record import EXTENDED_RECORD
from prophet_moe.catalog import load_models
from prophet_moe.present.catalog_table import CATALOG
from prophet_moe.present.frontier_lines import selection
from prophet_moe.present.model_pages import Results, index, model_pages
from prophet_moe.present.model_pages.architecture import attention, bytes_section
from prophet_moe.present.model_pages.figure import draw, drawable
from prophet_moe.present.model_pages.results import gpus_of
from prophet_moe.present.model_pages.words import NONE, listed, number, span
from prophet_moe.present.select import where
from prophet_moe.present.supplement import plain, supplement
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from studies.frontier.figure import above_floor
from studies.frontier.study import FRONTIER
from studies.several_gpus.study import SEVERAL_GPUS
from tests.conftest import ROOT
from tests.drawings import assert_legend_is_what_is_drawn, assert_no_texts_touch, assert_nothing_is_clipped

CLAIMED = 1.2
HEADINGS = [
    "Architecture",
    "Bytes by component",
    "What fits where",
    "Context within a limit of time",
    "Claims about it",
]
LEDGER = pd.DataFrame(
    [
        ["a.one", "It has 8 experts.", "8", "", "8", "8", "", "reproduced", "Mixtral-8x7B, Mixtral-8x22B"],
        ["a.two", "It takes 59 GB.", "59", "GB", "58.7", "90.2", "", "contradicted", "Mixtral-8x7B"],
        ["a.three", "Its hit rate is 99 %.", "99", "%", "", "98.7", "61.2", "contradicted", "Mixtral-8x7B"],
        ["a.four", "It is extended by 2.", "2.0", "", "2.0", "", "", "reproduced-by-fit", "Mixtral-8x7B"],
        ["a.five", "There are 16 models.", "16", "", "16", "16", "", "reproduced", ""],
    ],
    columns=["id", "says", "claimed", "unit", "reported", "calibrated", "observed", "verdict", "model"],
)
"""A made-up ledger: of these columns of the real one, pages read the text."""


def read(path: str, table) -> pd.DataFrame:
    """A committed table of the default scenario."""
    return read_table(ROOT / path.format(scenario_dir=""), table)


@pytest.fixture(scope="module")
def results() -> Results:
    """The committed tables, with the made-up ledger."""
    return Results(
        catalog=read("tables/data/model_catalog.csv", CATALOG),
        record=read(EXTENDED_RECORD.path, EXTENDED_RECORD),
        gained=read(CONTEXT_GAINED.path, CONTEXT_GAINED),
        points=read(FRONTIER.path, FRONTIER),
        several=read(SEVERAL_GPUS.path, SEVERAL_GPUS),
        claims=LEDGER,
    )


@pytest.fixture(scope="module")
def pages(models, results) -> list[dict[str, Any]]:
    """The pages of all models; one has a figure."""
    return model_pages(models, results, CLAIMED, {"Mixtral-8x7B": Path("results/model_pages/Mixtral-8x7B.png")})


def section_of(pages: list[dict[str, Any]], model: str, heading: str) -> dict[str, Any]:
    """A section of the page of a model."""
    (page,) = (page for page in pages if page["model"] == model)
    (section,) = (section for section in page["sections"] if section["heading"] == heading)
    return section


def rows_of(section: dict[str, Any]) -> dict[str, list[str]]:
    """The rows of a section's table by their first cell."""
    return {row[0]: row[1:] for row in section["table"]["rows"]}


def shown_context(tokens: int) -> str:
    """A context as a cell has it."""
    return f"{tokens:,}" if tokens else NONE


def digits(cell: str) -> float:
    """The number that a cell shows."""
    return float(cell.replace(",", ""))


def test_every_model_has_a_page_of_the_agreed_form(models, pages):
    assert [page["model"] for page in pages] == list(models) and len(pages) == 16
    assert json.loads(json.dumps(pages)) == pages
    for page in pages:
        assert list(page) == ["model", "title", "summary", "sections"]
        assert [section["heading"] for section in page["sections"]] == HEADINGS
        for section in page["sections"]:
            assert list(section) == ["heading", "text", "table", "figure"]
            if section["table"]:
                assert all(len(row) == len(section["table"]["columns"]) for row in section["table"]["rows"])
                assert all(type(cell) is str and cell for row in section["table"]["rows"] for cell in row)


def test_sentences_are_whole_and_hold_no_missing_value(pages):
    for page in pages:
        for sentence in [*page["summary"], *(text for section in page["sections"] for text in section["text"])]:
            assert re.match(r"[A-Z]", sentence) and sentence.endswith("."), sentence
            assert not re.search(r"\bnan\b|<NA>|None|  ", sentence), sentence


def test_components_add_up_to_the_weights(models, pages):
    for model, spec in models.items():
        table = rows_of(section_of(pages, model, "Bytes by component"))
        total = sum(params.weight_bytes(spec.architecture).values()) / 1e9
        parts = [digits(cells[0]) for name, cells in table.items() if name != "all"]
        assert digits(table["all"][0]) == pytest.approx(total, abs=5e-4)
        assert sum(parts) == pytest.approx(total, abs=5e-4 * len(parts))


def test_contexts_on_a_page_are_those_of_the_record(results, pages):
    for model in ("Mixtral-8x7B", "Qwen1.5-MoE-A2.7B", "Jamba-1.5-Large"):
        shown = section_of(pages, model, "What fits where")["table"]["rows"]
        fitting = where(results.record, model=model, prophet_fits=True)
        assert [(row[0], int(row[1]), *row[3:5]) for row in shown if row[2] != "neither"] == [
            (row.gpu, row.batch_size, shown_context(row.baseline_max_context), shown_context(row.prophet_max_context))
            for row in fitting.itertuples()
        ]


def test_extensions_on_a_page_are_those_of_table_11(results, pages):
    section = section_of(pages, "Switch-Large-128", "Context within a limit of time")
    own = where(results.gained, model="Switch-Large-128", strategy="prophet").dropna(subset=["kv_extension_at_1.2x"])
    column = section["table"]["columns"].index("at 1.2x time (x)")
    shown = {(row[0], int(row[1])): row[column] for row in section["table"]["rows"]}
    assert shown == {
        (gpu, batch): f"{value:.2f}"
        for gpu, batch, value in zip(own["gpu"], own["batch_size"], own["kv_extension_at_1.2x"], strict=True)
    }


def test_page_counts_where_time_buys_more_than_memory(results, pages):
    """As the figure of the frontier counts them, from the simulated points."""
    own = where(results.points, model="DeepSeek-MoE-16B", strategy="prophet")
    gains = selection(own, np.array([CLAIMED]))
    floor = results.record.set_index(CONFIGURATION)["kv_extension_factor"]
    more = int(above_floor(gains, floor).to_numpy().sum())
    told = section_of(pages, "DeepSeek-MoE-16B", "Context within a limit of time")["text"][1]
    assert more > 0 and told.startswith(f"In {more} of them Prophet has more than by memory alone")


def test_page_of_mixtral_says_what_the_tables_have(results, pages):
    """Golden: published sizes beside those of the report, and what only Prophet fits, with its price in time."""
    (page,) = (page for page in pages if page["model"] == "Mixtral-8x7B")
    assert page["title"] == "Mixtral-8x7B (Mixtral-8x7B-v0.1)"
    assert page["summary"][0].startswith("Mixtral-8x7B has 46.70 billion parameters, of which a token uses 12.88")
    assert "it does not fit on any of V100-32GB, A100-40GB, A100-80GB and H100-80GB" in page["summary"][2]
    table = rows_of(section_of(pages, "Mixtral-8x7B", "Architecture"))
    catalog = where(results.catalog, model="Mixtral-8x7B").set_index("quantity")
    assert table["one expert (MB)"] == [f"{catalog.published['expert_mb']:.1f}", "234.9 (exact)"]
    assert table["routed experts of a layer"] == ["8", "same"] and table["hidden size"] == ["4,096", NONE]
    assert table["attention"][0] == "GQA"
    time = section_of(pages, "Mixtral-8x7B", "Context within a limit of time")
    fits = where(results.points, model="Mixtral-8x7B", gpu="H100-80GB", batch_size=1, strategy="prophet")
    least = fits[fits["max_context"] > 0].nsmallest(1, "slowdown").iloc[0]
    told = [str(least["resident_experts"]), f"{least['slowdown']:.2f}", f"{least['max_context']:,}"]
    assert ["H100-80GB", "1", *told] in time["table"]["rows"]
    assert "no frontier of KV extension, since the baseline fits nowhere" in time["text"][0]
    assert time["figure"] == "results/model_pages/Mixtral-8x7B.png"


def test_page_of_jamba_says_why_nothing_fits(results, pages):
    """Golden: the hybrid that the report leaves out, whose weights beside experts exceed every GPU."""
    architecture = section_of(pages, "Jamba-1.5-Large", "Architecture")
    assert architecture["text"][0] == (
        "It has 72 layers: 27 with Mamba-1 and a dense FFN, 36 with Mamba-1 and experts and 9 with GQA and a dense FFN."
    )
    assert rows_of(architecture)["routed experts of a token (k)"] == ["2", "4 (exact)"]
    assert rows_of(architecture)["attention"][0] == "GQA and Mamba-1, hybrid"
    assert any(
        "state of a sequence takes" in text for text in section_of(pages, "Jamba-1.5-Large", HEADINGS[1])["text"]
    )
    fits = section_of(pages, "Jamba-1.5-Large", "What fits where")
    assert [row[1:3] for row in fits["table"]["rows"]] == [["1 to 64", "neither"]] * 4
    others = where(results.record, model="Jamba-1.5-Large")["non_expert_gb"].max()
    assert any(f"takes {others:.0f} GB, more than any of these GPUs has" in text for text in fits["text"])
    time = section_of(pages, "Jamba-1.5-Large", "Context within a limit of time")
    assert time["table"] is None and time["text"][-1] == "Prophet does not fit either, so no step was simulated."


def test_claims_of_a_page_are_those_about_its_model(pages):
    section = section_of(pages, "Mixtral-8x7B", "Claims about it")
    expected = "4 claims of the reports about it: 2 contradicted, 1 reproduced and 1 reproduced-by-fit."
    assert section["text"][0].endswith(expected)
    found = {row[0]: row[2:] for row in section["table"]["rows"]}
    assert found == {
        "a.one": ["8", "8", "reproduced"],
        "a.two": ["59 GB", "90.2", "contradicted"],
        "a.three": ["99 %", "61.2", "contradicted"],
        "a.four": ["2.0", "2.0", "reproduced-by-fit"],
    }
    assert [row[0] for row in section_of(pages, "Mixtral-8x22B", "Claims about it")["table"]["rows"]] == ["a.one"]
    assert section_of(pages, "Grok-1-314B", "Claims about it")["table"] is None


def test_pages_without_optional_tables_say_so(models, results):
    least = Results(results.catalog, results.record)
    page = model_pages({"OLMoE-1B-7B": models["OLMoE-1B-7B"]}, least, CLAIMED, {})[0]
    assert page["sections"][3]["text"] == ["No step was simulated in this build."]
    assert page["sections"][4]["text"] == ["The ledger of claims was not made in this build."]
    assert index(models, least, CLAIMED)["rows"][0][-3:] == [NONE] * 3


def test_every_model_of_the_catalogue_can_be_described():
    """Every kind of mixer has a name, and what a sequence keeps is told, windows and states included."""
    current = load_models(ROOT / "config/models/current")
    assert {attention(spec.architecture) for spec in current.values()} >= {"MLA", "Gated DeltaNet and GQA, hybrid"}
    for spec in current.values():
        assert not spec.architecture.moe or len(bytes_section(spec.architecture)["text"]) >= 3


@pytest.mark.parametrize("model", ["Qwen1.5-MoE-A2.7B", "Mixtral-8x7B"])
def test_figure_of_a_model_is_readable(results, model):
    figure = draw(drawable(results.of(model).points), gpus_of(results.record), 16, Style())
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "batch 1",
        "batch 4" if model == "Mixtral-8x7B" else "batch 16",
    ]
    assert_nothing_is_clipped({model: figure})
    assert_no_texts_touch({model: figure})
    assert_legend_is_what_is_drawn(figure)


def test_model_of_single_points_has_no_figure(results):
    assert drawable(results.of("DBRX-132B").points).empty
    assert drawable(results.of("DeepSeek-V3-671B").points).empty


def test_supplement_has_an_index_and_every_page(models, results, pages):
    text = supplement(index(models, results, CLAIMED), pages, "..")
    assert text.startswith(r"\modelindex{") and text.count(r"\modelpage{") == len(models)
    for model in models:
        assert rf"\pageref{{model:{model}}}" in text and rf"{{model:{model}}}" in text
    assert r"\modelfigure{../results/model_pages/Mixtral-8x7B.pdf}" in text
    written = re.sub(r"\\modelfigure\{.+\}", "", text)
    assert text.count("{") == text.count("}") and not re.search(r"(?<!\\)[%#$_^~]", written)


def test_supplement_lists_claims_without_sentences(models, results, pages):
    text = supplement(index(models, results, CLAIMED), pages, "..")
    assert "a.\\allowbreak{}two & 59 GB & 90.2 & contradicted" in text and LEDGER["says"][1] not in text


def test_words_of_pages_are_plain():
    assert [number(value) for value in (0.7385, 46.703, 562.5, 1208.0, 163840)] == [
        "0.74",
        "46.70",
        "562.5",
        "1,208",
        "163,840",
    ]
    assert [span([1]), span([1, 4]), span([4, 8, 16])] == ["1", "1 and 4", "4 to 16"]
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert plain("10^9 of a_b – 5 %") == r"10\textsuperscript{9} of a\_b -- 5 \%"

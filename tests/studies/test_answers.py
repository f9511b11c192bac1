"""Answers to what the reports advise: numbers and judgements come from the tables, and change with them."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from prophet_moe.catalog import load_gpus, model_names
from prophet_moe.claims.answers import UNJUDGED, Answers, judged, read_answers, steps
from prophet_moe.claims.bindings import finished, tables_read
from prophet_moe.claims.evaluators import Tables
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.present.answers_page import answers_page
from prophet_moe.settings.style import Style
from prophet_moe.study import load_studies
from prophet_moe.tables import read_table
from studies.answers.compute import counted
from studies.answers.decision_tree import leaves
from studies.answers.figure import DETAIL, PAIRS, draw, findings
from studies.answers.study import ANSWERS, DECISION_STEPS, DECISION_TREE, KEEP_ALL, LEAVES, QUANTISE, SLOTS
from tests.conftest import ROOT

FILE = ROOT / "config/answers.yaml"
FOLDER = ROOT / "tables"
SEEDS = os.environ.get("PROPHET_SEEDS")
ADVICE = re.compile(
    r"\*\*Recommendation\*\*:|\*\*A\*\*:|> .{60}|\*\*Paper should|\*\*Optimal configuration|\*\*Paper pos"
)
"""How the reports begin a line of advice."""
NAMES = re.compile(r"small-\d+x\d+-top\d|top-\d|[48] bits|16 bits|(tables?|figure) \d+|NVLink-C2C", re.IGNORECASE)
"""Words that hold digits and no result."""
BATCH = re.compile(r"batch(es)?( sizes?)?[ =](of )?(up to )?\d+((-| to | or )\d+)?")
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


@pytest.fixture(scope="module")
def answers() -> Answers:
    """The file of advice and answers."""
    return read_answers(FILE)


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    """Every committed table that the file reads, by name."""
    paths = {
        path.relative_to(FOLDER).as_posix().replace("data/", "").removesuffix(".csv"): path
        for path in FOLDER.rglob("*.csv")
    }
    tables = finished(paths)
    return {name: tables[name] for name in tables_read(FILE)}


@pytest.fixture(scope="module")
def found(answers, frames) -> pd.DataFrame:
    """Every answer, from the committed tables."""
    return judged(answers, Tables(frames.__getitem__))


def templates(answers: Answers) -> Iterator[tuple[str, str, str]]:
    """Identity, text and what may be repeated in it, of every template."""
    for advice in answers.answers:
        for text in (advice.answer, *(outcome.why for outcome in advice.outcomes)):
            yield advice.id, text, advice.said
    for step in answers.tree:
        yield step.leaf, step.detail, step.question


def changed(frames: Mapping[str, pd.DataFrame], change: Callable[[pd.Series], Any], kept: set[str]) -> Tables:
    """The tables with every numeric column changed but for those `kept`, which select rows."""
    made = {}
    for name, frame in frames.items():
        numeric = frame.select_dtypes("number").columns.difference(sorted(kept))
        made[name] = frame.assign(**{column: change(frame[column].astype(float)) for column in numeric})
    return Tables(made.__getitem__)


def selecting(value: Any) -> Iterator[str]:
    """Columns that select rows, anywhere in a value."""
    if isinstance(value, Mapping):
        yield from value.get("where", {})
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from selecting(each)


def test_committed_answers_are_those_of_the_tables(found):
    pd.testing.assert_frame_equal(found, read_table(ROOT / ANSWERS.path, ANSWERS), check_dtype=False)


def test_every_advice_is_judged_with_a_number(answers, found):
    assert len(found) > 50 and set(found["judgement"]) == {"kept", "changed", "dropped"}
    assert all("{" in advice.answer for advice in answers.answers)
    assert found["answer"].str.contains(r"\d").all() and (found["read_from"] != "").all()
    assert all(len({outcome.judgement for outcome in advice.outcomes}) > 1 for advice in answers.answers)


def test_texts_type_no_number_that_a_table_should_give(answers):
    """Left are numbers that the report's own sentence has, batch sizes, and names."""
    models = [*model_names(ROOT / "config/models"), *model_names(ROOT / "config/models/current")]
    names = sorted([*models, *load_gpus(ROOT / "config/gpus.yaml")], key=len, reverse=True)
    typed = {}
    for entry, template, said in templates(answers):
        text = re.sub(r"\{[^}]*\}", "", template)
        for name in names:
            text = text.replace(name, "")
        left = set(NUMBER.findall(BATCH.sub("", NAMES.sub("", text)))) - set(NUMBER.findall(said))
        typed |= {entry: left} if left else {}
    assert typed == {}


def test_every_judgement_depends_on_the_tables(answers, frames, found):
    """Some change of the numbers, of what fits or of where pairs end gives another judgement."""
    keys = set(selecting(yaml.safe_load(FILE.read_text())))
    loose = keys - {"batch_p95", "baseline_fits"}
    free = {"num_experts", "batch_p95"}
    ways = [
        changed(frames, lambda column: 100 * column, keys),
        changed(frames, lambda column: column / 100, keys),
        changed(frames, lambda column: column.max() + column.min() - column, keys),
        changed(frames, lambda column: 1.0, keys),
        changed(frames | {"decision_tree": frames["decision_tree"].assign(leaf=KEEP_ALL)}, lambda column: column, keys),
        changed(
            frames | {"decision_tree": frames["decision_tree"].assign(leaf=SLOTS)}, lambda column: 100 * column, keys
        ),
        changed(frames, lambda column: 64.0, loose - free),
    ]
    fit = {name: frame.assign(baseline_fits=True) for name, frame in frames.items() if "baseline_fits" in frame}
    ways.append(changed(frames | fit, lambda column: 100 * column, keys))
    slots = frames["table17_alternatives"]
    slower = slots["slowdown"].where(slots["approach"] == "prophet", 100 * slots["slowdown"])
    ways.append(changed(frames | {"table17_alternatives": slots.assign(slowdown=slower)}, lambda column: column, keys))
    others = [judged(answers, tables)["judgement"] for tables in ways]
    moved = pd.concat([(other != found["judgement"]) & (other != UNJUDGED) for other in others], axis=1).any(axis=1)
    assert found.loc[~moved, "id"].tolist() == []


def test_twice_the_gain_flips_the_advice_on_small_batches(answers, frames, found):
    gained = frames["table11_context_gained"]
    twice = gained.assign(**{"kv_extension_at_1.2x": 2 * gained["kv_extension_at_1.2x"]})
    other = judged(answers, Tables((frames | {"table11_context_gained": twice}).__getitem__)).set_index("id")
    before = found.set_index("id")["judgement"]
    assert (before["batch-1-to-4"], other["judgement"]["batch-1-to-4"]) == ("changed", "kept")
    assert (before["paper-positioning"], other["judgement"]["paper-positioning"]) == ("dropped", "kept")
    assert other["answer"]["paper-positioning"] != found.set_index("id")["answer"]["paper-positioning"]


def test_a_build_without_the_tables_judges_nothing(answers):
    rows = judged(answers, finished({}))
    assert set(rows["judgement"]) == {UNJUDGED} and rows["why"].str.contains("this build makes no table").all()
    assert (steps(answers, finished({}))["detail"] == "").all()


def test_a_table_of_other_columns_judges_nothing(answers, frames):
    other = frames | {"table11_context_gained": frames["table11_context_gained"][["model", "gpu", "strategy"]]}
    rows = judged(answers, Tables(other.__getitem__)).set_index("id")
    assert rows["judgement"]["batch-1-to-4"] == UNJUDGED
    assert "table11_context_gained has no column" in rows["why"]["batch-1-to-4"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("{gain_b1:.2f}", "{gain_b2:.2f}", "no value is named 'gain_b2'"),
        ("{claim: gain_most}", "{claim: gain_mots}", "no value is named 'gain_mots'"),
        ("{take: spread, ", "{take: spred, ", "take: got 'spred'"),
        ("- id: tree.gaps", "- id: tree.batch", "tree.batch: is there twice"),
        ("kind: faq", "kind: question", "kind: got 'question'"),
        ("  - judgement: dropped\n    why", "  - judgement: dropped\n    when: {claim: gain}\n    why", "but the last"),
    ],
    ids=["name-in-text", "name-in-condition", "evaluator", "id", "kind", "last-condition"],
)
def test_mistake_in_the_file_is_one_line(tmp_path, old, new, problem):
    text = FILE.read_text()
    assert old in text
    path = tmp_path / "answers.yaml"
    write_text(path, text.replace(old, new))
    with pytest.raises(UserError, match=re.escape(problem)) as raised:
        read_answers(path)
    assert str(path) in str(raised.value)


def pays(model: str, gpu: str, *states: str, unified: bool = False) -> pd.DataFrame:
    """Rows of table 16 of one model and GPU: shipped, and then fewer bits."""
    formats = ["shipped", "fp8_channel", "mxfp4"][: len(states)]
    shares = {"resident_share_needed": 0.75, "largest_resident_share": 0.5}
    same = {"model": model, "num_experts": 64, "gpu": gpu, "bus": "own", "link": "PCIe 4", "link_basis": "measured"}
    rows = [same | shares | {"format": name, "state": state} for name, state in zip(formats, states, strict=True)]
    return pd.DataFrame(rows).assign(unified_memory=unified)


def test_pairs_come_to_the_first_leaf_that_holds():
    table = pd.concat(
        [
            pays("small", "large", "all_fit", "all_fit", "all_fit"),
            pays("slotted", "large", "slots", "all_fit", "all_fit"),
            pays("eight", "large", "too_slow", "all_fit", "all_fit"),
            pays("four", "large", "too_large", "too_slow", "all_fit"),
            pays("slow", "large", "too_slow", "too_slow", "too_slow"),
            pays("huge", "large", "too_large", "too_large", "too_slow"),
            pays("small", "unified", "all_fit", "all_fit", "all_fit", unified=True),
        ]
    )
    found = leaves(table)
    assert found["leaf"].tolist() == [KEEP_ALL, SLOTS, QUANTISE, QUANTISE, "slow_slots", "more_gpus"]
    assert found["format"].tolist() == ["shipped", "shipped", "fp8_channel", "mxfp4", "shipped", "shipped"]


def test_pairs_without_other_formats_are_never_quantised():
    assert leaves(pays("eight", "large", "too_slow"))["leaf"].tolist() == ["slow_slots"]


def test_every_pair_ends_at_one_leaf(answers, frames):
    rows = counted(steps(answers, Tables(frames.__getitem__)), frames[DECISION_TREE.name])
    assert rows["pairs_yes"].sum() == rows["pairs_asked"].iloc[0] == len(frames[DECISION_TREE.name])
    assert (rows["pairs_asked"] - rows["pairs_yes"]).iloc[:-1].tolist() == rows["pairs_asked"].iloc[1:].tolist()
    pd.testing.assert_frame_equal(rows, read_table(ROOT / DECISION_STEPS.path, DECISION_STEPS), check_dtype=False)


def test_tree_with_leaves_in_another_order_is_refused(answers, frames):
    rows = steps(answers, Tables(frames.__getitem__)).iloc[::-1]
    with pytest.raises(ValueError, match="expected keep_all, slots"):
        counted(rows, frames[DECISION_TREE.name])


def test_figure_keeps_details_apart_from_the_bars():
    rows = read_table(ROOT / DECISION_STEPS.path, DECISION_STEPS)
    figure = draw(rows, Style())
    (ax,) = figure.axes
    details = [text for text in ax.texts if text.get_position()[0] == DETAIL]
    assert len(details) == 1 + len(LEAVES)
    edge = ax.transData.transform((PAIRS[0], 0))[0]
    assert all(text.get_window_extent().x1 < edge for text in details)
    assert all(action in findings(rows) for action in rows["action"])


def test_page_tells_each_judgement_before_its_advice(found):
    rows = read_table(ROOT / DECISION_STEPS.path, DECISION_STEPS)
    page = " ".join(answers_page(load_studies()["answers"], found, rows).split())
    for row in found.itertuples():
        assert f"* **{row.judgement.capitalize()}**: {' '.join(row.said.rstrip('.').split())}" in page
    assert all(f"**{row.action}.** {row.pairs_yes} of {row.pairs_asked} pairs" in page for row in rows.itertuples())


@pytest.mark.skipif(SEEDS is None, reason="PROPHET_SEEDS names no folder with the reports")
def test_every_advice_of_the_reports_is_answered(answers):
    """And the numbers in our sentence stand in the lines that it tells."""
    texts = {path.name[:3]: path.read_text(encoding="utf-8").splitlines() for path in Path(SEEDS).glob("00[0-2]_*.md")}
    cited: set[tuple[str, int]] = set()
    for advice in answers.answers:
        told = ""
        for at in advice.at:
            document, _, lines = at.partition(":")
            first, _, last = lines.partition("-")
            here = range(int(first), int(last or first) + 1)
            cited |= {(document, line) for line in here}
            told += " ".join(texts[document][line - 1] for line in here)
        numbers = set(NUMBER.findall(told.replace("–", "-")))
        assert set(NUMBER.findall(advice.said)) <= numbers, (advice.id, advice.said)
    for document, lines in texts.items():
        for number, line in enumerate(lines, start=1):
            if ADVICE.match(line) and not re.match(r"> \*\*|.*: An? \w+ analysis", line):
                assert (document, number) in cited, (document, number, line)

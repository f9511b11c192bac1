"""Which traces the strategies are replayed on."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from prophet_moe.catalog import Architecture
from prophet_moe.files import write_json
from prophet_moe.routing.datasets import load_datasets
from studies.comparison.selection import Selection, replayed_alike, timing_models
from tests.conftest import ROOT

KNOWN = load_datasets(ROOT / "config/datasets.yaml")
RECORDED = "gpt-oss-20b-decode"
"""A dataset of the list."""


def stocked(tmp_path: Path = Path(), **more) -> SimpleNamespace:
    """What the selection asks an inventory for."""
    asked = {
        "traces": ["long", "short", "strange", "unfit"],
        "present": ["at-hand"],
        "recorded": [RECORDED],
        "fitted": ["long", "short", "strange", "at-hand", RECORDED],
        "sequences": {"long": 20, "short": 8, "strange": 20, "unfit": 1},
        "resources": tmp_path,
        "metadata": lambda name: {"model": "Mixtral-8x7B"} if name == "long" else {},
    }
    return SimpleNamespace(**asked | more)


TIMED = {name: {"layers": 2} for name in ("long", "short", "unfit", "at-hand")} | {"strange": None}


@pytest.fixture
def selection() -> Selection:
    """A selection of traces with at least 16 sequences."""
    return Selection(stocked(), TIMED, 16, [RECORDED])


def test_timing_models_are_listed_or_the_own_of_a_trace():
    found = timing_models(stocked(present=[]), {"short": "Switch-Base-128"}, ROOT / "config/models", KNOWN)
    assert set(found) == {"long", "short", "strange", "unfit", RECORDED}
    assert timed_experts(found["long"]) == 8
    assert timed_experts(found["short"]) == 128
    assert timed_experts(found[RECORDED]) == 32
    assert found["strange"] is None


def timed_experts(told: dict) -> int:
    """The experts of an architecture as it is told, which is one that can be read again."""
    return Architecture.model_validate(told["architecture"]).moe.experts


def test_timing_model_of_the_settings_goes_before_the_own():
    found = timing_models(stocked(present=[]), {"long": "OLMoE-1B-7B"}, ROOT / "config/models", KNOWN)
    assert timed_experts(found["long"]) == 64


def test_short_untimed_and_unfitted_traces_are_not_replayed(selection):
    assert selection.replayed == ["long", "at-hand"]
    assert selection.shown == ["long", "at-hand", RECORDED]
    assert selection.short == {"short": 8, "unfit": 1}


def test_trace_of_just_enough_sequences_is_replayed():
    least = Selection(stocked(), TIMED, 20, [])
    assert least.replayed == ["long", "at-hand"]


def test_notes_tell_why_a_trace_is_left_out(selection):
    table = "so tables/data/comparative_results.csv leaves it out"
    assert selection.notes() == [
        "note: short holds 8 sequences without repetition, expected at least 16, twice studies.comparison.sequences, "
        f"{table}. Collect more sequences, or lower that number",
        f"note: strange has no timing model, {table}. To choose one: add strange to replay.timed_as",
    ]


def test_notes_tell_of_recorded_data_replayed_otherwise(selection):
    *_, last = Selection(selection.here, selection.timed, 16, []).notes()
    assert last.startswith(f"note: {RECORDED} was simulated with other settings and is not available locally")


@pytest.mark.parametrize(
    ("written", "measured", "expected"),
    [({"seeds": 5}, False, [RECORDED]), ({"seeds": 4}, False, []), ({"seeds": 5}, True, []), (None, False, [])],
)
def test_recorded_replays_count_with_equal_settings_and_times(tmp_path, written, measured, expected):
    if written is not None:
        write_json(tmp_path / "statistics" / RECORDED / "simulation.json", written)
    assert replayed_alike(stocked(tmp_path), {RECORDED: {"seeds": 5}}, measured) == expected

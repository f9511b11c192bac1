"""The drawings of docs/: each is what its script makes of the code, and shows what it says."""

import runpy

import pytest

from prophet_moe.offload.simulator.simulation import simulate
from prophet_moe.present.save import save_drawing
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def architecture() -> dict:
    """Run docs/draw_architecture.py without drawing, and give its functions by name."""
    return runpy.run_path(str(ROOT / "docs/draw_architecture.py"))


@pytest.fixture(scope="module")
def timeline() -> dict:
    """Run docs/draw_timeline.py without drawing, and give its functions by name."""
    return runpy.run_path(str(ROOT / "docs/draw_timeline.py"))


def test_architecture_drawing_is_that_of_the_code(architecture, tmp_path):
    save_drawing(architecture["draw"](), tmp_path / "architecture.svg")
    expected = (ROOT / "docs/architecture.svg").read_bytes()
    assert (tmp_path / "architecture.svg").read_bytes() == expected, "run: python docs/draw_architecture.py"


def test_timeline_drawing_is_that_of_the_simulator(timeline, tmp_path):
    save_drawing(timeline["draw"](timeline["replayed"]()), tmp_path / "timeline.svg")
    expected = (ROOT / "docs/timeline.svg").read_bytes()
    assert (tmp_path / "timeline.svg").read_bytes() == expected, "run: python docs/draw_timeline.py"


def test_every_arrow_of_the_architecture_leads_down(architecture):
    layers = architecture["layers_of"](ROOT / "pyproject.toml")
    depth = {room: number for number, layer in enumerate(layers) for room in layer}
    pairs = architecture["imports_of"](depth)
    assert {("cli", "provenance"), ("routing", "catalog")} <= pairs
    assert all(depth[upper] < depth[lower] for upper, lower in pairs)


def test_arrows_that_follow_from_others_are_left_out(architecture):
    pairs = {("a", "b"), ("b", "c"), ("a", "c"), ("a", "d"), ("c", "d")}
    assert architecture["without_detours"](pairs) == {("a", "b"), ("b", "c"), ("c", "d")}


def test_stages_of_the_drawing_have_every_shared_rule(architecture):
    stages = architecture["stages_of"](ROOT / "Snakefile")
    first, *between, last = stages
    assert (first, last) == ("collect", "verify")
    assert "studies" in between
    named = [rule for rules in stages.values() for rule in rules]
    written = [
        line.split()[1]
        for path in (ROOT / "workflow/rules").glob("*.smk")
        for line in path.open()
        if line[:5] == "rule "
    ]
    assert sorted(named) == sorted(rule.rstrip(":") for rule in written)


def test_spans_of_the_timeline_are_what_the_engine_takes(timeline):
    replay = timeline["replayed"]()
    taken = simulate([timeline["toy"]()], timeline["HIERARCHY"], timeline["TIMES"], timeline["POPULARITY"])
    seconds = {
        kind: sum(span.end - span.begin for span in (*replay.compute, *replay.copies) if span.kind in kinds)
        for kind, kinds in (
            ("compute", ("everything else", "expert")),
            ("demand", ("missing expert",)),
            ("prefetch", ("prefetch", "prefetch, not used")),
        )
    }
    assert seconds["compute"] == pytest.approx(taken.compute_seconds)
    assert seconds["demand"] == pytest.approx(taken.demand_seconds)
    assert seconds["prefetch"] == pytest.approx(taken.prefetch_seconds)
    assert max(span.end for span in replay.compute) == pytest.approx(taken.seconds)


def test_timeline_shows_a_paused_prefetch_and_a_stall(timeline):
    replay = timeline["replayed"]()
    kinds = [span.kind for span in replay.copies]
    missing = kinds.index("missing expert")
    paused, continued = replay.copies[missing - 1], replay.copies[missing + 1]
    assert (paused.layer, paused.expert) == (continued.layer, continued.expert)
    assert paused.end - paused.begin == pytest.approx(timeline["TIMES"].chunk_seconds)
    assert any(span.kind == "stall" for span in replay.compute)

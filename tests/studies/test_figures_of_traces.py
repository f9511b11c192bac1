"""Figures about traces: their texts can be read, and a trace or a strategy looks alike in all of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import floats, lists, text
from matplotlib.colors import to_hex

from prophet_moe.present.style import STRATEGY_LOOKS, apart, strategy_look, trace_look
from prophet_moe.settings.experiment import Experiment
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from studies.comparison import expert_deduplication
from studies.comparison.study import DEDUPLICATION, ReportedComparison
from studies.prediction import figure as prediction
from studies.prediction.study import SCORES
from studies.routing_law import figure as routing_law
from studies.routing_law.study import RESIDUALS
from studies.routing_statistics import figure as routing_statistics
from studies.routing_statistics.study import STATISTICS
from tests.conftest import ROOT
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped, visible_texts

STYLE = Style()
TRACES = STYLE.traces
FIGURES = {
    "routing_statistics": (routing_statistics, STATISTICS, {}),
    "routing_law": (routing_law, RESIDUALS, {}),
    "prediction": (prediction, SCORES, {}),
    "expert_deduplication": (expert_deduplication, DEDUPLICATION, {"claimed": ReportedComparison()}),
}


def drawn(name: str, traces: list[str], style: Style = STYLE):
    """One figure from its committed table."""
    module, table, more = FIGURES[name]
    return module.draw(read_table(ROOT / table.path, table), style, traces=traces, **more)


@pytest.mark.parametrize("name", FIGURES)
def test_texts_of_trace_figures_can_be_read(name):
    """The middle panel of routing_statistics once wrote into its own title."""
    figure = drawn(name, TRACES)
    assert_nothing_is_clipped({name: figure})
    assert_no_texts_touch({name: figure})
    assert min(text.get_fontsize() for text in visible_texts(figure)) >= 6


@pytest.mark.parametrize("name", FIGURES)
def test_a_trace_keeps_its_colour_beside_others(name):
    """Drawn first, last or alone: what stands in the legend for a trace has its colour and marker."""
    for traces in (TRACES, TRACES[::-1], TRACES[-1:]):
        legend = drawn(name, traces).legends[0]
        entries = {
            text.get_text(): handle for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        }
        for trace in traces:
            look = trace_look(STYLE, trace)
            assert (to_hex(entries[trace].get_color()), entries[trace].get_marker()) == (look["color"], look["marker"])


def test_listed_traces_are_the_configured_ones_then_datasets():
    configured = Experiment().traces
    assert TRACES[: len(configured)] == configured
    assert TRACES[len(configured) :] == ["gpt-oss-20b-decode"]


@given(text(min_size=1))
def test_another_trace_changes_no_look(name):
    """And looks like none of those that are listed."""
    listed = [trace_look(STYLE, trace) for trace in TRACES]
    assert len({tuple(look.values()) for look in listed}) == len(TRACES)
    assert name in TRACES or trace_look(STYLE, name) not in listed
    longer = STYLE.model_copy(update={"traces": [*TRACES, "another"]})
    assert [trace_look(longer, trace) for trace in TRACES] == listed


def test_strategies_have_one_colour_and_marker_each():
    looks = [strategy_look(STYLE, name) for name in (*STRATEGY_LOOKS, "any other")]
    for key in ("color", "marker"):
        assert len({look[key] for look in looks}) == len(looks), key
    assert STYLE.colours.prophet == strategy_look(STYLE, "prophet")["color"], "as in figures 1 to 5"


@given(lists(floats(0, 100), max_size=7))
def test_labels_apart_do_not_overlap_and_keep_their_order(wanted):
    places = apart(wanted, 5)
    ranked = sorted(range(len(wanted)), key=wanted.__getitem__)
    assert all(places[after] - places[before] >= 5 - 1e-9 for before, after in pairwise(ranked))
    if all(wanted[after] - wanted[before] >= 5 for before, after in pairwise(ranked)):
        assert places == pytest.approx(wanted)
    assert not wanted or np.mean(places) == pytest.approx(np.mean(wanted))


def test_the_statement_about_power_laws_is_computed():
    residuals = read_table(ROOT / RESIDUALS.path, RESIDUALS)
    error = routing_law.errors(residuals)
    doubled = error.assign(error_pct=2 * error["error_pct"])
    assert routing_law.headline(doubled) != routing_law.headline(error)


def test_the_title_about_shuffled_traces_is_computed():
    statistics = read_table(ROOT / STATISTICS.path, STATISTICS)
    measured = statistics[statistics["layer"].isna() & statistics["statistic"].isin(list(routing_statistics.EVIDENCE))]
    above, rows = (measured["value"] > measured["control"]).sum(), len(routing_statistics.EVIDENCE) * len(TRACES)
    title = drawn("routing_statistics", TRACES).axes[1].get_title(loc="left")
    assert title.startswith(f"{above} of {rows} ")
    unlearned = statistics.assign(control=1.0)
    figure = routing_statistics.draw(unlearned, STYLE, traces=TRACES)
    assert figure.axes[1].get_title(loc="left").startswith(f"0 of {rows} ")

"""Figures of the expert-cache simulation show what runs say, whichever traces and claims they are given."""

from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis.strategies import floats, just, lists
from scipy import stats

from prophet_moe.cachesim.deduplication import deduplication
from prophet_moe.cachesim.experiments import comparative_results, sweep
from prophet_moe.cachesim.simulation import Times
from prophet_moe.errors import UserError
from prophet_moe.present.comparison import BASE, batch_scaling, deduplication_summary, holm, speedup, strategy_summary
from prophet_moe.present.figures import (
    comparative_evaluation,
    expert_deduplication,
    layer_detail,
    strategy_sweeps,
)
from prophet_moe.present.figures.comparative_evaluation import AS_DESCRIBED, DEDUPLICATED, reported, steps
from prophet_moe.present.select import where
from prophet_moe.routing.store import read_trace
from prophet_moe.settings import ReportedComparison, Simulation, Style
from tests.unit.test_figures import assert_nothing_is_clipped, visible_texts
from tests.unit.test_predict import random_network

TRACES = Path(__file__).resolve().parents[2] / "resources/traces"
SHOWN = ["small-6x64-top8", "small-6x8-top2"]
ALSO = ["small-12x128-top1", "gpt-oss-20b-decode"]
STYLE = Style()
CLAIMED = ReportedComparison()
UNCLAIMED = ReportedComparison(**{key: {} for key in ReportedComparison.model_fields})
BATCH = 4
PLAN = Simulation(
    batch_sizes=[1, BATCH],
    seeds=3,
    sequences=4,
    tokens=6,
    capacity_shares=[0.25, 0.5, 1.0],
    link_speedups=[1, 4],
    sweep_batch_sizes=[1, BATCH],
    sweep_seeds=2,
)


def runs_on(name: str) -> dict[str, pd.DataFrame]:
    """Small real runs on a committed trace, with a predictor of random weights on a toy device."""
    trace = read_trace(TRACES / name)
    layers = len(trace.router.layers)
    network = random_network(trace.router.experts, layers, hidden=4)

    def timed(batch: int) -> Times:
        work = 1e-4 * np.arange(batch * trace.router.top_k + 1)
        return Times(np.full(layers, 1e-3), work, (2e-3,), 1e-3)

    results, by_layer = comparative_results(name, trace, network, timed, PLAN)
    return {
        "results": results,
        "layers": by_layer,
        "sweeps": sweep(name, trace, network, timed, PLAN),
        "counted": pd.DataFrame(deduplication(name, trace, PLAN.batch_sizes, 5, 0)),
    }


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    """The four tables, of both traces."""
    of_each = [runs_on(name) for name in SHOWN]
    return {kind: pd.concat([each[kind] for each in of_each], ignore_index=True) for kind in of_each[0]}


def drawings(tables: dict[str, pd.DataFrame], traces: list[str], claimed: ReportedComparison) -> dict:
    """All four figures."""
    sweeps = {"traces": traces, "batch": BATCH, "claimed_slowdown": 1.2}
    return {
        "comparative": comparative_evaluation.draw(tables["results"], STYLE, traces=traces, claimed=claimed),
        "deduplication": expert_deduplication.draw(tables["counted"], STYLE, traces=traces, claimed=claimed),
        "layers": layer_detail.draw(tables["layers"], STYLE, traces=traces),
        "sweeps": strategy_sweeps.draw(tables["sweeps"], STYLE, **sweeps),
    }


def told(tables: dict[str, pd.DataFrame], traces: list[str], claimed: ReportedComparison) -> list[str]:
    """The findings of all four."""
    return [
        comparative_evaluation.findings(tables["results"], traces=traces, claimed=claimed),
        expert_deduplication.findings(tables["counted"], traces=traces, claimed=claimed),
        layer_detail.findings(tables["layers"], traces=traces),
        strategy_sweeps.findings(tables["sweeps"], traces=traces, batch=BATCH, claimed_slowdown=1.2),
    ]


@pytest.fixture(scope="module")
def figures(tables) -> dict:
    """Of both traces, with the report's claims."""
    return drawings(tables, SHOWN, CLAIMED)


def assert_no_texts_touch(figures: dict) -> None:
    """No two texts of a figure overlap by more than a pixel."""
    for name, figure in figures.items():
        figure.draw_without_rendering()
        boxes = [(text.get_text(), text.get_window_extent().padded(-1)) for text in visible_texts(figure)]
        for place, (text, box) in enumerate(boxes):
            for other, beside in boxes[place + 1 :]:
                assert not box.overlaps(beside), f"{name}: {text!r} touches {other!r}"


def marks(axes) -> set[tuple[float, float]]:
    """Every drawn point of an axes' lines, rounded."""
    return {
        (round(float(x), 6), round(float(y), 6))
        for line in axes.get_lines()
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }


def assert_drawn(axes, x, y) -> None:
    """The points are among those of an axes."""
    expected = {(round(float(one), 6), round(float(other), 6)) for one, other in zip(x, y, strict=True)}
    assert expected
    assert expected <= marks(axes)


@pytest.fixture(scope="module")
def four(tables) -> dict[str, pd.DataFrame]:
    """As many traces as are published, with names as long: each run under two names."""
    names = dict(zip(SHOWN, ALSO, strict=True))
    return {
        kind: pd.concat([table, table.assign(trace=table["trace"].map(names))], ignore_index=True)
        for kind, table in tables.items()
    }


@pytest.mark.parametrize(("traces", "claimed"), [([*ALSO, *SHOWN], CLAIMED), (SHOWN[:1], UNCLAIMED)])
def test_all_texts_can_be_read(four, traces, claimed):
    figures = drawings(four, traces, claimed)
    assert_nothing_is_clipped(figures)
    assert_no_texts_touch(figures)
    for name, figure in figures.items():
        assert min(text.get_fontsize() for text in visible_texts(figure)) >= 6, name


@pytest.mark.parametrize("traces", [SHOWN, SHOWN[:1]])
@pytest.mark.parametrize("claimed", [CLAIMED, UNCLAIMED], ids=["claims", "no claims"])
def test_findings_are_numbers_about_every_trace(tables, traces, claimed):
    for text in told(tables, traces, claimed):
        assert "nan" not in text.lower()
        assert all(f"**{trace}**" in text for trace in traces)


def test_without_a_predictor_prophet_is_left_out(tables):
    without = {
        kind: table[table["strategy"] != "prophet"] if "strategy" in table else table for kind, table in tables.items()
    }
    assert_nothing_is_clipped(drawings(without, SHOWN, CLAIMED))
    findings = told(without, SHOWN, CLAIMED)
    assert not any("Prophet" in text for text in findings)


def test_notebooks_know_the_columns_of_the_tables(tables):
    modules = {"results": comparative_evaluation, "layers": layer_detail, "sweeps": strategy_sweeps}
    for kind, module in (modules | {"counted": expert_deduplication}).items():
        assert list(tables[kind].columns) == module.COLUMNS, kind


def test_speedups_are_those_of_the_tables(tables, figures):
    results, trace = tables["results"], SHOWN[0]
    strategies, batches, gains = figures["comparative"].axes
    summary = where(strategy_summary(results, CLAIMED), trace=trace, routing="recorded")
    described = where(summary, mode="as_described").set_index("strategy")["speedup"]
    deduplicated = where(summary, mode="deduplicated").set_index("strategy")["speedup"]
    rows = range(len(comparative_evaluation.STRATEGIES))
    assert_drawn(strategies, described[list(comparative_evaluation.STRATEGIES)], rows)
    assert_drawn(strategies, CLAIMED.speedups.values(), rows[: len(CLAIMED.speedups)])
    scaling = where(batch_scaling(results, CLAIMED), trace=trace)
    assert_drawn(batches, scaling["batch"], scaling["speedup"])
    assert_drawn(batches, *zip(*((batch, CLAIMED.improvements[batch]) for batch in PLAN.batch_sizes), strict=True))
    assert_drawn(gains, deduplicated[list(comparative_evaluation.GAINS)], [0] * len(comparative_evaluation.GAINS))


def test_deduplication_alone_is_on_demand_beside_itself(tables, figures):
    """Drawn as the filled mark of On-Demand, as the end of the shaded part, and named."""
    axes = figures["comparative"].axes[0]
    found = (steps(tables["results"], SHOWN[0], **mode)[BASE] for mode in (AS_DESCRIBED, DEDUPLICATED))
    described, deduplicated = found
    alone = np.exp(np.log(described / deduplicated).mean())
    assert alone > 1
    assert_drawn(axes, [alone], [0])
    assert axes.patches[0].get_x() + axes.patches[0].get_width() == pytest.approx(alone)
    assert any(f"{alone:.2f}x" in text.get_text() for text in axes.texts)


def test_counts_of_deduplication_are_the_tables(tables, figures):
    figure = figures["deduplication"]
    summary = deduplication_summary(tables["counted"], CLAIMED)
    for axes, name in zip(figure.axes, ("request_dedup", "shared_requests", "resident_share"), strict=True):
        assert_drawn(axes, summary["batch"], summary[name])
    assert_drawn(figure.axes[0], summary["batch"], summary["uniform_request_dedup"])
    assert_drawn(figure.axes[0], CLAIMED.savings, CLAIMED.savings.values())
    assert_drawn(figure.axes[0], CLAIMED.scaling_savings, CLAIMED.scaling_savings.values())
    assert_drawn(figure.axes[1], CLAIMED.reuse, CLAIMED.reuse.values())


def test_no_batch_shares_more_than_twice_what_it_saves(tables):
    """What the report's reuse factor is held against."""
    counted = tables["counted"]
    assert (counted["shared_requests"] <= 2 * counted["request_dedup"] + 1e-12).all()
    fair = UNCLAIMED.model_copy(update={"savings": {4: 0.2}, "reuse": {4: 0.4}})
    assert "no routing" not in expert_deduplication.findings(counted, traces=SHOWN, claimed=fair)
    assert "0.281 > 2 x 0.057" in expert_deduplication.findings(counted, traces=SHOWN, claimed=CLAIMED)


def test_that_the_report_prints_two_savings_is_told(tables):
    told = expert_deduplication.findings(tables["counted"], traces=SHOWN, claimed=CLAIMED)
    assert "two savings for the same batches: at 64, 64.9 % in its table" in told
    assert "and 36.5 % in its table of batch sizes" in told
    agreed = CLAIMED.model_copy(update={"scaling_savings": CLAIMED.savings})
    assert "two savings" not in expert_deduplication.findings(tables["counted"], traces=SHOWN, claimed=agreed)


def test_what_the_report_prints_of_batch_sizes_is_in_table_10(tables):
    scaling = batch_scaling(tables["results"], CLAIMED)
    described = scaling[(scaling["mode"] == "as_described") & scaling["batch"].isin(list(CLAIMED.improvements))]
    ratio = described["claimed_papers_ms"] / described["claimed_best_ms"]
    assert ratio.round(2).tolist() == described["claimed_speedup"].tolist(), "004:72-78 divides its own columns"
    assert scaling.loc[scaling["mode"] == "deduplicated", "claimed_papers_ms"].isna().all()


def test_lines_by_layer_are_the_table(tables, figures):
    figure = figures["layers"]
    panels = np.array(figure.axes).reshape(len(layer_detail.QUANTITIES), -1)
    for row, name in zip(panels, layer_detail.QUANTITIES, strict=True):
        for axes, batch in zip(row, PLAN.sweep_batch_sizes, strict=True):
            for strategy in layer_detail.SHOWN:
                rows = where(tables["layers"], trace=SHOWN[0], batch=batch, strategy=strategy)
                assert_drawn(axes, rows["layer"], rows[name])


def test_lines_of_the_sweeps_are_the_table(tables, figures):
    figure = figures["sweeps"]
    panels = np.array(figure.axes).reshape(3, len(SHOWN))
    for trace, (hits, slowdown, links) in zip(SHOWN, panels.T, strict=True):
        rows = where(tables["sweeps"], trace=trace, batch=BATCH)
        for strategy in strategy_sweeps.BY_CAPACITY:
            capacity = where(rows, strategy=strategy, link_speedup=1)
            assert_drawn(hits, capacity["capacity_share"], capacity["hit_rate"])
            assert_drawn(slowdown, capacity["capacity_share"], capacity["slowdown"])
        for strategy in strategy_sweeps.BY_LINK:
            link = where(rows, strategy=strategy, capacity_share=PLAN.capacity_share)
            assert_drawn(links, link["link_speedup"], link["slowdown"])


def test_the_reports_ratio_is_computed_from_its_own_times(tables):
    text = comparative_evaluation.findings(tables["results"], traces=SHOWN, claimed=CLAIMED)
    assert "77,882 / 61,542 = 1.27" in text
    assert "79,658, the mean over its batch sizes of another table, gives 1.29" in text
    halved = CLAIMED.model_copy(update={"step_ms": CLAIMED.step_ms | {BASE: CLAIMED.step_ms["intelligent"] / 2}})
    assert "= 0.50" in comparative_evaluation.findings(tables["results"], traces=SHOWN, claimed=halved)


def test_claims_come_from_json_or_from_the_settings():
    assert reported({}) == CLAIMED
    assert reported(CLAIMED.model_dump(mode="python")) == CLAIMED
    texts = {"improvements": {"1": 1.5}, "savings": {"64": 0.5}}
    assert reported(texts) == ReportedComparison(improvements={1: 1.5}, savings={64: 0.5})


@pytest.mark.parametrize("claimed", [{"saving": {}}, {"savings": {"many": 0.5}}, {"savings": 3}])
def test_strange_claims_are_told(claimed):
    with pytest.raises(UserError, match="claimed"):
        reported(claimed)


def test_who_holds_every_expert_never_waits(tables):
    """Exactly: what rounding would leave is no result."""
    assert (where(tables["results"], strategy="all_resident")["stall_share"] == 0).all()
    assert (where(tables["results"], strategy="on_demand")["stall_share"] > 0).all()


@pytest.mark.parametrize("samples", [2, 5, 80])
def test_a_speedup_has_the_interval_and_the_p_value_of_a_paired_t_test(samples):
    base, mine = (pd.Series(np.exp(logs)) for logs in np.random.default_rng(samples).normal(size=(2, samples)))
    test = stats.ttest_rel(np.log(base), np.log(mine))
    expected = {"speedup_low": np.exp(test.confidence_interval().low), "p_value": test.pvalue}
    expected["speedup_high"] = np.exp(test.confidence_interval().high)
    found = speedup(base, mine)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@given(lists(floats(0, 1) | just(np.nan), max_size=8))
def test_holms_correction_is_the_closed_test_of_bonferronis(values):
    """The largest Bonferroni p-value of all subsets of comparisons that one is in."""
    tested = [place for place, value in enumerate(values) if not np.isnan(value)]
    subsets = [*chain.from_iterable(combinations(tested, size) for size in range(1, len(tested) + 1))]
    bonferroni = {subset: min(1.0, len(subset) * min(values[place] for place in subset)) for subset in subsets}
    expected = [max((bonferroni[s] for s in subsets if place in s), default=np.nan) for place in range(len(values))]
    assert holm(pd.Series(values, dtype=float)).to_numpy() == pytest.approx(expected, nan_ok=True)


def test_p_values_are_corrected_within_a_trace_and_mode(tables):
    """Table 8: for all strategies that are tested there; table 10: for all batch sizes."""
    summary, scaling = strategy_summary(tables["results"], CLAIMED), batch_scaling(tables["results"], CLAIMED)
    for table, family in ((summary, ["trace", "routing", "mode"]), (scaling, ["trace", "mode"])):
        for _, found in table.groupby(family):
            tested = found["p_value"].notna()
            least = found["p_value"].idxmin()
            assert (found["p_holm"].notna() == tested).all()
            assert found.loc[least, "p_holm"] == min(1, tested.sum() * found.loc[least, "p_value"])


def test_claims_are_drawn_from_small_batches_to_large_ones(tables):
    """Their keys come ordered as text: 1, 16, 2, 32."""
    mixed = CLAIMED.model_copy(update={"savings": dict(sorted(CLAIMED.savings.items(), key=lambda item: str(item[0])))})
    assert list(mixed.savings) != sorted(mixed.savings)
    figure = expert_deduplication.draw(tables["counted"], STYLE, traces=SHOWN, claimed=mixed)
    assert_drawn(figure.axes[0], sorted(mixed.savings), [mixed.savings[batch] for batch in sorted(mixed.savings)])

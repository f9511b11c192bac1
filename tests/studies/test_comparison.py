"""Figures of the expert-cache simulation show what runs say, whichever traces and claims they are given."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prophet_moe.errors import UserError
from prophet_moe.offload.replay import long_sequences, with_interval
from prophet_moe.offload.simulator.simulation import Times
from prophet_moe.present.select import where
from prophet_moe.present.style import strategy_look
from prophet_moe.routing.store import read_trace
from prophet_moe.settings.style import Style
from studies.comparison import comparative_evaluation, expert_deduplication, layer_detail, strategy_sweeps
from studies.comparison.comparative_evaluation import reported
from studies.comparison.compute import (
    BASE,
    OURS,
    PAPERS,
    batch_scaling,
    chosen_by_others,
    deduplication_summary,
    speedup,
    strategy_summary,
)
from studies.comparison.deduplication import deduplication
from studies.comparison.replays import comparative_results, sweep
from studies.comparison.study import DEDUPLICATION, LAYERS, RESULTS, SWEEPS, ComparisonSettings, ReportedComparison
from tests.builders import random_network
from tests.drawings import (
    assert_legend_is_what_is_drawn,
    assert_no_texts_touch,
    assert_nothing_is_clipped,
    visible_texts,
)

TRACES = Path(__file__).resolve().parents[2] / "resources/traces"
SHOWN = ["small-6x64-top8", "small-6x8-top2"]
ALSO = ["small-12x128-top1", "gpt-oss-20b-decode"]
STYLE = Style()
CLAIMED = ReportedComparison()
UNCLAIMED = ReportedComparison(**{key: {} for key in ReportedComparison.model_fields})
BATCH = 4
PLAN = ComparisonSettings(
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

    results, by_layer = comparative_results(name, trace, network, timed, timed, PLAN)
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
    """The four figures about replays of strategies, drawn from `tables`, by a short name."""
    return {
        "comparative": comparative_evaluation.draw(tables["results"], STYLE, traces=traces, claimed=claimed),
        "deduplication": expert_deduplication.draw(tables["counted"], STYLE, traces=traces, claimed=claimed),
        "layers": layer_detail.draw(tables["layers"], STYLE, traces=traces),
        "sweeps": strategy_sweeps.draw(tables["sweeps"], STYLE, traces=traces, batch=BATCH),
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


def test_runs_have_the_declared_columns(tables):
    declared = {"results": RESULTS, "layers": LAYERS, "sweeps": SWEEPS, "counted": DEDUPLICATION}
    for kind, table in declared.items():
        assert list(tables[kind].columns) == [column.name for column in table.columns], kind


def plain_speedup(results: pd.DataFrame, trace: str, base: tuple, mine: tuple, batches: list[int]) -> float:
    """Geometric mean over batch sizes and samples of On-Demand's step over a strategy's, one run at a time."""
    logs = []
    for batch in batches:
        for seed in range(PLAN.seeds):
            times = []
            for strategy, mode in (base, mine):
                runs = where(results, trace=trace, routing="recorded", batch=batch, seed=seed, strategy=strategy)
                times.append(runs.loc[runs[mode], "step_ms_mean"].item())
            logs.append(np.log(times[0] / times[1]))
    return float(np.exp(np.mean(logs)))


def test_speedups_are_paired_by_batch_and_sample(tables):
    results = tables["results"]
    found = comparative_evaluation.selection(results, traces=SHOWN)
    bases = {comparative_evaluation.ASKING_ONCE: "as_described", comparative_evaluation.PREDICTION: "deduplicated"}
    for row in found.itertuples():
        batches = PLAN.batch_sizes if row.batch == comparative_evaluation.GEOMETRIC_MEAN else [row.batch]
        own = "as_described" if (row.comparison, row.strategy) == ("asking once", "prophet") else "deduplicated"
        base, mine = (BASE, bases[row.comparison]), (row.strategy, own)
        assert row.speedup == pytest.approx(plain_speedup(results, row.trace, base, mine, batches))
        assert row.low <= row.speedup <= row.high
    assert set(where(found, comparison="prediction")["strategy"]) == {
        *comparative_evaluation.STRATEGIES,
        *comparative_evaluation.BOUNDS,
    }


def test_speedups_are_drawn_by_batch_and_in_the_mean(tables, figures):
    found = comparative_evaluation.selection(tables["results"], traces=SHOWN)
    panels = np.array(figures["comparative"].axes).reshape(2, len(SHOWN))
    places = {batch: place for place, batch in enumerate(PLAN.batch_sizes)}
    places[comparative_evaluation.GEOMETRIC_MEAN] = len(places) + 0.3
    for comparison, row in zip(("asking once", "prediction"), panels, strict=True):
        for trace, axes in zip(SHOWN, row, strict=True):
            mine = where(found, comparison=comparison, trace=trace)
            assert_drawn(axes, mine["batch"].map(places), mine["speedup"])
            means = where(mine, batch=comparative_evaluation.GEOMETRIC_MEAN).set_index("strategy")["speedup"]
            written = {text.get_text() for text in axes.texts}
            assert f"{means['prophet']:.2f}" in written
    for axes in panels[0]:
        assert_drawn(axes, range(len(PLAN.batch_sizes)), [CLAIMED.improvements[batch] for batch in PLAN.batch_sizes])


def test_one_colour_has_one_meaning(figures):
    """The same blue once stood for Prophet and for all that is deduplicated."""
    figure = figures["comparative"]
    assert_legend_is_what_is_drawn(figure)
    meant = {}
    for handle, text in zip(figure.legends[0].legend_handles, figure.legends[0].get_texts(), strict=True):
        meant.setdefault(handle.get_color(), set()).add(text.get_text())
    assert all(len(names) == 1 for names in meant.values()), meant
    drawn = {line.get_color() for axes in figure.axes for line in axes.get_lines()} - {STYLE.colours.grid}
    assert drawn == set(meant)


def test_titles_of_the_comparison_are_computed(tables):
    found = comparative_evaluation.selection(tables["results"], traces=SHOWN)
    means = where(found, comparison="prediction", strategy="prophet", batch=0)["speedup"]
    told = comparative_evaluation.headline(found, "prediction")
    assert f"Prophet {means.min():.2f} to {means.max():.2f}x" in told
    faster = found.assign(speedup=2 * found["speedup"])
    assert comparative_evaluation.headline(faster, "prediction") != told


def test_counts_of_deduplication_are_the_tables(tables, figures):
    figure = figures["deduplication"]
    summary = deduplication_summary(tables["counted"], CLAIMED)
    for axes, name in zip(figure.axes, ("request_dedup", "shared_requests", "resident_share"), strict=True):
        assert_drawn(axes, summary["batch"], summary[name])
    assert_drawn(figure.axes[0], summary["batch"], summary["uniform_request_dedup"])
    assert_drawn(figure.axes[0], CLAIMED.savings, CLAIMED.savings.values())
    assert_drawn(figure.axes[0], CLAIMED.scaling_savings, CLAIMED.scaling_savings.values())
    assert_drawn(figure.axes[1], CLAIMED.reuse, CLAIMED.reuse.values())
    assert_legend_is_what_is_drawn(figure)
    written = {text.get_text() for text in figure.axes[0].texts}
    assert written == {f"{told[max(told)]:.3f}".lstrip("0") for told in (CLAIMED.savings, CLAIMED.scaling_savings)}


def test_no_batch_shares_more_than_twice_what_it_saves(tables):
    """What the report's reuse factor is held against."""
    counted = tables["counted"]
    assert (counted["shared_requests"] <= 2 * counted["request_dedup"] + 1e-12).all()
    fair = UNCLAIMED.model_copy(update={"savings": {4: 0.2}, "reuse": {4: 0.4}})
    assert "no routing" not in expert_deduplication.findings(counted, traces=SHOWN, claimed=fair)
    assert "0.281 > 2 x 0.057" in expert_deduplication.findings(counted, traces=SHOWN, claimed=CLAIMED)


def test_that_the_report_prints_two_savings_is_told(tables):
    told = expert_deduplication.findings(tables["counted"], traces=SHOWN, claimed=CLAIMED)
    assert "two savings for the same batches: at batch size 64, 64.9 % in its table" in told
    assert "and 36.5 % in its table of batch sizes" in told
    agreed = CLAIMED.model_copy(update={"scaling_savings": CLAIMED.savings})
    assert "two savings" not in expert_deduplication.findings(tables["counted"], traces=SHOWN, claimed=agreed)


def test_what_the_report_prints_of_batch_sizes_is_in_table_10(tables):
    scaling = batch_scaling(tables["results"], CLAIMED)
    described = scaling[(scaling["mode"] == "as_described") & scaling["batch"].isin(list(CLAIMED.improvements))]
    ratio = described["claimed_papers_ms"] / described["claimed_best_ms"]
    assert ratio.round(2).tolist() == described["claimed_speedup"].tolist(), "004:69-75 divides its own columns"
    assert scaling.loc[scaling["mode"] == "deduplicated", "claimed_papers_ms"].isna().all()


def test_lines_by_layer_are_the_table(tables, figures):
    figure, batches = figures["layers"], (min(PLAN.sweep_batch_sizes), max(PLAN.sweep_batch_sizes))
    panels = np.array(figure.axes).reshape(len(layer_detail.QUANTITIES), len(SHOWN))
    for row, name, batch in zip(panels, layer_detail.QUANTITIES, batches, strict=True):
        for axes, trace in zip(row, SHOWN, strict=True):
            for strategy in layer_detail.SHOWN:
                rows = where(tables["layers"], trace=trace, batch=batch, strategy=strategy, deduplicated=True)
                assert_drawn(axes, rows["layer"], rows[name])
                colour = strategy_look(STYLE, strategy)["color"]
                lines = [line for line in axes.get_lines() if line.get_color() == colour]
                assert [len(line.get_xdata()) for line in lines] == [len(rows)], "nothing but deduplicated runs"
    assert_legend_is_what_is_drawn(figure)


def test_marks_of_the_layers_are_not_cut(figures):
    """The axis of stalls once ended where the largest stall is."""
    for axes in figures["layers"].axes[len(SHOWN) :]:
        largest = max(max(line.get_ydata()) for line in axes.get_lines())
        assert axes.get_ylim()[0] == 0
        assert axes.get_ylim()[1] > 1.04 * largest


def test_layers_are_told_of_deduplicated_runs_too(tables):
    """Of every strategy; as described as well, where that is item by item."""
    layers, results = tables["layers"], tables["results"]
    assert set(where(layers, deduplicated=True)["strategy"]) == set(results["strategy"])
    item_by_item = where(results, deduplicated=False, as_described=True, routing="recorded")["strategy"]
    assert set(where(layers, deduplicated=False)["strategy"]) == set(item_by_item)
    assert not layers.duplicated(["trace", "strategy", "deduplicated", "batch", "layer"]).any()


def test_layers_of_strategies_shown_ask_for_the_same(tables):
    """Prophet's stalls were once held against those of On-Demand that serves a batch item by item."""
    shown = layer_detail.selection(tables["layers"])
    asked = shown.pivot_table(index=["trace", "batch", "layer"], columns="strategy", values="unique_experts")
    assert set(asked) == set(layer_detail.SHOWN)
    assert asked.notna().all(axis=None)
    for name in layer_detail.SHOWN:
        np.testing.assert_allclose(asked[name], asked[BASE])


def test_findings_count_layers_that_stall_less_and_more(tables):
    rows = where(tables["layers"], trace=SHOWN[0], batch=BATCH, deduplicated=True).set_index(["strategy", "layer"])
    base, prophet = rows.loc[BASE], rows.loc["prophet"]
    fewer = (prophet["stall_ms_high"] < base["stall_ms_low"]).sum()
    more = (prophet["stall_ms_low"] > base["stall_ms_high"]).sum()
    told = layer_detail.findings(tables["layers"], traces=SHOWN[:1])
    assert told.endswith(
        f"Prophet stalls less than On-Demand in {fewer} of {len(base)} layers and more in {more} "
        "(layers whose intervals do not overlap)."
    )
    assert f"On-Demand {base['stall_ms'].sum():.2f}, Prophet {prophet['stall_ms'].sum():.2f}" in told


def test_whether_layers_differ_is_computed(tables):
    layers = tables["layers"]
    hits = where(layers, trace=SHOWN[0], batch=1, strategy=BASE, deduplicated=True)["hit_rate"]
    told = layer_detail.headline(layers, traces=SHOWN[:1], batch=1)
    assert told.endswith(f"by {hits.max() - hits.min():.2f} ({SHOWN[0]})")
    alike = layers.assign(hit_rate=0.5)
    assert layer_detail.headline(alike, traces=SHOWN[:1], batch=1).endswith(f"by 0.00 ({SHOWN[0]})")


def test_lines_of_the_sweeps_are_the_table(tables, figures):
    panels = np.array(figures["sweeps"].axes).reshape(2, len(SHOWN))
    for trace, (capacity, link) in zip(SHOWN, panels.T, strict=True):
        rows = where(tables["sweeps"], trace=trace, batch=BATCH)
        for axes, x, fixed in (
            (capacity, "capacity_share", {"link_speedup": 1}),
            (link, "link_speedup", {"capacity_share": PLAN.capacity_share}),
        ):
            slowdown = where(rows, **fixed).pivot_table(index=x, columns="strategy", values="slowdown")
            for strategy in strategy_sweeps.SHOWN:
                assert_drawn(axes, range(len(slowdown)), slowdown[BASE] / slowdown[strategy])


def test_sweeps_draw_the_same_series_in_every_panel(tables, figures):
    figure = figures["sweeps"]
    expected = [strategy_look(STYLE, name)["color"] for name in strategy_sweeps.SHOWN]
    for axes in figure.axes:
        drawn = [line.get_color() for line in axes.get_lines()]
        assert drawn == expected
        assert axes.get_ylim() == figure.axes[0].get_ylim()
        assert all(label.get_text() for label in axes.get_xticklabels()), "every row has its numbers"
    assert_legend_is_what_is_drawn(figure)
    rows = where(tables["sweeps"], batch=BATCH, link_speedup=1)
    swapped = rows.replace({"strategy": {"belady": "prophet", "prophet": "belady"}})
    told = [strategy_sweeps.headline(strategy_sweeps.selection(some, "capacity_share")) for some in (rows, swapped)]
    assert told[0] != told[1]


@pytest.mark.parametrize(
    ("slowdowns", "expected"),
    [
        ([9.0, 3.0, 1.3, 1.0], "between 87.5 % and 100 %"),
        ([9.0, 1.2, 1.1, 1.0], "between 12.5 % and 50 %"),
        ([1.2, 1.1, 1.1, 1.0], "at most 12.5 %"),
        ([9.0, 3.0, 1.3, 1.21], "more than 100 %"),
    ],
)
def test_a_limit_is_met_between_two_values_tried(slowdowns, expected):
    """The sweep tried 7/8 of the experts and all: that all are needed was never measured."""
    rows = pd.DataFrame({"capacity_share": [0.125, 0.5, 0.875, 1.0], "slowdown": slowdowns})
    assert strategy_sweeps.needed(rows.sample(frac=1), "capacity_share", 1.2, "{:.4g} %", 100) == expected


def test_findings_of_sweeps_tell_both_ends_of_a_limit(tables):
    sweeps = where(tables["sweeps"], trace=SHOWN[0], batch=BATCH)
    waits = sweeps.assign(slowdown=np.where((sweeps["capacity_share"] < 1) & (sweeps["link_speedup"] < 4), 9.0, 1.0))
    told = strategy_sweeps.findings(waits, traces=SHOWN[:1], batch=BATCH, claimed_slowdown=1.2)
    assert "Prophet needs between 50 % and 100 % of the experts, or between 1x and 4x the link" in told
    assert "100.0%" not in told


def test_the_reports_ratio_is_computed_from_its_own_times(tables):
    text = comparative_evaluation.findings(tables["results"], traces=SHOWN, claimed=CLAIMED)
    assert "77,882 / 61,542 = 1.27" in text
    assert "Another of its tables has a mean over batch sizes of 79,658, which gives 1.29" in text
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


def by_sample(values, share: float) -> pd.Series:
    """Steps of samples that hold so many of the held-out sequences."""
    index = pd.MultiIndex.from_product([range(len(values)), [share]], names=["seed", "sampled_share"])
    return pd.Series(values, index)


@pytest.mark.parametrize("samples", [2, 5, 80])
def test_speedup_of_disjoint_samples_has_a_paired_t_interval(samples):
    base, mine = np.random.default_rng(samples).normal(size=(2, samples))
    interval = stats.ttest_rel(base, mine).confidence_interval()
    found = speedup(*(by_sample(np.exp(logs), 0.0) for logs in (base, mine)), "gain")
    expected = {"gain": (base - mine).mean(), "gain_low": interval.low, "gain_high": interval.high}
    assert found == pytest.approx({name: np.exp(log) for name, log in expected.items()})


def test_speedup_of_shared_sequences_has_a_wider_interval():
    """Samples of 64 of 130 sequences: 2.4 times as wide as if they were independent."""
    base, mine = np.random.default_rng(0).normal(size=(2, 5))
    widths = []
    for share in (0.0, 64 / 130):
        found = speedup(*(by_sample(np.exp(logs), share) for logs in (base, mine)))
        widths.append(np.log(found["speedup_high"] / found["speedup_low"]))
    assert widths[1] / widths[0] == pytest.approx(2.42, abs=0.01)


def test_means_of_shared_sequences_have_a_wider_interval():
    """Of the sweeps and of the detail by layer: 2.4 times as wide for samples of 64 of 130 sequences."""
    widths = []
    for share in (0.0, 64 / 130):
        frame = pd.DataFrame({"strategy": "a", "sampled_share": share, "slowdown": [1.0, 2.0, 4.0, 5.0, 9.0]})
        found = with_interval(frame, ["strategy", "sampled_share"]).iloc[0]
        widths.append(found["slowdown_high"] - found["slowdown_low"])
    assert widths[1] / widths[0] == pytest.approx(2.42, abs=0.01)


def test_runs_tell_which_share_of_the_sequences_they_hold(tables):
    """4 of those held out; in every table that has an interval."""
    for name in SHOWN:
        share = PLAN.sequences / long_sequences(read_trace(TRACES / name), PLAN.tokens)
        assert 0 < share < 0.1
        for kind in ("results", "layers", "sweeps"):
            assert (where(tables[kind], trace=name)["sampled_share"] == share).all(), kind


def test_summary_is_the_geometric_mean_over_batch_sizes(tables):
    """Of every sample, then over samples; each batch size counts the same, however long its steps take."""
    summary = strategy_summary(tables["results"], CLAIMED)
    wide = summary.pivot_table(index=["trace", "routing", "mode", "strategy"], columns="batch", values="speedup")
    sizes = [str(batch) for batch in PLAN.batch_sizes]
    assert set(wide) == {*sizes, "all"}
    np.testing.assert_allclose(wide["all"], np.exp(np.log(wide[sizes]).mean(axis=1)))
    assert summary.loc[summary["batch"] != "all", "claimed_speedup"].isna().all()


def test_summary_keeps_the_reports_weights_in_a_column(tables):
    """Means over batch sizes of milliseconds, by sample."""
    runs = where(tables["results"], trace=SHOWN[0], routing="recorded", deduplicated=True)
    means = runs.groupby(["strategy", "seed"])["step_ms_mean"].mean()
    expected = np.exp(np.log(means[BASE] / means["prophet"]).mean())
    row = where(strategy_summary(tables["results"], CLAIMED), trace=SHOWN[0], mode="deduplicated", batch="all")
    row = where(row, routing="recorded", strategy="prophet").iloc[0]
    assert row["speedup_ms_weighted"] == pytest.approx(expected)
    assert row["speedup_ms_weighted"] != pytest.approx(row["speedup"], rel=1e-6)


def test_over_intelligent_is_the_ratio_of_both_speedups(tables):
    """What prediction adds; Intelligent adds nothing to itself."""
    summary = strategy_summary(tables["results"], CLAIMED).set_index(["trace", "routing", "mode", "batch"])
    prophet, intelligent = (where(summary, strategy=name) for name in ("prophet", "intelligent"))
    np.testing.assert_allclose(prophet["over_intelligent"], prophet["speedup"] / intelligent["speedup"])
    assert (intelligent[["over_intelligent", "over_intelligent_low", "over_intelligent_high"]] == 1).all(axis=None)
    assert (prophet["over_intelligent_low"] < prophet["over_intelligent_high"]).all()


def test_no_table_has_p_values(tables):
    """Of five samples that share sequences there is none worth printing."""
    for table in (strategy_summary(tables["results"], CLAIMED), batch_scaling(tables["results"], CLAIMED)):
        assert not [name for name in table if name.startswith("p_")]


def test_best_is_chosen_by_the_other_samples():
    steps = pd.DataFrame({"a": [1.0, 9.0, 4.0], "b": [5.0, 4.0, 5.0]})
    # Means of the others: a (6.5, 2.5, 5), b (4.5, 5, 4.5).
    assert chosen_by_others(steps).tolist() == ["b", "a", "b"]
    assert chosen_by_others(steps[:1]).tolist() == ["a"]


def test_best_of_equals_gains_nothing_by_being_chosen():
    """Strategies that differ by chance alone: who judges them on what they were chosen by finds the best one faster."""
    random = np.random.default_rng(0)
    honest, flattered = [], []
    for _ in range(400):
        logs = pd.DataFrame(random.normal(size=(5, 3)), columns=list("abc"))
        chosen = chosen_by_others(np.exp(logs))
        honest.append(np.mean([logs.loc[sample, name] for sample, name in chosen.items()]))
        flattered.append(logs[np.exp(logs).mean().idxmin()].mean())
    assert abs(np.mean(honest)) < 0.1
    assert np.mean(flattered) < -0.2


def test_papers_and_ours_are_chosen_alike_in_table_10(tables):
    scaling = batch_scaling(tables["results"], CLAIMED)
    assert set(scaling["best"]) <= set(OURS)
    assert set(scaling["best_paper"]) <= set(PAPERS)
    for name in ("best_share", "best_paper_share"):
        assert scaling[name].between(1 / PLAN.seeds, 1).all()
    sure = scaling[(scaling["best_share"] == 1) & (scaling["best_paper_share"] == 1)]
    assert len(sure)
    for row in sure.itertuples():
        runs = where(tables["results"], trace=row.trace, batch=row.batch, routing="recorded", **{row.mode: True})
        means = runs.groupby("strategy")["step_ms_mean"].mean()
        assert (row.best_step_ms, row.best_paper_step_ms) == pytest.approx(tuple(means[[row.best, row.best_paper]]))


def test_claims_are_drawn_from_small_batches_to_large_ones(tables):
    """Their keys come ordered as text: 1, 16, 2, 32."""
    mixed = CLAIMED.model_copy(update={"savings": dict(sorted(CLAIMED.savings.items(), key=lambda item: str(item[0])))})
    assert list(mixed.savings) != sorted(mixed.savings)
    figure = expert_deduplication.draw(tables["counted"], STYLE, traces=SHOWN, claimed=mixed)
    assert_drawn(figure.axes[0], sorted(mixed.savings), [mixed.savings[batch] for batch in sorted(mixed.savings)])

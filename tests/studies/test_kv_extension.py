"""Figures show what the record holds, and no text is clipped, for both scenarios and for other selections."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.patches import Rectangle
from scipy import stats

from prophet_moe.capacity.record import RECORD
from prophet_moe.present.averages import average_extension
from prophet_moe.present.price import STRATEGIES, by_model
from prophet_moe.present.style import contrast, luminance, strategy_look, text_on
from prophet_moe.settings.experiment import Experiment
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from studies.frontier import figure as frontier
from studies.frontier.study import CONTEXT_GAINED, FRONTIER
from studies.kv_extension import (
    figure1_memory_breakdown as memory_breakdown,
)
from studies.kv_extension import (
    figure2_kv_extension_by_model as kv_extension_by_model,
)
from studies.kv_extension import (
    figure3_context_scaling as context_scaling,
)
from studies.kv_extension import (
    figure4_batch_context_tradeoff as batch_context_tradeoff,
)
from studies.kv_extension import (
    figure5_expert_count_analysis as expert_count_analysis,
)
from studies.kv_extension.study import STUDY, KvExtensionSettings
from tests.conftest import ROOT
from tests.drawings import assert_no_texts_touch, assert_nothing_is_clipped, looks_of, visible_texts

SHOWN = KvExtensionSettings()
GPU, BATCH = Experiment().reference.gpu, Experiment().reference.batch_size
STYLE = Style()
CLAIMED = Experiment().decode_step.claimed_slowdown
LIMITS = (1.05, 1.2, 2)
SMALL = ["Mixtral-8x7B", "DeepSeek-MoE-16B", "Switch-Base-128"]


def table_11(record: pd.DataFrame) -> pd.DataFrame:
    """Made gains of a table 11: a share of the floor's, more for a looser limit and a better strategy."""
    rows = record[["model", "gpu", "batch_size"]]
    floor = record["kv_extension_factor"].where(record["baseline_fits"])
    made = [
        rows.assign(
            strategy=strategy,
            **{
                f"kv_extension_at_{limit:g}x": 1 + 0.1 * (better + 1) * (at + 1) * (floor - 1)
                for at, limit in enumerate(LIMITS)
            },
        )
        for better, strategy in enumerate(STRATEGIES)
    ]
    return pd.concat(made, ignore_index=True)


def drawings(
    record: pd.DataFrame, zero_fill: bool, gained: pd.DataFrame | None, models: list[str] | None = None
) -> dict:
    """All five figures of one record."""
    one, three, four = models or SHOWN.figure1_models, models or SHOWN.figure3_models, models
    four = four or SHOWN.figure4_models
    return {
        "figure1": memory_breakdown.draw(record, STYLE, models=one, gpu=GPU, batch_size=BATCH),
        "figure2": kv_extension_by_model.draw(
            record, STYLE, zero_fill=zero_fill, gained=gained, claimed_slowdown=CLAIMED
        ),
        "figure3": context_scaling.draw(record, STYLE, models=three, gpu=GPU),
        "figure4": batch_context_tradeoff.draw(record, STYLE, models=four, gpu=GPU),
        "figure5": expert_count_analysis.draw(record, STYLE, zero_fill=zero_fill),
    }


@pytest.fixture(scope="module", params=["calibrated", "reported"])
def scenario(request, records) -> tuple[pd.DataFrame, bool, dict]:
    """A record, whether it counts misfits as zero, and its figures; the calibrated one has a price in time."""
    record, zero_fill = records[request.param], request.param == "reported"
    return record, zero_fill, drawings(record, zero_fill, None if zero_fill else table_11(record))


def test_no_text_is_clipped_or_too_small(scenario):
    figures = scenario[2]
    assert_nothing_is_clipped(figures)
    for name, figure in figures.items():
        assert min(text.get_fontsize() for text in visible_texts(figure)) >= 6, name


def test_texts_of_redrawn_figures_do_not_touch(scenario):
    assert_no_texts_touch({name: scenario[2][name] for name in ("figure1", "figure2", "figure5")})


def test_labels_of_redrawn_figures_keep_clear_of_the_edge(scenario):
    """A pixel of text at the edge is cut in print."""
    for name in ("figure1", "figure2", "figure5"):
        figure = scenario[2][name]
        right = max(text.get_window_extent().x1 for text in visible_texts(figure))
        assert right <= figure.bbox.x1 - 1, name


def test_a_small_selection_is_drawn_too(records):
    record = records["calibrated"].query("model in @SMALL and batch_size in (1, 16) and gpu in ('V100-32GB', @GPU)")
    record = record.reset_index(drop=True)
    assert_nothing_is_clipped(drawings(record, False, table_11(record), SMALL))


def test_figures_have_their_printed_size(scenario):
    for name, figure in scenario[2].items():
        style = next(drawn for drawn in STUDY.figures if drawn.name.startswith(name))
        width, height = figure.get_size_inches()
        assert width == style.width_in
        # The rows of figure 2 need more height where marks stand on the bars.
        assert style.height_in <= height <= style.height_in + (1.4 if name == "figure2" else 0.3), name


def test_bars_of_figure_1_are_the_record(scenario):
    """Lengths times the baseline's memory are GB; every bar is as long as its total, or its experts alone."""
    record, _, figures = scenario
    rows = record.query("gpu == @GPU and batch_size == @BATCH").set_index("model").loc[SHOWN.figure1_models]
    axes = figures["figure1"].axes[0]
    lengths: dict[float, float] = {}
    for patch in axes.patches:
        place = round(patch.get_y() + patch.get_height() / 2, 3)
        lengths[place] = lengths.get(place, 0) + patch.get_width()
    found = [length for _, length in sorted(lengths.items())]
    expected = []
    for row in rows.itertuples():
        for side in ("baseline", "prophet"):
            known = not math.isnan(row.baseline_total_gb)
            what = "total" if known else "expert"
            expected.append(getattr(row, f"{side}_{what}_gb") / getattr(row, f"baseline_{what}_gb"))
    assert found == pytest.approx(expected)
    widths = [patch.get_width() for patch in axes.patches]
    for row in rows.dropna(subset=["baseline_total_gb"]).itertuples():
        for part in (row.baseline_expert_gb, row.prophet_expert_gb, row.kv_cache_gb):
            assert any(width == pytest.approx(part / row.baseline_total_gb) for width in widths), row.Index
    assert axes.get_xscale() == "linear"
    assert min(patch.get_x() for patch in axes.patches) == 0


def test_numbers_of_figure_1_mark_what_exceeds_the_gpu(scenario):
    record, _, figures = scenario
    rows = record.query("gpu == @GPU and batch_size == @BATCH").set_index("model").loc[SHOWN.figure1_models]
    values = rows[[f"{side}_{what}_gb" for side in ("baseline", "prophet") for what in ("expert", "total")]]
    over = (values.gt(rows["gpu_memory_gb"], axis=0)).sum(axis=None)
    marked = [text for text in figures["figure1"].axes[0].texts if text.get_text().endswith("×")]
    assert len(marked) == over


def test_the_title_of_figure_1_is_computed(scenario):
    record, _, figures = scenario
    rows = record.query("gpu == @GPU and batch_size == @BATCH").set_index("model").loc[SHOWN.figure1_models]
    ratio = 100 * (rows["prophet_total_gb"] / rows["baseline_total_gb"]).dropna()
    title = figures["figure1"].axes[0].get_title(loc="left")
    assert f"{ratio.min():.0f} to {ratio.max():.0f} %" in title


def bars_of(figure) -> dict[int, Rectangle]:
    """The floors of figure 2 by the number of their row."""
    return {round(bar.get_y() + bar.get_height() / 2): bar for bar in figure.axes[0].patches}


def test_bars_of_figure_2_are_table_2(scenario):
    """Floors begin where nothing is gained, or at 0 where the mean counts zeros."""
    record, zero_fill, figures = scenario
    table = average_extension(record, zero_fill)
    column = "mean_floor_zero_filled" if zero_fill else "mean_floor_fitting"
    bars = bars_of(figures["figure2"]).values()
    assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx(
        table.loc[table["fitting_rows"] > 0, column].tolist()
    )
    assert {bar.get_x() for bar in bars} == {0 if zero_fill else 1}
    texts = {text.get_text() for text in visible_texts(figures["figure2"])}
    assert set(table["model"]) <= texts


def test_marks_of_figure_2_are_table_11(records):
    """A mark per strategy at the claimed slowdown, a line from the tightest limit to the loosest, in the bar's row."""
    record = records["calibrated"]
    gained = table_11(record)
    figure = kv_extension_by_model.draw(record, STYLE, zero_fill=False, gained=gained, claimed_slowdown=1.19)
    table = average_extension(record, zero_fill=False, gained=gained).query("fitting_rows > 0")
    axes, bars = figure.axes[0], bars_of(figure)
    spans = {
        (round(float(y0), 6), round(float(x0), 6), round(float(x1), 6))
        for lines in axes.collections
        for (x0, y0), (x1, _) in lines.get_segments()
    }
    for strategy in STRATEGIES:
        look = strategy_look(STYLE, strategy)
        (marks,) = [line for line in axes.get_lines() if looks_of(line) == (look["color"], look["marker"])]
        assert list(marks.get_xdata()) == pytest.approx(table[f"mean_{strategy}_at_1.2x"].tolist())
        for row, (place, model) in enumerate(zip(marks.get_ydata(), table.to_dict("records"), strict=True)):
            assert bars[row].get_y() < place < bars[row].get_y() + bars[row].get_height()
            low, high = (model[f"mean_{strategy}_at_{limit}x"] for limit in ("1.05", "2"))
            assert (round(place, 6), round(low, 6), round(high, 6)) in spans
    (medians,) = [line for line in axes.get_lines() if line.get_marker() == "v"]
    assert list(medians.get_xdata()) == pytest.approx(table["median_floor_fitting"].tolist())


def test_figure_2_without_time_shows_the_floor_alone(scenario):
    record, zero_fill, _ = scenario
    figure = kv_extension_by_model.draw(record, STYLE, zero_fill=zero_fill)
    assert not figure.axes[0].collections
    texts = " ".join(text.get_text() for text in visible_texts(figure))
    assert "memory floor" in texts and "the time" not in texts
    assert "the time" not in kv_extension_by_model.findings(record, zero_fill=zero_fill)


def test_the_statement_of_figure_2_is_computed(records):
    record = records["calibrated"]
    gained = table_11(record)
    mine = gained.query("strategy == 'prophet'")["kv_extension_at_1.2x"].dropna()
    floor = record.loc[record["baseline_fits"], "kv_extension_factor"]
    said = kv_extension_by_model.headline(record, gained, 1.2)
    assert said.startswith(f"1.2x the time buys Prophet {mine.median():.2f}x the context;")
    assert said.endswith(f"by memory alone {floor.median():.2f}x (medians of {len(floor)})")
    assert len(mine) == len(floor)


def test_statements_of_figure_2_and_the_frontier_agree():
    """One once gave means, the other medians of a strategy that it did not name."""
    record = read_table(ROOT / "tables/data/prophet_kv_extension_data.csv", RECORD)
    gained, points = (read_table(ROOT / table.path, table) for table in (CONTEXT_GAINED, FRONTIER))
    said = kv_extension_by_model.headline(record, gained, CLAIMED)
    assert said == frontier.headline(points, record, CLAIMED)
    assert "buys Prophet" in said and "(medians of " in said


def test_findings_of_figure_2_tell_the_price_of_each(records):
    record = records["calibrated"]
    gained = table_11(record)
    said = kv_extension_by_model.findings(record, zero_fill=False, gained=gained, claimed_slowdown=1.2)
    for model, prices in by_model(gained).iterrows():
        (line,) = [line for line in said.splitlines() if line.startswith(f"* **{model}**")]
        assert all(f"{price:.2f}×" in line for price in prices)


def test_figure_2_counts_gains_within_native_context(scenario):
    record, zero_fill, figures = scenario
    table = average_extension(record, zero_fill).set_index("model").query("fitting_rows > 0")
    axes = figures["figure2"].axes[0]
    printed = [text for text in axes.texts if text.xy[0] == 1 and text.get_text().isdigit()]
    found = [int(text.get_text()) for text in sorted(printed, key=lambda text: text.xy[1])]
    assert found == table["native_gain_rows"].tolist()
    assert f"{sum(found)} of the {table['fitting_rows'].sum()} rows" in kv_extension_by_model.findings(
        record, zero_fill=zero_fill
    )


def test_models_that_only_prophet_fits_bear_its_mark(scenario):
    """A disc in Prophet's colour before how often it fits, an open one where it never does; no cross."""
    record, zero_fill, figures = scenario
    never = average_extension(record, zero_fill).query("fitting_rows == 0")
    axes = figures["figure2"].axes[1]
    assert [line.get_marker() for line in axes.get_lines()] == ["o"] * len(never)
    filled = [line.get_markerfacecolor() != "none" for line in axes.get_lines()]
    assert filled == (never["prophet_only_rows"] > 0).tolist()
    texts = [text.get_text() for text in visible_texts(figures["figure2"])]
    assert "×" not in texts


def test_axes_of_kv_extension_say_memory_floor(scenario):
    """What is shown without its price in time is named so, in every scenario."""
    for name in ("figure2", "figure3", "figure5"):
        texts = [text.get_text() for text in visible_texts(scenario[2][name])]
        assert any("memory floor" in text for text in texts), name


def test_lines_of_figure_3_are_the_record(scenario):
    record, _, figures = scenario
    rows = record.query("gpu == @GPU")
    axes = figures["figure3"].axes[0]
    drawn = [
        tuple(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata()) == record["batch_size"].nunique()
    ]
    for model in SHOWN.figure3_models:
        expected = rows.loc[rows["model"] == model, "kv_extension_factor"].tolist()
        assert any(values == pytest.approx(expected) for values in drawn), model


def test_cells_of_figure_4_are_the_record(scenario):
    record, _, figures = scenario
    rows = record[(record["gpu"] == GPU) & record["model"].isin(SHOWN.figure4_models)]
    texts = [text.get_text() for text in visible_texts(figures["figure4"])]
    for value in rows["expert_savings_pct"]:
        assert f"{value:.0f}" in texts
    cells = [text for text in figures["figure4"].axes[0].texts if text.get_text().isdigit()]
    assert len(cells) == len(rows)


def test_notebook_of_figure_4_tells_which_experts_stay(scenario):
    """Savings are of all routed experts: the formula for one layer would be twice as much for Switch."""
    record, reports_formula, _ = scenario
    of_all = (100 * (1 - record["prophet_expert_gb"] / record["baseline_expert_gb"])).dropna()
    assert record.loc[of_all.index, "expert_savings_pct"].tolist() == pytest.approx(of_all.tolist(), abs=1e-3)
    largest = record[record["model"] == "Switch-Base-128"]["expert_savings_pct"].max()
    assert (largest > 99) if reports_formula else (49 < largest < 50)
    text = (ROOT / "notebooks/figure4_batch_context_tradeoff.ipynb").read_text()
    for part in ("share of the bytes of all routed experts", "An encoder needs all of its experts", "*reported*"):
        assert part in text


def test_figure_4_can_be_read_in_greyscale(scenario):
    """Its map once ran from red to green, whose greys are alike; numbers stand out from their cells."""
    shades = [luminance(colour) for colour in colormaps[STYLE.heatmap](np.linspace(0, 1, 21))]
    assert all(lighter > darker for lighter, darker in pairwise(shades))
    assert shades[0] > 5 * shades[-1]
    axes = scenario[2]["figure4"].axes[0]
    cells = axes.collections[0]
    texts = [text for text in axes.texts if text.get_text().isdigit()]
    assert len(texts) == len(cells.get_facecolors())
    for text, colour in zip(texts, cells.get_facecolors(), strict=True):
        assert contrast(text.get_color(), colour) > 3.9
    for corner in axes.patches:
        assert contrast(corner.get_edgecolor(), corner.get_facecolor()) > 3, "seen on any ground"


@pytest.mark.parametrize(
    ("ground", "expected"), [("white", STYLE.colours.text), ("black", "white"), ("#41b6c4", "#222222")]
)
def test_text_on_a_ground_is_what_stands_out_more(ground, expected):
    assert text_on(STYLE, ground) == expected


def test_contrast_of_black_and_white_is_21():
    assert contrast("black", "white") == contrast("white", "black") == pytest.approx(21)
    assert contrast("#777777", "white") == pytest.approx(4.48, abs=0.005), "WCAG's well-known example"


def test_points_of_figure_5_are_the_means(scenario):
    record, zero_fill, _ = scenario
    shown = expert_count_analysis.selection(record, zero_fill=zero_fill)
    table = average_extension(record, zero_fill).set_index("model")
    assert len(shown) == 16
    dedup = record.groupby("model")["dedup_factor"].mean()
    for row in shown.itertuples():
        assert row.dedup == pytest.approx(dedup[row.model])
        assert row.experts == table.loc[row.model, "num_experts"]


def test_figure_5_has_a_row_per_model_in_order_of_experts(scenario):
    record, zero_fill, figures = scenario
    shown = expert_count_analysis.selection(record, zero_fill=zero_fill)
    extension, dedup = figures["figure5"].axes
    names = [label.get_text().split()[0] for label in extension.get_yticklabels()]
    assert names == shown["model"].tolist()
    assert shown["experts"].is_monotonic_increasing
    for axes, column in ((extension, "factor"), (dedup, "dedup")):
        known = shown[column].dropna()
        marks = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert [list(line.get_xdata()) for line in marks] == [known.tolist()]
        assert [list(line.get_ydata()) for line in marks] == [known.index.tolist()]
    never = [text for text in extension.texts if text.get_text() == expert_count_analysis.NEVER]
    assert len(never) == shown["factor"].isna().sum()
    assert not [text for axes in (extension, dedup) for text in axes.texts if text.get_bbox_patch()], "no boxes"


def test_figure_5_claims_no_law_of_the_number_of_experts(scenario):
    """128 experts top-1 save four times as much as 256 top-8: a power of E alone once stood in the title."""
    record, zero_fill, figures = scenario
    shown = expert_count_analysis.selection(record, zero_fill=zero_fill)
    texts = [text.get_text() for text in visible_texts(figures["figure5"])]
    texts += [expert_count_analysis.findings(record, zero_fill=zero_fill)]
    assert not any("power" in text for text in texts)
    (title,) = [text for text in texts if text.startswith("(b)")]
    alike = shown.loc[shown["experts"] == 128, "dedup"]
    assert f"{shown['dedup'].min():.1f} to {shown['dedup'].max():.0f}" in title
    assert title.endswith(f" (E = 128: {alike.min():.1f} to {alike.max():.0f})")


def test_figure_5_ranks_by_experts_and_by_experts_over_top_k(scenario):
    record, zero_fill, _ = scenario
    shown = expert_count_analysis.selection(record, zero_fill=zero_fill)
    found = expert_count_analysis.rank_correlations(shown)
    ratio = shown["experts"] / shown["top_k"]
    expected = [stats.spearmanr(shown["dedup"], x).statistic for x in (shown["experts"], ratio)]
    assert found == pytest.approx(expected)
    told = expert_count_analysis.findings(record, zero_fill=zero_fill)
    assert f"with E is {expected[0]:.2f}, with E / top-k {expected[1]:.2f}" in told
    alike = shown[shown["model"] == "Mixtral-8x7B"]
    assert expert_count_analysis.rank_correlations(alike) is None
    assert expert_count_analysis.widest_group(alike) is None
    assert "E =" not in expert_count_analysis.headlines(alike)[1]


def test_findings_are_text_with_numbers(scenario):
    record, zero_fill, _ = scenario
    told = [
        memory_breakdown.findings(record, models=SHOWN.figure1_models, gpu=GPU, batch_size=BATCH),
        kv_extension_by_model.findings(record, zero_fill=zero_fill),
        context_scaling.findings(record, models=SHOWN.figure3_models, gpu=GPU),
        batch_context_tradeoff.findings(record, models=SHOWN.figure4_models, gpu=GPU),
        expert_count_analysis.findings(record, zero_fill=zero_fill),
    ]
    for text in told:
        assert "nan" not in text.lower()
        assert any(character.isdigit() for character in text)

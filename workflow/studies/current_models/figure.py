"""What fits where: models of today by GPU, with every expert resident, with slots for some, or not at all."""

from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from prophet_moe.present.style import SMALLEST_PT, legend_below, new_figure, settle, small_pt, styled, text_on
from prophet_moe.settings.style import Style
from studies.current_models.study import FIGURE

ROW_IN, AROUND_ROWS_IN = 0.158, 1.2
"""Height in inches of a model's row, and of what stands around the rows."""
STEPS = (25, 50, 75, 100)
"""Upper ends of the classes of the share of experts that have a slot, %."""
PALEST = 0.18
"""How much of its colour the class of the fewest slots has."""
ON_DISK = {"edgecolor": "white", "linewidth": 0, "hatch": "////"}
"""Look of cells whose other experts lie on a disk."""


class Cell(NamedTuple):
    """What a cell of the figure says: its state, the share of experts with a slot (%), and the text in it."""

    state: str
    """resident (every expert), slots (for some) or none (nothing fits)."""
    share: float
    text: str
    on_disk: bool


def cells(table: pd.DataFrame) -> dict[tuple[str, str], Cell]:
    """What each model (first key) is on each GPU (second key), from table 13, smallest checkpoint first."""
    return {(row.model, row.gpu): _cell(row) for row in table.itertuples()}


def _cell(row: tuple) -> Cell:
    if row.fit_state == "both":
        return Cell("resident", 100.0, tokens(row.baseline_native_context), False)
    if row.fit_state == "neither":
        return Cell("none", 0.0, "", False)
    if row.prophet_max_context < row.context:
        return Cell("slots", 0.0, f"{tokens(row.prophet_native_context)}*", row.unified_memory)
    return Cell("slots", row.share_resident_pct, f"{row.share_resident_pct:.0f} %", row.unified_memory)


def tokens(number: int) -> str:
    """A number of tokens in at most four characters: 860, 42k, 131k, 1.05M, 10.5M."""
    if number < 1000:
        return f"{number}"
    return f"{number // 1000}k" if number < 1e6 else f"{number / 1e6:.3g}M"


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """By GPU (index), smallest memory first: memory_gb, models that fit with every expert, and with slots for some."""
    by_gpu = table.groupby("gpu")
    found = pd.DataFrame(
        {
            "memory_gb": by_gpu["gpu_memory_gb"].first(),
            "resident": (table["fit_state"] == "both").groupby(table["gpu"]).sum(),
            "slots": (table["fit_state"] == "prophet_only").groupby(table["gpu"]).sum(),
        }
    )
    return found.sort_values("memory_gb", kind="stable")


def headline(table: pd.DataFrame) -> str:
    """The figure's statement: what fits on the smallest GPU and on the largest one."""
    found, models = counts(table), table["model"].nunique()
    (small, least), (large, most) = ((gpu, found.loc[gpu].astype(int)) for gpu in (found.index[0], found.index[-1]))
    slots = f"{least['resident'] + least['slots']} and {most['resident'] + most['slots']}"
    return (
        f"All experts fit for {least['resident']} of {models} models on {small}, for {most['resident']} on {large}.\n"
        f"With slots for some experts and the others off the GPU, {slots} models fit."
    )


def findings(table: pd.DataFrame) -> str:
    """Describe in Markdown what the figure shows; every number is computed from the table."""
    found, models = counts(table), table["model"].nunique()
    native = table[(table["fit_state"] == "both") & (table["baseline_max_context"] >= table["native_context"])]
    slots = table[table["fit_state"] == "prophet_only"]
    reached = (slots["prophet_max_context"] >= slots["native_context"]).sum()
    held = slots[slots["slots_least_ms"].notna()]
    slower = (held["slots_least_ms"] / held["all_resident_ms"]).median()
    everywhere = found[found["resident"] + found["slots"] == models]
    lines = [
        headline(table).replace("\n", " "),
        f"{len(native)} of the {(table['fit_state'] == 'both').sum()} cells with every expert resident reach the "
        "native context.",
        f"{len(slots)} cells fit only with slots for some experts, {reached} of them with the native context beside "
        "the slots of the scenario's rule.",
        f"Beside the context of the table, a step with slots takes at least {slower:.3g} times as long as one with "
        f"every expert on such a GPU (median of {len(held)} cells, experts in slots at random).",
    ]
    if len(everywhere):
        lines.append(f"From {everywhere.index[0]} on, every model fits with slots.")
    return "\n".join(f"* {line}" for line in lines)


def draw(table: pd.DataFrame, style: Style) -> Figure:
    """A matrix of models (rows, small checkpoints on top) by GPUs (columns, small memories left), coloured by fit."""
    models = list(dict.fromkeys(table["model"]))
    gpus = list(counts(table).index)
    with styled(style):
        figure = new_figure(style.size_of(FIGURE), AROUND_ROWS_IN + ROW_IN * len(models))
        ax = figure.subplots()
        for (model, gpu), cell in cells(table).items():
            _draw_cell(ax, gpus.index(gpu), models.index(model), cell, style)
        ax.set_xlim(0, len(gpus))
        ax.set_ylim(len(models), 0)
        _name_rows(ax, table.drop_duplicates("model"), style)
        _name_columns(ax, gpus, style)
        figure.suptitle(headline(table), x=0.01, ha="left", fontsize=style.font_size_pt, linespacing=1.1)
        _add_key(figure, table, style)
        settle(figure)
    return figure


def _colour(cell: Cell, style: Style) -> str:
    """White where nothing fits; else the colour of its state, for slots the paler the fewer they are."""
    if cell.state == "none":
        return to_hex("white")
    if cell.state == "resident":
        return style.colours.series[1 % len(style.colours.series)]
    step = next(number for number, end in enumerate(STEPS) if cell.share <= end)
    part = PALEST + (0.75 - PALEST) * step / (len(STEPS) - 1)
    return to_hex([1 - part * (1 - channel) for channel in to_rgb(style.colours.prophet)])


def _draw_cell(ax: Axes, column: int, row: int, cell: Cell, style: Style) -> None:
    colour = _colour(cell, style)
    ax.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
    if cell.on_disk:
        ax.add_patch(Rectangle((column, row), 1, 1, facecolor="none", **ON_DISK))
    middle = {"ha": "center", "va": "center_baseline", "fontsize": SMALLEST_PT}
    text, ink = (cell.text, text_on(style, colour)) if cell.text else ("–", style.colours.baseline)
    ax.text(column + 0.5, row + 0.5, text, color=ink, **middle)


def _name_rows(ax: Axes, models: pd.DataFrame, style: Style) -> None:
    """The model, and its checkpoint in GB, left of each row."""
    ax.set_yticks([row + 0.5 for row in range(len(models))], models["model"], fontsize=style.font_size_pt - 1)
    ax.tick_params(axis="y", length=0, pad=26)
    beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    for row, size in enumerate(models["checkpoint_gb"]):
        look = {"va": "center_baseline", "fontsize": small_pt(style), "color": style.colours.text}
        ax.annotate(f"{size:,.0f}", (0, row + 0.5), (-4, 0), **beside, **look)
    ax.annotate("weights\n(GB)", (0, 0), (-4, 2), **beside, fontsize=small_pt(style))
    for spine in ax.spines.values():
        spine.set_visible(False)


def _name_columns(ax: Axes, gpus: list[str], style: Style) -> None:
    """The GPU and the memory in its name, above each column."""
    ax.xaxis.tick_top()
    names = [gpu.replace("-", "\n").replace("RTX", "RTX\n") for gpu in gpus]
    ax.set_xticks([column + 0.5 for column in range(len(gpus))], names, fontsize=small_pt(style))
    ax.tick_params(axis="x", length=0, pad=2)


def _add_key(figure: Figure, table: pd.DataFrame, style: Style) -> None:
    """The legend: what colours, texts and hatches of cells say."""
    context = tokens(table["context"].max())
    shades = [Patch(facecolor=_colour(Cell("slots", end, "", False), style)) for end in STEPS]
    key = {
        "all experts resident (longest context)": Patch(facecolor=_colour(Cell("resident", 100, "", False), style)),
        f"slots for some (share of experts, beside {context} tokens)": tuple(shades),
        "does not fit": _sign("–", style.colours.baseline),
    }
    if any(cell.text.endswith("*") for cell in cells(table).values()):
        key[f"slots leave less than {context} tokens (longest context)"] = _sign("*", style.colours.text)
    if any(cell.on_disk for cell in cells(table).values()):
        key["the other experts on a disk, not in host memory"] = Patch(facecolor=shades[1].get_facecolor(), **ON_DISK)
    legend_below(figure, key, 2, fontsize=small_pt(style), handlelength=2.4)


def _sign(sign: str, colour: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=f"${sign}$", color=colour, markersize=4, markeredgewidth=0)

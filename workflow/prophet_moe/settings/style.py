"""Styles of the figures, config/style.yaml. They are separate from the science, so a change redraws figures only."""

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from prophet_moe.settings.fields import LARGEST_DPI, LARGEST_INCHES, LARGEST_POINTS
from prophet_moe.validation import StrictModel, inconsistent


def _colour(given: str) -> str:
    """The colour as Matplotlib understands it, as #rrggbb, or #rrggbbaa where it is not opaque."""
    if re.fullmatch(r"#[0-9a-f]{6}", given):
        return given
    from matplotlib import colors  # slow to import, and only needed for what is no plain value

    if not colors.is_color_like(given):
        expected = "expected a colour that Matplotlib knows, such as '#0072b2', 'tab:blue' or 'navy'"
        raise inconsistent((), f"got {given!r}, {expected}")
    return colors.to_hex(given, keep_alpha=colors.to_rgba(given)[3] < 1)


def _colour_map(given: str) -> str:
    """The name of a colour map that Matplotlib has."""
    if given == "RdYlGn":
        return given
    from matplotlib import colormaps  # slow to import

    if given not in colormaps:
        near = difflib.get_close_matches(given, colormaps, n=1)
        expected = f"did you mean {near[0]!r}" if near else "expected a colour map of Matplotlib, such as 'viridis'"
        raise inconsistent((), f"got {given!r}; {expected}")
    return given


Colour = Annotated[str, AfterValidator(_colour)]


class Colours(StrictModel):
    """Colours as Matplotlib accepts them; the defaults are safe for colour-blind readers (Okabe and Ito 2008)."""

    baseline: Colour
    """Colour of the baseline's bars."""
    prophet: Colour
    """Colour of Prophet's bars."""
    does_not_fit: Colour
    """Colour of marks for what does not fit."""
    text: Colour
    """Colour of text and axes."""
    grid: Colour
    """Colour of grid lines."""
    series: Annotated[list[Colour], Field(min_length=1)]
    """Colours of the series in figures with several models or traces. If there are more series than colours, colours
    repeat and markers distinguish the series."""


OKABE_ITO = Colours(
    baseline="#999999",
    prophet="#0072b2",
    does_not_fit="#d55e00",
    text="#222222",
    grid="#dddddd",
    series=["#0072b2", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#666666"],
)


KNOWN_TRACES = ["small-12x128-top1", "small-6x64-top8", "small-6x8-top2", "gpt-oss-20b-decode"]


class Size(StrictModel):
    """The size of one figure in print."""

    width_in: float = Field(gt=0, le=LARGEST_INCHES)
    """Width in print, inches. One column is 3.33, two columns are 7."""
    height_in: float = Field(gt=0, le=LARGEST_INCHES)
    """Height in print, inches. A figure becomes higher if its rows need more."""


class Style(StrictModel):
    """Styles of the figures. A change redraws figures and recomputes nothing."""

    font: Literal["DejaVu Sans", "DejaVu Sans Mono", "DejaVu Serif", "STIXGeneral"] = "DejaVu Sans"
    """Font of all text. Matplotlib ships these fonts, so every machine draws the same figure."""
    font_size_pt: float = Field(default=8, gt=0, le=LARGEST_POINTS)
    """Size of text in print, points."""
    line_width_pt: float = Field(default=1.2, gt=0, le=LARGEST_POINTS)
    """Width of data lines, points."""
    png_dpi: int = Field(default=200, gt=0, le=LARGEST_DPI)
    """Resolution of the PNG copies, dots per inch."""
    colours: Colours = OKABE_ITO
    heatmap: Annotated[str, AfterValidator(_colour_map)] = "YlGnBu"
    """Colour map of figure 4, from low savings to high. A sequential map is best, because its ends also differ in
    grey."""
    traces: list[str] = KNOWN_TRACES
    """Routing traces in the order of their colours and markers, which are the same in every figure. Add new traces at
    the end."""
    figures: dict[str, Size] = {}
    """Sizes of figures by name, for figures that should differ from the size in their study."""

    def size_of(self, figure: Any) -> Any:
        """Return what has the `width_in` and `height_in` of a figure: its entry in `figures`, else itself."""
        return self.figures.get(figure.name, figure)

    def for_figure(self, name: str) -> dict[str, Any]:
        """Return the looks that concern one figure, as JSON-like values: without the sizes of the others."""
        own = {key: size.model_dump() for key, size in self.figures.items() if key == name}
        return self.model_dump(mode="json", exclude={"figures"}) | {"figures": own}


class StyleFile(StrictModel):
    """The keys of the whole file config/style.yaml."""

    style: Style = Style()

"""Looks of the figures, config/style.yaml: apart from the science, so that a change redraws and recomputes nothing."""

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
    """Colours as Matplotlib takes them; the defaults are safe for the colour-blind (Okabe and Ito 2008, and greys)."""

    baseline: Colour
    """Bars of the baseline."""
    prophet: Colour
    """Bars of Prophet."""
    does_not_fit: Colour
    """Marks of what does not fit."""
    text: Colour
    """Text and axes."""
    grid: Colour
    """Grid lines."""
    series: Annotated[list[Colour], Field(min_length=1)]
    """Series in figures with several models; more series than colours take them in turn, told apart by markers."""


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
    """Size of one figure as printed."""

    width_in: float = Field(gt=0, le=LARGEST_INCHES)
    """Width as printed, inches: 3.33 is one column, 7 is two."""
    height_in: float = Field(gt=0, le=LARGEST_INCHES)
    """Height as printed, inches; a figure grows when its rows need more."""


class Style(StrictModel):
    """Looks, apart from science: a change here redraws figures and recomputes nothing."""

    font: Literal["DejaVu Sans", "DejaVu Sans Mono", "DejaVu Serif", "STIXGeneral"] = "DejaVu Sans"
    """A font that Matplotlib ships, so that every machine draws the same."""
    font_size_pt: float = Field(default=8, gt=0, le=LARGEST_POINTS)
    """Size of text in a printed figure, points."""
    line_width_pt: float = Field(default=1.2, gt=0, le=LARGEST_POINTS)
    """Width of data lines, points."""
    png_dpi: int = Field(default=200, gt=0, le=LARGEST_DPI)
    """Resolution of the PNG copies, dots per inch."""
    colours: Colours = OKABE_ITO
    heatmap: Annotated[str, AfterValidator(_colour_map)] = "YlGnBu"
    """Colour map of figure 4, from low savings to high. Choose a sequential one: its greys tell the ends apart."""
    traces: list[str] = KNOWN_TRACES
    """Routing traces in the order of their colours and markers, which a trace keeps in every figure. Append others."""
    figures: dict[str, Size] = {}
    """Sizes of figures by name that differ from their study's, as printed."""

    def size_of(self, figure: Any) -> Any:
        """Return what has the `width_in` and `height_in` of a figure: its entry in `figures`, else itself."""
        return self.figures.get(figure.name, figure)

    def for_figure(self, name: str) -> dict[str, Any]:
        """Return the looks that concern one figure, as JSON-like values: without the sizes of the others."""
        own = {key: size.model_dump() for key, size in self.figures.items() if key == name}
        return self.model_dump(mode="json", exclude={"figures"}) | {"figures": own}


class StyleFile(StrictModel):
    """The whole of the file config/style.yaml."""

    style: Style = Style()

"""Write and show figures: the bytes depend on the figure alone, not on the clock or the machine's settings."""

from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
from IPython.display import Image
from matplotlib.figure import Figure

from prophet_moe.files import atomic_write
from prophet_moe.present.style import styled
from prophet_moe.settings.style import Style

SCREEN_DPI = 144
"""Pixels per inch at which a notebook shows a figure: 1.5 times its printed size on an ordinary screen."""


def save_figure(figure: Figure, stem: Path, style: Style, *, title: str, config_hash: str) -> None:
    """Write `<stem>.pdf` and `<stem>.png` at the figure's exact size, each whole or not at all.

    `title` becomes the PDF's title; `config_hash` names the settings behind the figure in both files.
    """
    # CreationDate None leaves the clock out of the PDF.
    metadata = {"Title": title, "Subject": f"config {config_hash}", "CreationDate": None}
    with atomic_write(stem.with_name(f"{stem.name}.pdf")) as partial, styled(style):
        figure.savefig(partial, format="pdf", metadata=metadata)
    # Software None leaves Matplotlib's version out of the PNG.
    metadata = {"Software": None, "Description": f"config {config_hash}"}
    with atomic_write(stem.with_name(f"{stem.name}.png")) as partial, styled(style):
        figure.savefig(partial, format="png", metadata=metadata)


def save_drawing(figure: Figure, target: Path) -> None:
    """Write a drawing of the documentation as SVG, with its letters as outlines; the bytes depend on it alone."""
    settings = {"svg.hashsalt": target.name, "svg.fonttype": "path", "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(settings), atomic_write(target) as partial:
        figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})


def show(figure: Figure, style: Style, *, stem: str, title: str, config_hash: str) -> Image:
    """Return the figure for a notebook to show; with a `stem`, write its files first and show the PNG among them."""
    with TemporaryDirectory() as folder:
        target = Path(stem) if stem else Path(folder) / "figure"
        save_figure(figure, target, style, title=title, config_hash=config_hash)
        shown = target.with_name(f"{target.name}.png").read_bytes()
    return Image(shown, width=round(figure.get_figwidth() * SCREEN_DPI))

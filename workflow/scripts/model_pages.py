"""Write the pages of models as JSON and as LaTeX, and draw the figure of each that has one, in one job."""

import pandas as pd

from prophet_moe.capacity.limits import CONTEXT_GAINED
from prophet_moe.capacity.record import EXTENDED_RECORD
from prophet_moe.catalog.model import load_model
from prophet_moe.files import write_json, write_text
from prophet_moe.present.catalog_table import CATALOG
from prophet_moe.present.latex import header
from prophet_moe.present.model_pages import Results, index, model_pages
from prophet_moe.present.model_pages.figure import draw, drawable
from prophet_moe.present.model_pages.results import gpus_of
from prophet_moe.present.save import save_figure
from prophet_moe.present.supplement import supplement
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table
from studies.frontier.study import FRONTIER
from studies.several_gpus.study import SEVERAL_GPUS

PROJECT_FROM_PAPER = ".."
"""The way from the folder of the paper to the project's root."""


def build(files, parameters):
    """Draw the figures first: a page names that of its model where there is one."""
    models = {path.stem: load_model(path) for path in files.models}
    results = Results(
        catalog=read_table(files.catalog, CATALOG),
        record=read_table(files.record, EXTENDED_RECORD),
        gained=_read(files.gained, CONTEXT_GAINED),
        points=_read(files.points, FRONTIER),
        several=_read(files.several, SEVERAL_GPUS),
        # The ledger is text alone.
        claims=pd.read_csv(files.claims[0], dtype=str, keep_default_na=False) if files.claims else None,
    )
    figures = _draw(models, results, files, parameters)
    slowdown = parameters["claimed_slowdown"]
    pages = model_pages(models, results, slowdown, figures)
    write_json(files.json, pages)
    text = supplement(index(models, results, slowdown), pages, PROJECT_FROM_PAPER)
    write_text(files.tex, header(files.config_hash) + text)


def _read(paths, table):
    """The table of a list of one path or none."""
    return read_table(paths[0], table) if paths else None


def _draw(models, results, files, parameters):
    """Draw the figure of every model that has one; return the paths of the PNGs."""
    style, drawn = Style(**parameters["style"]), {}
    files.figures.mkdir(parents=True, exist_ok=True)
    for name in models if results.points is not None else ():
        points = drawable(results.of(name).points)
        if len(points):
            drawn[name] = files.figures / f"{name}.png"
            figure = draw(points, gpus_of(results.record), parameters["batch_size"], style)
            save_figure(figure, files.figures / name, style, title=name, config_hash=files.config_hash)
    return drawn

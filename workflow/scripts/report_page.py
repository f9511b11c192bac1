"""Write the report page from the finished tables, figures and benchmarks of a build."""

from pathlib import Path

from prophet_moe.capacity.limits import CONTEXT_GAINED
from prophet_moe.capacity.record import RECORD
from prophet_moe.claims.verdict import VERDICTS
from prophet_moe.files import write_text
from prophet_moe.present.page import answer, charts, claims, models, outputs, plans, timings
from prophet_moe.present.page.assemble import render
from prophet_moe.present.quoted_numbers import grid_numbers, observed_numbers, price_numbers, scenario_numbers
from prophet_moe.provenance.sidecar import sidecar_of
from prophet_moe.settings.style import Style
from prophet_moe.study import load_studies
from prophet_moe.tables import read_table
from prophet_moe.validation import read_text
from studies.claims.figure import colours_of, headline
from studies.claims.study import CLAIMS
from studies.frontier.study import FRONTIER
from studies.observed.study import OBSERVED, ROWS
from studies.planner.study import PLANS
from studies.where_it_pays.study import WHERE_IT_PAYS

REPORTED = "reported"
"""The scenario of the report's own constants."""


def build(files, parameters):
    """Collect every part of the page, and write it."""
    content = front(files, parameters) | ledger(files, parameters) | chart_list(files, parameters)
    content |= plan_list(files, parameters) | outputs_of(parameters) | model_list(files)
    content |= run(Path(parameters["benchmarks"]))
    content["contents"] = [(name, title) for name, title, shown in CONTENTS if shown is None or content[shown]]
    write_text(files.page, render(content))


CONTENTS = (
    ("answer", "The answer", None),
    ("claims", "Claims", "claims"),
    ("charts", "Charts to explore", "charts"),
    ("plans", "Plan a GPU", "plans"),
    ("figures", "Figures", "figures"),
    ("tables", "Tables", "tables"),
    ("models", "Models", "models"),
    ("run", "The run", None),
)
"""Sections: identifier, title, and the part of the content without which there is none."""
CLAIM_PARTS = (
    ("reason", "Reason"),
    ("lines", "Lines"),
    ("tolerance", "Tolerance"),
    ("observed_on", "Observed on"),
    ("rests_on", "Rests on"),
    ("evidence", "Evidence"),
    ("read_from", "Read from"),
    ("model", "Models"),
    ("gpu", "GPU"),
    ("batch", "Batch size"),
    ("family", "Family"),
    ("id", "Identifier"),
)
"""What a claim shows when it is opened, in order."""


def front(files, parameters):
    """The answer, its numbers, and the lines that end a build."""
    scenarios, claimed = parameters["scenarios"], parameters["claimed_slowdown"]
    records = dict(zip(scenarios, (read_table(path, RECORD) for path in files.records), strict=True))
    record = records[scenarios[0]]
    numbers = grid_numbers(record) | scenario_numbers("", record)
    if files.gained:
        numbers |= price_numbers(read_table(files.gained[0], CONTEXT_GAINED), record, claimed)
    if files.observed:
        numbers |= observed_numbers(*map(read_table, files.observed, (OBSERVED, ROWS)))
    reported = scenario_numbers("", records[REPORTED]) if REPORTED in scenarios[1:] else {}
    return {
        "title": "Does predicting experts buy context?",
        "over": "Report of the Prophet KV-extension artifact",
        "lead": answer.lead(numbers),
        "key_numbers": answer.key_numbers(numbers, reported),
        "against": answer.against_observations(numbers),
        "measured": parameters["measured"],
        "headlines": read_text(files.headlines),
        "footer": "This file is whole: it needs no network. Made by snakemake report_page.",
    }


def ledger(files, parameters):
    """The claims, how many have each verdict, and the values of the list boxes; nothing where none were judged."""
    table = read_table(files.claims[0], CLAIMS) if files.claims else None
    found = [] if table is None else table.to_dict("records")
    return {
        "claims": found,
        "judged": "" if table is None else headline(table).replace("\n", " "),
        "verdicts": claims.counts(found, VERDICTS) if found else [],
        "verdict_names": list(VERDICTS),
        "verdict_colours": colours_of(Style.model_validate(parameters["style"])),
        "documents": claims.values(found, "document"),
        "claimed_models": claims.values(found, "model"),
        "claim_parts": CLAIM_PARTS,
    }


def chart_list(files, parameters):
    """The interactive charts of those tables that are built."""
    style = Style.model_validate(parameters["style"])
    found = []
    if files.frontier:
        rows, path = read_table(files.frontier[0], FRONTIER), files.frontier[0]
        text = (
            "Every point is a number of experts that stay on the GPU. To the right a decode step takes longer, upwards "
            "the context is longer. The dashed line is the slowdown that the report claims. Times are estimated."
        )
        drawn = charts.frontier(rows, parameters["first"], parameters["claimed_slowdown"], style)
        found.append(_chart("chart-frontier", "What a longer context costs in time", text, path, drawn))
    if files.pays:
        rows, path = read_table(files.pays[0], WHERE_IT_PAYS), files.pays[0]
        text = (
            "Every point is a model on a machine, for one sequence. A faster link (to the right) needs a lower hit "
            f"rate (downwards) to keep a step within {parameters['claimed_slowdown']:g} times its time on demand. "
            "Colour and shape say whether the memory holds as many slots. Times are estimated."
        )
        drawn = charts.break_even(rows, style)
        found.append(_chart("chart-break-even", "Where slots for experts pay", text, path, drawn))
    if files.observed:
        rows, path = read_table(files.observed[1], ROWS), files.observed[1]
        text = "Every point is a public observation. On the dashed line a prediction is right."
        drawn = charts.observed(rows, charts.QUANTITIES, False, style)
        found.append(_chart("chart-observed", "Predicted against measured: memory and time", text, path, drawn))
        drawn = charts.observed(rows, charts.RATES, True, style)
        found.append(_chart("chart-hit-rates", "Predicted against measured: hit rates", text, path, drawn))
    return {"charts": found}


def _chart(name, title, text, path, specification):
    described = specification | {"description": f"{title}. {text}"}
    return {"id": name, "title": title, "text": text, "path": str(path), "specification": described}


def plan_list(files, parameters):
    """The plans of every model and GPU of the grid, and the values of the list boxes."""
    found = plans.views(read_table(files.plans[0], PLANS)) if files.plans else []
    return {
        "plans": found,
        "plans_caption": parameters["plans"],
        "first": parameters["first"],
        "plan_columns": plans.COLUMNS,
        "plan_models": list(dict.fromkeys(plan.model for plan in found)),
        "plan_gpus": list(dict.fromkeys(plan.gpu for plan in found)),
        "plan_batches": list(dict.fromkeys(plan.batch for plan in found)),
    }


def outputs_of(parameters):
    """Every figure and numbered table, in reading order, with its caption and how it was made."""
    declared = {table.name: table for study in load_studies().values() for table in study.tables}
    shown = {kind: outputs.in_reading_order(map(Path, parameters[kind])) for kind in ("figures", "tables")}
    return {
        "figures": [
            outputs.figure_view(path, sidecar_of(path), parameters["figures"][str(path)]) for path in shown["figures"]
        ],
        "tables": [
            outputs.table_view(path, sidecar_of(path), declared[path.stem], parameters["tables"][str(path)])
            for path in shown["tables"]
        ],
        "embedded_table": outputs.embedded_table,
    }


def model_list(files):
    """The pages of models and their images."""
    found = models.read_model_pages(files.models)
    paths = {part.figure for page in found for part in page.sections if part.figure}
    return {"models": found, "images": {path: outputs.embedded_image(Path(path)) for path in sorted(paths)}}


def run(benchmarks):
    """How long the jobs took."""
    found = timings.read_timings(benchmarks)
    rows = [[each.job, *("" if value is None else f"{value:.1f}" for value in each[1:])] for each in found]
    columns = ["job", "wall clock [s]", "processor [s]", "largest memory [MB]"]
    embedded = {"columns": columns, "numeric": [False, True, True, True], "wide": [False] * 4, "rows": rows}
    return {"timings": found, "whole": timings.total(found), "embedded_timings": embedded}

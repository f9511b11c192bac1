"""The page ARTIFACT.md: its text is docs/ARTIFACT.md.jinja, its numbers are those of tables and recorded costs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from prophet_moe.capacity.record import RECORD, RECORDS
from prophet_moe.catalog.gpu import load_gpus
from prophet_moe.catalog.link import load_links
from prophet_moe.catalog.model import load_model
from prophet_moe.errors import UserError
from prophet_moe.present.claims_table import TABLES_READ, Claim, Tables, cited, paper_claims, reported_claims
from prophet_moe.routing.datasets import load_datasets
from prophet_moe.settings.experiment import DecodeStep
from prophet_moe.study import Study
from prophet_moe.tables import TOLERANCE, Table, read_table, tolerances
from prophet_moe.validation import read_csv

TEMPLATE = Path("docs/ARTIFACT.md.jinja")
STEP_COSTS, STUDY_COSTS = Path("resources/costs/steps.csv"), Path("resources/costs/studies.csv")
"""What benches/costs.py recorded."""
RECORD_AGAIN = "Record it: python benches/costs.py studies"
HUMAN_MINUTES = 3
"""Minutes of a reader for a claim: to type its command, to look its cells up, to compare them. Not measured."""
COUNTED_MODEL, COUNTED_LINE = "Snowflake-Arctic-480B", "000:383"
"""The walk by a count: all routed experts of this model, and the line of the reports that says what they take."""
DRAWN_TRACE, DRAWN_SHAPE, DRAWN_BATCH = "small-12x128-top1", (12, 1), 64
"""The walk by a trace with so many layers and top-k: distinct experts of tokens of so many sequences."""
DRAWN_MARGIN = 0.03
"""How far the walk's own draws may lie from the table, which takes half of the sequences."""
TIMED = {"model": "Mixtral-8x7B", "gpu": "A100-80GB", "batch_size": 1, "approach": "prophet", "format": "bf16"}
TIMED_SHARE = 0.5
"""The walk by a time: the row of table 17 with so many of the experts resident."""


class StepCost(NamedTuple):
    """What a step of the page costs: seconds, the largest process in MiB, disk in MB of 10^6 bytes.

    `load` is how many processes ran or waited for a core, its own among them, in the mean of the last five minutes.
    """

    step: str
    command: str
    wall_s: int
    cpu_s: int
    load: int
    largest_process_mib: int
    disk_mb: int


class StudyCost(NamedTuple):
    """What the outputs of a study need, with all that they are made from: the largest job in MiB, files in MB."""

    study: str
    largest_job_mib: int
    disk_mb: float


def artifact_page(studies: Mapping[str, Study]) -> str:
    """Return the page in Markdown, from the committed tables and recorded costs; a missing one is a UserError."""
    declared, tables = tables_by_name(studies), committed_tables(studies)
    limit = DecodeStep().claimed_slowdown
    costs = {row[0]: StudyCost(row[0], int(row[1]), float(row[2])) for row in _rows(STUDY_COSTS, StudyCost)}
    steps = {row[0]: StepCost(*row[:2], *map(int, row[2:])) for row in _rows(STEP_COSTS, StepCost)}
    allowed = tolerances(list(declared.values()))

    def table_of(claims: list[Claim]) -> str:
        return _claims_and_experiments(claims, studies, costs, allowed)

    template = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        steps=steps,
        largest_mib=max(cost.largest_job_mib for cost in costs.values()),
        human_minutes=HUMAN_MINUTES,
        minutes={name: study.minutes for name, study in studies.items()},
        limit=limit,
        paper=table_of(paper_claims(tables, limit)),
        reported=table_of(reported_claims(tables, limit)),
        counted=counted_walk(tables),
        drawn=drawn_walk(tables),
        timed=timed_walk(tables),
        datasets=load_datasets(Path("config/datasets.yaml")).datasets,
    )


def tables_by_name(studies: Mapping[str, Study]) -> dict[str, Table]:
    """Return the declared tables, those of studies and the record, by name."""
    tables = [*(table for study in studies.values() for table in study.tables), *RECORDS]
    return {table.name: table for table in tables}


def committed_tables(studies: Mapping[str, Study]) -> Tables:
    """Read the tables that claims rest on; one that is missing, or has other columns, is a UserError."""
    declared = tables_by_name(studies)
    return {name: read_table(path, declared[Path(name).name]) for name, path in tables_of_claims(studies).items()}


def tables_of_claims(studies: Mapping[str, Study]) -> dict[str, Path]:
    """Return the paths of the tables that claims rest on, by name; the scenario `reported` stands before its own."""
    declared = tables_by_name(studies)
    paths = {name: Path(declared[name].path.format(scenario_dir="")) for name in TABLES_READ}
    return paths | {f"reported/{RECORD.name}": Path(RECORD.path.format(scenario_dir="reported/"))}


def _rows(path: Path, kind: type) -> list[list[str]]:
    """The rows of a file that benches/costs.py wrote."""
    return read_csv(path, list(kind._fields), RECORD_AGAIN)


def _claims_and_experiments(
    claims: list[Claim],
    studies: Mapping[str, Study],
    costs: Mapping[str, StudyCost],
    allowed: Mapping[str, Mapping[str, float]],
) -> str:
    """A Markdown table, each claim with its expected result, how far that may differ on another machine, and its
    experiment with what it costs; and below it a list of the cells that have the result."""
    head = ("claim", "expected result", "may differ by", "experiment", "minutes: human + compute", "memory, disk")
    rows = [head, ("---",) * len(head)]
    for claim in claims:
        if claim.study not in costs:
            raise UserError(f"{STUDY_COSTS}: {claim.study}", "no row of this study", RECORD_AGAIN)
        cost = costs[claim.study]
        stated = f" Reported: {claim.reported} ({cited(claim.lines)})." if claim.lines else ""
        tolerance = allowed[Path(claim.table).name].get(claim.column, TOLERANCE)
        rows.append(
            (
                f"`{claim.id}` {claim.says}.{stated}",
                claim.found,
                f"{100 * tolerance:g} %" if tolerance else "nothing",
                f"`{claim.command}`",
                f"{HUMAN_MINUTES} + {studies[claim.study].minutes:g}",
                f"{cost.largest_job_mib} MiB, {cost.disk_mb:g} MB",
            )
        )
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    cells = "".join(f"* `{claim.id}`: column `{claim.column}`; {claim.rows}.\n" for claim in claims)
    return f"{table}\nWhere to read them:\n\n{cells}"


def counted_walk(tables: Tables) -> dict[str, Any]:
    """Return the walk by a count: what a report states of all routed experts of a model, and the count's factors."""
    cells = tables["table21_report_tables"]
    (cell,) = cells[cells["line"] == COUNTED_LINE].to_dict("records")
    architecture = load_model(Path(f"config/models/{COUNTED_MODEL}.yaml")).architecture
    factors = (len(architecture.moe_layers), architecture.moe.experts, 3, architecture.hidden, architecture.moe.ffn, 2)
    return {"model": COUNTED_MODEL, "factors": " * ".join(map(str, factors)), **cell}


def drawn_walk(tables: Tables) -> dict[str, Any]:
    """Return the walk by a trace: the row of table 9, the shape of the trace, and the ends over all traces."""
    savings = tables["table9_expert_deduplication"]
    of_trace = savings[(savings["trace"] == DRAWN_TRACE) & (savings["batch"] == DRAWN_BATCH)]
    (row,) = of_trace.to_dict("records")
    layers, top_k = DRAWN_SHAPE
    every = savings.loc[savings["batch"] == DRAWN_BATCH, "request_dedup"]
    ends = {"least": every.min(), "most": every.max(), "margin": DRAWN_MARGIN}
    return {"layers": layers, "top_k": top_k, **ends, **row}


def timed_walk(tables: Tables) -> dict[str, Any]:
    """Return the walk by a time: the row of table 17, and the link that its copies take."""
    ways = tables["table17_alternatives"]
    wanted = (ways[list(TIMED)] == list(TIMED.values())).all(axis=1) & (ways["resident_share"] == TIMED_SHARE)
    (row,) = ways[wanted].to_dict("records")
    gpu = load_gpus(Path("config/gpus.yaml"))[row["gpu"]]
    link = load_links(Path("config/links.yaml"))[DecodeStep().link]
    return {"link_gb_per_s": gpu.link_gb_per_s, "share": link.share, **row}

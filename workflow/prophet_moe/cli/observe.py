"""The commands `observe check` and `observe add`: hold predictions against what others measured, and add to that."""

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.table import Table

from prophet_moe.cli.model import find_model
from prophet_moe.cli.terminal import console, errors
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.validation import read_text

KINDS = ("memory", "hit_rates", "routing")
"""Kinds of observations, each predicted by the module of its name in `prophet_moe.observed`."""
EXAMPLES = """\
examples:
  prophet-moe observe check resources/observations/memory.csv --kind memory
  prophet-moe observe check resources/observations/hit_rates.csv --kind hit_rates
  prophet-moe observe check mine.csv --kind memory --model-file My-MoE.yaml --json
  prophet-moe observe add server.log --to mine.csv --gpu H100-80GB --source mine
  vllm serve ... 2>&1 | prophet-moe observe add - --to mine.csv --source mine --engine-version 0.11.0
  prophet-moe observe add --to mine.csv --source mine --set engine=vllm model=Mixtral-8x7B weights_gib_per_gpu=43.5"""
WIDTH = 150
"""Columns that the tables need, wherever they are printed."""


def add_commands(commands: Any) -> None:
    """Add the command `observe` to the parser."""
    observe = commands.add_parser(
        "observe",
        help="hold predictions against what others measured, or add a measurement",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = observe.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser(
        "check",
        help="predict every row of a file of observations, and print the errors",
        description="Predict every row of a file of observations. Errors are printed by quantity, engine and GPU, with "
        "the rows that were left out and why.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("file", type=Path, metavar="FILE", help="a CSV file with columns of resources/observations/")
    _kind(check)
    models = "further models that rows may name: a model's YAML file, a config.json, or the folder of a checkpoint"
    check.add_argument("--model-file", nargs="+", action="extend", default=[], metavar="FILE", help=models)
    check.add_argument("--json", action="store_true", help="print JSON: rows, errors, rows beyond the goals, left out")
    check.set_defaults(run=check_observations)
    add = actions.add_parser(
        "add",
        help="add an observation to a file, read from a start-up log or given column by column",
        description="Add an observation to a file. What is read of a start-up log of vLLM or SGLang is shown.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add.add_argument("log", nargs="?", metavar="LOG", help="start-up log of a server; - is standard input")
    _kind(add)
    add.add_argument("--to", type=Path, required=True, metavar="FILE", help="the CSV file, made where it is missing")
    add.add_argument("--source", required=True, help="where it was published, owner/repo#number, or `mine`")
    add.add_argument("--id", help="id of the observation (default: the file's name and a number)")
    add.add_argument("--engine", choices=["vllm", "sglang"], help="engine of the log, where the log does not tell it")
    add.add_argument("--engine-version", default="", metavar="V", help="its version, where the log does not tell it")
    add.add_argument("--model", metavar="NAME", help="the model, where the log does not tell it or tells a path")
    add.add_argument("--gpu", metavar="NAME", help="the GPU, a name of config/gpus.yaml or the product's")
    cells = "further columns, such as total_gpu_gib=79.11; they replace what the log tells"
    add.add_argument("--set", nargs="+", action="extend", default=[], metavar="COLUMN=VALUE", help=cells)
    add.set_defaults(run=add_observation)


def _kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help=f"kind of observations (default: {KINDS[0]})")


def check_observations(arguments: argparse.Namespace) -> None:
    """Print the errors of the predictions of a file, or everything as JSON."""
    # Only these commands need pandas, whose import takes a while.
    from prophet_moe.observed import schema
    from prophet_moe.observed.context import load_context
    from prophet_moe.observed.errors import grouped_errors, left_out, missed

    kind = import_module(f"prophet_moe.observed.{arguments.kind}")
    rows = schema.read_observations(arguments.file, schema.KINDS[arguments.kind])
    context = load_context().with_models([find_model(file) for file in arguments.model_file])
    found = kind.predicted(rows, context)
    if found.empty:
        raise UserError(str(arguments.file), "has no measured quantity", "Add a row, or a measured column.")
    beyond = list(missed(found, kind.within_goal))
    if arguments.json:
        content = {
            "rows": found.to_dict("records"),
            "errors": grouped_errors(found, ("quantity",), kind.within_goal),
            "errors_by_engine": grouped_errors(found, ("quantity", "engine"), kind.within_goal),
            "errors_by_gpu": grouped_errors(found, ("quantity", "gpu"), kind.within_goal),
            "beyond_goal": beyond,
            "left_out": left_out(found),
        }
        print(json.dumps(_without_nan(content), indent=2))
        return
    terminal = console(least=WIDTH)
    for by in (("quantity",), ("quantity", "engine"), ("quantity", "gpu")):
        terminal.print(_errors_table(by, grouped_errors(found, by, kind.within_goal)))
    if beyond:
        terminal.print(_beyond_table(beyond))
    terminal.print(_left_out_table(left_out(found)))


def _errors_table(by: tuple[str, ...], groups: list[dict[str, Any]]) -> Table:
    title = f"errors by {' and '.join(by)}"
    table = Table(*by, "n", "median %", "90th percentile %", "worst %", "worst row", "within goal", title=title)
    for group in groups:
        goal = "" if group["within_goal"] is None else f"{group['within_goal']} of {group['with_goal']}"
        errors = (group[name] for name in ("median_pct", "p90_pct", "worst_pct"))
        numbers = ("" if math.isnan(error) else f"{error:.3g}" for error in errors)
        table.add_row(*(group[name] for name in by), str(group["n"]), *numbers, group["worst_id"], goal)
    return table


def _beyond_table(rows: list[dict[str, Any]]) -> Table:
    columns = ("id", "quantity", "engine", "gpu", "model")
    table = Table(*columns, "measured", "predicted", "unit", "error %", title="rows beyond their goal")
    for row in rows:
        numbers = f"{row['measured']:,.6g}", f"{row['predicted']:,.6g}", row["unit"], f"{row['error_pct']:+.3g}"
        table.add_row(*(row[name] for name in columns), *numbers)
    return table


def _left_out_table(reasons: list[dict[str, Any]]) -> Table:
    table = Table("why", "n", "quantities", "rows", title="left out")
    for reason in reasons:
        table.add_row(reason["reason"], str(reason["n"]), ", ".join(reason["quantities"]), ", ".join(reason["ids"]))
    return table


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_without_nan(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def add_observation(arguments: argparse.Namespace) -> None:
    """Add one row to a file of observations, which is written whole or not at all."""
    from prophet_moe.observed import schema

    kind = schema.KINDS[arguments.kind]
    cells = {**_from_log(arguments), **_given(arguments, kind)}
    header, rows = _existing(arguments.to, kind)
    cells.setdefault("id", f"{arguments.to.stem}-{len(rows) + 1}")
    for name in kind.required:
        if not cells.get(name):
            raise UserError(f"observe add: {name}", "is missing, every observation needs it", f"Give --set {name}=...")
    unknown = next((name for name in cells if kind.column(name) is None), None)
    if unknown:
        known = ", ".join(column.name for column in kind.columns)
        raise UserError(f"observe add: {unknown}", f"is no column of kind {kind.name}, expected {known}", "Correct it.")
    header = [*header, *(column.name for column in kind.columns if column.name in cells and column.name not in header)]
    rows = [*rows, {name: str(cell) for name, cell in cells.items()}]
    text = _csv(header, rows)
    schema.check_text(text, kind, str(arguments.to))
    write_text(arguments.to, text)
    report = errors()
    for name, cell in cells.items():
        report.print(f"{name}: {cell}", highlight=False, markup=False, soft_wrap=True)
    report.print(f"Added to {arguments.to}, which has {len(rows)} rows.", highlight=False, markup=False, soft_wrap=True)


def _from_log(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the cells that a start-up log gives; none without a log."""
    if arguments.log is None:
        return {}
    from prophet_moe.observed.context import load_context
    from prophet_moe.observed.logs import LARGEST_LOG, check_version, read_log

    if arguments.kind != "memory":
        raise UserError("observe add", f"a log tells memory, not {arguments.kind}", "Give columns: --set COLUMN=VALUE")
    where = "standard input" if arguments.log == "-" else arguments.log
    text = sys.stdin.read(LARGEST_LOG + 1) if arguments.log == "-" else read_text(Path(arguments.log))
    log = read_log(text, where, arguments.engine)
    report = errors()
    for line in log.shown():
        report.print(f"read: {line}", highlight=False, markup=False, soft_wrap=True)
    version = check_version(log, arguments.engine_version, load_context().engines, where)
    notes = "; ".join(filter(None, (log.cells.get("notes"), *log.notes)))
    return {"engine": log.engine, "engine_version": version, **log.cells, **({"notes": notes} if notes else {})}


def _given(arguments: argparse.Namespace, kind: Any) -> dict[str, str]:
    """Return the cells that the command line gives."""
    cells = {}
    for text in arguments.set:
        name, equals, value = text.partition("=")
        if not equals or kind.column(name) is None:
            known = ", ".join(column.name for column in kind.columns)
            raise UserError("--set", f"got {text!r}, expected COLUMN=VALUE with a column of {known}", "Correct it.")
        cells[name] = value
    options = {"id": arguments.id, "model": arguments.model, "gpu": arguments.gpu, "source": arguments.source}
    if kind.column("engine_version") and arguments.engine_version:
        options["engine_version"] = arguments.engine_version
    return {**cells, **{name: value for name, value in options.items() if value}}


def _existing(path: Path, kind: Any) -> tuple[list[str], list[dict[str, str]]]:
    """Return the header and the rows of a file, which must be valid; none where there is no file."""
    from prophet_moe.observed import schema

    if not path.exists():
        return [], []
    schema.read_observations(path, kind)
    reader = csv.DictReader(io.StringIO(read_text(path)))
    return list(reader.fieldnames or []), list(reader)


def _csv(header: list[str], rows: list[Mapping[str, str]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()

"""JSON schemas and reference pages made from the typed settings and the column lists."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined, to_jsonable_python

from prophet_moe.capacity.record import EXTENDED_RECORD, RECORD, RECORD_COLUMNS, RECORDS
from prophet_moe.catalog.bus import BusFile
from prophet_moe.catalog.engine import EngineSpec, load_engines
from prophet_moe.catalog.engine_offload import OffloadFile
from prophet_moe.catalog.gpu import GpuFile
from prophet_moe.catalog.link import LinkFile
from prophet_moe.catalog.model import ModelSpec
from prophet_moe.catalog.names import NameFile
from prophet_moe.collect.plan import Plan
from prophet_moe.present.answers_page import answers_page
from prophet_moe.present.artifact_page import artifact_page, tables_of_claims
from prophet_moe.present.catalog_pages import gpus_page, models_page, precision_page
from prophet_moe.present.catalog_table import CATALOG
from prophet_moe.present.engine_page import engines_page
from prophet_moe.present.keys import in_words, linked
from prophet_moe.present.reproduction import reproduction_page
from prophet_moe.routing.datasets import DatasetFile
from prophet_moe.settings.experiment import with_studies
from prophet_moe.settings.style import Style, StyleFile
from prophet_moe.study import Figure, load_studies
from prophet_moe.tables import Column, Table, read_table

ENGINES = Path("config/engines")
"""Folder of the profiles whose terms docs/engines.md lists."""
JSON_TYPES = {"text": "string", "integer": ["integer", "null"], "number": ["number", "null"], "boolean": "boolean"}


def documents() -> dict[Path, str]:
    """Every generated reference file, by its path from the project's root."""
    schemas = {
        "experiment": _experiment(),
        "style": StyleFile,
        "model": ModelSpec,
        "gpus": GpuFile,
        "engine": EngineSpec,
        "offload": OffloadFile,
        "model_names": NameFile,
        "links": LinkFile,
        "buses": BusFile,
        "datasets": DatasetFile,
        "collect": Plan,
    }
    folder = Path("workflow/schemas")
    pages = {folder / f"{name}.schema.json": _json(TypeAdapter(kind).json_schema()) for name, kind in schemas.items()}
    pages[folder / "record.schema.json"] = _json(_record_schema())
    pages[Path("docs/configuration.md")] = _configuration_page()
    pages[Path("docs/data.md")] = _data_page()
    pages[Path("docs/models.md")] = models_page()
    pages[Path("docs/precision.md")] = precision_page()
    pages[Path("docs/gpus.md")] = gpus_page()
    pages[Path("docs/engines.md")] = engines_page(load_engines(ENGINES))
    pages[Path("docs/reproduce.md")] = reproduction_page(load_studies())
    pages |= _pages_of_results()
    return pages


def _pages_of_results() -> dict[Path, str]:
    """Pages that are made from finished tables, where these are there: before a first build they stay as they are."""
    studies = load_studies()
    pages = {}
    declared = {table.name: table for table in studies["answers"].tables}
    answers, steps = (declared[name] for name in ("table23_answers", "decision_steps"))
    if all(Path(table.path).exists() for table in (answers, steps)):
        tables = (read_table(Path(table.path), table) for table in (answers, steps))
        pages[Path("docs/answers.md")] = answers_page(studies["answers"], *tables)
    if all(path.exists() for path in tables_of_claims(studies).values()):
        pages[Path("ARTIFACT.md")] = artifact_page(studies)
    return pages


def _experiment() -> type[BaseModel]:
    return with_studies({name: study.settings for name, study in load_studies().items()})


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _record_schema() -> dict[str, Any]:
    row = {
        column.name: {"type": JSON_TYPES[column.kind], "description": _described(column)} for column in RECORD_COLUMNS
    }
    required = [column.name for column in RECORD_COLUMNS]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Record: one object per model, GPU and batch size",
        "type": "array",
        "items": {"type": "object", "properties": row, "required": required, "additionalProperties": False},
    }


def _described(column: Column) -> str:
    return f"{column.description} [{column.unit}]" if column.unit else column.description


def _configuration_page() -> str:
    text = (
        "# Configuration keys\n\n"
        "Made from `workflow/prophet_moe/settings/` and the studies by `prophet-moe config write`.\n"
        "A test fails when they differ.\n\n"
        "An unknown key is an error. The [glossary](glossary.md) defines the words.\n"
    )
    for title, model in (("config/experiment.yaml", _experiment()), ("config/style.yaml, under `style`", Style)):
        keys = ((f"`{key}`", kind, default, linked(note)) for key, kind, default, note in _keys(model))
        rows = "\n".join(f"| {' | '.join(cells)} |" for cells in keys)
        text += f"\n## {title}\n\n| key | type | default | meaning |\n|---|---|---|---|\n{rows}\n"
    return text


def _keys(model: type[BaseModel], prefix: str = "", given: Any = None) -> Iterator[tuple[str, str, str, str]]:
    """Key path, type, default and meaning of every field; `given` holds the defaults that an outer field gives."""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        default = getattr(given, name) if given is not None else field.default
        inner = _nested(field.annotation)
        if get_origin(field.annotation) is Union and inner:
            shown = default.model_dump() if isinstance(default, BaseModel) else default
            yield key, in_words(properties[name]), f"`{json.dumps(shown)}`", " ".join(field.description.split())
            yield from _keys(inner, f"{key}.")
        elif inner is field.annotation:
            yield from _keys(inner, f"{key}.", default)
        elif inner is not None:
            yield from _keys(inner, f"{key}.<name>.")
        else:
            shown = "required" if default is PydanticUndefined else f"`{json.dumps(to_jsonable_python(default))}`"
            yield key, in_words(properties[name]), shown, " ".join((field.description or "").split())


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The settings class behind a field: its own type, or the values of a mapping."""
    candidates = (annotation, *getattr(annotation, "__args__", ())[1:])
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def declared_tables() -> list[Table]:
    """Return every table of the project: the record, the catalogue, and those of the studies, by study."""
    return [*RECORDS, CATALOG, *(table for study in load_studies().values() for table in study.declared)]


def _data_page() -> str:
    text = (
        "# Columns\n\n"
        "Made by `prophet-moe config write` from the declared tables: those of a study in\n"
        "`workflow/studies/<study>/study.py`, the record in `workflow/prophet_moe/capacity/record.py`. A test fails\n"
        "when they differ, and another when a committed table has other columns or cells of another type.\n\n"
        "Numbers have 6 significant digits. An empty cell is undefined or unknown. GB is 10^9 bytes, MB 10^6 bytes.\n"
        "`<limit>` in a name stands for a value that settings give, with one group of columns for each. Tables 1 to 4\n"
        "and the record are written for every scenario, those of scenario `reported` in `tables/reported/`. There, GB\n"
        'is the report\'s own mixture of units: see [model.md](model.md), "Scenario `reported`". The\n'
        "[glossary](glossary.md) defines the words. `read_table` of `prophet_moe.tables` reads a table, typed.\n\n"
        "## The record\n\n"
        "One row per model, GPU and batch size. The first of the two is written as JSON, too.\n"
        f"{_table_section(RECORD)}{_table_section(EXTENDED_RECORD, RECORD)}"
        f"\n## The catalogue of models\n\n"
        "One row per model and constant, as published and as the report has it.\n"
        f"{_table_section(CATALOG)}"
    )
    for study in load_studies().values():
        readme = f"[README](../workflow/studies/{study.id}/README.md)"
        text += f"\n## {study.id}\n\n{study.question} ({readme})\n{''.join(map(_table_section, study.tables))}"
        text += "".join(_figure_section(figure) for figure in study.figures)
        explained = {table.name: table for table in study.tables}
        text += "".join(_table_section(table, explained[table.name]) for table in study.extended)
    return text


def _figure_section(figure: Figure) -> str:
    """Heading and notebook of a figure."""
    path = figure.path.format(scenario_dir="")
    return f"\n### `{path}.pdf`, `.png`\n\nDrawn by the [notebook](../notebooks/{figure.name}.ipynb).\n"


def _table_section(table: Table, beside: Table | None = None) -> str:
    """Heading and columns of a table; of one that has all columns `beside` it, only the further ones."""
    known = {column.name for column in beside.columns} if beside else set()
    shown = [column for column in (*table.columns, *table.repeated) if column.name not in known]
    rows = "".join(f"| `{c.name}` | {c.kind} | {c.unit} | {linked(c.description)} |\n" for c in shown)
    also = f"The columns of `{_file_of(beside)}`, and:\n\n" if beside else ""
    return f"\n### `{_file_of(table)}`\n\n{also}| column | type | unit | meaning |\n|---|---|---|---|\n{rows}"


def _file_of(table: Table) -> str:
    """Path of a table in the default scenario."""
    return table.path.format(scenario_dir="")

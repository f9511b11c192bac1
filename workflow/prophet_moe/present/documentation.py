"""JSON schemas and reference pages made from the typed settings and the column lists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from prophet_moe.capacity.record import EXTENDED_COLUMNS, RECORD_COLUMNS, Column
from prophet_moe.catalog.gpu import GpuFile
from prophet_moe.catalog.model import ModelSpec
from prophet_moe.collect.plan import Plan
from prophet_moe.routing.datasets import DatasetFile
from prophet_moe.settings import Experiment, Style, StyleFile

JSON_TYPES = {"text": "string", "integer": ["integer", "null"], "number": ["number", "null"], "boolean": "boolean"}


def documents() -> dict[Path, str]:
    """Every generated reference file, by its path from the project's root."""
    schemas = {
        "experiment": Experiment,
        "style": StyleFile,
        "model": ModelSpec,
        "gpus": GpuFile,
        "datasets": DatasetFile,
        "collect": Plan,
    }
    folder = Path("workflow/schemas")
    pages = {folder / f"{name}.schema.json": _json(TypeAdapter(kind).json_schema()) for name, kind in schemas.items()}
    pages[folder / "record.schema.json"] = _json(_record_schema())
    pages[Path("docs/configuration.md")] = _configuration_page()
    pages[Path("docs/data.md")] = _data_page()
    return pages


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
        "Made from `workflow/prophet_moe/settings.py` by `prophet-moe config write`; a test fails when they differ.\n"
        "An unknown key is an error.\n"
    )
    for title, model in (("config/experiment.yaml", Experiment), ("config/style.yaml, under `style`", Style)):
        keys = ((f"`{key}`", kind, default, _linked(note)) for key, kind, default, note in _keys(model))
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
            yield key, _kind(properties[name]), f"`{json.dumps(shown)}`", " ".join(field.description.split())
            yield from _keys(inner, f"{key}.")
        elif inner is field.annotation:
            yield from _keys(inner, f"{key}.", default)
        elif inner is not None:
            yield from _keys(inner, f"{key}.<name>.")
        else:
            shown = "required" if default is PydanticUndefined else f"`{json.dumps(default)}`"
            yield key, _kind(properties[name]), shown, " ".join((field.description or "").split())


def _linked(text: str) -> str:
    """A page's text with every citation of a report's lines as a link to docs/reports.md."""
    return re.sub(r"(?<!\[)\b(00[0-4]):(\d+(?:-\d+)?)", r"[\g<0>](reports.md#\1-\2)", text)


def _kind(schema: dict[str, Any]) -> str:
    """A field's JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "$ref" in schema:
        return "mapping"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    if schema["type"] == "object":
        return f"mapping of names to {_kind(schema['additionalProperties'])}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}[
        schema["type"]
    ]
    limits = {"exclusiveMinimum": "> {}", "minimum": ">= {}", "maximum": "<= {}", "pattern": "like `{}`"}
    return ", ".join([words, *(text.format(schema[limit]) for limit, text in limits.items() if limit in schema)])


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The settings class behind a field: its own type, or the values of a mapping."""
    candidates = (annotation, *getattr(annotation, "__args__", ())[1:])
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _data_page() -> str:
    text = (
        "# Columns\n\n"
        "Made from `workflow/prophet_moe/capacity/record.py` by `prophet-moe config write`.\n"
        "GB is 10^9 bytes; numbers have 6 significant digits; an empty cell is undefined or unknown.\n"
        "In scenario `reported`, GB is the report's own mixture of units (docs/model.md).\n"
    )
    extra = EXTENDED_COLUMNS[len(RECORD_COLUMNS) :]
    for title, columns in (
        ("`prophet_kv_extension_data.csv`, `.json`", RECORD_COLUMNS),
        ("`prophet_kv_extension_extended.csv`: the same, and", extra),
    ):
        rows = "\n".join(f"| `{c.name}` | {c.kind} | {c.unit} | {c.description} |" for c in columns)
        text += f"\n## {title}\n\n| column | type | unit | meaning |\n|---|---|---|---|\n{rows}\n"
    return text

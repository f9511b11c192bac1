"""Keys of typed files in words, as rows of tables in Markdown."""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from prophet_moe.catalog.architecture import LARGEST_SIZE
from prophet_moe.precision import WeightFormat


def field_table(
    model: type[BaseModel], theirs: Mapping[str, str] | None = None, only: Collection[str] | None = None
) -> str:
    """Return the table of a class's own keys, without `kind`, which says the class itself.

    `theirs` adds a column with the field of config.json behind a key, where it is certain. `only` picks keys.
    """
    heads = ["key", "allowed", "default", "meaning", *(["config.json"] if theirs else [])]
    rows = [heads, ["---"] * len(heads)]
    for name, schema in model.model_json_schema()["properties"].items():
        if name == "kind" or (only is not None and name not in only):
            continue
        meaning = linked(" ".join(model.model_fields[name].description.split()))
        rows.append([f"`{name}`", in_words(schema), _default(schema), meaning])
        if theirs:
            rows[-1].append(theirs.get(name, ""))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def linked(text: str) -> str:
    """Return a page's text with every citation of a report's lines as a link to docs/reports.md."""
    return re.sub(r"(?<!\[)\b(00[0-4]):(\d+(?:-\d+)?)", r"[\g<0>](reports.md#\1-\2)", text)


def in_words(schema: dict[str, Any]) -> str:
    """Return what a field's JSON schema allows, in words, without the limit that only catches typing errors."""
    if "anyOf" in schema:
        return " or ".join(in_words(part) for part in schema["anyOf"])
    if "$ref" in schema or "oneOf" in schema:
        return "mapping"
    if schema.get("enum") == list(get_args(WeightFormat)):
        return "a [format of weights](precision.md#formats-of-weights)"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema["type"] == "array":
        return f"list of {in_words(schema['items'])}"
    if schema["type"] == "object":
        inside = in_words(schema["additionalProperties"])
        return "mappings by name" if inside == "mapping" else f"mapping of names to {inside}"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "`null`",
    }[schema["type"]]
    limits = {"exclusiveMinimum": "> {}", "minimum": ">= {}", "maximum": "<= {}", "pattern": "like `{}`"}
    told = {limit: schema[limit] for limit in limits if schema.get(limit, LARGEST_SIZE) != LARGEST_SIZE}
    return ", ".join([words, *(limits[limit].format(value) for limit, value in told.items())])


def _default(schema: dict[str, Any]) -> str:
    """Return a field's default, without the keys of a mapping that are null."""
    if "default" not in schema:
        return "required"
    default = schema["default"]
    if isinstance(default, dict):
        default = {key: value for key, value in default.items() if value is not None}
    return f"`{json.dumps(default)}`"

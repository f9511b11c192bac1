"""A model's file as text: one line a mixer, an FFN and a block, so that an architecture is read at a glance."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

SCHEMA = "# yaml-language-server: $schema={}workflow/schemas/model.schema.json\n"
NAMED = ("mixers", "ffns", "blocks")
WIDTH = 118


def model_text(document: Mapping[str, Any], above: str = "../../") -> str:
    """Return the YAML text of a model's file.

    Parameters
    ----------
    document : mapping
        The fields of a `ModelSpec`, JSON-like.
    above : str
        The way from the file to the project's folder, for editors that read the schema.

    Returns
    -------
    str
        Text that reads back as `document`.
    """
    parts = []
    for key, value in document.items():
        if key == "architecture":
            parts.append(
                "\n# The published architecture: every parameter, cache and state is counted from these fields.\n"
            )
            parts.append("architecture:\n" + _indented(_architecture(value)))
        elif isinstance(value, Mapping):
            parts.append(_line(key, value))
        else:
            parts.append(yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=WIDTH))
    return SCHEMA.format(above) + "".join(parts)


def _architecture(fields: Mapping[str, Any]) -> str:
    text = ""
    for key, value in fields.items():
        if key in NAMED:
            text += f"{key}:\n" + _indented("".join(_named(name, inside) for name, inside in value.items()))
        elif isinstance(value, Mapping | list):
            text += _line(key, value)
        else:
            text += f"{key}: {json.dumps(value)}\n"
    return text


def _named(name: str, fields: Mapping[str, Any]) -> str:
    line = _line(name, fields)
    if len(line) < WIDTH - 4:
        return line
    return f"{_flow(name)}:\n" + _indented("".join(_line(key, value) for key, value in fields.items()))


def _line(key: str, value: Any) -> str:
    return f"{_flow(key)}: {_flow(value)}\n"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())

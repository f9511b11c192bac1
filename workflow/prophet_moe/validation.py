"""Read YAML, JSON and CSV files and validate them; every mistake becomes one line for the user.

This is the only place that knows how a pydantic complaint is told.
"""

import csv
import difflib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError
from pydantic_core import PydanticCustomError

from prophet_moe.errors import UserError, from_os_error

REBUILD = "Rebuild it: rm that file, then snakemake --cores 8"
"""What to do about a table of the project that cannot be read."""


class StrictModel(BaseModel):
    """Base of everything read from a file: unknown keys, implicit conversions, infinities and NaN are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


Document = TypeVar("Document", bound=BaseModel)


class _UniqueKeyLoader(yaml.CSafeLoader):
    """A YAML loader that refuses a key given twice, which YAML itself would silently resolve to the last one."""


def _mapping(loader: yaml.Loader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key) for key, _ in node.value]
    if not all(isinstance(key, Hashable) for key in keys):
        raise yaml.constructor.ConstructorError(None, None, "a list or mapping cannot be a key", node.start_mark)
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"key {twice!r} is given twice", node.start_mark)
    return dict(zip(keys, (loader.construct_object(value, deep=True) for _, value in node.value), strict=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_text(path: Path) -> str:
    """Read a UTF-8 text file; one that is missing (the nearest name is told) or no text is a UserError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], n=1)
        hint = f"Did you mean {path.parent / near[0]}?" if near else "Check the path."
        raise UserError(str(path), "no such file", hint) from None
    except UnicodeDecodeError as error:
        raise UserError(str(path), f"not a text file (byte {error.start} is not UTF-8)", "Restore the file.") from None
    except OSError as error:
        raise from_os_error(path, error) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping; a malformed file, a repeated key or another kind of document is a UserError."""
    try:
        document = yaml.load(read_text(path), Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}" if error.problem_mark else "somewhere"
        raise UserError(str(path), f"{place}: malformed YAML: {error.problem}", "Mend that line.") from None
    except yaml.YAMLError as error:
        raise UserError(str(path), f"malformed YAML: {' '.join(str(error).split())}", "Mend the file.") from None
    if not isinstance(document, dict):
        raise UserError(str(path), f"holds {type(document).__name__}, expected a mapping of keys", "Mend the file.")
    return document


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `overlay`, mappings inside mappings too: what Snakemake does with --configfile."""
    both = dict(base)
    for key, value in overlay.items():
        below = both.get(key, {})
        if isinstance(value, Mapping) and value:
            both[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            both[key] = below if isinstance(value, Mapping) else value
    return both


def read_json(path: Path) -> Any:
    """Read a JSON file; a malformed one is a UserError that names the line."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(str(path), f"line {error.lineno}: malformed JSON: {error.msg}", "Rebuild or mend it.") from None
    except (ValueError, RecursionError):
        problem = "malformed JSON: a number of thousands of digits, or thousands of brackets in one another"
        raise UserError(str(path), problem, "Rebuild or mend it.") from None


def read_csv(
    path: Path, columns: list[str] | Callable[[list[str]], list[str]], next_step: str = REBUILD
) -> list[list[str]]:
    """Read the rows of a CSV file that must have exactly `columns`, in that order; empty cells are "".

    `columns` may be a function of the header, where the file itself tells some of its columns. `next_step` is what to
    do about a file that cannot be read.
    """
    try:
        header, *rows = csv.reader(read_text(path).splitlines(), strict=True)
    except (csv.Error, ValueError) as error:
        raise UserError(str(path), f"malformed CSV: {error}", next_step) from None
    columns = columns(header) if callable(columns) else columns
    if header != columns:
        wrong = next((pair for pair in zip(header, columns, strict=False) if pair[0] != pair[1]), None)
        what = (
            f"column {wrong[0]!r}, expected {wrong[1]!r}"
            if wrong
            else f"{len(header)} columns, expected {len(columns)}"
        )
        raise UserError(str(path), f"has {what}", next_step)
    for line, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise UserError(
                str(path), f"malformed CSV: line {line} has {len(row)} cells, expected {len(columns)}", next_step
            )
    return rows


def inconsistent(
    key: tuple[str | int, ...], problem: str, others: Sequence[tuple[str | int, ...]] = ()
) -> PydanticCustomError:
    """The error of a validator of several keys; `key` is the path of the one to blame."""
    return PydanticCustomError("inconsistent", "{problem}", {"problem": problem, "key": key, "others": tuple(others)})


def validate(model: type[Document], content: Any, where: str | Callable[..., str], next_step: str) -> Document:
    """Check `content` against the typed `model`; the first complaint becomes one line.

    `where` names the file, or finds it for the key paths that do not agree; the first is added from the complaint.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        complaints = [(_keys_of(complaint, content), complaint) for complaint in error.errors()]
        at, first = _to_be_told(complaints)
        context = first.get("ctx", {})
        location = at + tuple(context.get("key", ()))
        others = [at + tuple(other) for other in context.get("others", ())]
        file = where if isinstance(where, str) else where(location, *others)
        alike = [_expected(complaint) for keys, complaint in complaints if keys == location]
        raise UserError(file, _problem(first, location, alike, model), next_step) from None


def _to_be_told(complaints: list[tuple[tuple, Any]]) -> tuple[tuple, Any]:
    """An unknown key first: it often is the misspelling that makes the right key "missing".

    Of a value that may be a word or a mapping, the complaint about the inside of the mapping where one was given.
    """
    unknown = next((told for told in complaints if told[1]["type"] == "extra_forbidden"), None)
    keys = complaints[0][0]
    inside = (told for told in complaints if told[0][: len(keys)] == keys != told[0])
    return unknown or next(inside, complaints[0])


def _keys_of(complaint: Any, content: Any) -> tuple:
    """The keys of a complaint's place in `content`; pydantic also names the branches of unions there."""
    keys = []
    for part in complaint["loc"]:
        if _holds(content, part):
            content = content[part]
            keys.append(part)
    return tuple(keys) + (complaint["loc"][-1:] if complaint["type"] == "missing" else ())


def _holds(content: Any, part: str | int) -> bool:
    if isinstance(content, list):
        return part in range(len(content))
    return isinstance(content, Mapping) and part in content


def _problem(first: Any, location: tuple, alike: list[str], model: type[BaseModel]) -> str:
    """One pydantic complaint in the form `key: value, expectation`; of a union, what each branch expects."""
    key = _key_path(location)
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1], first["loc"])
        name = str(location[-1])
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.65)
        expected = f"did you mean {near[0]!r}" if near else f"expected one of {', '.join(known)}"
        if "." in name and name.partition(".")[0] in known:
            parts = name.split(".")
            expected = f"keys with dots are written {': {'.join(parts)}: ...{'}' * (len(parts) - 1)}"
        return f"{key}: unknown key; {expected}"
    if first["type"] == "missing":
        return f"{key}: missing"
    if first["type"] == "union_tag_not_found":
        return f"{key}.{_discriminator(first)}: missing"
    if first["type"] == "union_tag_invalid":
        tags = first["ctx"]["expected_tags"].replace("'", "")
        return f"{key}.{_discriminator(first)}: got {shortened(repr(first['ctx']['tag']))}, expected one of {tags}"
    if first["type"] == "inconsistent":
        return f"{key}: {first['msg']}"
    return f"{key}: got {shortened(repr(first['input']))}, expected {' or '.join(dict.fromkeys(alike))}"


def _several(context: Mapping[str, Any]) -> str:
    return "mapping" if context.get("field_type") == "Dictionary" else "list"


def _discriminator(complaint: Any) -> str:
    return complaint["ctx"]["discriminator"].strip("'")


def _expected(complaint: Any) -> str:
    """What a complaint expected, without pydantic's words for types."""
    context = complaint.get("ctx", {})
    told = {
        "model_type": "a mapping of keys",
        "dict_type": "a mapping of keys",
        "bool_type": "true or false",
        "too_short": f"a {_several(context)} of at least {context.get('min_length')}",
        "string_pattern_mismatch": f"text of the form {context.get('pattern')}",
    }
    return told.get(complaint["type"]) or complaint["msg"].replace("Input should be ", "")


def shortened(text: str, most: int = 80) -> str:
    """The text, cut where it has more than `most` characters: a message stays one line."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _key_path(location: tuple) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def _known_keys(model: type[BaseModel], location: tuple, branches: tuple) -> list[str]:
    """Names of the fields at `location` inside `model`, following nested models, mappings and optionals.

    Of a union of kinds, those of the kind that pydantic names among `branches`.
    """
    annotation: Any = model
    for part in location:
        models = [m for m in _models_in(annotation) if part in m.model_fields]
        annotation = models[0].model_fields[part].annotation if models else annotation
    found = _models_in(annotation)
    meant = [m for m in found if set(_kinds(m)) & set(branches)] or found
    return sorted({name for m in meant for name in m.model_fields})


def _kinds(model: type[BaseModel]) -> tuple:
    kind = model.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        return _models_in(annotation.model_fields["root"].annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in getattr(annotation, "__args__", ()) for m in _models_in(argument)]

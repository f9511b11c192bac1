"""The plan in config/collect.yaml: the corpus, the small models, and how they are trained and traced.

Standard dataclasses, since the machine that collects has no pydantic.
"""

import dataclasses
import difflib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from prophet_moe.errors import UserError, from_os_error

PLAN_FILE = Path("config/collect.yaml")
AnyPlan = TypeVar("AnyPlan")


@dataclass(frozen=True)
class Package:
    """A wheel of the Python package index, by version, file name and checksum."""

    version: str
    file: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class Domain:
    """The texts of one kind: which files of which package, and how text is taken out of them."""

    package: str
    files: list[str]
    extract: str


@dataclass(frozen=True)
class CorpusPlan:
    """The corpus: packages, domains, how much of each, and the share held out (never trained on)."""

    packages: dict[str, Package]
    domains: dict[str, Domain]
    characters_per_domain: int
    held_out_share: float


@dataclass(frozen=True)
class TrainingPlan:
    """How one model is trained: steps, sequences, tokens and learning rate."""

    steps: int
    sequences: int
    """Sequences of one step."""
    tokens: int
    """Tokens of one sequence."""
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    balance_coefficient: float
    """Weight of the load-balancing loss, added for every layer (alpha of Switch, arXiv 2101.03961)."""
    seed: int


@dataclass(frozen=True)
class TracePlan:
    """What is recorded of one model: held-out text of every domain, read as prompt and then token by token."""

    sequences_per_domain: int
    prompt_tokens: int
    decode_tokens: int
    batch: int
    hidden_tokens: int
    """Tokens of which the router inputs are kept."""


@dataclass(frozen=True)
class ModelPlan:
    """A small MoE language model: a Transformers configuration class and its arguments."""

    architecture: str
    config: dict[str, Any]
    training: TrainingPlan
    trace: TracePlan


@dataclass(frozen=True)
class Plan:
    """The whole plan of config/collect.yaml: the corpus, its vocabulary and the models."""

    corpus: CorpusPlan
    vocabulary: int
    models: dict[str, ModelPlan]


def read_plan(path: Path = PLAN_FILE) -> Plan:
    """Read and check the plan of the corpus, the models and their traces."""
    return read_as(Plan, path)


def read_as(kind: type[AnyPlan], path: Path) -> AnyPlan:
    """Read a YAML file as a dataclass; a mistake in it is a UserError that names file, key, value and expectation."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise from_os_error(path, error) from None
    except yaml.YAMLError as error:
        raise UserError(str(path), f"malformed YAML: {' '.join(str(error).split())}", "Mend the file.") from None
    return _build(kind, content, str(path), "")


def read_recorded(kind: type[AnyPlan], metadata: Any, path: Path) -> AnyPlan:
    """Return the plan that a measurement followed, by its metadata, which lie in `path`."""
    return _build(kind, metadata.get("plan") if isinstance(metadata, dict) else None, str(path), "plan")


SIMPLE = MappingProxyType({int: "a whole number", float: "a number", str: "text", bool: "true or false"})


def _build(kind: Any, value: Any, file: str, key: str) -> Any:
    """Convert `value` to `kind`: a dataclass, a mapping, a list or a simple value."""
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, file, key)
    container, arguments = get_origin(kind), get_args(kind)
    if container is dict and isinstance(value, dict):
        return {name: _build(arguments[1], item, file, _join(key, name)) for name, item in value.items()}
    if container is list and isinstance(value, list):
        return [_build(arguments[0], item, file, f"{key}[{number}]") for number, item in enumerate(value)]
    if kind is float and type(value) is int:
        return float(value)
    if container is None and type(value) is kind:
        if kind in (int, float) and value < 0:
            raise UserError(file, f"{key}: got {value}, expected at least 0", "Correct it.")
        return value
    expected = SIMPLE.get(kind) or {dict: "a mapping", list: "a list"}[container]
    raise UserError(file, f"{key}: got {value!r}, expected {expected}", "Correct it.")


def _build_dataclass(kind: Any, value: Any, file: str, key: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(file, f"{key or 'the file'}: got {value!r}, expected a mapping of keys", "Correct it.")
    hints = get_type_hints(kind)
    for name in value:
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            expected = f"did you mean {near[0]!r}" if near else f"expected one of {', '.join(hints)}"
            raise UserError(file, f"{_join(key, name)}: unknown key; {expected}", "Correct it.")
    missing = [name for name in hints if name not in value]
    if missing:
        raise UserError(file, f"{_join(key, missing[0])}: missing", "Add it.")
    return kind(**{name: _build(hint, value[name], file, _join(key, name)) for name, hint in hints.items()})


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)

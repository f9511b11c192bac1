"""Names under which others serve the models of the catalogue, and what a checkpoint has of its own."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from prophet_moe.catalog.architecture import Size
from prophet_moe.validation import StrictModel, inconsistent, read_yaml, shortened, validate

FORMATS = r"[-_.](FP8|BF16|FP16|AWQ|GPTQ|NVFP4|MXFP4|Int4|Int8|W4A16|W8A8|GGUF|4bit|8bit|Dynamic|hf)(?=[-_.]|$)"
"""Endings of a repository's name that say the format of its weights, and no other layers."""


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise inconsistent((), f"got {shortened(repr(text))}, expected a regular expression ({error})") from None
    return text


class ModelName(StrictModel):
    """A pattern of names, the model with the same layers, and what these checkpoints have of their own."""

    match: Annotated[str, AfterValidator(_is_pattern)]
    """Regular expression that is searched in a name without its owner and format, whatever the case."""
    model: str
    """Model of the catalogue that has the same layers."""
    rotary_positions: Size | None = None
    """Positions of the rotary table, where they are not the native context."""
    rotary_width: Size | None = None
    """Rotary width, where it is not a whole head or the rotary part of a latent head."""
    rotary_bytes: Annotated[int, Field(ge=1, le=8)] = 2
    """Bytes of an entry of the rotary table."""
    vocab: Size | None = None
    """Tokens of the vocabulary, where they are not those of the catalogue."""


class NameFile(StrictModel):
    """The whole of config/model_names.yaml, patterns in their order."""

    names: list[ModelName]
    """Patterns in the order in which they are tried."""


def load_names(path: Path) -> list[ModelName]:
    """Read the patterns of names, in the order in which they are tried."""
    return validate(NameFile, read_yaml(path), str(path), "Mend that entry.").names


def bare(name: str) -> str:
    """Return a name without its owner, its format and what stands in brackets."""
    tail = re.sub(r"\s*\(.*\)", "", name.strip()).rstrip("/").rsplit("/", 1)[-1]
    return re.sub(FORMATS, "", tail, flags=re.IGNORECASE)


def named(name: str, names: list[ModelName]) -> ModelName | None:
    """Return the first entry whose pattern is found in a name; None where there is none."""
    text = bare(name)
    return next((entry for entry in names if re.search(entry.match, text, re.IGNORECASE)), None)

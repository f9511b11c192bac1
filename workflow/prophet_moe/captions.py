"""Captions of tables and figures: paragraphs of the READMEs of studies, with settings as {{ placeholders }}."""

import re
from collections.abc import Mapping
from os.path import relpath
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError

from prophet_moe.errors import UserError
from prophet_moe.study import STUDIES
from prophet_moe.validation import read_text


def captions(study: str, folder: Path = STUDIES) -> Mapping[str, str]:
    """Return the captions of a study's outputs by their paths: the paragraph below each `### <path>` of its README."""
    found = re.findall(r"^### (\S+)\n\n(.+?)(?=\n\n|\Z)", read_text(_readme(study, folder)), re.MULTILINE | re.DOTALL)
    return {output: " ".join(text.split()) for output, text in found}


def section(study: str, heading: str, folder: Path = STUDIES) -> str:
    """Return the text below a heading of a study's README, up to the next heading; none is a UserError."""
    path = _readme(study, folder)
    found = re.search(rf"^#+ {re.escape(heading)}\n\n(.+?)(?=\n+#|\s*\Z)", read_text(path), re.MULTILINE | re.DOTALL)
    if not found:
        raise UserError(relpath(path), f"has no text below a heading {heading!r}", "Add that section.")
    return found[1]


def caption(study: str, output: str, values: Mapping[str, Any], folder: Path = STUDIES) -> str:
    """Return the caption of one output of a study, with `values` in place of its placeholders.

    A README without the caption, and a placeholder that `values` lack, are UserErrors.
    """
    where, known = relpath(_readme(study, folder)), captions(study, folder)
    if output not in known:
        raise UserError(where, f"has no caption of {output}", f"Add a paragraph below a heading ### {output}.")
    try:
        return Template(known[output], undefined=StrictUndefined).render(values)
    except (TemplateError, TypeError) as error:
        problem = f"caption of {output}: {' '.join(str(error).split()).rstrip('.')}"
        advice = "A placeholder is a key of docs/configuration.md, title, basis, default, measured or times."
        raise UserError(where, problem, advice) from None


def _readme(study: str, folder: Path) -> Path:
    return folder / study / "README.md"

"""Importers of routing traces that others recorded: one module per format, each with one function `read`."""

import importlib
import inspect
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from prophet_moe.errors import UserError
from prophet_moe.routing.counted import doubts
from prophet_moe.routing.importers.reading import NEXT_STEP, with_remarks
from prophet_moe.routing.importers.sniffing import mistaken
from prophet_moe.routing.trace import Counts, Origin, Router, Trace, check_counts

FORMATS: dict[str, str] = {
    "arrays": "numpy_arrays",
    "prompt_json": "prompt_json",
    "prompt_csv": "prompt_csv",
    "sglang_recorder": "sglang_recorder",
    "sglang_routed_experts": "sglang_routed_experts",
    "vllm_routed_experts": "vllm_routed_experts",
    "transformers_logits": "transformers_logits",
    "counts": "counts",
    "lines": "lines",
}
"""Names of the formats and of the modules that read them."""
SELF_DESCRIBED = ("lines",)
"""Formats that can state experts, k and layers themselves: `read` takes a model's name in place of its router."""


def about(name: str) -> str:
    """Return what the format `name` is, what it leaves open, and an example: the head of the module that reads it."""
    return inspect.cleandoc(_module(name).__doc__ or "")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{FORMATS[name]}")


def import_source(name: str, source: Path, router: Router | str, origin: Origin, **options: Any) -> Trace | Counts:
    """Import routing that somebody else recorded.

    Parameters
    ----------
    name : str
        One of FORMATS.
    source : Path
        A file or a folder in that format.
    router : Router or str
        The router of the model; its name alone where nothing else is known, for the formats in SELF_DESCRIBED.
    origin : Origin
        Source, licence and checksum to record.
    **options
        Options of the format, the keyword arguments of its module's `read`.

    Returns
    -------
    Trace or Counts
        What the source holds: routing token by token, or how often each expert was chosen.

    Raises
    ------
    UserError
        Where the format or an option is unknown, or the source is unsound or in another format.
    """
    if name not in FORMATS:
        raise UserError(str(source), f"unknown format {name!r}, expected one of {', '.join(FORMATS)}")
    read = _module(name).read
    unknown = sorted(set(options) - set(inspect.signature(read).parameters))
    if unknown:
        raise UserError(str(source), f"format {name} has no option {', '.join(unknown)}", "Leave it out.")
    try:
        imported = read(source, router, origin, **options)
    except UserError:
        other = mistaken(source, name)
        if other is None:
            raise
        raise other from None
    return with_doubts(check_counts(imported, source, NEXT_STEP)) if isinstance(imported, Counts) else imported


def import_trace(name: str, source: Path, router: Router, origin: Origin, **options: Any) -> Trace:
    """Read `source` as `import_source` does; counts, which have no order of tokens, are a UserError."""
    imported = import_source(name, source, router, origin, **options)
    if isinstance(imported, Counts):
        problem = "holds counts, expected routing token by token"
        advice = "Import it with prophet-moe trace import, and list its folder under counts in config/experiment.yaml."
        raise UserError(str(source), problem, advice)
    return imported


def with_doubts(counts: Counts) -> Counts:
    """Return `counts` with what of them looks wrong among the remarks of their origin."""
    return replace(counts, origin=with_remarks(counts.origin, doubts(counts)))

"""A page for every model of the experiment: architecture, bytes, what fits where, the price in time, claims about it.

A page is plain data, which the report page renders as HTML and `present.supplement` as LaTeX: `model`, `title`,
`summary` (sentences) and `sections`, each with `heading`, `text` (sentences), `table` (`columns` and `rows`, all text
as it is shown, or None) and `figure` (path of a PNG, or None). Every sentence and every cell is computed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prophet_moe import params
from prophet_moe.catalog import ModelSpec
from prophet_moe.present.model_pages.architecture import architecture_section, attention, bytes_section
from prophet_moe.present.model_pages.claims import claims_section, verdicts
from prophet_moe.present.model_pages.memory import baseline_fits, fits_section, prophet_fits
from prophet_moe.present.model_pages.price import alone_fitting, price_section
from prophet_moe.present.model_pages.results import Results, both_fit, extensions
from prophet_moe.present.model_pages.words import NONE, counted, factor, number
from prophet_moe.present.select import where

__all__ = ["Results", "index", "model_pages"]


def model_pages(
    models: Mapping[str, ModelSpec], results: Results, claimed_slowdown: float, figures: Mapping[str, Path]
) -> list[dict[str, Any]]:
    """Return the pages of `models`, in their order.

    `figures` has the path of the PNG of each model that has one (`present.model_pages.figure`).
    """
    return [_page(spec, results.of(name), claimed_slowdown, figures.get(name)) for name, spec in models.items()]


def index(models: Mapping[str, ModelSpec], results: Results, claimed_slowdown: float) -> dict[str, Any]:
    """Return the table of all pages, a row per model in their order: `columns` and `rows`, all text."""
    gpus = results.record["gpu"].nunique()
    columns = [
        "model",
        "parameters (10^9)",
        "active (10^9)",
        "experts",
        "k",
        "attention",
        f"baseline fits, of {gpus} GPUs",
        f"Prophet fits, of {gpus} GPUs",
        "extension, memory alone (x)",
        f"extension, {claimed_slowdown:g}x time (x)",
        "claims",
        "reproduced",
    ]
    return {
        "columns": columns,
        "rows": [_index_row(spec, results.of(name), claimed_slowdown) for name, spec in models.items()],
    }


def _index_row(spec: ModelSpec, own: Results, claimed_slowdown: float) -> list[str]:
    arch, claims = spec.architecture, own.claims
    return [
        spec.name,
        number(params.parameter_counts(arch).total / 1e9),
        number(params.active_parameters(arch) / 1e9),
        str(arch.moe.experts),
        str(arch.moe.top_k),
        attention(arch),
        str(where(own.record, baseline_fits=True)["gpu"].nunique()),
        str(where(own.record, prophet_fits=True)["gpu"].nunique()),
        factor(both_fit(own.record)["kv_extension_factor"].median()),
        factor(extensions(own.gained, "prophet", claimed_slowdown).median()),
        NONE if claims is None else str(len(claims)),
        NONE if claims is None else str(len(where(claims, verdict="reproduced"))),
    ]


def _page(spec: ModelSpec, own: Results, claimed_slowdown: float, figure: Path | None) -> dict[str, Any]:
    return {
        "model": spec.name,
        "title": spec.name if spec.published_name == spec.name else f"{spec.name} ({spec.published_name})",
        "summary": _summary(spec, own, claimed_slowdown),
        "sections": [
            architecture_section(spec, own.catalog),
            bytes_section(spec.architecture),
            fits_section(spec.architecture, own),
            price_section(own, claimed_slowdown, str(figure) if figure else None),
            claims_section(own.claims),
        ],
    }


def _summary(spec: ModelSpec, own: Results, claimed_slowdown: float) -> list[str]:
    counts = params.parameter_counts(spec.architecture)
    sentences = [
        f"{spec.name} has {number(counts.total / 1e9)} billion parameters, of which a token uses "
        f"{number(params.active_parameters(spec.architecture) / 1e9)} billion.",
        f"Routed experts are {100 * counts.routed_experts / counts.total:.1f} % of them.",
        baseline_fits(own.record),
        prophet_fits(own.record),
    ]
    both, reached = both_fit(own.record), extensions(own.gained, "prophet", claimed_slowdown)
    alone = None if own.points is None else alone_fitting(own.points)
    if len(both):
        told = f"By memory alone, Prophet makes the context {factor(both['kv_extension_factor'].median())}x as long"
        if len(reached):
            told += f", and {factor(reached.median())}x within {claimed_slowdown:g}x the time of a decode step"
        sentences.append(f"{told}, in the median of {counted(len(both), 'configuration')}.")
    elif alone is not None and len(alone):
        sentences.append(
            f"A decode step of Prophet then takes at least {alone['slowdown'].min():.2f}x the time that it would take "
            "with every expert resident."
        )
    return sentences if own.claims is None else [*sentences, verdicts(own.claims)]

"""The section of a model's page on what fits where, by memory alone."""

from typing import Any

import pandas as pd

from prophet_moe import params
from prophet_moe.catalog import Architecture
from prophet_moe.present.model_pages.results import Results, both_fit, gpus_of
from prophet_moe.present.model_pages.words import NONE, counted, factor, listed, section, span, tokens
from prophet_moe.present.select import where
from prophet_moe.present.style import gigabytes
from prophet_moe.units import GB

FITS = {"both": "both", "prophet_only": "Prophet", "baseline_only": "baseline", "neither": "neither"}
"""Fit states as the table shows them."""


def fits_section(arch: Architecture, own: Results) -> dict[str, Any]:
    """Return the section on what fits on which GPU, with the longest contexts; `own` are the rows of the model."""
    record, native = own.record, arch.native_context
    text = [baseline_fits(record), prophet_fits(record), *_reasons(arch, record)]
    if own.several is not None and not record["baseline_fits"].any():
        text += _several_gpus(own.several)
    both = both_fit(record)
    if len(both):
        longer = int((both["prophet_native_context"] > both["baseline_native_context"]).sum())
        text.append(
            f"Within the native context of {native:,} tokens, that of Prophet is longer in {longer} of the "
            f"{counted(len(both), 'row')} in which both fit."
        )
    text.append("Contexts are tokens per sequence by memory alone, as if every expert were there in time.")
    columns = ["GPU", "batch", "fits", "baseline (tokens)", "Prophet (tokens)", "extension (x)"]
    return section("What fits where", text, columns, _rows(record))


def baseline_fits(record: pd.DataFrame) -> str:
    """Say on which GPUs and at which batch sizes the baseline fits, or that it fits on none."""
    fits = where(record, baseline_fits=True)
    if fits.empty:
        return f"With every expert resident (baseline), it does not fit on {_either(gpus_of(record))}."
    return f"With every expert resident (baseline), it fits on {_places(fits, record)}."


def prophet_fits(record: pd.DataFrame) -> str:
    """Say where Prophet fits, above all where the baseline does not."""
    alone = where(record, fit_state="prophet_only")
    if len(alone):
        return f"Only Prophet, which keeps the experts that a batch needs, fits on {_places(alone, record)}."
    fits = where(record, prophet_fits=True)
    if fits.empty:
        return "Prophet, which keeps the experts that a batch needs, does not fit either."
    if len(both_fit(record)) == len(where(record, baseline_fits=True)):
        return "Prophet, which keeps the experts that a batch needs, fits there too, and nowhere else."
    return f"Prophet, which keeps the experts that a batch needs, fits on {_places(fits, record)}."


def _reasons(arch: Architecture, record: pd.DataFrame) -> list[str]:
    """Why the baseline, or neither of the two, fits on any GPU."""
    largest, weights = record["gpu_memory_gb"].max(), sum(params.weight_bytes(arch).values()) / GB
    others, needed = record["non_expert_gb"].max(), record["prophet_expert_gb"].min()
    text = []
    if not record["baseline_fits"].any() and weights > largest:
        text.append(f"Its weights take {gigabytes(weights)} GB, and the largest GPU has {gigabytes(largest)} GB.")
    # Where the report gives no constants, nothing is known of a model in its scenario.
    if record["prophet_fits"].any() or pd.isna(needed):
        return text
    if others > largest:
        return [*text, f"What is not in routed experts takes {gigabytes(others)} GB, more than any of these GPUs has."]
    told = f"The experts that a batch of {record['batch_size'].min()} needs take {gigabytes(needed)} GB"
    return [*text, f"{told}, and all other weights {gigabytes(others)} GB."]


def _several_gpus(several: pd.DataFrame) -> list[str]:
    """A sentence on how many GPUs the model needs, of each GPU of table 18 at its smallest batch."""
    at = several.sort_values("batch_size", kind="stable").drop_duplicates("gpu").dropna(subset=["baseline_gpus"])
    if at.empty:
        return []
    told = listed(f"{row.baseline_gpus} x {row.gpu}" for row in at.itertuples())
    fewer = at.dropna(subset=["prophet_gpus"])
    alone = f", Prophet {listed(f'{row.prophet_gpus} x {row.gpu}' for row in fewer.itertuples())}" if len(fewer) else ""
    batch, context = at.iloc[0][["batch_size", "context"]]
    return [f"At batch {batch} and {context:,} tokens, the baseline needs {told}{alone} (table 18)."]


def _rows(record: pd.DataFrame) -> list[list[str]]:
    """A row per GPU and batch size; neighbouring batch sizes at which nothing fits share one."""
    rows: list[list[str]] = []
    for gpu in gpus_of(record):
        mine = where(record, gpu=gpu).sort_values("batch_size", kind="stable")
        stretch = (mine["fit_state"] != "neither").cumsum().where(mine["fit_state"] == "neither", -mine["batch_size"])
        for _, alike in mine.groupby(stretch, sort=False):
            first = alike.iloc[0]
            extension = first["kv_extension_factor"] if first["fit_state"] == "both" else None
            rows.append(
                [
                    gpu,
                    span(list(alike["batch_size"])),
                    FITS[first["fit_state"]],
                    tokens(first["baseline_max_context"]),
                    tokens(first["prophet_max_context"]),
                    NONE if extension is None else factor(extension),
                ]
            )
    return rows


def _places(rows: pd.DataFrame, record: pd.DataFrame) -> str:
    """GPUs with their batch sizes; GPUs with the same ones together."""
    tried = sorted(set(record["batch_size"]))
    by_batches: dict[str, list[str]] = {}
    for gpu in gpus_of(rows):
        batches = sorted(where(rows, gpu=gpu)["batch_size"])
        told = "at every batch size" if batches == tried else f"at batch {span(batches)}"
        by_batches.setdefault(told, []).append(gpu)
    return "; ".join(f"{listed(gpus)} {told}" for told, gpus in by_batches.items())


def _either(gpus: list[str]) -> str:
    return gpus[0] if len(gpus) == 1 else f"any of {listed(gpus)}"

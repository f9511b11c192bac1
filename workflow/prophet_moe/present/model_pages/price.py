"""The section of a model's page on what a longer context costs in time."""

from typing import Any

import pandas as pd

from prophet_moe.present.frontier_lines import ROUNDING
from prophet_moe.present.model_pages.results import Results, by_gpu, extensions, gpus_of
from prophet_moe.present.model_pages.words import counted, factor, listed, number, section, span, tokens
from prophet_moe.present.price import STRATEGIES, limits_of
from prophet_moe.present.select import where

HEADING = "Context within a limit of time"


def price_section(own: Results, claimed_slowdown: float, figure: str | None) -> dict[str, Any]:
    """Return the section on the frontier; where there is none, on what fitting at all costs, or why neither is known.

    `own` are the rows of the model, and `figure` is the path of its figure, if it has one.
    """
    if own.gained is None or own.points is None:
        return section(HEADING, ["No step was simulated in this build."])
    fitting = own.gained.dropna(subset=[f"kv_extension_at_{claimed_slowdown:g}x"])
    alone = alone_fitting(own.points)
    if len(fitting):
        text = [_reached(fitting, claimed_slowdown), *_above_memory(fitting, own.record, claimed_slowdown)]
        if len(alone):
            text += [_least_told(alone, own.record), "No KV extension is defined there."]
        text += ["The figure has the KV extension of Prophet by the limit of slowdown."] if figure else []
        return section(HEADING, text, *_gained_table(fitting, own.record), figure)
    text = ["There is no frontier of KV extension, since the baseline fits nowhere."]
    if len(alone):
        text.append(_least_told(alone, own.record))
        text += ["The figure has the longest context of simulated points at which Prophet fits."] if figure else []
        return section(HEADING, text, *_least_table(alone, own.record), figure)
    if not own.record["prophet_fits"].any():
        return section(HEADING, [*text, "Prophet does not fit either, so no step was simulated."])
    kept = where(own.record, prophet_fits=True)["resident_experts"].max()
    fewest, every = own.points["resident_experts"].min(), own.record["num_experts"].iloc[0]
    text.append(
        f"Prophet fits with at most {number(kept)} of {every} experts per layer resident. Steps were simulated with at "
        f"least {number(fewest)}, which do not fit."
    )
    return section(HEADING, text)


def alone_fitting(points: pd.DataFrame) -> pd.DataFrame:
    """Return the simulated points of Prophet that fit where the baseline does not."""
    prophet = where(points, strategy="prophet", baseline_max_context=0)
    return prophet[prophet["max_context"] > 0]


def _reached(fitting: pd.DataFrame, claimed_slowdown: float) -> str:
    """What each strategy reaches within the claimed slowdown, in the median of the configurations."""
    reached = {title: extensions(fitting, name, claimed_slowdown) for name, title in STRATEGIES.items()}
    told = listed(f"{factor(found.median())}x ({title})" for title, found in reached.items())
    most = max(len(found) for found in reached.values())
    return (
        f"Within {claimed_slowdown:g}x the time of a decode step with every expert resident, the KV extension is "
        f"{told}, in the median of {counted(most, 'configuration')}."
    )


def _above_memory(fitting: pd.DataFrame, record: pd.DataFrame, claimed_slowdown: float) -> list[str]:
    """A sentence on the configurations where time buys more than memory alone, and why it can; none without any."""
    prophet = where(fitting, strategy="prophet")
    rows = prophet.merge(record, on=["gpu", "batch_size"])
    floors = (1 + ROUNDING) * rows["kv_extension_factor"].clip(lower=1)
    more = int((rows[f"kv_extension_at_{claimed_slowdown:g}x"] > floors).sum())
    if not more:
        return []
    return [
        f"In {more} of them Prophet has more than by memory alone, which keeps enough experts for nearly every step: "
        "within the limit, a step may fetch the few that it misses."
    ]


def _gained_table(fitting: pd.DataFrame, record: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """KV extension by memory alone, and of Prophet within each limit, a row per GPU and batch size."""
    limits = limits_of(fitting)
    floors = record.set_index(["gpu", "batch_size"])["kv_extension_factor"]
    rows = [
        [row["gpu"], str(row["batch_size"]), factor(floors[row["gpu"], row["batch_size"]])]
        + [factor(row[f"kv_extension_at_{limit:g}x"]) for limit in limits]
        for row in by_gpu(where(fitting, strategy="prophet"), gpus_of(record)).to_dict("records")
    ]
    return ["GPU", "batch", "memory alone (x)", *(f"at {limit:g}x time (x)" for limit in limits)], rows


def _least(points: pd.DataFrame, record: pd.DataFrame) -> pd.DataFrame:
    """Of each GPU and batch size the point of least slowdown."""
    cheapest = points.sort_values("slowdown", kind="stable").drop_duplicates(["gpu", "batch_size"])
    return by_gpu(cheapest, gpus_of(record))


def _least_table(points: pd.DataFrame, record: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """The simulated point of least slowdown at which Prophet fits, a row per GPU and batch size."""
    rows = [
        [row.gpu, str(row.batch_size), number(row.resident_experts), f"{row.slowdown:.2f}", tokens(row.max_context)]
        for row in _least(points, record).itertuples()
    ]
    return ["GPU", "batch", "experts per layer", "slowdown (x)", "context (tokens)"], rows


def _least_told(points: pd.DataFrame, record: pd.DataFrame) -> str:
    """The least slowdown at which Prophet alone fits, GPU by GPU, at the smallest batch."""
    least = _least(points, record).drop_duplicates("gpu")
    told = listed(f"{row.slowdown:.2f}x on {row.gpu}" for row in least.itertuples())
    return (
        f"Where only Prophet fits, the least slowdown of a simulated point that fits is {told}, at batch "
        f"{span(sorted(set(least['batch_size'])))}."
    )

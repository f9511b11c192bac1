"""The popularity CV of a model from counts of published models: its own, else pooled over others.

It depends on the text as much as on the model. So

* the value of a model is the mean over its texts, each a mixture (`traffic` whole), from counts of all its layers where
  there are some, and of the domain asked for where there are some;
* its interval is that of one text more: Student's t on the spread of texts around the mean of their model, pooled over
  all models, single domains included;
* a model without counts has the mean over the models that were balanced alike and have counts of the domain, if there
  are FEWEST of them or more, else over all with counts of the domain. Its interval is that of one model more, on one
  text more: the two half-widths added in quadrature;
* no popularity varies by more than if every token chose the same k of E experts, and none by less than nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf, sqrt

import numpy as np
from scipy.special import stdtrit

from prophet_moe.routing.intervals import CONFIDENCE, mean_interval
from prophet_moe.routing.popularity_cv import POOLED, PopularityCV
from prophet_moe.routing.published import PublishedRouting

BATCHING = "staggered"
"""The batches that counts speak for: tokens of different sequences, which choose independently."""
FEWEST = 3
"""Fewer models that were balanced alike are not pooled by themselves."""


@dataclass(frozen=True)
class Pool:
    """The effective CV of one model more on one text more, from that of some models."""

    models: tuple[str, ...]
    """The models, in the order of the file."""
    value: float
    """Mean of one value a model."""
    low: float
    """Ends of the 95 % interval; 0 and infinity for a single model."""
    high: float


def values(rows: Iterable[PublishedRouting], domain: str = "any") -> dict[str, float]:
    """Return the effective CV of each model that has counts of the `domain`: the mean over its texts."""
    return {
        model: _mean(texts)
        for model, found in _by_model(rows).items()
        if (texts := [row for row in texts_of(found) if domain in ("any", row.domain)])
    }


def texts_of(rows: Iterable[PublishedRouting]) -> list[PublishedRouting]:
    """Return the rows of one model that its value may rest on: of whole traffic, clean ones where there are some."""
    whole = [row for row in rows if row.traffic == "whole"]
    return [row for row in whole if row.clean] or whole


def pooled(
    rows: Sequence[PublishedRouting],
    domain: str = "any",
    alike: Callable[[PublishedRouting], bool] = lambda row: True,
) -> Pool | None:
    """Return the pool of the models whose rows are `alike`, from their texts of the `domain`; None where none is."""
    found = values((row for row in rows if alike(row)), domain)
    if not found:
        return None
    mean, _low, high = mean_interval(list(found.values()), beyond=1.0)
    half = inf if len(found) == 1 else hypot(high - mean, _half_of_a_text(rows))
    return Pool(tuple(found), mean, max(0.0, mean - half), mean + half)


def pool_for(rows: Sequence[PublishedRouting], balancing: str = "unknown", domain: str = "any") -> Pool | None:
    """Return the pool for a model without counts: of the models balanced alike, else of all; None without any."""
    alike = pooled(rows, domain, lambda row: row.balancing == balancing != "unknown")
    return alike if alike and len(alike.models) >= FEWEST else pooled(rows, domain)


def spread_of_texts(rows: Iterable[PublishedRouting]) -> tuple[float, int]:
    """Return the standard deviation of the effective CV over texts of one model, and its degrees of freedom.

    Texts of all models with several clean rows count, each around the mean of its model. A mixture stands aside where
    the domains that it is made of have rows of their own in the same source.
    """
    squares, freedom = 0.0, 0
    for found in _by_model(row for row in rows if row.clean).values():
        split = {row.source.split("@")[0] for row in found if row.traffic == "domain"}
        texts = [row.effective_cv for row in found if row.traffic == "domain" or row.source.split("@")[0] not in split]
        squares += float(np.sum((np.array(texts) - np.mean(texts)) ** 2))
        freedom += len(texts) - 1
    return (sqrt(squares / freedom), freedom) if freedom else (inf, 0)


def popularity_cv(
    model: str,
    experts: int,
    top_k: int,
    rows: Sequence[PublishedRouting],
    balancing: str = "unknown",
    domain: str = "any",
) -> PopularityCV | None:
    """Return the popularity CV of a model by published counts: its own, else pooled; None where there are no rows.

    Parameters
    ----------
    model : str
        Its name in this project.
    experts, top_k : int
        Its E and k, which bound the value and its interval.
    rows : sequence of PublishedRouting
        The counts of published models.
    balancing : str, optional
        How training balanced its load, as in `published.Balanced`.
    domain : str, optional
        The texts to prefer: `web`, `prompts` or `any`.

    Returns
    -------
    PopularityCV or None
        With a 95 % interval: of one text more for a model's own counts, else of one model more on one text more.
    """
    if own := texts_of(row for row in rows if row.known_as == model):
        own = [row for row in own if domain in ("any", row.domain)] or own
        value, half = _mean(own), _half_of_a_text(rows, len(own))
        found = PopularityCV(model, BATCHING, value, max(0.0, value - half), value + half, _source_of(own))
    elif pool := pool_for(rows, balancing, domain):
        source = f"{POOLED}published counts of {', '.join(pool.models)}"
        found = PopularityCV(model, BATCHING, pool.value, pool.low, pool.high, source)
    else:
        return None
    return found.bounded(experts, top_k)


def popularity_cvs(
    shapes: Mapping[str, tuple[int, int]],
    rows: Sequence[PublishedRouting],
    balancing: Mapping[str, str],
    domain: str = "any",
) -> dict[str, PopularityCV]:
    """Return the popularity CV of models of given E and k by published counts; without any counts there is none."""
    found = {
        name: popularity_cv(name, *shape, rows, balancing.get(name, "unknown"), domain)
        for name, shape in shapes.items()
    }
    return {name: known for name, known in found.items() if known}


def _by_model(rows: Iterable[PublishedRouting]) -> dict[str, list[PublishedRouting]]:
    found: dict[str, list[PublishedRouting]] = {}
    for row in rows:
        found.setdefault(row.known_as, []).append(row)
    return found


def _mean(rows: Sequence[PublishedRouting]) -> float:
    return float(np.mean([row.effective_cv for row in rows]))


def _half_of_a_text(rows: Iterable[PublishedRouting], texts: float = inf) -> float:
    """Return half of the 95 % interval of one text more, around the mean over `texts` of the model."""
    spread, freedom = spread_of_texts(rows)
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * spread * sqrt(1 / texts + 1) if freedom else inf


def _source_of(own: Sequence[PublishedRouting]) -> str:
    told = []
    for row in own:
        whose = "" if row.model == row.known_as else f"{row.model}, "
        part = "" if row.layers == row.model_layers else f", {row.layers} of {row.model_layers} MoE layers"
        told.append(f"{row.id} ({whose}{row.text}, {row.phase}{part})")
    return f"published counts {'; '.join(told)}"

"""The option `plan --arrivals`: requests are served on a GPU, and what comes of it is the batch that is planned for."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prophet_moe.capacity.engine import Serving
from prophet_moe.cli.trace import DATASETS
from prophet_moe.errors import UserError
from prophet_moe.hardware.estimate import Estimator
from prophet_moe.planning.demand import KEPT_SHARE, Demand
from prophet_moe.planning.situation import Situation
from prophet_moe.planning.solve import Split, beside_seconds
from prophet_moe.routing.datasets import check_files, data_folders, load_datasets, located
from prophet_moe.serving.arrival_law import FOLDER, draw, read_law
from prophet_moe.serving.arrivals import READERS, Arrivals, read_azure, read_mooncake
from prophet_moe.serving.batching import Served, serve, weighted_quantiles
from prophet_moe.serving.limits import limits_of
from prophet_moe.serving.step_times import StepTimes, knots, tabulate

FILES = {".csv": read_azure, ".jsonl": read_mooncake}
"""How a file of recorded arrivals is read, by its ending."""
ENDS = (0.5, 0.95)
"""Median, and what is told beside it."""


@dataclass(frozen=True)
class Named:
    """Arrivals, and what they are in words."""

    arrivals: Arrivals
    what: str

    @property
    def context(self) -> int:
        """Return the tokens that 95 % of the requests have at most, prompt and output."""
        return self.tokens[1]

    @property
    def tokens(self) -> tuple[int, int]:
        """Return the tokens of a request, prompt and output: median and 95th percentile."""
        return _ends(self.arrivals.prompts + self.arrivals.outputs, math.ceil)


@dataclass(frozen=True)
class Planned:
    """A plan for a batch, as far as arrivals are served by it."""

    situation: Situation
    split: Split
    """The split with the most slots at the context of the recommendation."""
    unique: Callable[[Sequence[int]], list[float]]
    """u(B) of numbers of tokens."""


def arrivals_named(text: str, seconds: float, seed: int) -> Named:
    """Return the arrivals of a name or a file.

    Parameters
    ----------
    text : str
        A law of resources/arrivals/, whose recorded arrivals are taken where the data lies here; the path of a law; or
        of recorded arrivals, as Azure (.csv) or Mooncake (.jsonl) publish them.
    seconds, seed : float, int
        What is drawn from a law.

    Returns
    -------
    Named
        The requests in the order of their arrival.
    """
    path = Path(text)
    if text in READERS and (recorded := _recorded(text)):
        return Named(READERS[text][2](recorded, text), f"{text} as recorded")
    law = FOLDER / f"{text}.json"
    if law.name == f"{text}.json" and law.is_file():
        path = law
    if not path.is_file():
        known = ", ".join(READERS)
        problem = f"no law and no file {text[:200]!r}, expected {known}, a law (.json) or recorded arrivals"
        raise UserError("--arrivals", problem, "Correct it: docs/serving.md#arrivals")
    if path.suffix in FILES:
        return Named(FILES[path.suffix](path, path.stem), f"{path} as recorded")
    found = draw(read_law(path), seconds, seed)
    return Named(found, f"{found.name}, {len(found):,} requests drawn from its law for {seconds:,.0f} s")


def _recorded(name: str) -> Path | None:
    """Return where recorded arrivals lie, None where they are not here."""
    data, number, _ = READERS[name]
    dataset = load_datasets(DATASETS).datasets[data]
    found = located(data, dataset, data_folders())
    if found is None:
        return None
    check_files(dataset, found)
    return found[number]


def demand(
    named: Named,
    asked: Serving,
    estimator: Estimator,
    plan: Callable[[int], Planned],
    instances: int,
    compute_share: float,
    first_token_s: float,
) -> Demand:
    """Serve arrivals on a GPU, and return the batch to plan for with what the requests wait.

    Parameters
    ----------
    named : Named
        The arrivals.
    asked : Serving
        The model on the GPU with the engine whose scheduler takes requests up.
    estimator : Estimator
        The GPU, for the seconds of steps.
    plan : function
        The plan for a batch. With every expert in a slot, all that is left is the KV pool. Else the pool is that of the
        plan, and its slots make every step longer. A plan whose batch its own arrivals exceed is made again for the one
        that came of them, until it is not exceeded.
    instances, compute_share, first_token_s : int, float, float
        Instances of the model, the share of the peak that attention of prompts reaches, and the seconds within which
        they keep up.

    Returns
    -------
    Demand
        What the plan is made for.
    """
    planned, times, found = plan(1), None, None
    whole = planned.split.slots >= planned.situation.all_slots
    while whole or planned.split.works:
        s, split = planned.situation, planned.split
        pool = s.room_bytes - s.all_slots * s.expert_bytes if whole else s.batch * s.cached_bytes(split.context)
        limits = limits_of(asked, pool)
        times = times or tabulate(
            estimator,
            asked.arch,
            asked.precision,
            unique=planned.unique,
            most_sequences=limits.sequences,
            most_tokens=limits.tokens,
            most_context=limits.longest,
            compute_share=compute_share,
        )
        here = times if whole else _with_slots(times, planned)
        served = serve(named.arrivals, here, limits, instances)
        if not served.requests.decoded.any():
            raise UserError(
                "--arrivals",
                f"none of the requests decodes on {asked.gpu}",
                "Give a longer --context, or a larger GPU.",
            )
        where = "every expert resident" if whole else f"{split.slots:,} experts in slots, KV for a batch of {s.batch:,}"
        found = _demand(named, served, f"{where}, scheduled as {asked.engine.name} does", first_token_s)
        if whole or found.batch <= s.batch:
            return found
        planned = plan(found.batch)
    if found is None:
        reason = planned.split.refusals[0].reason
        raise UserError("--arrivals", f"no split serves them: {reason}", "Give a shorter --context or a larger GPU.")
    return found


def _with_slots(times: StepTimes, planned: Planned) -> StepTimes:
    """Return times of steps that also wait for the experts that have no slot."""
    s, tokens = planned.situation, knots(times.most_tokens)
    beside = [
        beside_seconds(replace(s, unique=float(unique)), planned.split.slots)[0].middle
        for unique in planned.unique(tokens)
    ]
    return times.with_more(np.interp(np.arange(times.most_tokens + 1), tokens, beside))


def _demand(named: Named, served: Served, served_with: str, first_token_s: float) -> Demand:
    arrivals, paces = served.arrivals, served.token_seconds
    middle, most = weighted_quantiles(served.batches.decoded, (0.5, KEPT_SHARE))
    return Demand(
        arrivals=named.what,
        served_with=served_with,
        instances=len(served.instances.clock),
        rate=arrivals.rate,
        batch=max(1, most),
        batch_median=max(1, middle),
        request_tokens=named.tokens,
        first_token_seconds=_ends(served.first_token_seconds, float),
        token_seconds=_ends(paces, float) if len(paces) else None,
        first_token_limit=first_token_s,
        kv_mean_share=served.occupancy_mean,
        kv_most_share=served.occupancy_most,
        busy_share=1 - served.idle_share,
        refused_share=float(served.requests.refused.mean()),
    )


def _ends(values: np.ndarray, kind: type | Callable) -> tuple:
    return tuple(kind(np.quantile(values, end)) for end in ENDS)

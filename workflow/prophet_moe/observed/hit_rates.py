"""Hit rates of expert caches and the tokens per second that go with them, against what is predicted of both.

A hit rate is predicted from the routing that stands in for the model: a recorded session of the very run where there is
one, else a calibrated routing. That is the one of the nearest E and k (`routing.nearest`), once of any model, once of
other models alone. Tokens per second are predicted from the hit rate that was measured beside them, by the affine law
of the engine's kind (`offload_fit`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prophet_moe.catalog.engine_offload import EngineOffload, load_offload
from prophet_moe.observed import offload_fit
from prophet_moe.observed.context import Context
from prophet_moe.observed.schema import is_missing, result_frame, result_row
from prophet_moe.offload.demand.recorded import read_session_rows
from prophet_moe.routing.calibrated import Calibrated, calibrated_routings
from prophet_moe.routing.nearest import Candidate, source_of
from prophet_moe.routing.synthetic import Chains, Scalars, Setting, hit_curve, rates_at
from prophet_moe.routing.trace import Router

ROUTINGS, PRESETS = Path("resources/routing"), Path("config/offload.yaml")
SESSIONS = Path("resources/observations/sessions.csv")
HIT_RATE, OF_OTHERS, RATE = "hit_rate", "hit_rate_of_other_models", "tokens_per_s"
"""Quantities: the hit rate by the nearest routing, the same by that of another model, and tokens per second."""
POINTS, FACTOR = 0.5, 1.5
"""Goals: points by which a replayed session may differ, and the factor by which tokens per second may."""
REPLAY = "replay of the recorded session"
SEED, CHAINS = 1, Chains(sequences=24)
"""Seed and size of the generated traces; routings were fitted with another seed."""
RUN = {"tokens": 256, "start": "cold", "lookup": "ask"}
"""How a hit rate was measured where its row does not say."""


@dataclass
class Known:
    """What stands in for routing and for engines; hit curves are made once."""

    routings: Sequence[Calibrated]
    presets: Mapping[str, EngineOffload]
    sessions: Mapping[tuple[str, int], float] = field(default_factory=dict)
    """Hit rates of recorded sessions, replayed, by the name of their dataset and the bytes of the cache."""
    curves: dict[Any, Any] = field(default_factory=dict)

    def nearest(self, experts: int, top_k: int, but: str = "") -> Calibrated | None:
        """Return the calibrated routing of the nearest E and k, not of the model `but`; None if there is none."""
        named = {each.curve: each for each in self.routings if each.model != but}
        shapes = {
            name: Candidate(each.experts, each.top_k, len(each.fitted) + len(each.left_out))
            for name, each in named.items()
        }
        return named[source_of(experts, top_k, {}, shapes)] if named else None

    def stand_in(self, model: str, experts: int, top_k: int) -> Calibrated | None:
        """Return the routing of the model itself at its k, else the nearest."""
        own = [each for each in self.routings if each.model == model and each.top_k == top_k]
        return own[0] if own else self.nearest(experts, top_k)

    def rate(self, routing: Calibrated, experts: int, top_k: int, share: float, setting: Setting) -> float:
        """Return the hit rate of a cache of a share of the experts; 0 where it holds less than one token's."""
        if share * experts < top_k:
            return 0.0
        key = routing.curve, experts, top_k, setting
        if key not in self.curves:
            scalars = Scalars(**routing.scalars.model_dump())
            self.curves[key] = hit_curve(scalars, Router("", experts, top_k, ()), setting, SEED, CHAINS)
        return float(rates_at(self.curves[key], [share * experts])[0])


def known(root: Path = Path()) -> Known:
    """Return what the project has: calibrated routings, presets of engines, replays of recorded sessions."""
    routings, presets = calibrated_routings(root / ROUTINGS), load_offload(root / PRESETS)
    return Known(routings, presets, read_session_rows(root / SESSIONS))


def within_goal(row: Mapping[str, Any]) -> bool | None:
    """Return whether a prediction is as near as this project wants; None where the quantity has no goal."""
    measured, value = row["measured"], row["predicted"]
    if row["quantity"] == HIT_RATE and row["basis"] == REPLAY:
        return 100 * abs(value - measured) <= POINTS
    if row["quantity"] == RATE and value > 0:
        return max(value / measured, measured / value) <= FACTOR
    return None


def predicted(rows: pd.DataFrame, context: Context | None = None, using: Known | None = None) -> pd.DataFrame:
    """Return a row per observation and quantity, predicted beside measured.

    Rows say all that is needed of their models, so that the catalogue of `context` is not asked. `using` is what
    stands in for routing and engines, by default what the project has.

    `left_out` says why a row does not count (its column `left_out` names quantities: `hit_rate: reason`), `basis` what
    the prediction rests on. Tokens per second of rows that fixed a preset are predicted with overheads that their own
    engine and model, or at least their own source, did not fix.
    """
    using = known() if using is None else using
    pairs = offload_fit.pairs_of(rows)
    steps = offload_fit.left_out_predictions(pairs, using.presets)
    return result_frame(
        row
        for observed in rows.to_dict("records")
        for row in (*_hits(observed, using), *_rates(observed, steps, using.presets))
    )


def _hits(row: Mapping[str, Any], using: Known) -> Iterator[dict[str, Any]]:
    if _missing(row, "hit_rate"):
        return
    reason, measured = _reason(row, HIT_RATE), float(row["hit_rate"])
    needed = ("experts_per_layer", "top_k", "resident_share")
    if absent := [name for name in needed if _missing(row, name)]:
        yield _result(row, HIT_RATE, measured, np.nan, "", reason or f"{absent[0]} is not given", "")
        return
    experts, top_k, share = int(row["experts_per_layer"]), int(row["top_k"]), float(row["resident_share"])
    run = {name: usual if _missing(row, name) else type(usual)(row[name]) for name, usual in RUN.items()}
    setting = Setting(**run)
    in_bytes = row.get("slots_unit") == "bytes" and not _missing(row, "slots")
    served = using.sessions.get((str(row.get("session")), int(row["slots"]))) if in_bytes else None
    if served is not None:
        yield _result(row, HIT_RATE, measured, served, "", reason, REPLAY)
    elif routing := using.stand_in(str(row["model"]), experts, top_k):
        rate = using.rate(routing, experts, top_k, share, setting)
        yield _result(row, HIT_RATE, measured, rate, "", reason, f"calibrated routing {routing.curve}")
    if routing := using.nearest(experts, top_k, but=str(row["model"])):
        rate = using.rate(routing, experts, top_k, share, setting)
        yield _result(row, OF_OTHERS, measured, rate, "", reason, f"calibrated routing {routing.curve}")


def _rates(row: Mapping[str, Any], steps: pd.Series, presets: Mapping[str, EngineOffload]) -> Iterator[dict[str, Any]]:
    if _missing(row, "tokens_per_s") or _missing(row, "hit_rate"):
        return
    step, kind = steps[row["id"]], row.get("engine_kind")
    reason = _reason(row, RATE)
    if np.isnan(step) and not reason:
        known_kind = kind in presets
        reason = "its bytes, link or resident time are not given" if known_kind else f"no preset of kind {kind}"
    yield _result(row, RATE, float(row["tokens_per_s"]), 1e3 / step, "tok/s", reason, f"affine law, {kind}")


def _reason(row: Mapping[str, Any], quantity: str) -> str:
    """Return why a quantity of the row must not be used; empty where it may."""
    if _missing(row, "left_out"):
        return ""
    parts = dict(part.partition(": ")[::2] for part in str(row["left_out"]).split("; "))
    return parts.get(quantity, parts.get("all", ""))


def _missing(row: Mapping[str, Any], name: str) -> bool:
    return is_missing(row.get(name))


def _result(
    row: Mapping[str, Any], quantity: str, measured: float, value: float, unit: str, left_out: str, basis: str
) -> dict[str, Any]:
    about = {name: "" if _missing(row, name) else row[name] for name in ("id", "engine", "gpu", "model")}
    values = {"quantity": quantity, "measured": measured, "predicted": value, "unit": unit}
    return result_row(**about, kind="hit_rates", **values, left_out=left_out, basis=basis)

"""Hit rates of expert caches and the tokens per second that go with them, against what is predicted of both.

A hit rate is predicted from the routing that stands in for the model: a recorded session of the very run where there is
one, else a calibrated routing. That is the one of the nearest E and k (`routing.nearest`), once of any model, once of
other models alone. Tokens per second are predicted from the hit rate that was measured beside them, by the affine law
of the engine's kind (`offload_fit`). The time of a prompt is predicted from what crosses the link: every expert, or
those that so many tokens in a row need by the calibrated routing.
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
from prophet_moe.observed.schema import HIT_RATES, is_missing, read_observations, result_frame, result_row
from prophet_moe.offload.demand.prefill import stream_seconds
from prophet_moe.offload.demand.recorded import read_session_rows
from prophet_moe.routing.calibrated import Calibrated, calibrated_routings, nearest
from prophet_moe.routing.synthetic import Chains, Scalars, Setting, hit_curve, rates_at
from prophet_moe.routing.synthetic.curve_fit import chain_choices
from prophet_moe.routing.trace import Router

ROUTINGS, PRESETS = Path("resources/routing"), Path("config/offload.yaml")
SESSIONS = Path("resources/observations/sessions.csv")
HIT_RATE, OF_OTHERS, RATE, PREFILL = "hit_rate", "hit_rate_of_other_models", "tokens_per_s", "prefill_ms"
"""Quantities: the hit rate by the nearest routing, the same by that of another model, tokens per second, and the time
of a prompt."""
OBSERVED = Path("resources/observations/hit_rates.csv")
"""Rows that say of an engine and a model what rows of others leave open: who brings a miss, an expert's bytes."""
HIT_POINTS, SESSION_POINTS, RATE_FACTOR = 0.05, 0.005, 1.5
"""Largest errors that count as right: of a hit rate, of one replayed from a recorded session, of tokens per second."""
MOST_DRAWN = 2**19
"""Tokens times experts that are generated at most for a sequence: a hit rate hardly changes with more."""
SEED, CHAINS, PROMPT_CHAINS = 1, Chains(sequences=24), Chains(sequences=2)
"""Seed and size of the generated traces, of caches and of prompts; routings were fitted with another seed."""
REPLAY = "replay of the recorded session"
"""What a prediction rests on where the very run was recorded."""
FITTED_TO_IT = ", fitted to it"
"""End of what a prediction rests on where a routing was fitted to the very row."""
SAME = (
    (("engine", "model"), ("engine_kind", "lookup", "moe_layers")),
    (("engine",), ("engine_kind", "lookup")),
    (("model", "quantisation"), ("expert_mb",)),
    (("engine", "model", "quantisation", "gpu"), ("resident_ms", "resident_basis")),
    (("model", "quantisation", "gpu", "top_k"), ("resident_ms", "resident_basis")),
    (("engine", "model", "quantisation", "gpu", "link", "top_k"), ("link_gb_per_s",)),
)
"""What rows must have in common, and what then holds for both where it is not stated."""
NOT_STATED = {
    "cpu": "the arithmetic of the CPU is not given",
    "stream_missing": "what the cache holds at the prompt is not given",
}
"""Why no time of a prompt is predicted, by the way in which it is served."""
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
        others = [each for each in self.routings if each.model != but]
        return nearest(experts, top_k, others) if others else None

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

    def distinct(self, routing: Calibrated, experts: int, top_k: int, tokens: int) -> float:
        """Return how many experts of a layer so many tokens in a row choose in the mean."""
        key = routing.curve, experts, top_k, tokens
        if key not in self.curves:
            router, drawn = Router("", experts, top_k, ()), min(tokens, MOST_DRAWN // experts)
            scalars = Scalars(**routing.scalars.model_dump())
            choices = chain_choices(scalars, router, drawn, SEED, PROMPT_CHAINS)
            self.curves[key] = float(np.mean([len(np.unique(chain)) for chain in choices]))
        return self.curves[key]


def known(root: Path = Path()) -> Known:
    """Return what the project has: calibrated routings, presets of engines, replays of recorded sessions."""
    routings, presets = calibrated_routings(root / ROUTINGS), load_offload(root / PRESETS)
    return Known(routings, presets, read_session_rows(root / SESSIONS))


def predicted(rows: pd.DataFrame, context: Context) -> pd.DataFrame:
    """Predict every hit rate, and the tokens per second that go with it.

    Parameters
    ----------
    rows : DataFrame
        Observations with the columns of `schema.HIT_RATES`; all but those that it requires may be empty.
    context : Context
        Models, and the folder with calibrated routings and presets of engines.

    Returns
    -------
    DataFrame
        One row per observation and quantity with the columns of `schema.RESULT_COLUMNS`.
    """
    about = read_observations(context.root / OBSERVED, HIT_RATES)
    return predictions(completed(rows, about, context), known(context.root))


def within_goal(row: Mapping[str, Any]) -> bool | None:
    """Return whether a prediction is as near as this project wants; None where there is none."""
    measured, value = row["measured"], row["predicted"]
    if row["quantity"] == OF_OTHERS or not np.isfinite(value):
        return None
    if row["quantity"] in (RATE, PREFILL):
        return max(value / measured, measured / value) <= RATE_FACTOR
    return abs(value - measured) <= (SESSION_POINTS if row["basis"] == REPLAY else HIT_POINTS)


def completed(rows: pd.DataFrame, about: pd.DataFrame, context: Context) -> pd.DataFrame:
    """Return rows with what is known of their model and of their engine in place of empty cells.

    A layer's experts and k are those of the catalogue. The kind of an engine, the bytes of an expert and the time
    without misses are those of `about`, of rows of the same engine, model, format and GPU.
    """
    return pd.DataFrame([_completed(row, about, context) for row in rows.to_dict("records")], columns=rows.columns)


def _completed(row: dict[str, Any], about: pd.DataFrame, context: Context) -> dict[str, Any]:
    found, more = context.model(str(row["model"])), {}
    if found and found[0].architecture.moe:
        moe = found[0].architecture.moe
        more |= {"experts_per_layer": moe.experts, "top_k": moe.top_k}
    if not _missing(row, "tokens_per_s_resident"):
        more |= {"resident_ms": 1e3 / row["tokens_per_s_resident"], "resident_basis": "published"}
    for names, wanted in SAME:
        same = about[(about[list(names)] == [row[name] for name in names]).all(axis=1)]
        for name in wanted:
            stated = same[name].dropna()
            # A row whose CPU computes misses says so.
            stated = stated[~stated.isin(["", "unstated", offload_fit.HYBRID])]
            if len(set(stated)) == 1:
                more.setdefault(name, stated.iloc[0])
    empty = {name for name in row if _missing(row, name) or row[name] == "unstated"}
    return {**row, **{name: value for name, value in more.items() if name in empty}}


def predictions(rows: pd.DataFrame, using: Known) -> pd.DataFrame:
    """Return a row per observation and quantity, predicted beside measured.

    `left_out` says why a row does not count (its column `left_out` names quantities: `hit_rate: reason`), `basis` what
    the prediction rests on. Tokens per second of rows that fixed a preset are predicted with overheads that their own
    engine and model, or at least their own source, did not fix.
    """
    using = known() if using is None else using
    pairs = offload_fit.pairs_of(rows)
    steps = offload_fit.left_out_predictions(pairs, using.presets)
    return result_frame(
        cells
        for row in rows.to_dict("records")
        for cells in (*_hits(row, using), *_rates(row, steps, using.presets), *_prefills(row, using))
    )


def _hits(row: Mapping[str, Any], using: Known) -> Iterator[dict[str, Any]]:
    if _missing(row, "hit_rate"):
        return
    reason, measured = _reason(row, HIT_RATE), float(row["hit_rate"])
    needed = ("experts_per_layer", "top_k", "resident_share")
    if absent := [name for name in needed if _missing(row, name)]:
        reason = reason or f"{absent[0]} is not given"
    if reason:
        yield _result(row, HIT_RATE, measured, np.nan, "", reason, "")
        return
    experts, top_k, share = int(row["experts_per_layer"]), int(row["top_k"]), float(row["resident_share"])
    run = {name: usual if _missing(row, name) else type(usual)(row[name]) for name, usual in RUN.items()}
    setting = Setting(**{**run, "tokens": min(run["tokens"], MOST_DRAWN // experts)})
    in_bytes = row.get("slots_unit") == "bytes" and not _missing(row, "slots")
    served = using.sessions.get((str(row.get("session")), int(row["slots"]))) if in_bytes else None
    if served is not None:
        yield _result(row, HIT_RATE, measured, served, "", "", REPLAY)
    elif routing := using.stand_in(str(row["model"]), experts, top_k):
        rate = using.rate(routing, experts, top_k, share, setting)
        fitted = FITTED_TO_IT if _fitted(routing, share, measured) else ""
        yield _result(row, HIT_RATE, measured, rate, "", "", f"routing {routing.curve}{fitted}")
    if routing := using.nearest(experts, top_k, but=str(row["model"])):
        rate = using.rate(routing, experts, top_k, share, setting)
        yield _result(row, OF_OTHERS, measured, rate, "", "", f"routing {routing.curve}")


def _rates(row: Mapping[str, Any], steps: pd.Series, presets: Mapping[str, EngineOffload]) -> Iterator[dict[str, Any]]:
    if _missing(row, "tokens_per_s"):
        return
    if _missing(row, "hit_rate"):
        reason = _reason(row, RATE) or "no hit rate is given beside it"
        yield _result(row, RATE, float(row["tokens_per_s"]), np.nan, "tok/s", reason, "")
        return
    step, kind = steps[row["id"]], row.get("engine_kind")
    reason = _reason(row, RATE)
    if np.isnan(step) and not reason:
        known_kind = kind in presets
        rates = "link, CPU" if kind == offload_fit.HYBRID else "link"
        reason = f"its bytes, {rates} or resident time are not given" if known_kind else f"no preset of kind {kind}"
    yield _result(row, RATE, float(row["tokens_per_s"]), 1e3 / step, "tok/s", reason, f"affine law, {kind}")


def _prefills(row: Mapping[str, Any], using: Known) -> Iterator[dict[str, Any]]:
    if _missing(row, PREFILL):
        return
    reason, kind = _reason(row, PREFILL), row.get("engine_kind")
    needed = ("prefill", "prompt_tokens", "experts_per_layer", "top_k", "moe_layers", "expert_mb", "link_gb_per_s")
    absent = next((name for name in needed if _missing(row, name)), None)
    unknown = NOT_STATED.get(row.get("prefill"))
    if absent or unknown or kind not in using.presets:
        why = f"{absent} is not given" if absent else f"no preset of kind {kind}"
        reason = reason or unknown or why
        yield _result(row, PREFILL, float(row[PREFILL]), np.nan, "ms", reason, "")
        return
    value, basis = _prefill_ms(row, using, using.presets[kind])
    yield _result(row, PREFILL, float(row[PREFILL]), value, "ms", reason, basis)


def _prefill_ms(row: Mapping[str, Any], using: Known, preset: EngineOffload) -> tuple[float, str]:
    """Return the milliseconds of a prompt, and what they rest on; a cache that holds something serves none of it.

    Where engines bypass the cache, all experts that are needed cross the link; where prompts pass through it, a layer
    needs more than it holds.
    """
    experts, top_k, layers, tokens = (
        int(row[name]) for name in ("experts_per_layer", "top_k", "moe_layers", "prompt_tokens")
    )
    resident = 0.0 if _missing(row, "prefill_resident_ms") else float(row["prefill_resident_ms"])
    copy = float(row["expert_mb"]) / float(row["link_gb_per_s"])
    if row["prefill"] == "stream":
        compute, nothing = np.full((1, layers), resident / layers), np.zeros((1, layers))
        copies = np.full((1, layers), experts * copy)
        return float(stream_seconds(compute, nothing, copies)[0]), "every expert, beside the compute"
    routing = using.stand_in(str(row["model"]), experts, top_k)
    if routing is None:
        return np.nan, "no calibrated routing"
    needed = using.distinct(routing, experts, top_k, tokens)
    value = preset.step_ms(resident, layers * needed, float(row["expert_mb"]), float(row["link_gb_per_s"]), layers)
    return value, f"experts needed by routing {routing.curve}; affine law, {preset.kind}"


def _reason(row: Mapping[str, Any], quantity: str) -> str:
    """Return why a quantity of the row must not be used; empty where it may."""
    if _missing(row, "left_out"):
        return ""
    parts = dict(part.partition(": ")[::2] for part in str(row["left_out"]).split("; "))
    return parts.get(quantity, parts.get("all", ""))


def _missing(row: Mapping[str, Any], name: str) -> bool:
    return is_missing(row.get(name))


def _fitted(routing: Calibrated, share: float, rate: float) -> bool:
    """Return whether a routing was fitted to a point."""
    return any(
        abs(point.resident_share - share) < 0.01 and abs(point.hit_rate - rate) < 0.002 for point in routing.fitted
    )


def _result(
    row: Mapping[str, Any], quantity: str, measured: float, value: float, unit: str, left_out: str, basis: str
) -> dict[str, Any]:
    about = {name: "" if _missing(row, name) else row[name] for name in ("id", "engine", "gpu", "model")}
    values = {"quantity": quantity, "measured": measured, "predicted": value, "unit": unit, "basis": basis}
    return result_row(kind="hit_rates", **about, **values, left_out=left_out)

"""Table 6: what Prophet's predictor is worth, and the same by domain of text."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from prophet_moe.predict.context import network_bytes
from prophet_moe.predict.schema import DOMAIN
from prophet_moe.tables import joined, write_table
from prophet_moe.units import MB
from prophet_moe.validation import read_json
from studies.prediction.study import BY_DOMAIN, SCORES, SUMMARY

ENDS = {"": "value", "_low": "low", "_high": "high"}
"""Endings of a column's name, by the field of a predictor score that they hold."""


def prediction_summary(
    scores: pd.DataFrame, predictors: Mapping[str, Mapping[str, Any]], latency: pd.DataFrame
) -> pd.DataFrame:
    """Table 6: recall@k and @2k of Prophet and of the best predictor that only counts, by trace and lookahead.

    `predictors` holds their metadata by trace; `latency` what benches/predictor.py recorded: one token on one CPU core.
    """
    rows = []
    one_token = latency[latency["batch"] == 1].set_index("trace")
    for trace, metadata in predictors.items():
        mine = scores[(scores["trace"] == trace) & scores["layer"].isna()]
        size = network_bytes(
            metadata["experts"], len(metadata["layers"]), metadata["plan"]["hidden"], len(metadata["training_loss"])
        )
        for lookahead, found in mine.groupby("lookahead"):
            rows += [
                _gain(trace, lookahead, found, metadata, rank)
                | {"predictor_mb": size / MB}
                | {name: one_token[name].get(trace) for name in ("microseconds", "cpu")}
                for rank in (metadata["top_k"], 2 * metadata["top_k"])
            ]
    return pd.DataFrame(rows)


def prediction_by_domain(scores: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Recall@k and @2k by trace, domain and lookahead: of Prophet, of popularity, and of the best that only counts.

    The best that only counts is that of `summary`, table 6, chosen on all domains together; `_low` and `_high` are the
    95 % interval over sequences of the domain. Traces whose source names no domains have no rows.
    """
    keys = ["trace", "lookahead", "rank"]
    found = scores[(scores["statistic"] == "recall") & scores["tokens"].str.startswith(DOMAIN)]
    found = found.assign(domain=found["tokens"].str.removeprefix(DOMAIN), rank=found["x"].astype(int))
    table = summary[[*keys, "best_counting"]].assign(prophet="prophet", popularity="popularity")
    for name, shared in (("prophet", keys), ("best_counting", [*keys, "domain"]), ("popularity", [*keys, "domain"])):
        renamed = {"predictor": name} | {value: f"{name}_recall{end}" for end, value in ENDS.items()}
        wanted = found[[*keys, "domain", *renamed]].rename(columns=renamed)
        table = table.merge(wanted, on=[*shared, name])
    return table[[column.name for column in BY_DOMAIN.columns]]


def _gain(trace: str, lookahead: int, found: pd.DataFrame, metadata: Mapping[str, Any], rank: int) -> dict[str, Any]:
    at = found[found["x"] == rank]
    recall = at[(at["statistic"] == "recall") & (at["tokens"] == "held_out")].set_index("predictor")["value"]
    sampled = at[(at["statistic"] == "recall") & (at["tokens"] == "router_inputs")].set_index("predictor")["value"]
    gains = at[at["statistic"] == "recall_gain"].set_index("against")
    best = next(name for name in gains.index if name != "naive_bayes_all_inputs")
    return {
        "trace": trace,
        "num_experts": metadata["experts"],
        "top_k": metadata["top_k"],
        "lookahead": lookahead,
        "rank": rank,
        "prophet_recall": recall["prophet"],
        "best_counting": best,
        "best_counting_recall": recall[best],
        "gain": gains["value"][best],
        "gain_low": gains["low"][best],
        "gain_high": gains["high"][best],
        "gain_over_naive_bayes_all_inputs": gains["value"]["naive_bayes_all_inputs"],
        "popularity_recall": recall["popularity"],
        "shuffled_recall": recall["prophet_shuffled"],
        "gate_input_recall": sampled.get("gate_input"),
        "prophet_recall_same_tokens": sampled.get("prophet"),
        "calibration_error": found[found["statistic"] == "calibration_error"]["value"].iloc[0],
    }


def build(files, parameters):
    """Write every judgement, table 6, and recall by domain."""
    judgements = joined(map(pd.read_csv, files.of_judgements), files.judgements)
    write_table(files.judgements, judgements, SCORES)
    predictors = {path.parent.name: read_json(path) for path in files.predictors}
    summary = prediction_summary(judgements, predictors, pd.read_csv(files.latency))
    write_table(files.summary, summary, SUMMARY)
    write_table(files.by_domain, prediction_by_domain(judgements, summary), BY_DOMAIN)

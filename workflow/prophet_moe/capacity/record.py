"""The record: 24 columns for every configuration, from which tables and figures are computed.

One list of columns serves the writer, the reader, the schema and the data dictionary.
"""

import numpy as np
import pandas as pd

from prophet_moe.files import SIGNIFICANT_DIGITS
from prophet_moe.tables import GPU, MODEL, Column, Table, flag, gigabytes, integer, interval, number, text

ESTIMATE, FEWEST, MOST = "estimate", "fewest_experts", "most_experts"
"""Cases of the capacity grid: the estimated routing, and the ends of its interval."""


INTERVALS = ("unique_experts", "expert_savings_pct", "prophet_max_context", "kv_extension_factor")
"""Metrics whose interval the extended record carries."""
OVER_ROUTING = "over routing alone; empty where none is fitted"

RECORD_COLUMNS = (
    MODEL,
    number("total_params_b", "10^9", "All parameters of the model.", "total_params", 1e9),
    number("active_params_b", "10^9", "Parameters that one token uses.", "active_params", 1e9),
    integer("num_experts", "", "Routed experts per MoE layer, E.", "experts"),
    integer("top_k", "", "Routed experts per token and layer, k."),
    GPU,
    gigabytes("gpu_memory_gb", "Usable device memory, GB of 10^9 bytes.", "device_bytes"),
    integer("batch_size", "", "Sequences decoded together, B."),
    integer(
        "seq_len",
        "tokens",
        "Native context of the model, at which KV cache and totals are stated; of an encoder-decoder a source's.",
        "native_context",
    ),
    number("unique_experts", "", "Distinct experts per layer that a batch activates, u(B), not rounded."),
    gigabytes("baseline_expert_gb", "Routed experts with every expert resident.", "baseline_expert_bytes"),
    gigabytes(
        "prophet_expert_gb",
        "Routed experts with those resident that Prophet keeps (docs/model.md, Resident experts).",
        "prophet_expert_bytes",
    ),
    gigabytes("baseline_total_gb", "All of the baseline's memory at seq_len.", "baseline_total_bytes"),
    gigabytes(
        "prophet_total_gb", "All of Prophet's memory at seq_len, predictor and staging included.", "prophet_total_bytes"
    ),
    flag("baseline_fits", "The baseline fits with at least one token of context per sequence."),
    flag("prophet_fits", "Prophet fits with at least one token of context per sequence."),
    gigabytes("expert_savings_gb", "Expert memory that leaves the GPU.", "expert_savings_bytes"),
    number(
        "expert_savings_pct",
        "%",
        "100 (1 - resident / E), times the share of MoE layers that are not an encoder's: the share of expert bytes.",
    ),
    number("dedup_factor", "", "Deduplication factor, E / u(B)."),
    gigabytes("kv_cache_gb", "KV cache of the batch at seq_len.", "kv_cache_bytes"),
    integer(
        "baseline_max_context",
        "tokens",
        "Longest context per sequence, memory limit; 0 when it does not fit. Of an encoder-decoder source plus target.",
    ),
    integer(
        "prophet_max_context",
        "tokens",
        "Longest context per sequence with Prophet's resident experts, memory limit; 0 when it does not fit.",
    ),
    number(
        "kv_extension_factor",
        "",
        "prophet_max_context / baseline_max_context by memory alone, if every expert were there in time: a floor, "
        "whose price in time is in table 11; empty where the baseline does not fit (reported: 0).",
    ),
    integer("kv_increase_tokens", "tokens", "Tokens gained per sequence, prophet_max_context - baseline_max_context."),
)
"""The record, in the order of the file."""

EXTENDED_COLUMNS = (
    *RECORD_COLUMNS,
    text("fit_state", "Which of the two fits: both, prophet_only, baseline_only or neither."),
    integer("baseline_native_context", "tokens", "The baseline's longest context, cut at seq_len."),
    integer("prophet_native_context", "tokens", "Prophet's longest context, cut at seq_len."),
    number("resident_experts", "", "Experts per layer that Prophet keeps resident; an encoder's layers keep all."),
    number(
        "request_dedup",
        "",
        "Share of the routed choices of a layer-step that need no copy of their own, 1 - u(B) / (k B).",
    ),
    gigabytes("non_expert_gb", "Everything but routed experts; shared experts included.", "non_expert_bytes"),
    gigabytes("activation_gb", "Peak of the activations.", "activation_bytes"),
    gigabytes(
        "fixed_gb", "Non-expert weights, activations, recurrent state, workspace and runtime reserve.", "fixed_bytes"
    ),
    gigabytes("runtime_reserve_gb", "Runtime reserve, part of fixed_gb.", "runtime_reserve_bytes"),
    text("runtime_reserve_basis", "measured: the CUDA context as measured on that GPU; assumed: the scenario's."),
    gigabytes("staging_gb", "Staging buffer that Prophet keeps.", "staging_bytes"),
    gigabytes("predictor_gb", "Weights of Prophet's predictor.", "predictor_bytes"),
    integer("encoder_moe_layers", "", "MoE layers of an encoder, whose experts are all resident."),
    number(
        "kv_bytes_per_token",
        "bytes",
        "KV cache that a token adds to one sequence once every window is full: the growing part.",
        "kv_bytes_per_token_growing",
    ),
    gigabytes(
        "kv_bounded_gb",
        "KV cache that the windows of one sequence hold once full: the bounded part.",
        "kv_bytes_bounded",
    ),
    text("routing_law", "The law behind unique_experts."),
    *interval("unique_experts", "", OVER_ROUTING),
    *interval("expert_savings_pct", "%", OVER_ROUTING),
    *interval("prophet_max_context", "tokens", OVER_ROUTING),
    *interval("kv_extension_factor", "", OVER_ROUTING),
    text(
        "evidence", "computed; fitted (constants fitted to the report's own results); forced (preset to not fitting)."
    ),
)
"""The record with what explains it: fit state, native limits, components, evidence."""

RECORD = Table("prophet_kv_extension_data", RECORD_COLUMNS, by_scenario=True)
EXTENDED_RECORD = Table("prophet_kv_extension_extended", EXTENDED_COLUMNS, by_scenario=True)
RECORDS = (RECORD, EXTENDED_RECORD)
"""The record in its two forms, as tables of the project."""


def fit_state(rows: pd.DataFrame) -> pd.Series:
    """Return which of the two fits, per row: both, prophet_only, baseline_only or neither."""
    baseline, prophet = rows["baseline_fits"].astype(bool), rows["prophet_fits"].astype(bool)
    names = ["both", "prophet_only", "baseline_only"]
    return pd.Series(np.select([baseline & prophet, prophet, baseline], names, "neither"), rows.index)


def record(grid: pd.DataFrame, columns: tuple[Column, ...] = RECORD_COLUMNS, case: str = ESTIMATE) -> pd.DataFrame:
    """Take columns of one case from the capacity grid, in their published units.

    Parameters
    ----------
    grid : DataFrame
        What `capacity_grid` returns.
    columns : tuple of Column
        Name, source column, unit and type of each column.
    case : str
        ESTIMATE, or an end of the interval of the routing law.

    Returns
    -------
    DataFrame
        The columns by their published names, numbers rounded to 6 significant digits.
    """
    rows = grid[grid["case"] == case].reset_index(drop=True)
    return pd.DataFrame({column.name: _convert(rows[column.source], column) for column in columns})


def without_interval(grid: pd.DataFrame) -> set[str]:
    """Return the models whose routing is the same in all cases of a grid, so that they have no interval."""
    popularity_cv = grid.groupby("model")["popularity_cv"]
    same = popularity_cv.min() == popularity_cv.max()
    return set(same.index[same])


def with_intervals(grid: pd.DataFrame) -> pd.DataFrame:
    """Return the grid with <metric>_low and _high beside every metric of INTERVALS: the ends over the grid's cases.

    They are empty for models without interval.
    """
    cases = grid["case"].unique()
    has_interval = ~grid.loc[grid["case"] == cases[0], "model"].isin(without_interval(grid)).to_numpy()
    ends = {}
    for metric in INTERVALS:
        values = np.array([grid.loc[grid["case"] == case, metric].to_numpy(float) for case in cases])
        fitted = np.where(has_interval, values, np.nan)
        ends[f"{metric}_low"], ends[f"{metric}_high"] = np.fmin.reduce(fitted), np.fmax.reduce(fitted)
    rows = {name: np.tile(end, len(cases)) for name, end in ends.items()}
    return grid.assign(**rows)


def rows_of(frame: pd.DataFrame) -> list[dict]:
    """Return the rows of a record as JSON-like mappings, missing values as None."""
    return frame.astype(object).where(frame.notna(), None).to_dict(orient="records")


def _convert(values: pd.Series, column: Column) -> pd.Series:
    if column.kind == "number":
        return (values / column.per).map(lambda value: float(f"{value:.{SIGNIFICANT_DIGITS}g}"))
    return values.astype("Int64") if column.kind == "integer" else values

"""The numbers that the paper quotes and that the end of a build prints, from the records."""

from collections.abc import Mapping

import pandas as pd

from prophet_moe.capacity.record import fit_state
from prophet_moe.capacity.summary import extension_summary
from prophet_moe.present.averages import average_extension, native_extension
from prophet_moe.present.latex import in_letters
from prophet_moe.present.price import STRATEGIES, limits_of, native_gain_rows, share_kept, summary


def grid_numbers(record: pd.DataFrame) -> dict[str, str]:
    """Count the models, GPUs, batch sizes and rows of the grid."""
    return {
        "GridModels": str(record["model"].nunique()),
        "GridGpus": str(record["gpu"].nunique()),
        "GridBatches": str(record["batch_size"].nunique()),
        "GridRows": str(len(record)),
    }


def scenario_numbers(name: str, record: pd.DataFrame) -> dict[str, str]:
    """Headline numbers of one scenario; names start with the scenario's, in letters."""
    states = fit_state(record)
    extension = record["kv_extension_factor"].where(record["baseline_fits"])
    ranking = average_extension(record, zero_fill=False)
    summary, native = extension_summary(record), native_extension(record)
    numbers = {
        "BothRows": str((states == "both").sum()),
        "ProphetOnlyRows": str((states == "prophet_only").sum()),
        "NeitherRows": str((states == "neither").sum()),
        "FittingModels": str((ranking["fitting_rows"] > 0).sum()),
        "MeanExtensionFitting": _factor(extension.mean()),
        "MeanExtensionZeroFilled": _factor(extension.fillna(0).mean()),
        "MedianExtensionFitting": _factor(summary["median_extension"]),
        "GeomeanExtensionFitting": _factor(summary["geomean_extension"]),
        "KvBytesRatio": _factor(summary["kv_bytes_ratio"]),
        "NativeGainRows": str((native[states == "both"] > 1).sum()),
        "NativeMeanExtension": _factor(native.mean()),
    }
    if extension.notna().any():
        best, top = record.loc[extension.idxmax()], ranking.iloc[0]
        numbers |= {
            "BestExtension": _factor(extension.max()),
            "BestExtensionModel": best["model"],
            "BestExtensionGpu": best["gpu"],
            "BestExtensionBatch": str(best["batch_size"]),
            "TopModel": top["model"],
            "TopModelMeanExtension": _factor(top["mean_floor_fitting"]),
        }
    return {in_letters(name) + key: value for key, value in numbers.items()}


def price_numbers(gained: pd.DataFrame, record: pd.DataFrame, claimed_slowdown: float) -> dict[str, str]:
    """KV extension within limits of slowdown, from table 11: at the claimed slowdown, and the rows of a printed table.

    Medians over the configurations whose baseline fits; the rows have geometric means in brackets. `record` is that of
    the same scenario.
    """
    found, native = summary(gained), native_gain_rows(gained, _native(record))
    kept = share_kept(gained, record["kv_extension_factor"].where(record["baseline_fits"]).astype(float))
    loosest = max(limits_of(gained))
    numbers = {"ClaimedSlowdown": f"{claimed_slowdown:g}", "LoosestSlowdown": f"{loosest:g}"}
    for strategy in STRATEGIES:
        at, name = (strategy, claimed_slowdown), in_letters(strategy)
        if at in found.index:
            numbers |= {
                f"Price{name}ClaimedMedian": _factor(found["median"][at]),
                f"Price{name}ClaimedBound": _factor(found["median_bound"][at]),
                f"Price{name}ClaimedNativeRows": str(native[at]),
                f"Price{name}ClaimedShare": f"{100 * kept[at]:.0f}",
                f"Price{name}LoosestShare": f"{100 * kept[strategy, loosest]:.0f}",
            }
    rows = [
        " & ".join([rf"{limit:g}$\times$", *(_with_geomean(found, strategy, limit) for strategy in STRATEGIES)])
        for limit in limits_of(gained)
    ]
    return numbers | {"PriceRows": r" \\ ".join([*rows, ""]).rstrip()}


def _native(record: pd.DataFrame) -> dict[str, float]:
    """The native context of each model."""
    return dict(zip(record["model"], record["seq_len"].astype(float), strict=True))


def _with_geomean(found: pd.DataFrame, strategy: str, limit: float) -> str:
    """Median and, in brackets, geometric mean; a dash where the strategy was not simulated."""
    if (strategy, limit) not in found.index:
        return "--"
    row = found.loc[(strategy, limit)]
    return f"{row['median']:.2f} ({row['geomean']:.2f})"


def prefill_slowdown(prefill: pd.DataFrame) -> pd.Series:
    """Time to prefill with experts streamed over that with all resident, of decoder-only models whose baseline fits.

    Of the contexts that fit with Prophet, up to the native one; one value per configuration.
    """
    key = ["model", "gpu", "batch_size"]
    both = prefill.loc[prefill["limit"] == "baseline", key]
    return prefill[prefill["limit"] == "prophet_native"].merge(both, on=key)["slowdown"]


def prefill_numbers(prefill: pd.DataFrame) -> dict[str, str]:
    """How much longer a prefill takes with experts streamed, the median, and of how many configurations."""
    ratio = prefill_slowdown(prefill)
    return {"PrefillSlowdownMedian": f"{ratio.median():.1f}", "PrefillRows": str(len(ratio))}


def rule_numbers(rules: pd.DataFrame) -> dict[str, str]:
    """KV extension by memory alone, mean and median, under each rule of resident_rules.csv for the resident experts."""
    names = {"mean": "RuleMean", "quantile 0.99": "RuleQuantile", "never_overflows": "RuleNever"}
    found = rules.set_index("resident")
    return {
        f"{name}{measure}": _factor(found.loc[rule, column])
        for rule, name in names.items()
        if rule in found.index
        for measure, column in (("Extension", "mean_extension"), ("Median", "median_extension"))
    }


def predicted_set_numbers(sets: pd.DataFrame) -> dict[str, str]:
    """Experts that the predictor must name to name all of a layer-step, where these are most beside what is needed.

    Of the trace and batch size, above 1, with the largest set for 90 % of the layer-steps over the mean of distinct
    experts.
    """
    several = sets[sets["batch_size"] > 1]
    row = several.loc[(several["predicted_set_p90"] / several["mean_distinct"]).idxmax()]
    return {
        "SetTrace": str(row["trace"]),
        "SetBatch": str(row["batch_size"]),
        "SetExperts": str(row["num_experts"]),
        "SetDistinct": f"{row['mean_distinct']:.1f}",
        "SetNinety": str(row["predicted_set_p90"]),
        "SetNinetyNine": str(row["predicted_set_p99"]),
    }


OBSERVED = {
    "weights": ("Weights", "weights on a GPU"),
    "kv_bytes_per_token": ("KvBytes", "KV bytes of a token"),
    "kv_tokens": ("KvTokens", "tokens of KV cache"),
    "step_time": ("StepTime", "time of a decode step"),
    "hit_rate": ("HitRate", "hit rate of an expert cache"),
    "hit_rate_of_other_models": ("HitRateOthers", r"\quad by other models' routing"),
    "tokens_per_s": ("Rate", r"\quad tokens/s at that hit rate"),
    "u_32_pooled_cv": ("Experts", "experts of 32 tokens, by other models"),
}
"""Quantities of table 14 that the paper tells of: how their macros begin, and how its table names them."""


def observed_numbers(errors: pd.DataFrame, rows: pd.DataFrame) -> dict[str, str]:
    """How far predictions are from public observations: counts and errors of OBSERVED, and rows of a printed table.

    `errors` is table 14, of which the rows over all engines and GPUs count; `rows` are those that it sums up. Errors
    are in %, those of hit rates in points. A dash stands where a quantity has no goal.
    """
    every = errors[(errors["engine"] == "") & (errors["gpu"] == "")].set_index("quantity")
    compared = rows[rows["clean"] & rows["predicted"].notna()]
    numbers, printed = {"ObservedCount": str(compared["id"].nunique())}, []
    for quantity, (name, label) in OBSERVED.items():
        if quantity not in every.index:
            continue
        row = every.loc[quantity]
        within = "--" if pd.isna(row["within_goal"]) else f"{row['within_goal']:.0f}"
        found = {"Rows": f"{row['n']}", "HeldOut": f"{row['held_out']}", "Within": within}
        found |= {"Median": _two_digits(row["median_error"]), "Ninety": _two_digits(row["p90_error"])}
        found |= {"MedianHeldOut": _two_digits(row["median_error_held_out"])}
        found |= {"Worst": f"${_two_digits(row['worst_error'], '+')}$", "Goal": row["goal"].replace(" %", r"\,\%")}
        found |= {"WorstModel": str(compared.loc[compared["id"] == row["worst_id"], "model"].iloc[0])}
        unit = "points" if row["error_unit"] == "points" else r"\%"
        numbers |= {f"Observed{name}{key}": value for key, value in found.items()}
        cells = [found[key] for key in ("Rows", "HeldOut", "Median", "Ninety", "Worst", "Within")]
        printed.append(" & ".join([label, unit, *cells]))
    return numbers | {"ObservedTable": r" \\ ".join([*printed, ""]).rstrip()}


def headlines(
    records: Mapping[str, pd.DataFrame], gained: pd.DataFrame | None = None, prefill: pd.DataFrame | None = None
) -> str:
    """What a reviewer looks for first, a column per scenario, and below it what limits of slowdown allow.

    `gained` is table 11 and `prefill` the time of prompts: what the first of the `records` costs in time.
    """
    rows = {
        "median of the rows whose baseline fits": "{MedianExtensionFitting}x of {BothRows}",
        "KV bytes, summed over these rows": "{KvBytesRatio}x",
        "geometric mean": "{GeomeanExtensionFitting}x",
        "mean": "{MeanExtensionFitting}x",
        "mean with does-not-fit as 0, as the report counts (*)": "{MeanExtensionZeroFilled}x",
        "largest": "{BestExtension}x",
        "    at": "{BestExtensionModel}, {BestExtensionGpu}, B={BestExtensionBatch}",
        "rows longer within native context, both fit": "{NativeGainRows} of {BothRows}",
        "rows that only Prophet fits": "{ProphetOnlyRows} of {Rows}",
    }
    columns = {name: scenario_numbers("", record) | {"Rows": str(len(record))} for name, record in records.items()}
    none = dict.fromkeys(("BestExtension", "BestExtensionModel", "BestExtensionGpu", "BestExtensionBatch"), "-")
    table = {
        name: {label: text.format(**(none | numbers)) for label, text in rows.items()}
        for name, numbers in columns.items()
    }
    lines = ["KV extension by memory alone, if every expert were there in time", _left(pd.DataFrame(table))]
    lines.append("(*) not comparable between scenarios: other rows fit, and other models make up the sums")
    found = summary(gained) if gained is not None else pd.DataFrame()
    if len(found):
        lines += ["", *_price(gained, found, next(iter(records.values())))]
    if prefill is not None and len(ratio := prefill_slowdown(prefill)):
        lines += ["", f"Prompts with experts streamed for every chunk: {ratio.median():.1f}x the time of all resident,"]
        lines.append(
            f"median of {len(ratio)} rows of decoder-only models, of the context that fits up to the native one"
        )
    return "\n".join(lines)


def _price(gained: pd.DataFrame, found: pd.DataFrame, record: pd.DataFrame) -> list[str]:
    """What limits of slowdown allow: a title and a table, a row per limit, a column per strategy."""
    native, limits = native_gain_rows(gained, _native(record)), limits_of(gained)
    cells = {
        label: [
            f"{found['median'][name, limit]:.2f}x ({found['geomean'][name, limit]:.2f}x), {native[name, limit]}"
            for limit in limits
        ]
        for name, label in STRATEGIES.items()
        if name in found.index
    }
    count = int(found["configurations"].max())
    return [
        f"KV extension within a limit of slowdown: median (geometric mean) of the {count} rows,",
        "and how many of them are longer within native context",
        _left(pd.DataFrame(cells, [f"at most {limit:g}x the time" for limit in limits])),
    ]


def _left(table: pd.DataFrame) -> str:
    """The table as text, row labels flush left."""
    labels = [str(label) for label in table.index]
    width = max(map(len, labels))
    return table.set_axis([label.ljust(width) for label in labels]).to_string(justify="right")


def _two_digits(value: float, sign: str = "") -> str:
    """The number with two significant digits, never in scientific notation from 0.0001 on."""
    return f"{float(f'{value:.2g}'):{sign}g}"


def _factor(value: float) -> str:
    return f"{value:.2f}"

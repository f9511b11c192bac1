"""The numbers that the paper quotes and that the end of a build prints, from the records."""

from collections.abc import Mapping

import pandas as pd

from prophet_moe.capacity.record import fit_state
from prophet_moe.capacity.summary import extension_summary
from prophet_moe.present.price import STRATEGIES, limits_of, summary
from prophet_moe.present.tables import average_extension, native_extension, within


def grid_numbers(record: pd.DataFrame) -> dict[str, str]:
    """Size of the grid."""
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
    useful = {name: within(record[f"{name}_max_context"], record["seq_len"]) for name in ("baseline", "prophet")}
    ranking = average_extension(record, zero_fill=False)
    summary, native = extension_summary(record), native_extension(record)
    numbers = {
        "BothRows": str((states == "both").sum()),
        "ProphetOnlyRows": str((states == "prophet_only").sum()),
        "NeitherRows": str((states == "neither").sum()),
        "UsefulRows": str((useful["prophet"] > useful["baseline"]).sum()),
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
    return {_in_letters(name) + key: value for key, value in numbers.items()}


def _in_letters(name: str) -> str:
    """A scenario's name as LaTeX allows it in a macro: letters only, int8_weights becomes IntEightWeights."""
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    spelt = "".join(f"_{words[int(character)]}_" if character.isdigit() else character for character in name)
    return "".join(part.capitalize() for part in spelt.split("_"))


def price_numbers(gained: pd.DataFrame, claimed_slowdown: float) -> dict[str, str]:
    """KV extension within limits of slowdown, from table 11: at the claimed slowdown, and the rows of a printed table.

    Medians over the configurations whose baseline fits; the rows have geometric means in brackets.
    """
    found = summary(gained)
    numbers = {"ClaimedSlowdown": f"{claimed_slowdown:g}"}
    for strategy in STRATEGIES:
        median = found["median"].get((strategy, claimed_slowdown))
        if median is not None:
            numbers[f"Price{_in_letters(strategy)}ClaimedMedian"] = _factor(median)
    rows = [
        " & ".join([rf"{limit:g}$\times$", *(_with_geomean(found, strategy, limit) for strategy in STRATEGIES)])
        for limit in limits_of(gained)
    ]
    return numbers | {"PriceRows": r" \\ ".join([*rows, ""]).rstrip()}


def _with_geomean(found: pd.DataFrame, strategy: str, limit: float) -> str:
    """Median and, in brackets, geometric mean; a dash where the strategy was not simulated."""
    if (strategy, limit) not in found.index:
        return "--"
    row = found.loc[(strategy, limit)]
    return f"{row['median']:.2f} ({row['geomean']:.2f})"


def prefill_numbers(prefill: pd.DataFrame) -> dict[str, str]:
    """How much longer a prefill takes with experts streamed, median of the contexts that fit up to the native one."""
    ratio = prefill.loc[prefill["limit"] == "prophet_native", "slowdown"]
    return {"PrefillSlowdownMedian": f"{ratio.median():.1f}"}


def headlines(records: Mapping[str, pd.DataFrame], gained: pd.DataFrame | None = None) -> str:
    """What a reviewer looks for first, a column per scenario, and below it what of that a limit of slowdown leaves.

    `gained` is table 11: the price in time, which only the default scenario models.
    """
    rows = {
        "median of the rows whose baseline fits": "{MedianExtensionFitting}x of {BothRows}",
        "KV bytes, summed over these rows": "{KvBytesRatio}x",
        "geometric mean": "{GeomeanExtensionFitting}x",
        "mean": "{MeanExtensionFitting}x",
        "mean with does-not-fit as 0, as the report counts": "{MeanExtensionZeroFilled}x",
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
    found = summary(gained) if gained is not None else pd.DataFrame()
    if len(found):
        limits = limits_of(gained)
        cells = {
            label: [f"{found['median'][name, limit]:.2f}x ({found['geomean'][name, limit]:.2f}x)" for limit in limits]
            for name, label in STRATEGIES.items()
            if name in found.index
        }
        count = int(found["configurations"].max())
        price = pd.DataFrame(cells, [f"at most {limit:g}x the time" for limit in limits])
        lines += [
            "",
            f"What a limit of slowdown leaves of it: median (geometric mean) of the {count} rows",
            _left(price),
        ]
    return "\n".join(lines)


def _left(table: pd.DataFrame) -> str:
    """The table as text, row labels flush left."""
    labels = [str(label) for label in table.index]
    width = max(map(len, labels))
    return table.set_axis([label.ljust(width) for label in labels]).to_string(justify="right")


def _factor(value: float) -> str:
    return f"{value:.2f}"

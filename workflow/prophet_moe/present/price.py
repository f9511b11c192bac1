"""What a longer context costs in time: table 11 in a few numbers, to stand beside the memory floor."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from prophet_moe.capacity.summary import geometric_mean

STRATEGIES = {"on_demand": "no prediction", "prophet": "Prophet", "perfect_prefetch": "oracle"}
"""Strategies of table 11 and what they are called in text; the oracle knows the routing of the next step."""
ORACLE = "perfect_prefetch"
BOUND = "_bound"
"""How columns end that rest on the times of the datasheet."""
GAIN = re.compile(r"kv_extension_at_([0-9.]+)x")


def limits_of(gained: pd.DataFrame) -> list[float]:
    """The limits of slowdown that a table 11 has columns for, ascending."""
    return sorted(float(match[1]) for match in map(GAIN.fullmatch, gained.columns) if match)


def gains(gained: pd.DataFrame, suffix: str = "") -> pd.DataFrame:
    """One row per configuration whose baseline fits, strategy and limit: the columns of both and `extension`.

    With a `suffix` the extension is that of the columns that end with it, such as _bound.
    """
    columns = {f"kv_extension_at_{limit:g}x{suffix}": limit for limit in limits_of(gained)}
    long = gained.melt(["model", "gpu", "batch_size", "strategy"], list(columns), "limit", "extension")
    return long.assign(limit=long["limit"].map(columns)).dropna(subset="extension")


def by_model(gained: pd.DataFrame) -> pd.DataFrame:
    """Mean KV extension at each limit by model (index), over the configurations whose baseline fits.

    Columns are mean_<strategy>_at_<limit>x, strategy by strategy at the tightest limit first.
    """
    wide = gains(gained).pivot_table(index="model", columns=["strategy", "limit"], values="extension")
    columns = {(name, limit): f"mean_{name}_at_{limit:g}x" for limit in limits_of(gained) for name in STRATEGIES}
    return pd.DataFrame({column: wide.get(key, np.nan) for key, column in columns.items()}, wide.index)


def summary(gained: pd.DataFrame) -> pd.DataFrame:
    """By strategy and limit (index): median, geometric mean and mean of the KV extension, and the configurations.

    The median with the times of the datasheet, median_bound, stands beside.
    """
    groups, bounds = (gains(gained, suffix).groupby(["strategy", "limit"])["extension"] for suffix in ("", BOUND))
    return pd.DataFrame(
        {
            "median": groups.median(),
            "median_bound": bounds.median(),
            "geomean": groups.agg(geometric_mean),
            "mean": groups.mean(),
            "configurations": groups.size(),
        }
    )


def native_gain_rows(gained: pd.DataFrame, native: Mapping[str, float]) -> pd.Series:
    """By strategy and limit (index): configurations whose baseline fits that gain context within the native one.

    `native` is the native context of each model, tokens.
    """
    fits = gained[gained["baseline_max_context"] > 0]
    most = fits["model"].map(native)
    before = np.minimum(fits["baseline_max_context"], most)
    counts = {
        (strategy, limit): int((np.minimum(fits[f"max_context_at_{limit:g}x"], most) > before)[mine].sum())
        for strategy, mine in fits.groupby("strategy").groups.items()
        for limit in limits_of(gained)
    }
    return pd.Series(counts, dtype=int)


def share_kept(gained: pd.DataFrame, floor: pd.Series) -> pd.Series:
    """By strategy and limit (index): the logarithm of the gain within the limit, over that by memory alone, both means.

    `floor` is the KV extension by memory alone of the same configurations.
    """
    logs = np.log(gains(gained).set_index(["strategy", "limit"])["extension"])
    return logs.groupby(level=["strategy", "limit"]).mean() / np.log(floor.dropna()).mean()


def statement(limit: float, reached: Mapping[str, float], floor: pd.Series) -> str:
    """What a limit of slowdown buys Prophet, beside an oracle and the memory floor, in medians over configurations.

    `reached` has the median KV extension by strategy. Figure 2, which reads table 11, states the same in these words.
    """
    first = next(name for name in ("prophet", *STRATEGIES) if name in reached)
    beside = f"{STRATEGIES[ORACLE]} {reached[ORACLE]:.2f}x, " if ORACLE in reached and first != ORACLE else ""
    return (
        f"{limit:g}x the time buys {STRATEGIES[first]} {reached[first]:.2f}x the context;\n"
        f"{beside}by memory alone {floor.median():.2f}x (medians of {floor.size})"
    )

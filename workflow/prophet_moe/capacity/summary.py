"""KV extension of many rows of a record in one line: median, means and sums."""

import numpy as np
import pandas as pd


def extension_summary(rows: pd.DataFrame) -> dict[str, float]:
    """Summarise the KV extension over the rows of a record whose baseline fits: counts, means and sums.

    kv_bytes_ratio is the sum of the KV bytes that Prophet leaves room for over that of the baseline: rows weigh by
    their memory, so that a baseline that hardly fits cannot decide it. All but counts are NaN where no baseline fits.
    """
    fitting = rows[rows["baseline_fits"].astype(bool)]
    extension = fitting["kv_extension_factor"].astype(float)
    return {
        "fitting_rows": len(fitting),
        "prophet_only_rows": int((rows["prophet_fits"].astype(bool) & ~rows["baseline_fits"].astype(bool)).sum()),
        "median_extension": extension.median(),
        "geomean_extension": geometric_mean(extension),
        "mean_extension": extension.mean(),
        "max_extension": extension.max(),
        "kv_bytes_ratio": kv_bytes_ratio(fitting),
    }


def geometric_mean(factors: pd.Series) -> float:
    """Return the geometric mean of factors of at least 0, missing ones left out; NaN of none."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(factors.dropna().astype(float)).mean()))


def kv_bytes_ratio(fitting: pd.DataFrame) -> float:
    """Divide the KV bytes at Prophet's longest contexts by those at the baseline's; NaN without rows that fit."""
    per_token = fitting["kv_cache_gb"] / fitting["seq_len"].astype(float)
    baseline = (per_token * fitting["baseline_max_context"].astype(float)).sum()
    prophet = (per_token * fitting["prophet_max_context"].astype(float)).sum()
    return float(prophet / baseline) if baseline > 0 else float("nan")

"""The numbers that a build prints at its end and that the paper quotes: the memory floor, and its price below it."""

import numpy as np
import pandas as pd

from prophet_moe.present.price import STRATEGIES, native_gain_rows, summary
from prophet_moe.present.quoted_numbers import (
    headlines,
    observed_numbers,
    predicted_set_numbers,
    prefill_numbers,
    price_numbers,
    rule_numbers,
    scenario_numbers,
)


def prices(rows: pd.DataFrame) -> pd.DataFrame:
    """A made table 11 of these rows: gains at 1.05x and 2x, none where the baseline does not fit."""
    fits = rows["baseline_fits"].to_numpy(bool)
    made = []
    for better, strategy in enumerate(STRATEGIES):
        gain = np.where(fits, 1.01 + 0.1 * better + 0.001 * np.arange(len(rows)), np.nan)
        columns = {"kv_extension_at_1.05x": gain, "kv_extension_at_2x": gain**3}
        columns |= {f"{name}_bound": 2 * values for name, values in columns.items()}
        baseline = rows["baseline_max_context"].to_numpy(float)
        columns |= {"baseline_max_context": baseline, "max_context_at_1.05x": np.nan_to_num(gain * baseline)}
        columns |= {"max_context_at_2x": np.nan_to_num(gain**3 * baseline)}
        made.append(rows[["model", "gpu", "batch_size"]].assign(strategy=strategy, **columns))
    return pd.concat(made)


def test_headlines_begin_with_the_memory_floor_in_words(records):
    frame = records["calibrated"]
    lines = headlines({"calibrated": frame, "reported": records["reported"]}).splitlines()
    numbers = scenario_numbers("", frame)
    expected = [
        ("median of the rows whose baseline fits", f"{numbers['MedianExtensionFitting']}x of {numbers['BothRows']}"),
        ("KV bytes, summed over these rows", f"{numbers['KvBytesRatio']}x"),
        ("geometric mean", f"{numbers['GeomeanExtensionFitting']}x"),
        ("mean ", f"{numbers['MeanExtensionFitting']}x"),
        ("mean with does-not-fit as 0, as the report counts", f"{numbers['MeanExtensionZeroFilled']}x"),
        ("largest", f"{numbers['BestExtension']}x"),
        ("at ", f"{numbers['BestExtensionModel']}, {numbers['BestExtensionGpu']}"),
        ("rows longer within native context, both fit", f"{numbers['NativeGainRows']} of {numbers['BothRows']}"),
        ("rows that only Prophet fits", f"{numbers['ProphetOnlyRows']} of {len(frame)}"),
    ]
    assert lines[0] == "KV extension by memory alone, if every expert were there in time"
    assert lines[1].split() == ["calibrated", "reported"]
    for line, (label, value) in zip(lines[2:-1], expected, strict=True):
        assert line.strip().startswith(label)
        assert f" {value}" in line.removeprefix(label)
    assert lines[-1].startswith("(*) not comparable between scenarios")


def test_headlines_without_table_11_tell_no_price(records):
    assert "within a limit" not in headlines({"calibrated": records["calibrated"]})


def test_headlines_set_the_price_below_the_floor(records):
    """A row per limit, a column per strategy: the median and the geometric mean of the rows whose baseline fits."""
    frame = records["calibrated"]
    gained = prices(frame)
    floor = headlines({"calibrated": frame})
    told = headlines({"calibrated": frame}, gained)
    assert told.startswith(floor)
    title, more, heads, *rows = told.removeprefix(floor).strip().splitlines()
    count = frame["baseline_fits"].sum()
    assert title == f"KV extension within a limit of slowdown: median (geometric mean) of the {count} rows,"
    assert more == "and how many of them are longer within native context"
    assert heads.split() == " ".join(STRATEGIES.values()).split()
    found, native = summary(gained), native_gain_rows(gained, dict(zip(frame["model"], frame["seq_len"], strict=True)))
    for row, limit in zip(rows, (1.05, 2.0), strict=True):
        assert row.strip().startswith(f"at most {limit:g}x the time")
        cells = [
            f"{found['median'][name, limit]:.2f}x ({found['geomean'][name, limit]:.2f}x), {native[name, limit]}"
            for name in STRATEGIES
        ]
        assert row.split("the time")[1].split() == " ".join(cells).split()


def test_headlines_leave_out_a_strategy_not_simulated(records):
    frame = records["calibrated"]
    gained = prices(frame).query("strategy != 'perfect_prefetch'")
    told = headlines({"calibrated": frame}, gained)
    assert "Prophet" in told and "oracle" not in told


def test_headlines_tell_no_price_where_nothing_fits(records):
    never = records["calibrated"].query("model == 'Grok-1-314B'")
    assert headlines({"never": never}, prices(never)) == headlines({"never": never})


def test_price_numbers_are_those_of_the_summary(records):
    frame = records["calibrated"]
    gained = prices(frame)
    numbers = price_numbers(gained, frame, 2)
    found = summary(gained)
    assert all(name.isalpha() for name in numbers), "macros of LaTeX"
    assert numbers["ClaimedSlowdown"] == "2"
    assert numbers["PriceOnDemandClaimedMedian"] == f"{found['median']['on_demand', 2.0]:.2f}"
    assert numbers["PriceOnDemandClaimedBound"] == f"{2 * found['median']['on_demand', 2.0]:.2f}"
    assert numbers["PricePerfectPrefetchClaimedMedian"] == f"{found['median']['perfect_prefetch', 2.0]:.2f}"
    tight, loose, after = numbers["PriceRows"].split(r" \\")
    assert after == ""
    assert tight.split(" & ")[0] == r"1.05$\times$"
    row = found.loc["prophet", 2.0]
    assert loose.split(" & ")[2] == f"{row['median']:.2f} ({row['geomean']:.2f})"


def test_price_share_is_that_of_the_logarithms(records):
    """Of a gain of 4 by memory alone, one of 2 within the limit is half."""
    frame = records["calibrated"].assign(kv_extension_factor=4.0)
    gained = prices(frame)
    for name in [column for column in gained if column.startswith("kv_extension")]:
        gained[name] = gained[name].where(gained[name].isna(), 2.0)
    assert price_numbers(gained, frame, 2)["PriceProphetClaimedShare"] == "50"


def test_prefill_number_is_of_rows_whose_baseline_fits():
    rows = [("A", "baseline", 9.0), ("A", "prophet_native", 2.0), ("B", "baseline", 9.0), ("B", "prophet_native", 3.0)]
    rows += [("C", "baseline", 9.0), ("C", "prophet_native", 7.0), ("only Prophet fits", "prophet_native", 99.0)]
    prefill = pd.DataFrame(rows, columns=["model", "limit", "slowdown"]).assign(gpu="G", batch_size=1)
    assert prefill_numbers(prefill) == {"PrefillSlowdownMedian": "3.0", "PrefillRows": "3"}


def test_rule_numbers_name_every_rule_there_is():
    rules = pd.DataFrame(
        {"resident": ["mean", "never_overflows"], "mean_extension": [1.5, 1.25], "median_extension": 1.125}
    )
    found = rule_numbers(rules)
    assert (found["RuleMeanExtension"], found["RuleNeverExtension"], found["RuleMeanMedian"]) == (
        "1.50",
        "1.25",
        "1.12",
    )
    assert "RuleQuantileExtension" not in found


def test_predicted_set_numbers_are_of_the_widest_set():
    sets = pd.DataFrame(
        {
            "trace": ["a", "a", "b"],
            "num_experts": [8, 8, 64],
            "batch_size": [1, 4, 4],
            "mean_distinct": [1.0, 5.0, 10.0],
            "predicted_set_p90": [8, 8, 40],
            "predicted_set_p99": [8, 8, 60],
        }
    )
    found = predicted_set_numbers(sets)
    assert (found["SetTrace"], found["SetNinety"], found["SetNinetyNine"]) == ("b", "40", "60")


def test_observed_numbers_are_those_of_all_engines():
    """Errors of table 14 over all engines and GPUs, the model of the worst row, and a row of the printed table each."""
    common = {"error_unit": "%", "median_error": 0.00912, "p90_error": 24.51, "worst_error": -460.49, "worst_id": "b"}
    common |= {"median_error_held_out": 0.5}
    common |= {"n": 3, "held_out": 2, "gpu": ""}
    errors = pd.DataFrame(
        [
            common | {"quantity": "weights", "engine": "", "goal": "0.1 %", "within_goal": 2},
            common | {"quantity": "weights", "engine": "vllm", "goal": "0.1 %", "within_goal": 1, "n": 1},
            common | {"quantity": "hit_rate_of_other_models", "engine": "", "goal": "", "error_unit": "points"},
            common | {"quantity": "unheard of", "engine": "", "goal": ""},
        ]
    )
    rows = pd.DataFrame({"id": ["a", "b", "b", "c"], "model": ["A", "B", "B", "C"], "clean": [True, True, True, False]})
    numbers = observed_numbers(errors, rows.assign(predicted=1.0))
    assert (numbers["ObservedCount"], numbers["ObservedWeightsMedianHeldOut"]) == ("2", "0.5")
    assert (numbers["ObservedWeightsRows"], numbers["ObservedWeightsHeldOut"]) == ("3", "2")
    assert (numbers["ObservedWeightsMedian"], numbers["ObservedWeightsNinety"]) == ("0.0091", "25")
    assert (numbers["ObservedWeightsWorst"], numbers["ObservedWeightsWorstModel"]) == ("$-460$", "B")
    assert (numbers["ObservedWeightsGoal"], numbers["ObservedWeightsWithin"]) == (r"0.1\,\%", "2")
    printed = numbers["ObservedTable"].split(r" \\")
    assert printed[0] == r"weights on a GPU & \% & 3 & 2 & 0.0091 & 25 & $-460$ & 2"
    assert printed[1].strip() == r"\quad by other models' routing & points & 3 & 2 & 0.0091 & 25 & $-460$ & --"
    assert printed[2:] == [""]

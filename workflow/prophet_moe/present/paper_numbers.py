"""The numbers that only the paper quotes, from the tables of many studies: one function per table, macros by name.

Rows come as the figure of their study selects them, so that text and figure tell of the same ones. Functions return
macros by name with their text, as `latex.macros` prints them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from prophet_moe.claims.verdict import VERDICTS
from prophet_moe.present.latex import escape, in_letters

Numbers = dict[str, str]

DOCUMENTS = {
    "000": "000, report",
    "001": "001, summary",
    "002": "002, batch sizes",
    "003": "003, memory",
    "004": "004, strategies",
}
"""What the printed table calls the documents."""
CONSEQUENTIAL = (
    "compare.prophet.latency",
    "prophet.hit-rate",
    "prophet.alpha",
    "text.universal",
    "head.kv.range",
    "head.kv.overall-average",
    "head.ctx2x",
    "mem.v3.freed",
    "compare.cpu-offloading.latency",
    "quant.int8.capacity",
    "c4.speedup",
    "c4.dedup.b64.memory-savings",
    "prod.chatbot.b1-2",
    "text.only-viable",
)
"""Claims that the paper names one by one, by their id in the ledger: what its readers would have built on."""
BASES = {
    "uniform_occupancy": "Uniform",
    "all_others": "Others",
    "balanced_alike": "Alike",
    "own": "Own",
}
"""How the popularity CV of a published model is predicted, with the words of the macros."""
WAYS = {
    "every_expert": "Every",
    "needed_experts": "Needed",
    "streamed": "Streamed",
    "prophet": "Prophet",
}
"""Ways of serving that the paper compares, with the words of the macros."""
MUCH_SAVED_PCT, FULL_PCT = 90, 80
"""Savings that count as large, and use of the KV pool that counts as full, %."""
ORDINALS = {1: "One", 16: "Sixteen"}
"""Words for the batch sizes that the paper compares."""
LINES_NAMED = 2
"""Lines of a claim that are printed; of more, their number."""
LARGE_FLOOR = 2
"""Extension by memory alone that counts as large: the context doubles."""
BREAK = r"\allowbreak{}"


def setting_numbers(settings: Mapping[str, Any]) -> Numbers:
    """Return the settings that the text names, as they are printed."""
    return {
        "SettingQuantile": f"{100 * settings['resident_quantile']:g}",
        "SettingReserveGib": f"{settings['runtime_reserve_mib'] / 1024:g}",
        "SettingChunk": f"{settings['prefill_chunk_tokens']:,}",
        "SettingGpu": settings["gpu"],
        "SettingBatch": f"{settings['batch_size']}",
        "SettingContext": f"{settings['context_tokens']:,}",
        "SettingCapacityShare": f"{100 * settings['capacity_share']:g}",
        "SettingReplayed": f"{settings['sequences']}",
        "SettingHiddenUnits": f"{settings['predictor_hidden']}",
        "ClaimedHitRate": f"{100 * settings['claimed_hit_rate']:g}",
    }


def routing_numbers(
    transfer: pd.DataFrame, fits: pd.DataFrame, exponents: pd.DataFrame, pools: pd.DataFrame
) -> Numbers:
    """Return how well laws of u(B) hold: published models left out, recorded traces held out, and exponents.

    `transfer` and `pools` are of published counts, `fits` of recorded traces, `exponents` is table 5.
    """
    whole = transfer[(transfer["traffic"] == "whole") & transfer["clean"]]
    others = whole[whole["basis"] == "all_others"]
    found = {"RoutingTexts": f"{whole['observation'].nunique()}", "RoutingModels": f"{pools['models'].max()}"}
    found["RoutingWorstModel"] = others.loc[others["error_pct"].idxmax(), "model"]
    for basis, name in BASES.items():
        error = whole.loc[whole["basis"] == basis, "error_pct"]
        found |= {f"Routing{name}Median": f"{error.median():.2g}", f"Routing{name}Worst": f"{error.max():.0f}"}
    staggered = fits[fits["batching"] == "staggered"]
    for law, name in {
        "dirichlet_occupancy": "Dirichlet",
        "power_law": "Power",
        "power_law_reported": "Reported",
    }.items():
        error = staggered.loc[staggered["law"] == law, "held_out_error_pct"]
        found |= _ends(f"Law{name}", error, ".2g")
    measured = exponents[exponents["basis"] == "measured"]
    pooled = pools.set_index(["balancing", "domain"])["popularity_cv"]
    found |= _ends("Exponent", measured["exponent"], ".2f")
    return found | {
        "ExponentReported": f"{exponents['reported_exponent'].mode()[0]:g}",
        "LawTraces": f"{staggered['trace'].nunique()}",
        "PooledCvAny": f"{pooled['any', 'any']:.2f}",
        "PooledCvBalanced": f"{pooled['auxiliary_loss', 'any']:.2f}",
    }


def prediction_numbers(summary: pd.DataFrame) -> Numbers:
    """Return recall@k of the predictor, one layer ahead, over the traces of table 6, beside counting and controls."""
    one = summary[(summary["lookahead"] == 1) & (summary["rank"] == summary["top_k"])]
    far = summary[(summary["lookahead"] == summary["lookahead"].max()) & (summary["rank"] == summary["top_k"])]
    return {
        "PredictionTraces": f"{one['trace'].nunique()}",
        "PredictionFarthest": f"{summary['lookahead'].max()}",
        **_ends("PredictionRecall", one["prophet_recall"], ".2f"),
        **_ends("PredictionFarRecall", far["prophet_recall"], ".2f"),
        **_ends("PredictionGain", 100 * one["gain"], ".1f"),
        **_ends("PredictionPopularity", one["popularity_recall"], ".2f"),
        **_ends("PredictionGate", one["gate_input_recall"].dropna(), ".2f"),
        **_ends("PredictionMb", one["predictor_mb"], ".1f"),
    }


def strategy_numbers(strategies: pd.DataFrame, savings: pd.DataFrame) -> Numbers:
    """Return speedups over loading on demand and hit rates over the traces of table 8, and savings of table 9.

    Over all batch sizes a speedup is a geometric mean.
    """
    recorded = strategies[strategies["routing"] == "recorded"]
    alike = recorded[recorded["mode"] == "deduplicated"].set_index(["strategy", "batch"])
    described = recorded[recorded["mode"] == "as_described"].set_index(["strategy", "batch"])
    names = {"prophet": "Prophet", "static_popular": "Static", "belady": "Belady", "perfect_prefetch": "Oracle"}
    found: Numbers = {}
    for strategy, name in names.items():
        found |= _ends(f"Alike{name}", alike.loc[(strategy, "all"), "speedup"], ".2f")
    largest = savings["batch"].max()
    saved = savings[savings["batch"] == largest]
    return found | {
        **_ends("AlikeProphetOne", alike.loc[("prophet", "1"), "speedup"], ".2f"),
        **_ends("AlikeIntelligent", alike.loc[("intelligent", "all"), "speedup"], ".2f"),
        **_ends("AlikeProphetHit", 100 * alike.loc[("prophet", "all"), "hit_rate"], ".0f"),
        **_ends("OverIntelligent", alike.loc[("prophet", "all"), "over_intelligent"], ".2f"),
        **_ends("DescribedIntelligent", described.loc[("intelligent", "all"), "speedup"], ".2f"),
        "DescribedIntelligentClaimed": f"{described.loc[('intelligent', 'all'), 'claimed_speedup'].iloc[0]:.2f}",
        "DedupBatch": f"{largest}",
        **_ends("DedupSaved", 100 * saved["request_dedup"], ".0f"),
        "DedupClaimed": f"{100 * saved['claimed_saving'].iloc[0]:.1f}",
        "DedupClaimedElsewhere": f"{100 * saved['claimed_saving_in_scaling'].iloc[0]:.1f}",
    }


def frontier_numbers(gained: pd.DataFrame, price: pd.DataFrame, floor: pd.Series) -> Numbers:
    """Return how many configurations only Prophet fits have any context within the limits of slowdown.

    `gained` is table 11; `price` is its summary by strategy and limit; `floor` is the memory floor where it is defined.
    """
    limits = sorted({limit for _, limit in price.index})
    only = gained[(gained["baseline_max_context"] == 0) & (gained["strategy"] == "prophet")]
    return {
        "TightestSlowdown": f"{limits[0]:g}",
        "PriceProphetTightestMedian": f"{price['median']['prophet', limits[0]]:.2f}",
        "PricePerfectPrefetchTightestMedian": f"{price['median']['perfect_prefetch', limits[0]]:.2f}",
        "PriceProphetLoosestMedian": f"{price['median']['prophet', limits[-1]]:.2f}",
        "PricePerfectPrefetchLoosestMedian": f"{price['median']['perfect_prefetch', limits[-1]]:.2f}",
        "OnlyProphetRows": f"{len(only)}",
        "OnlyProphetServed": f"{int((only[f'max_context_at_{limits[-1]:g}x'] > 0).sum())}",
        "FloorLargeRows": f"{int((floor > LARGE_FLOOR).sum())}",
        "FloorLarge": f"{LARGE_FLOOR:g}",
    }


def pays_numbers(rows: pd.DataFrame, limit: float) -> Numbers:
    """Return what link and hit rate a slowdown of `limit` needs, over pairs of model and machine of table 16."""
    pcie = rows[rows["link"].str.startswith("PCIe") & (rows["link_basis"] == "measured")]
    fast = rows[rows["link"] == "NVLink-C2C"]
    found: Numbers = {}
    for name, kind in {"Pcie": pcie, "Fast": fast}.items():
        median = kind.groupby("gpu")[["hit_rate_needed", "resident_share_needed", "resident_share_prefetched"]].median()
        found |= _ends(f"Pays{name}Hit", 100 * median["hit_rate_needed"], ".1f")
        found |= _ends(f"Pays{name}Share", 100 * median["resident_share_needed"], ".0f")
        found |= _ends(f"Pays{name}Hidden", 100 * median["resident_share_prefetched"], ".0f")
    states = rows["state"].value_counts()
    slots, slow = (int(states.get(state, 0)) for state in ("slots", "too_slow"))
    fits = rows[rows["state"] == "all_fit"]
    longer = (fits["slots_max_context"] / fits["baseline_max_context"]).astype(float)
    law = rows[rows["simulated_slowdown"].notna()]
    error = 100 * (law["closed_form_slowdown"] / law["simulated_slowdown"] - 1)
    return found | {
        "PaysMachineRows": _rows(_machines(rows)),
        "PaysPairs": f"{len(rows)}",
        "PaysModels": f"{rows['model'].nunique()}",
        "PaysPart": f"{slots + slow}",
        "PaysHeld": f"{slots}",
        "PaysAllFit": f"{len(fits)}",
        "PaysLonger": f"{longer.median():.2f}",
        "PaysDoubled": f"{int((longer > LARGE_FLOOR).sum())}",
        "PaysExpertShare": f"{100 * rows['expert_share'].median():.0f}",
        "PaysPrefetchFactor": f"{limit / (limit - 1):.0f}",
        "PaysLawRuns": f"{len(law)}",
        "PaysLawWorst": f"{error.max():.0f}",
    }


def _machines(rows: pd.DataFrame) -> list[list[str]]:
    """One line per machine, from slow links to fast ones: link over memory, and medians over models."""
    columns = ["link_ratio", "hit_rate_needed", "resident_share_needed", "resident_share_prefetched"]
    medians = rows.groupby(["gpu", "link"], sort=False)[columns].median().sort_values("link_ratio")
    return [
        [gpu.rsplit("-", 1)[0], link, f"{ratio:.4f}", f"{100 * hit:.1f}", f"{100 * share:.0f}", f"{100 * hidden:.0f}"]
        for (gpu, link), (ratio, hit, share, hidden) in zip(medians.index, medians.to_numpy(), strict=True)
    ]


def alternative_numbers(table: pd.DataFrame, gpu: str, baseline: str, small: str) -> Numbers:
    """Return slowdowns of ways of serving on a GPU from table 17, medians over models, and those of the report's case.

    `baseline` and `small` are the formats of 16 and of 4 bits.
    """
    rows = table[(table["gpu"] == gpu) & table["slowdown"].notna()]
    whole = rows[rows["format"] == baseline]
    least = whole["resident_share"].min()
    found: Numbers = {"AltModels": f"{whole['model'].nunique()}", "AltShare": f"{100 * least:g}"}
    for batch, word in ORDINALS.items():
        for way, name in WAYS.items():
            at = whole[(whole["approach"] == way) & (whole["batch_size"] == batch)]
            at = at[at["resident_share"].isna() | (at["resident_share"] == least)]
            found[f"Alt{word}{name}"] = f"{at['slowdown'].median():.3g}"
        narrow = rows[(rows["format"] == small) & (rows["approach"] == "all_resident") & (rows["batch_size"] == batch)]
        found[f"Alt{word}Narrow"] = f"{narrow['slowdown'].median():.2f}"
    narrow = rows[(rows["format"] == small) & (rows["approach"] == "all_resident")]
    share = narrow.set_index(["model", "batch_size"])["weights_gb"]
    share = share / whole[whole["approach"] == "all_resident"].set_index(["model", "batch_size"])["weights_gb"]
    claimed = whole[whole["reported_low"].notna()].set_index("approach")
    offload, own = claimed.loc["every_expert"], claimed.loc["prophet"]
    alike = whole[(whole["model"] == own["model"]) & (whole["batch_size"] == own["batch_size"])]
    needed = alike.loc[alike["approach"] == "needed_experts", "slowdown"]
    return found | {
        "AltNarrowShare": f"{100 * share.median():.0f}",
        "ClaimModel": own["model"],
        "ClaimBatch": f"{own['batch_size']}",
        "ClaimOffloadLow": f"{offload['reported_low']:g}",
        "ClaimOffloadHigh": f"{offload['reported_high']:g}",
        "ClaimOffloadFound": f"{offload['slowdown']:.0f}",
        "ClaimNeededFound": f"{needed.iloc[0]:.0f}",
        "ClaimProphetSlowdown": f"{own['reported_low']:g}",
        "ClaimProphetSlowdownFound": f"{own['slowdown']:.0f}",
        "ClaimProphetGb": f"{own['reported_expert_gb']:g}",
        "ClaimProphetGbFound": f"{own['expert_gb']:.0f}",
    }


def several_gpu_numbers(rows: pd.DataFrame, useful: pd.DataFrame) -> Numbers:
    """Return how many models need fewer GPUs with expert slots, from the rows of table 18 that its figure draws.

    `useful` are those of them whose slots save GPUs within the limit of slowdown.
    """
    found: Numbers = {
        "GpusModels": f"{rows['model'].nunique()}",
        "GpusGpu": rows["gpu"].iloc[0],
        "GpusContext": f"{rows['context'].max():,}",
        "GpusLimit": f"{rows['slowdown_limit'].max():g}",
    }
    for batch, word in ORDINALS.items():
        at = rows[rows["batch_size"] == batch]
        saved = at[at["gpus_saved"].fillna(0) > 0]
        most = saved.loc[saved["gpus_saved"].idxmax()]
        found |= {
            f"Gpus{word}Fewer": f"{len(saved)}",
            f"Gpus{word}Slowdown": f"{saved['slowdown_on_demand'].median():.0f}",
            f"Gpus{word}Useful": f"{int((useful['batch_size'] == batch).sum())}",
            f"Gpus{word}MostModel": most["model"],
            f"Gpus{word}MostSlots": f"{most['prophet_gpus']}",
            f"Gpus{word}MostResident": f"{most['baseline_gpus']}",
            f"Gpus{word}MostSlowdown": f"{most['slowdown_on_demand']:.0f}",
        }
    return found


def serving_numbers(runs: pd.DataFrame, claims: pd.DataFrame) -> Numbers:
    """Return how full the KV pool is where much is saved, and what becomes of the claims on batch sizes.

    `runs` are the rows of table 20 that the figure draws; `claims` is batching_claims.csv with recorded arrivals.
    """
    much = runs[runs["savings_with_prompts_pct"] > MUCH_SAVED_PCT]
    full = runs[runs["kv_mean_pct"] > FULL_PCT]
    chat = claims.iloc[0]
    verdicts = claims["verdict"].value_counts()
    return {
        "ServingMuch": f"{MUCH_SAVED_PCT}",
        "ServingMuchMost": f"{much['kv_mean_pct'].max():.2g}",
        "ServingMuchMedian": f"{much['kv_mean_pct'].median():.2g}",
        "ServingFull": f"{FULL_PCT}",
        **_ends("ServingFullSaved", full["savings_with_prompts_pct"], ".2g"),
        "ServingServices": f"{runs['trace'].nunique()}",
        "ServingMostInstances": f"{runs['instances'].max()}",
        "ServingClaims": f"{len(claims)}",
        "ServingClaimsHold": f"{verdicts.get('holds', 0)}",
        "ServingClaimsMoreGpus": f"{verdicts.get('holds on more GPUs', 0)}",
        "ServingChatClaimed": f"{chat['claimed_pct']:g}",
        "ServingChatFound": f"{chat['found_pct']:.1f}",
        "ServingChatModel": chat["model"],
        "ServingChatGpu": chat["gpu"],
        "ServingChatEnough": f"{chat['instances_enough']}",
        "ServingChatNeeded": f"{chat['instances_needed']}",
        "ServingChatPool": f"{chat['kv_mean_pct']:.1f}",
    }


def sensitivity_numbers(memory: pd.Series, time: pd.Series, by_hit_rate: pd.Series) -> Numbers:
    """Return shares of the variance of memory and of time by input, and the slowdown by hit rate, of table 22.

    `memory` and `time` are total shares by input; `by_hit_rate` is the slowdown by hit rate, all else at the reference.
    """
    found: Numbers = {}
    for name, shares in {"Memory": memory, "Time": time}.items():
        for input_name in ("batch_size", "weight_format", "gpu", "hit_rate", "law"):
            found[f"Sobol{name}{in_letters(input_name)}"] = f"{100 * shares[input_name]:.0f}"
    rates = by_hit_rate.sort_index(ascending=False)
    words = ("Claimed", "Middle", "Lowest")
    for word, (rate, slowdown) in zip(words, rates.items(), strict=True):
        found |= {f"Sensitivity{word}Rate": f"{100 * rate:g}", f"Sensitivity{word}Slowdown": f"{slowdown:.2f}"}
    return found


def headline_numbers(sensitivity: pd.DataFrame) -> Numbers:
    """Return how far median and mean of the KV extension move under other assumptions on memory."""
    return {
        **_ends("AssumedMedian", sensitivity["median_extension"], ".2f"),
        **_ends("AssumedMean", sensitivity["mean_extension"], ".2f"),
    }


def planner_numbers(rates: pd.DataFrame, plans: pd.DataFrame, factor: float) -> Numbers:
    """Return how many measured speeds the planner meets within `factor`, and its cheapest and its dearest plan.

    `rates` and `plans` are rows of table 15; of the plans of a model, that for the longest context counts.
    """
    longest = plans.loc[plans.groupby(["model", "gpu"])["context"].idxmax()]
    ends = {
        "Cheapest": longest.loc[longest["predicted"].idxmin()],
        "Dearest": longest.loc[longest["predicted"].idxmax()],
    }
    named = {
        f"Plan{word}{key}": value
        for word, plan in ends.items()
        for key, value in {
            "Model": plan["model"],
            "Gpu": plan["gpu"],
            "Context": f"{plan['context']:,}",
            "Share": f"{plan['resident_share_pct']:.0f}",
            "Slowdown": f"{plan['predicted']:.3g}",
            "Low": f"{plan['low']:.3g}",
            "High": f"{plan['high']:.3g}",
        }.items()
    }
    best = rates.loc[rates["hit_rate_measured"].idxmax()]
    return named | {
        "EngineBestHit": f"{100 * best['hit_rate_measured']:.0f}",
        "EngineBestShare": f"{best['resident_share_pct']:.0f}",
        "EngineBestModel": best["model"],
        "PlannerSpeeds": f"{len(rates)}",
        "PlannerWithin": f"{int(rates['within_goal'].sum())}",
        "PlannerLeftOutWithin": f"{int(rates['left_out_within_goal'].sum())}",
        "PlannerFactor": f"{factor:g}",
        "PlannerPairs": f"{rates['pairs'].sum() // 2}",
        "PlannerPairsRight": f"{rates['pairs_right'].sum() // 2}",
    }


def use_case_numbers(cases: pd.DataFrame) -> Numbers:
    """Return the first serving scenario of the report: what it prints, and what table 19 finds, with its price."""
    case = cases.iloc[0]
    return {
        "CaseModel": case["model"],
        "CaseGpu": case["gpu"],
        "CasePrinted": f"{case['printed_extension']:g}",
        "CaseFloor": f"{case['kv_extension_factor']:.1f}",
        "CaseSlowdown": f"{case['slowdown']:.1f}",
        "CaseWithinClaim": f"{case['extension_within_claim']:.2f}",
        "CaseNative": f"{case['kv_extension_native']:.2f}",
    }


def printed_numbers(counts: pd.Series, near: float) -> Numbers:
    """Return how many numbers of the reports' tables follow from their constants, and are near the corrected ones.

    `counts` sums table 21 as its figure counts it; `near` is the relative difference that counts as near.
    """
    return {
        "PrintedNumbers": f"{counts['cells']}",
        "PrintedOwn": f"{counts['reproduced']}",
        "PrintedContradict": f"{counts['own'] - counts['reproduced']}",
        "PrintedNear": f"{counts['near']}",
        "PrintedNearPct": f"{100 * near:g}",
        "PrintedNone": f"{counts['cells'] - counts['known']}",
    }


def claim_numbers(ledger: pd.DataFrame, consequential: Sequence[str] = CONSEQUENTIAL) -> Numbers:
    """Return counts of the ledger of claims by verdict, document and basis, and the claims that are named one by one.

    `ledger` has a row per claim with at least the columns id, document, lines, says, unit, claimed, calibrated,
    observed, verdict and rests_on, all text. A named claim that the ledger lacks is left out.
    """
    verdicts = ledger["verdict"].value_counts()
    found = {"ClaimsTotal": f"{len(ledger):,}", "ClaimsDocuments": f"{ledger['document'].nunique()}"}
    found |= {f"Claims{in_letters(name.replace('-', '_'))}": f"{verdicts.get(name, 0):,}" for name in VERDICTS}
    evaluable = ledger[~ledger["verdict"].isin(["definition", "not-evaluable"])]
    right = evaluable["verdict"].isin(["reproduced", "corrected"])
    found |= {"ClaimsJudged": f"{len(evaluable):,}", "ClaimVerdicts": " & ".join(VERDICTS)}
    found |= {"ClaimsHoldPct": f"{100 * right.mean():.0f}" if len(evaluable) else "--"}
    named = ledger.set_index("id").reindex([name for name in consequential if name in set(ledger["id"])])
    rows = [
        [row.says, _with_unit(row.claimed, row.unit), _found(row), row.verdict, _cited(row.lines)]
        for row in named.itertuples()
    ]
    return found | {
        "ClaimDocumentRows": _rows(_counts(ledger.replace({"document": DOCUMENTS}), "document")),
        "ClaimBasisRows": _rows(_counts(ledger, "rests_on")[:-1]),
        "ClaimNamedRows": _rows(
            [escape(cell).replace(">=", r"$\ge$").replace("<=", r"$\le$") for cell in row] for row in rows
        ),
    }


def _counts(ledger: pd.DataFrame, by: str) -> list[list[str]]:
    """One line per value of a column: the value, the counts by verdict and their sum; all of them last."""
    counts = pd.crosstab(ledger[by].replace("", "nothing"), ledger["verdict"])
    counts = counts.reindex(columns=list(VERDICTS), fill_value=0)
    counts.loc["all"] = counts.sum()
    return [[escape(str(name)), *(f"{n:,}" for n in line), f"{sum(line):,}"] for name, *line in counts.itertuples()]


def _with_unit(value: str, unit: str) -> str:
    """A value with its unit, where both are known; a factor is set close to its number, a percentage too."""
    return f"{value}{'' if unit in ('', 'x', '%') else ' '}{unit}" if value else "--"


def _found(row: Any) -> str:
    """What is found for a claim, in three digits: observed where it was, else by the scenario calibrated."""
    value = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.3g}", row.observed or row.calibrated)
    return _with_unit(value, row.unit)


def _cited(lines: str) -> str:
    """The first lines of the reports that state a claim, and how many more do."""
    first, more = lines.split(", ")[:LINES_NAMED], lines.split(", ")[LINES_NAMED:]
    return ", ".join(first) + (f" and {len(more)} more" if more else "")


def made_lines(origins: Mapping[str, tuple[str, Sequence[str], str]]) -> Numbers:
    """Return the line below each figure and table, a macro each: what made it, from which data, by which code.

    `origins` has, by name, the rule or notebook, the paths of the data, and 8 hexadecimal digits of the code.
    """
    return {
        f"Made{in_letters(name)}": rf"Made by {_code(maker)} from {_code(', '.join(data))}, code {_code(version)}."
        for name, (maker, data, version) in origins.items()
    }


def _code(text: str) -> str:
    """Text in the type of paths, which breaks after a slash or an underscore."""
    return rf"\texttt{{{escape(text).replace('/', '/' + BREAK).replace(chr(92) + '_', chr(92) + '_' + BREAK)}}}"


def _rows(lines: Iterable[Sequence[str]]) -> str:
    """Lines of cells as rows of a LaTeX table."""
    return r" \\ ".join([*(" & ".join(line) for line in lines), ""]).rstrip()


def _ends(name: str, values: pd.Series, form: str) -> Numbers:
    """The least and the largest of several values, a macro each."""
    return {f"{name}Least": f"{values.min():{form}}", f"{name}Most": f"{values.max():{form}}"}

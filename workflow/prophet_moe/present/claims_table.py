"""The claims of README and ARTIFACT.md, the reports' and the paper's: what is found, and the output that shows it.

Every number but what only the reports state is read from a table of the default scenario, or of scenario `reported`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from prophet_moe.capacity.record import RECORD
from prophet_moe.present.price import STRATEGIES, summary
from prophet_moe.present.quoted_numbers import prefill_slowdown

LARGEST_BATCH = 64
"""Batch size for which report 004 states its largest savings."""
TABLES_READ = (
    RECORD.name,
    "prefill",
    "table5_routing_exponents",
    "table8_strategies",
    "table9_expert_deduplication",
    "table11_context_gained",
    "table14_observed",
    "table16_where_it_pays",
    "table17_alternatives",
    "table18_several_gpus",
    "table21_report_tables",
)
"""Names of the tables that claims are read from; the record is read in both scenarios."""
MEDIANS = {
    "weights": "weights {:.2g} %",
    "kv_tokens": "tokens of KV cache {:.2g} %",
    "step_time": "time of a decode step {:.2g} %",
    "hit_rate": "hit rates {:.2g} points",
}
"""Quantities of table 14 whose median error is told."""

Tables = Mapping[str, pd.DataFrame]
"""Tables of the default scenario by name, those of scenario `reported` by `reported/<name>`."""


@dataclass(frozen=True)
class Claim:
    """A claim in a few words, with what the reports state, what is found, and where that is read."""

    id: str
    """The id of the ledger, `tables/claims.csv`; C1, C2, ... for claims of the paper, which no report makes."""
    says: str
    found: str
    table: str
    """Path of the table that has the numbers."""
    column: str
    """The column that they are read from."""
    rows: str
    """Which rows count, and what is done with them."""
    study: str
    """Whose command makes the table."""
    reported: str = ""
    lines: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command that makes the table and all that it needs."""
        return f"snakemake --cores 8 {self.table}"


def claims_table(claims: Sequence[Claim], minutes: Mapping[str, float | None]) -> str:
    """Return claims of the reports as the Markdown table of README; `minutes` are those of a cold build by study."""
    rows = [
        ["claim", "reported", "found", "table", "minutes"],
        ["---"] * 5,
        *(
            [
                claim.says,
                f"{claim.reported} ({cited(claim.lines)})",
                claim.found,
                f"[{claim.table.removeprefix('tables/')}]({claim.table})",
                f"{minutes[claim.study]:g}",
            ]
            for claim in claims
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cited(lines: Sequence[str]) -> str:
    """Return links from a page in the project's root to cited lines of the reports."""
    return ", ".join(f"[{line}](docs/reports.md#{line.replace(':', '-')})" for line in lines)


def paper_claims(tables: Tables, claimed_slowdown: float) -> list[Claim]:
    """Return what the paper states, from the most general claim on."""
    record, gained = tables[RECORD.name], summary(tables["table11_context_gained"])["median"]
    extension = _fitting(record)
    at_limit = ", ".join(f"{gained[name, claimed_slowdown]:.2f}x ({label})" for name, label in STRATEGIES.items())
    pays = tables["table16_where_it_pays"]
    pays = pays[(pays["format"] == "shipped") & (pays["link_basis"] == "measured")]
    links = {"PCIe": pays[pays["link"].str.startswith("PCIe")], "NVLink-C2C": pays[pays["link"] == "NVLink-C2C"]}
    needed = [
        f"{_range(100 * rows.groupby('gpu')['hit_rate_needed'].median(), '.1f')} % over {link}"
        for link, rows in links.items()
        if len(rows)
    ]
    strategies = _of(_recorded(tables, "deduplicated"), "prophet", "hit_rate")
    ways = tables["table17_alternatives"]
    ways = ways[ways["batch_size"] == 1].groupby(["approach", "format"])["slowdown"].median()
    several = tables["table18_several_gpus"]
    saved = several[several["gpus_saved"].fillna(0) > 0]
    useful = (several["gpus_within_limit"] < several["baseline_gpus"]).fillna(False)
    within = f"within {several['slowdown_limit'].max():g}x in {useful.sum()} rows"
    streamed = prefill_slowdown(tables["prefill"])
    known = tables["table21_report_tables"]["reproduced"].dropna()
    return [
        Claim(
            "C1",
            "Predictions are near what others measured",
            f"median errors: {_medians(tables['table14_observed'])}",
            "tables/table14_observed.csv",
            "median_error",
            "rows without engine and GPU, by `quantity`",
            "observed",
        ),
        Claim(
            "C2",
            "By memory alone, most contexts grow little",
            f"{extension.median():.2f}x in the median of {len(extension)} configurations whose baseline fits",
            f"tables/data/{RECORD.name}.csv",
            "kv_extension_factor",
            "rows with `baseline_fits`; the median",
            "kv_extension",
        ),
        Claim(
            "C3",
            f"Within {claimed_slowdown:g} times the time of a step, less of it is left, and a prediction adds little",
            f"{at_limit} in the median",
            "tables/table11_context_gained.csv",
            f"kv_extension_at_{claimed_slowdown:g}x",
            "by `strategy`; the median of the cells that are not empty",
            "frontier",
        ),
        Claim(
            "C4",
            f"To stay within {claimed_slowdown:g} times the time, a usual link needs nearly every expert in GPU memory",
            f"hit rate that the median model needs: {', '.join(needed)}",
            "tables/table16_where_it_pays.csv",
            "hit_rate_needed",
            "`format` shipped, `link_basis` measured; medians by `gpu`, least and largest by `link`",
            "where_it_pays",
        ),
        Claim(
            "C5",
            "A predictor on recorded routing does not reach such a hit rate",
            f"{_range(100 * strategies, '.0f')} %, half of the experts resident, by trace",
            "tables/table8_strategies.csv",
            "hit_rate",
            "`strategy` prophet, `mode` deduplicated, `routing` recorded, `batch` all",
            "comparison",
        ),
        Claim(
            "C6",
            "Weights of fewer bits cost less time than copied experts",
            f"median slowdown at batch 1: {ways['all_resident', 'mxfp4']:.2f}x with every expert in 4 bits, "
            f"{ways['prophet', 'bf16']:.1f}x with Prophet in 16",
            "tables/table17_alternatives.csv",
            "slowdown",
            "`batch_size` 1, `approach` all_resident with `format` mxfp4, prophet with bf16; the medians",
            "alternatives",
        ),
        Claim(
            "C7",
            "Expert slots save GPUs, at a price in time",
            f"fewer GPUs in {len(saved)} of {len(several)} rows, at a median slowdown of "
            f"{saved['slowdown_on_demand'].median():.0f}x; {within}",
            "tables/table18_several_gpus.csv",
            "gpus_saved",
            "above 0, with `slowdown_on_demand`; then `gpus_within_limit` below `baseline_gpus`",
            "several_gpus",
        ),
        Claim(
            "C8",
            "A prompt streams nearly every expert",
            f"{streamed.median():.1f}x the time of all resident, median of {len(streamed)} configurations",
            "tables/data/prefill.csv",
            "slowdown",
            "`limit` prophet_native, of configurations that have a row with `limit` baseline; the median",
            "prefill",
        ),
        Claim(
            "C9",
            "The reports contradict their own constants",
            f"their own constants give {known.sum()} of {len(known)} numbers of their tables",
            "tables/table21_report_tables.csv",
            "reproduced",
            "cells that are True, of those not empty",
            "report_tables",
        ),
    ]


def reported_claims(tables: Tables, claimed_slowdown: float) -> list[Claim]:
    """Return main claims of the reports, with what they state."""
    reported, found = tables[f"reported/{RECORD.name}"], tables[RECORD.name]
    gained = summary(tables["table11_context_gained"])["median"]["prophet", claimed_slowdown]
    exponents = tables["table5_routing_exponents"]
    described, alike = (_recorded(tables, mode) for mode in ("as_described", "deduplicated"))
    savings = tables["table9_expert_deduplication"]
    savings = savings[savings["batch"] == LARGEST_BATCH]
    return [
        Claim(
            "head.kv.overall-average",
            "The context grows, if every expert is there in time",
            f"median where the baseline fits {_fitting(found).median():.2f}x; counted as the report does "
            f"{_zero_filled(found):.2f}x (*)",
            f"tables/data/{RECORD.name}.csv",
            "kv_extension_factor",
            "rows with `baseline_fits`, the median; then the mean of all rows, the others 0",
            "kv_extension",
            f"mean {_zero_filled(reported):.2f}x, 0 where the baseline does not fit",
            ("000:24",),
        ),
        Claim(
            "compare.prophet.latency",
            f"It costs {claimed_slowdown:g} times the time",
            f"within {claimed_slowdown:g}x the time the median context grows to {gained:.2f}x",
            "tables/table11_context_gained.csv",
            f"kv_extension_at_{claimed_slowdown:g}x",
            "`strategy` prophet; the median of the cells that are not empty",
            "frontier",
            f"{claimed_slowdown:g}x",
            ("000:778",),
        ),
        Claim(
            "prophet.hit-rate",
            "The needed experts are in GPU memory",
            f"{_range(100 * _of(alike, 'prophet', 'hit_rate'), '.0f')} %, half of them resident, all batch sizes",
            "tables/table8_strategies.csv",
            "hit_rate",
            "`strategy` prophet, `mode` deduplicated, `routing` recorded, `batch` all",
            "comparison",
            "99.4 % of requests",
            ("000:63-69",),
        ),
        Claim(
            "prophet.alpha",
            "Distinct experts grow with a power of the batch size",
            f"{_range(exponents.loc[exponents['basis'] == 'measured', 'exponent'], '.2f')} on four traces",
            "tables/table5_routing_exponents.csv",
            "exponent",
            "`basis` measured",
            "routing_law",
            f"exponent {exponents['reported_exponent'].mode()[0]:g}",
            ("000:862",),
        ),
        Claim(
            "c4.intelligent-dedup.speedup",
            "Intelligent caching with deduplication is faster than loading on demand",
            f"{_range(_of(described, 'intelligent', 'speedup'), '.2f')}x; if both deduplicate, "
            f"{_range(_of(alike, 'intelligent', 'speedup'), '.2f')}x",
            "tables/table8_strategies.csv",
            "speedup",
            "`strategy` intelligent, `routing` recorded, `batch` all; `mode` as_described, then deduplicated",
            "comparison",
            f"{_of(described, 'intelligent', 'claimed_speedup').iloc[0]:.2f}x",
            ("004:30-35",),
        ),
        Claim(
            "c4.dedup.b64.memory-savings",
            f"Deduplication saves requests, {LARGEST_BATCH} sequences",
            f"{_range(100 * savings['request_dedup'], '.0f')} %",
            "tables/table9_expert_deduplication.csv",
            "request_dedup",
            f"`batch` {LARGEST_BATCH}",
            "comparison",
            f"{100 * savings['claimed_saving'].iloc[0]:.1f} %, elsewhere "
            f"{100 * savings['claimed_saving_in_scaling'].iloc[0]:.1f} %",
            ("004:49-55", "004:69-75"),
        ),
    ]


def _zero_filled(record: pd.DataFrame) -> float:
    """Mean KV extension over all rows of a record, 0 where the baseline does not fit."""
    return record["kv_extension_factor"].where(record["baseline_fits"]).astype(float).fillna(0).mean()


def _fitting(record: pd.DataFrame) -> pd.Series:
    """KV extension of the rows of a record whose baseline fits."""
    return record.loc[record["baseline_fits"], "kv_extension_factor"].astype(float)


def _recorded(tables: Tables, mode: str) -> pd.DataFrame:
    """Rows of table 8 over all batch sizes of recorded routing, in one mode."""
    strategies = tables["table8_strategies"]
    return strategies[
        (strategies["routing"] == "recorded") & (strategies["batch"] == "all") & (strategies["mode"] == mode)
    ]


def _of(rows: pd.DataFrame, strategy: str, column: str) -> pd.Series:
    """A column of the rows of one strategy."""
    return rows.loc[rows["strategy"] == strategy, column]


def _medians(errors: pd.DataFrame) -> str:
    """Median errors over all engines and GPUs in words."""
    every = errors[(errors["engine"] == "") & (errors["gpu"] == "")].set_index("quantity")["median_error"]
    return ", ".join(text.format(every[quantity]) for quantity, text in MEDIANS.items() if quantity in every.index)


def _range(values: pd.Series, form: str) -> str:
    """The least and the largest of several values in words, or the one value that they share."""
    low, high = f"{values.min():{form}}", f"{values.max():{form}}"
    return low if low == high else f"{low} to {high}"

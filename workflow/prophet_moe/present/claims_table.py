"""The table of claims in README: what the reports state, what is found, and the output that shows it."""

from collections.abc import Mapping

import pandas as pd

from prophet_moe.present.price import summary

LARGEST_BATCH = 64
"""Batch size for which report 004 states its largest savings."""

Tables = Mapping[str, pd.DataFrame]


def claims_table(tables: Tables, claimed_slowdown: float, minutes: Mapping[str, float | None]) -> str:
    """Return the claims as a Markdown table; every number but the quoted hit rate is read from a table.

    `tables` are tables of the default scenario by name, and those of scenario `reported` by `reported/<name>`.
    `minutes` are those of a cold build by study.
    """
    rows = [
        ["claim", "reported", "found", "command", "minutes"],
        ["---"] * 5,
        *(
            [claim, f"{claimed} ({_lines(*lines)})", found, f"`snakemake --cores 8 {output}`", f"{minutes[study]:g}"]
            for claim, claimed, lines, found, output, study in _claims(tables, claimed_slowdown)
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _claims(tables: Tables, claimed_slowdown: float) -> list[tuple[str, str, tuple[str, ...], str, str, str]]:
    """Return claim, stated value, lines of the reports, value found, output and study of every row."""
    extension = "prophet_kv_extension_data"
    reported, found = tables[f"reported/{extension}"], tables[extension]
    gained = summary(tables["table11_context_gained"])["median"]["prophet", claimed_slowdown]
    exponents = tables["table5_routing_exponents"]
    strategies = tables["table8_strategies"]
    recorded = strategies[(strategies["routing"] == "recorded") & (strategies["batch"] == "all")]
    described, alike = (recorded[recorded["mode"] == mode] for mode in ("as_described", "deduplicated"))
    savings = tables["table9_expert_deduplication"]
    savings = savings[savings["batch"] == LARGEST_BATCH]
    return [
        (
            "The context grows, if every expert is there in time",
            f"mean {_zero_filled(reported):.2f}x, 0 where the baseline does not fit",
            ("000:24",),
            f"median where the baseline fits {_fitting(found).median():.2f}x; counted as the report does "
            f"{_zero_filled(found):.2f}x (*)",
            "tables/table2_average_extension.csv",
            "kv_extension",
        ),
        (
            f"It costs {claimed_slowdown:g} times the time",
            f"{claimed_slowdown:g}x",
            ("000:778",),
            f"within {claimed_slowdown:g}x the time the median context grows to {gained:.2f}x",
            "figures/frontier.pdf",
            "frontier",
        ),
        (
            "The needed experts are in GPU memory",
            "99.4 % of requests",
            ("000:63-69",),
            f"{_range(100 * _of(alike, 'prophet', 'hit_rate'), '.0f')} %, half of them resident, all batch sizes",
            "tables/table8_strategies.csv",
            "comparison",
        ),
        (
            "Distinct experts grow with a power of the batch size",
            f"exponent {exponents['reported_exponent'].mode()[0]:g}",
            ("000:862",),
            f"{_range(exponents.loc[exponents['basis'] == 'measured', 'exponent'], '.2f')} on four traces",
            "figures/routing_law.pdf",
            "routing_law",
        ),
        (
            "Intelligent caching with deduplication is faster than loading on demand",
            f"{_of(described, 'intelligent', 'claimed_speedup').iloc[0]:.2f}x",
            ("004:30-35",),
            f"{_range(_of(described, 'intelligent', 'speedup'), '.2f')}x; if both deduplicate, "
            f"{_range(_of(alike, 'intelligent', 'speedup'), '.2f')}x",
            "figures/comparative_evaluation.pdf",
            "comparison",
        ),
        (
            f"Deduplication saves requests, {LARGEST_BATCH} sequences",
            f"{100 * savings['claimed_saving'].iloc[0]:.1f} %, elsewhere "
            f"{100 * savings['claimed_saving_in_scaling'].iloc[0]:.1f} %",
            ("004:49-55", "004:69-75"),
            f"{_range(100 * savings['request_dedup'], '.0f')} %",
            "figures/expert_deduplication.pdf",
            "comparison",
        ),
    ]


def _zero_filled(record: pd.DataFrame) -> float:
    """Mean KV extension over all rows of a record, 0 where the baseline does not fit."""
    return record["kv_extension_factor"].where(record["baseline_fits"]).astype(float).fillna(0).mean()


def _fitting(record: pd.DataFrame) -> pd.Series:
    """KV extension of the rows of a record whose baseline fits."""
    return record.loc[record["baseline_fits"], "kv_extension_factor"].astype(float)


def _of(rows: pd.DataFrame, strategy: str, column: str) -> pd.Series:
    """A column of the rows of one strategy."""
    return rows.loc[rows["strategy"] == strategy, column]


def _range(values: pd.Series, form: str) -> str:
    """The least and the largest of several values in words."""
    return f"{values.min():{form}} to {values.max():{form}}"


def _lines(*cited: str) -> str:
    """Links to the cited lines of the reports."""
    return ", ".join(f"[{lines}](docs/reports.md#{lines.replace(':', '-')})" for lines in cited)

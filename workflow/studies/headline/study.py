"""The declaration of the study of the headline result under other assumptions."""

from typing import Annotated

from pydantic import Field

from prophet_moe.settings.fields import LARGEST_CONTEXT, LARGEST_MIB, Share, StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table, flag, integer, number, text


class HeadlineSettings(StudySettings):
    """Other assumptions under which the headline result is computed again, one changed at a time."""

    runtime_reserve_mib: list[Annotated[float, Field(ge=0, le=LARGEST_MIB)]] = [0, 1024, 2048, 3072]
    """Values of the memory for the CUDA context and allocator slack, MiB."""
    usable_memory_share: list[Share] = [0.9, 1.0]
    """Values of the share of the device memory that an engine may use."""
    prefill_chunk_tokens: list[Annotated[int, Field(gt=0, le=LARGEST_CONTEXT)]] = [512, 2048, 8192]
    """Values of the tokens of one prefill chunk."""


SUMMARY = (
    integer("fitting_rows", "rows", "Rows of the record whose baseline fits."),
    integer("prophet_only_rows", "rows", "Rows of the record that only Prophet fits."),
    number("median_extension", "", "Median over the fitting rows of the KV extension by memory alone."),
    number("geomean_extension", "", "Geometric mean over the fitting rows of the KV extension by memory alone."),
    number("mean_extension", "", "Mean over the fitting rows of the KV extension by memory alone."),
    number("max_extension", "", "Largest KV extension by memory alone of the fitting rows."),
    number(
        "kv_bytes_ratio",
        "",
        "Sum of the KV bytes that Prophet leaves room for over the sum of those of the baseline, over the "
        "fitting rows.",
    ),
)
"""The headline in one line, as `capacity.summary` makes it."""
RULES = Table(
    "resident_rules",
    (
        text("resident", "Rule for the resident experts: mean, quantile 0.99 or never_overflows (docs/model.md)."),
        *SUMMARY,
        number(
            "mean_overflow_share",
            "",
            "Share of layer-steps that need more experts than are resident, by the law, mean over the fitting rows.",
        ),
        number("max_overflow_share", "", "The largest such share of the fitting rows."),
    ),
)
SENSITIVITY = Table(
    "headline_sensitivity",
    (
        text("assumption", "Key of the scenario that is changed, all others as given."),
        number("value", "", "What that key is changed to, in the unit of the key."),
        flag("as_given", "Whether the scenario has that value itself."),
        *SUMMARY,
    ),
)

STUDY = Study(
    id="headline",
    question="How does the headline result change with the rule for resident experts and with other assumptions?",
    settings=HeadlineSettings,
    tables=(RULES, SENSITIVITY),
    minutes=0.7,
)

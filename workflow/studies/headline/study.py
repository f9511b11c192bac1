"""The declaration of the study of the headline result under other assumptions."""

from typing import Annotated

from pydantic import Field

from prophet_moe.settings.fields import LARGEST_CONTEXT, LARGEST_MIB, Share, StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table


class HeadlineSettings(StudySettings):
    """Other assumptions under which the headline result is computed again, one changed at a time."""

    runtime_reserve_mib: list[Annotated[float, Field(ge=0, le=LARGEST_MIB)]] = [0, 1024, 2048, 3072]
    """Values of the memory for the CUDA context and allocator slack, MiB."""
    usable_memory_share: list[Share] = [0.9, 1.0]
    """Values of the share of the device memory that an engine may use."""
    prefill_chunk_tokens: list[Annotated[int, Field(gt=0, le=LARGEST_CONTEXT)]] = [512, 2048, 8192]
    """Values of the tokens of one prefill chunk."""


RULES = Table("resident_rules", ())
SENSITIVITY = Table("headline_sensitivity", ())

STUDY = Study(
    id="headline",
    question="How does the headline result change with the rule for resident experts and with other assumptions?",
    settings=HeadlineSettings,
    tables=(RULES, SENSITIVITY),
)

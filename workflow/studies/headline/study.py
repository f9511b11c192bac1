"""What the study of the headline under other assumptions declares of itself."""

from typing import Annotated

from pydantic import Field

from prophet_moe.settings.fields import LARGEST_CONTEXT, LARGEST_MIB, Share, StudySettings
from prophet_moe.study import Study
from prophet_moe.tables import Table


class HeadlineSettings(StudySettings):
    """Assumptions of the default scenario under which the headline is computed again, one changed at a time."""

    runtime_reserve_mib: list[Annotated[float, Field(ge=0, le=LARGEST_MIB)]] = [0, 1024, 2048, 3072]
    """MiB of CUDA context and allocator slack."""
    usable_memory_share: list[Share] = [0.9, 1.0]
    """Of the device memory."""
    prefill_chunk_tokens: list[Annotated[int, Field(gt=0, le=LARGEST_CONTEXT)]] = [512, 2048, 8192]
    """Tokens of one prefill chunk."""


RULES = Table("resident_rules", ())
SENSITIVITY = Table("headline_sensitivity", ())

STUDY = Study(
    id="headline",
    question="What becomes of the headline under other rules for the resident experts and other assumptions?",
    settings=HeadlineSettings,
    tables=(RULES, SENSITIVITY),
    minutes=0.7,
)

"""Kinds of values that several settings share, with their bounds."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prophet_moe.validation import StrictModel

LARGEST_BATCH = 10**6
"""Sequences decoded together; more are a slip. The largest batches reported for one GPU are a few thousand."""

Names = Annotated[list[str], Field(min_length=1)]
Batch = Annotated[int, Field(gt=0, le=LARGEST_BATCH)]
Batches = Annotated[list[Batch], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]
SequenceOrder = Literal["mixed", "one_tenant_at_a_time"]


class StudySettings(StrictModel):
    """The settings of one study: its section under `studies` in config/experiment.yaml."""

    named_models: ClassVar[tuple[str, ...]] = ()
    """Keys whose lists hold names of models."""

"""Kinds of values that several settings share, with their bounds."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prophet_moe.validation import StrictModel, inconsistent

LARGEST_BATCH = 10**6
"""Sequences decoded together; more are a slip. The largest batches reported for one GPU are a few thousand."""
LARGEST_CONTEXT = 10**9
"""Tokens of a sequence; more are a slip. The longest native contexts are of 10^7."""
LARGEST_MIB = 2**20
"""MiB that a GPU keeps for anything: a TiB, more than any has."""
LARGEST_LAYERS = 1000
"""Layers of a model; the deepest have about a hundred."""
LARGEST_WIDTH = 2**16
"""Hidden units of one layer."""
LARGEST_SPEED = 100_000
"""GB/s; the fastest memories and links reach some thousands."""
LARGEST_RATIO = 1000
"""How many times faster or slower something may be told to be."""
MOST_SAMPLES = 1000
"""Samples whose spread gives an interval: it shrinks with their root, time grows with their number."""
MOST_SEQUENCES = 10_000
"""Sequences of a sample that is replayed; recorded traces hold some hundreds."""
MOST_TOKENS = 10_000
"""Decoded tokens of a sequence that is replayed; recorded traces hold some hundreds."""
MOST_REPLAYED = 10**6
"""Decoded tokens of all sequences of a sample: minutes of a replay, and 100 MB of routing."""
LARGEST_POINTS = 100
"""Points of text and of lines in a figure; 72 are an inch."""
LARGEST_INCHES = 20
"""Inches of a side of a figure, those of a poster's column."""
LARGEST_DPI = 1200
"""Dots per inch, those of a print shop: a figure of the largest sides is one of 2.3 GB then."""

Names = Annotated[list[str], Field(min_length=1)]
Batch = Annotated[int, Field(gt=0, le=LARGEST_BATCH)]
Batches = Annotated[list[Batch], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]
SequenceOrder = Literal["mixed", "one_tenant_at_a_time"]


class StudySettings(StrictModel):
    """The settings of one study: its section under `studies` in config/experiment.yaml."""

    named_models: ClassVar[tuple[str, ...]] = ()
    """Keys whose lists hold names of models."""


def bounded_replay(sequences: int, tokens: int, *others: tuple[str]) -> None:
    """Refuse a sample of more than MOST_REPLAYED tokens; `others` are keys to blame beside sequences and tokens."""
    if sequences * tokens > MOST_REPLAYED:
        problem = f"got {sequences:,} sequences of {tokens:,} tokens, expected at most {MOST_REPLAYED:,} tokens"
        raise inconsistent(("sequences",), problem, [("tokens",), *others])

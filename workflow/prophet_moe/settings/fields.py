"""Kinds of values that several settings share, with their bounds."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prophet_moe.precision import WeightFormat
from prophet_moe.validation import StrictModel, inconsistent

LARGEST_BATCH = 10**6
"""Upper limit of a batch size, to catch typing errors. The largest batches reported for one GPU are a few thousand."""
LARGEST_CONTEXT = 10**9
"""Upper limit of the tokens of a sequence, to catch typing errors. The longest native contexts are about 10^7."""
LARGEST_MIB = 2**20
"""Upper limit of a size in MiB. It is 1 TiB, more than the memory of any GPU."""
LARGEST_LAYERS = 1000
"""Upper limit of the layers of a model. The deepest models have about a hundred."""
LARGEST_WIDTH = 2**16
"""Upper limit of the hidden units of one layer."""
LARGEST_SPEED = 100_000
"""Upper limit of a bandwidth in GB/s. The fastest memories and links reach some thousands."""
LARGEST_RATIO = 1000
"""Upper limit of a ratio, such as a slowdown or a link speedup."""
MOST_SAMPLES = 1000
"""Upper limit of the samples. An interval shrinks with the square root of their number, and time grows with it."""
MOST_SEQUENCES = 10_000
"""Upper limit of the sequences of a simulated sample. Recorded traces hold some hundreds."""
MOST_TOKENS = 10_000
"""Upper limit of the decoded tokens of a simulated sequence. Recorded traces hold some hundreds."""
MOST_REPLAYED = 10**6
"""Upper limit of the decoded tokens of one sample. Its simulation takes minutes and holds 100 MB of routing."""
LARGEST_SEED = 2**31 - 1
"""Largest seed of a random generator, that of 31 bits."""
LARGEST_SECONDS = 86_400
"""Upper limit of a time in seconds: a day."""
LARGEST_POINTS = 100
"""Upper limit of the size of text and the width of lines, in points. One inch has 72 points."""
LARGEST_INCHES = 20
"""Upper limit of the width and height of a figure in inches, about one column of a poster."""
LARGEST_DPI = 1200
"""Upper limit of the resolution in dots per inch, as print shops use. The largest figure then takes 2.3 GB."""

Names = Annotated[list[str], Field(min_length=1)]
Batch = Annotated[int, Field(gt=0, le=LARGEST_BATCH)]
Batches = Annotated[list[Batch], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, le=1)]
SequenceOrder = Literal["mixed", "one_tenant_at_a_time"]


class WeightFormats(StrictModel):
    """Formats of weights by component; docs/precision.md lists them. Norms, routers and biases stay at 16 bits."""

    default: WeightFormat = "bf16"
    """Format of the matrices of every component without one of its own."""
    routed_experts: WeightFormat | None = None
    """Format of routed experts."""
    shared_experts: WeightFormat | None = None
    """Format of shared experts."""
    dense_ffn: WeightFormat | None = None
    """Format of dense FFNs, of whole layers and beside experts."""
    attention: WeightFormat | None = None
    """Format of the projections of attention."""
    attention_output: WeightFormat | None = None
    """Format of the output projections of attention, where it is not that of the others."""
    indexer: WeightFormat | None = None
    """Format of the index branch of sparse attention."""
    state_mixer: WeightFormat | None = None
    """Format of the projections of linear attention, Mamba and short convolutions."""
    latent_projections: WeightFormat | None = None
    """Format of the projections into and out of the width that experts act on."""
    embeddings: WeightFormat | None = None
    """Format of the embeddings."""
    output_embedding: WeightFormat | None = None
    """Format of the output embedding, where it is not that of the input embedding. Tied embeddings have one."""

    def components(self) -> dict[str, WeightFormat]:
        """Return the formats of the components that have one of their own."""
        return self.model_dump(exclude={"default"}, exclude_none=True)


class StudySettings(StrictModel):
    """The settings of one study: its section under `studies` in config/experiment.yaml."""

    named_models: ClassVar[tuple[str, ...]] = ()
    """Keys of the settings whose values are lists of model names."""
    named_gpus: ClassVar[tuple[str, ...]] = ()
    """Keys of the settings whose values are lists of GPU names."""


def bounded_replay(sequences: int, tokens: int, *others: tuple[str]) -> None:
    """Refuse a sample of more than MOST_REPLAYED tokens; `others` are further keys that the error names."""
    if sequences * tokens > MOST_REPLAYED:
        problem = f"got {sequences:,} sequences of {tokens:,} tokens, expected at most {MOST_REPLAYED:,} tokens"
        raise inconsistent(("sequences",), problem, [("tokens",), *others])

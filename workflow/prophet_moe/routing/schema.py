"""The rows in which statistics of routing traces are kept."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One statistic of a trace, over all layers or of one layer."""

    trace: str
    statistic: str
    layer: int | None
    """Number of the layer in the model; None: the mean over MoE layers."""
    x: float | None
    """Batch size, or capacity as a share of the experts, where the statistic has one."""
    value: float
    low: float | None = None
    """95 % interval over sequences (bootstrap), where there is one."""
    high: float | None = None
    control: float | None = None
    """The value on the shuffled trace: each layer's choices permuted over all tokens."""
    uniform: float | None = None
    """What independent uniform choices would give."""

"""The rows in which scores of predictors are kept."""

from dataclasses import dataclass

DOMAIN = "domain:"
"""Prefix of `PredictorScore.tokens` where a score is over the held-out tokens of one domain alone."""


@dataclass(frozen=True)
class PredictorScore:
    """One score of a predictor on a trace, over all layers or of one layer."""

    trace: str
    predictor: str
    tokens: str
    """held_out: all held-out decoded tokens; domain:<label>: those of one domain; router_inputs: those whose router
    inputs were recorded."""
    lookahead: int
    layer: int | None
    """Number of the layer in the model; None: the mean over the layers that this lookahead reaches."""
    statistic: str
    """recall, recall_gain, calibration_error, reliability or reliability_share."""
    x: float | None
    """Rank K of a recall, mean predicted probability of a reliability bin."""
    value: float
    low: float | None = None
    """95 % interval over sequences (bootstrap)."""
    high: float | None = None
    against: str = ""
    """The predictor that a gain is over; empty for other statistics."""

"""The declaration of the study that compares strategies."""

from typing import Annotated

from pydantic import Field, model_validator

from prophet_moe.settings.fields import (
    LARGEST_RATIO,
    MOST_SAMPLES,
    MOST_SEQUENCES,
    MOST_TOKENS,
    Batches,
    SequenceOrder,
    Share,
    StudySettings,
    bounded_replay,
)
from prophet_moe.study import Figure, Study
from prophet_moe.tables import Table
from prophet_moe.validation import StrictModel, inconsistent


class ReportedComparison(StrictModel):
    """The results of the comparison in report 004, which tables and figures show next to the simulated ones."""

    step_ms: dict[str, float] = {
        "on_demand": 77882,
        "pre_gated": 77833,
        "expertflow": 81483,
        "top_k": 78889,
        "multi_look_ahead": 80454,
        "intelligent": 61542,
    }
    """Mean latency by strategy, ms (004:36-41)."""
    speedups: dict[str, float] = {
        "on_demand": 1.00,
        "pre_gated": 1.00,
        "expertflow": 0.96,
        "top_k": 0.99,
        "multi_look_ahead": 0.97,
        "intelligent": 1.29,
    }
    """Performance relative to the baseline by strategy (004:36-41)."""
    improvements: dict[int, float] = {1: 1.08, 2: 1.11, 4: 1.07, 8: 1.05, 16: 1.09, 32: 1.21, 64: 1.50}
    """Speedup of the best of the report's own strategies over the mean of the papers' strategies, by batch size
    (004:72-78)."""
    papers_ms: dict[int, float] = {1: 5213, 2: 9681, 4: 18341, 8: 35791, 16: 70312, 32: 139699, 64: 278568}
    """Mean latency of the papers' strategies, ms, by batch size (004:72-78)."""
    best_ms: dict[int, float] = {1: 4840, 2: 8715, 4: 17139, 8: 33971, 16: 64663, 32: 115460, 64: 186006}
    """Mean latency of the best of the report's own strategies, ms, by batch size (004:72-78)."""
    savings: dict[int, float] = {1: 0.0, 2: 0.057, 4: 0.171, 8: 0.244, 16: 0.348, 32: 0.491, 64: 0.649}
    """Share of memory and bandwidth saved by deduplication, by batch size (004:56-62)."""
    scaling_savings: dict[int, float] = {1: 0.0, 2: 0.009, 4: 0.023, 8: 0.052, 16: 0.11, 32: 0.208, 64: 0.365}
    """Deduplication by batch size in another table of the report (004:72-78)."""
    reuse: dict[int, float] = {1: 0.0, 2: 0.281, 4: 0.438, 8: 0.508, 16: 0.637, 32: 0.768, 64: 0.876}
    """Expert reuse factor by batch size (004:56-62)."""


class ComparisonSettings(StudySettings):
    """The comparison of strategies on routing traces."""

    batch_sizes: Batches = [1, 2, 4, 8, 16, 32, 64]
    """Batch sizes: numbers of sequences that decode together (004:70)."""
    seeds: int = Field(default=5, gt=0, le=MOST_SAMPLES)
    """Number of samples of sequences. With the report's six strategies and seven batch sizes, 5 samples give its 210
    runs (004:8)."""
    sequences: int = Field(default=64, gt=0, le=MOST_SEQUENCES)
    """Sequences of one sample, at least the largest batch size."""
    tokens: int = Field(default=32, gt=0, le=MOST_TOKENS)
    """Decoded tokens of each sequence."""
    sequence_order: SequenceOrder = "mixed"
    """Order in which sequences are batched. `mixed` permutes them by the sample's seed, so that a batch has several
    tenants, as the capacity model assumes. `one_tenant_at_a_time` keeps the recorded order, domain by domain."""
    dedup_samples: int = Field(default=80, gt=0, le=MOST_SAMPLES)
    """Number of batches of each size whose deduplication is counted. With seven sizes, 80 give the report's 560 runs
    (004:8)."""
    capacity_share: Share = 0.5
    """Share of each layer's experts that the GPU has slots for."""
    capacity_shares: list[Share] = Field(default=[0.125, 0.25, 0.5, 0.75, 0.875, 1.0], min_length=1)
    """Shares of each layer's experts in the capacity sweep."""
    link_speedups: list[Annotated[float, Field(gt=0, le=LARGEST_RATIO)]] = Field(default=[1, 4, 16, 64], min_length=1)
    """Speedups of the host link in the link sweep, over the GPU's own link. The capacity is `capacity_share`."""
    sweep_batch_sizes: Batches = [1, 8, 32]
    """Batch sizes of both sweeps and of the detail by layer."""
    sweep_seeds: int = Field(default=5, gt=1, le=MOST_SAMPLES)
    """Number of samples of sequences in both sweeps."""
    reported: ReportedComparison = ReportedComparison()
    """The report's results, which tables and figures show next to the simulated ones."""

    @model_validator(mode="after")
    def _batches_fit(self) -> "ComparisonSettings":
        largest = max(self.batch_sizes + self.sweep_batch_sizes)
        if largest > self.sequences:
            raise inconsistent(
                ("sequences",),
                f"got {self.sequences}, expected at least the largest batch, {largest}",
                [("batch_sizes",), ("sweep_batch_sizes",)],
            )
        bounded_replay(self.sequences, self.tokens)
        return self


RESULTS = Table("comparative_results", ())
LAYERS = Table("comparative_layers", ())
SWEEPS = Table("strategy_sweeps", ())
DEDUPLICATION = Table("expert_deduplication_results", ())
STRATEGIES = Table("table8_strategies", ())
SAVINGS = Table("table9_expert_deduplication", ())
SCALING = Table("table10_batch_scaling", ())

EVALUATION_FIGURE = Figure("comparative_evaluation", 7.0, 4.0)
DEDUPLICATION_FIGURE = Figure("expert_deduplication", 7.0, 2.6)
LAYER_FIGURE = Figure("layer_detail", 7.0, 2.8)
SWEEP_FIGURE = Figure("strategy_sweeps", 7.0, 4.2)

STUDY = Study(
    id="comparison",
    question="Which strategy of serving experts from a cache is the fastest on recorded routing?",
    settings=ComparisonSettings,
    tables=(RESULTS, LAYERS, SWEEPS, DEDUPLICATION, STRATEGIES, SAVINGS, SCALING),
    figures=(EVALUATION_FIGURE, DEDUPLICATION_FIGURE, LAYER_FIGURE, SWEEP_FIGURE),
    reports=("004:36-41", "004:56-62", "004:72-78"),
)

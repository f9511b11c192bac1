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
from prophet_moe.tables import TRACE, Column, Table, flag, integer, interval, number, text
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
    """Mean latency by strategy, ms (004:30-35)."""
    speedups: dict[str, float] = {
        "on_demand": 1.00,
        "pre_gated": 1.00,
        "expertflow": 0.96,
        "top_k": 0.99,
        "multi_look_ahead": 0.97,
        "intelligent": 1.29,
    }
    """Performance relative to the baseline by strategy (004:30-35)."""
    improvements: dict[int, float] = {1: 1.08, 2: 1.11, 4: 1.07, 8: 1.05, 16: 1.09, 32: 1.21, 64: 1.50}
    """Speedup of the best of the report's own strategies over the mean of the papers' strategies, by batch size
    (004:69-75)."""
    papers_ms: dict[int, float] = {1: 5213, 2: 9681, 4: 18341, 8: 35791, 16: 70312, 32: 139699, 64: 278568}
    """Mean latency of the papers' strategies, ms, by batch size (004:69-75)."""
    best_ms: dict[int, float] = {1: 4840, 2: 8715, 4: 17139, 8: 33971, 16: 64663, 32: 115460, 64: 186006}
    """Mean latency of the best of the report's own strategies, ms, by batch size (004:69-75)."""
    savings: dict[int, float] = {1: 0.0, 2: 0.057, 4: 0.171, 8: 0.244, 16: 0.348, 32: 0.491, 64: 0.649}
    """Share of memory and bandwidth saved by deduplication, by batch size (004:49-55)."""
    scaling_savings: dict[int, float] = {1: 0.0, 2: 0.009, 4: 0.023, 8: 0.052, 16: 0.11, 32: 0.208, 64: 0.365}
    """Deduplication by batch size in another table of the report (004:69-75)."""
    reuse: dict[int, float] = {1: 0.0, 2: 0.281, 4: 0.438, 8: 0.508, 16: 0.637, 32: 0.768, 64: 0.876}
    """Expert reuse factor by batch size (004:49-55)."""


class ComparisonSettings(StudySettings):
    """The comparison of strategies on routing traces."""

    batch_sizes: Batches = [1, 2, 4, 8, 16, 32, 64]
    """Batch sizes: numbers of sequences that decode together (004:67-75)."""
    seeds: int = Field(default=5, gt=0, le=MOST_SAMPLES)
    """Number of samples of sequences. With the report's six strategies and seven batch sizes, 5 samples give its 210
    runs (004:7)."""
    sequences: int = Field(default=64, gt=0, le=MOST_SEQUENCES)
    """Sequences of one sample, at least the largest batch size."""
    tokens: int = Field(default=32, gt=0, le=MOST_TOKENS)
    """Decoded tokens of each sequence."""
    sequence_order: SequenceOrder = "mixed"
    """Order in which sequences are batched. `mixed` permutes them by the sample's seed, so that a batch has several
    tenants, as the capacity model assumes. `one_tenant_at_a_time` keeps the recorded order, domain by domain."""
    dedup_samples: int = Field(default=80, gt=0, le=MOST_SAMPLES)
    """Number of batches of each size whose deduplication is counted. With seven sizes, 80 give the report's 560 runs
    (004:7)."""
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


OVER_SEQUENCES = "over sequences"
BATCH = integer("batch", "", "Sequences that decode together, B.")
SAMPLED_SHARE = number(
    "sampled_share", "", "Sequences of a sample over held-out sequences that are long enough: f of the intervals."
)
STRATEGY = text("strategy", "Strategy of serving experts from a cache, or a bound, oracle or control beside them.")
ROLE = text(
    "role",
    "strategy; bound (all experts resident; Belady, in copies); oracle (knows the next step); or control.",
)
DEDUPLICATED = flag(
    "deduplicated",
    "Whether the distinct experts of a batch are accessed once; else duplicates of a batch hit: compare hit rates only "
    "at the same value.",
)
CAPACITY = integer("capacity", "experts", "Slots of each MoE layer.")
HIT_RATE = number("hit_rate", "", "Share of the requests whose expert is in a slot.")
PREFETCHED_SHARE = number(
    "prefetched_share", "", "Share of the requests whose expert is in a slot since a prefetch not used before."
)
STEP_MS = number("step_ms_mean", "ms", "Mean time of a step, which is the time per token of each sequence.")
SLOWDOWN = number("slowdown", "", "Time of the run over the time with all experts resident, deduplicated.")
SLOWDOWN_BOUND = number(
    "slowdown_bound", "", "The same with the times of the datasheet, of the first sample; empty of the others."
)
LINK_BUSY = number("link_busy_share", "", "Share of the time in which the copy queue is busy.")
ROUTING = text("routing", "recorded; or shuffled: every layer's choices permuted over the tokens of the sample.")
MODE = text("mode", "as_described (strategies as they are described) or deduplicated (all of them).")


def _with_interval(*columns: Column) -> tuple[Column, ...]:
    """Return the columns with the ends of their interval after each: means over samples."""
    return tuple(one for column in columns for one in (column, *interval(column.name, column.unit, OVER_SEQUENCES)))


RESULTS = Table(
    "comparative_results",
    (
        TRACE,
        BATCH,
        integer("seed", "", "Seed of the sample of sequences, which every strategy replays."),
        SAMPLED_SHARE,
        ROUTING,
        STRATEGY,
        ROLE,
        DEDUPLICATED,
        flag("as_described", "Whether the strategy is described as accessing experts this way."),
        CAPACITY,
        STEP_MS,
        number("step_ms_p50", "ms", "Median time of a step."),
        number("step_ms_p95", "ms", "Time that 95 % of the steps do not exceed."),
        number("step_ms_p99", "ms", "Time that 99 % of the steps do not exceed."),
        number("tokens_per_second", "1/s", "Tokens decoded per second, of all sequences together."),
        SLOWDOWN,
        number("stall_share", "", "Share of the time in which the device waits for experts."),
        HIT_RATE,
        number("kept_share", "", "Share of the requests whose expert is in a slot since an earlier miss."),
        PREFETCHED_SHARE,
        number("late_share", "", "Share of the requests whose expert is under way."),
        number("missed_share", "", "Share of the requests whose expert is missing."),
        integer("routed_requests", "", "Choices of all tokens and layers."),
        integer("requests", "", "Experts accessed: those choices, or the distinct ones of every batch."),
        number("request_dedup", "", "Share of the routed choices that deduplication saves."),
        integer("demand_copies", "experts", "Experts copied when a layer needed them."),
        integer("useful_prefetches", "experts", "Experts prefetched in time and used."),
        integer("late_prefetches", "experts", "Experts prefetched and used, but still under way when needed."),
        number(
            "wasted_prefetches",
            "experts",
            "Experts prefetched and not used; those given up count by the share copied.",
        ),
        LINK_BUSY,
        number(
            "prefetch_gain_bound",
            "",
            "Most that a prefetch of equal bytes gains, (C + X) / max(C, X) with compute C and copy queue busy X.",
        ),
        flag("waves", "Whether a layer needed more experts than it has slots."),
        SLOWDOWN_BOUND,
    ),
)
LAYERS = Table(
    "comparative_layers",
    (
        TRACE,
        STRATEGY,
        ROLE,
        DEDUPLICATED,
        BATCH,
        integer("layer", "", "Number of the layer in the model."),
        SAMPLED_SHARE,
        *_with_interval(
            number("unique_experts", "experts", "Experts that the layer accesses at a step."),
            HIT_RATE,
            PREFETCHED_SHARE,
            number("stall_ms", "ms", "Time of a step in which the device waits for experts of the layer."),
            number("wasted_prefetches", "experts", "Experts prefetched for the layer and not used, per step."),
        ),
    ),
)
SWEEPS = Table(
    "strategy_sweeps",
    (
        TRACE,
        STRATEGY,
        ROLE,
        BATCH,
        number("capacity_share", "", "Slots over the experts of a layer."),
        CAPACITY,
        number("link_speedup", "", "How much faster than the GPU's link experts are copied."),
        SAMPLED_SHARE,
        *_with_interval(HIT_RATE, SLOWDOWN, STEP_MS, LINK_BUSY),
    ),
)
REQUEST_DEDUP = number("request_dedup", "", "Share of the routed choices of a layer that need no copy, 1 - u/(k B).")
SHARED = number(
    "shared_requests",
    "",
    "Share of the routed choices that are for an expert that another token of the batch chooses too, the first of them "
    "included.",
)
RESIDENT_SHARE = number("resident_share", "", "Of a layer's experts, those that the batch needs, u/E.")
UNIQUE = number("unique_experts", "experts", "Distinct experts of the batch, mean over layers.")
UNIFORM = number("uniform_request_dedup", "", "request_dedup were each token's k experts drawn at random from all.")
DEDUPLICATION = Table(
    "expert_deduplication_results",
    (
        TRACE,
        BATCH,
        integer("sample", "", "Number of the batch among those of its size."),
        integer("requests", "", "Routed choices of a layer, k B."),
        UNIQUE,
        REQUEST_DEDUP,
        SHARED,
        RESIDENT_SHARE,
        UNIFORM,
        *(
            end
            for measured in (REQUEST_DEDUP, SHARED, RESIDENT_SHARE)
            for end in interval(measured.name, "", "of the mean over the batches of this size, over sequences")
        ),
    ),
)
STRATEGIES = Table(
    "table8_strategies",
    (
        TRACE,
        ROUTING,
        MODE,
        text("batch", "Batch size, or all: the summary over all sizes."),
        STRATEGY,
        number("step_ms", "ms", "Mean time of a step, over the runs."),
        HIT_RATE,
        SLOWDOWN,
        SLOWDOWN_BOUND,
        number("stall_share", "", "Share of the time in which the device waits for experts."),
        *_with_interval(
            number(
                "speedup",
                "",
                "Speedup over On-Demand in the same mode, geometric mean over samples; for all, every batch size "
                "counts the same.",
            )
        ),
        number(
            "speedup_ms_weighted",
            "",
            "The same of mean milliseconds, as report 004 weighs: the largest batch decides.",
        ),
        *_with_interval(
            number(
                "over_intelligent",
                "",
                "Speedup over intelligent in the same mode: for Prophet what its predictor adds to counted "
                "transitions.",
            )
        ),
        number("claimed_speedup", "", "Speedup that the report claims, over all batch sizes, as described."),
    ),
)
SAVINGS = Table(
    "table9_expert_deduplication",
    (
        TRACE,
        BATCH,
        integer("runs", "", "Batches of this size that were drawn."),
        UNIQUE,
        *_with_interval(REQUEST_DEDUP, SHARED, RESIDENT_SHARE),
        UNIFORM,
        number("claimed_saving", "", "Saving that the report's table of deduplication claims."),
        number(
            "claimed_saving_in_scaling", "", "Saving that the report's table of batch sizes claims for the same batch."
        ),
        number("claimed_reuse", "", "Expert reuse factor that the report claims."),
    ),
)
SCALING = Table(
    "table10_batch_scaling",
    (
        TRACE,
        MODE,
        BATCH,
        number("papers_step_ms", "ms", "Mean step of the papers' three methods."),
        text(
            "best_paper", "Of the papers' three methods the one chosen most often; each sample's by the other samples."
        ),
        number("best_paper_share", "", "Share of the samples that it was chosen for."),
        number("best_paper_step_ms", "ms", "Mean step of the methods that were chosen."),
        text(
            "best",
            "Of the report's own three strategies the one chosen most often; each sample's by the other samples.",
        ),
        number("best_share", "", "Share of the samples that it was chosen for."),
        number("best_step_ms", "ms", "Mean step of the strategies that were chosen."),
        *_with_interval(
            number("speedup", "", "Speedup of our choice over the papers' mean, as the report compares."),
            number("speedup_over_best_paper", "", "Speedup of our choice over the papers' choice: both sides choose."),
        ),
        number("request_dedup", "", "Share of the routed choices that our choice saves by deduplication."),
        number("claimed_papers_ms", "ms", "Mean step of the papers' methods that the report claims."),
        number("claimed_best_ms", "ms", "Step of its best strategy that the report claims."),
        number("claimed_speedup", "", "Speedup of its best strategy that the report claims."),
        number("claimed_saving", "", "Saving by deduplication that the report claims."),
    ),
)

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
    reports=("004:30-35", "004:49-55", "004:69-75"),
    minutes=1,
)

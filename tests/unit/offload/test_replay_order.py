"""Replayed batches mix the domains of a trace, as the batches do that the law for u(B) and table 9 are about."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from prophet_moe.offload.replay import draw, parts_of
from prophet_moe.offload.simulator.batching import decode_batches
from prophet_moe.offload.simulator.predictions import TrainingStatistics
from prophet_moe.offload.simulator.prefetch import true_needs
from prophet_moe.predict.context import split
from prophet_moe.routing.intervals import beyond_sample, half_width
from prophet_moe.routing.sequences import mixed, notes_of
from prophet_moe.routing.statistics import bootstrap_distinct
from prophet_moe.routing.store import read_trace
from prophet_moe.routing.trace import check, sequence_starts
from tests.conftest import ROOT

TRACES = ["small-12x128-top1", "small-6x64-top8", "small-6x8-top2"]
BATCHES = (2, 8, 16, 32)
SAMPLES, SEQUENCES, TOKENS = 5, 64, 32


@pytest.fixture(scope="module", params=TRACES)
def held_out(request):
    """The decoded tokens of a trace's held-out sequences."""
    _, held_out = split(read_trace(ROOT / "resources/traces" / request.param))
    return held_out.described()


def distinct(trace, order: str) -> np.ndarray:
    """(batches,): mean number of distinct experts of a layer-step of the replayed samples."""
    found = np.zeros(len(BATCHES))
    for seed in range(SAMPLES):
        sample = draw(trace, SEQUENCES, TOKENS, seed, order)
        for place, batch in enumerate(BATCHES):
            parts = list(decode_batches(sample.experts, sequence_starts(sample), batch, trace.router.experts))
            accessed = sum(len(true_needs(part).ids) for part in parts)
            found[place] += accessed / sum(len(part.rows) * part.layers for part in parts) / SAMPLES
    return found


def test_replayed_batches_deduplicate_as_batches_drawn_at_random(held_out):
    low, high = bootstrap_distinct(held_out, BATCHES, "staggered")
    replayed = distinct(held_out, "mixed")
    assert ((low <= replayed) & (replayed <= high)).all(), (low, replayed, high)


def test_one_tenant_needs_fewer_experts_than_mixed_batches(held_out):
    assert (distinct(held_out, "one_tenant_at_a_time") < distinct(held_out, "mixed")).all()


def test_draw_takes_consecutive_tokens_of_different_sequences(held_out):
    sample = check(draw(held_out, SEQUENCES, TOKENS, seed=3), "sample")
    assert np.diff(sequence_starts(sample)).tolist() == [TOKENS] * SEQUENCES
    assert (np.diff(sample.position.reshape(SEQUENCES, TOKENS), axis=1) == 1).all()
    rows = {row.tobytes() for row in sample.experts.reshape(SEQUENCES, -1)}
    assert len(rows) == SEQUENCES
    assert draw(held_out, SEQUENCES, TOKENS, seed=3).experts.tobytes() == sample.experts.tobytes()
    assert draw(held_out, SEQUENCES, TOKENS, seed=4).experts.tobytes() != sample.experts.tobytes()


def test_mixed_keeps_every_sequence_whole(held_out):
    whole = check(mixed(held_out, 0), "mixed")

    def contents(trace):
        return [trace.experts[first:last].tobytes() for first, last in pairwise(sequence_starts(trace))]

    assert sorted(contents(whole)) == sorted(contents(held_out))
    labels = [dict(zip(contents(trace), notes_of(trace, "label"), strict=True)) for trace in (whole, held_out)]
    assert labels[0] == labels[1], "what is noted of a sequence moves with it"
    assert contents(whole) != contents(held_out)


def test_a_whole_trace_is_replayed_mixed_unless_asked_otherwise(held_out):
    training = TrainingStatistics(held_out)
    (ordered, _), *_ = parts_of(training, held_out, 8, "one_tenant_at_a_time")
    (shuffled, _), *_ = parts_of(training, held_out, 8)
    assert ordered.choices[:8].tobytes() == held_out.experts[:8].tobytes()
    assert shuffled.choices[:8].tobytes() != held_out.experts[:8].tobytes()


def test_replays_of_table_8_deduplicate_as_table_9():
    """On every trace, gpt-oss-20b included, and at every batch size: within both 95 % intervals over sequences."""
    drawn = pd.read_csv(ROOT / "tables/table9_expert_deduplication.csv").set_index(["trace", "batch"])
    replayed = pd.read_csv(ROOT / "tables/data/comparative_results.csv")
    runs = replayed[
        (replayed["strategy"] == "on_demand") & replayed["deduplicated"] & (replayed["routing"] == "recorded")
    ]
    groups = runs.groupby(["trace", "batch"])
    mean, share = groups["request_dedup"].mean(), groups["sampled_share"].first()
    own = half_width(groups["request_dedup"].std(), groups.size(), beyond_sample(share))
    assert len(mean) == len(drawn)
    apart = (mean - drawn["request_dedup"].reindex(mean.index)).abs()
    allowed = (drawn["request_dedup_high"] - drawn["request_dedup_low"]).reindex(mean.index) / 2 + own
    assert (apart <= allowed + 1e-12).all(), (apart - allowed)[apart > allowed]

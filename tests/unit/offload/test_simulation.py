"""The expert-cache simulator: fast engine against plain reference, laws that hold in every run, toys by hand."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.offload import policies
from prophet_moe.offload.simulator import engine, reference
from prophet_moe.offload.simulator.batching import DecodeBatches, accesses_of, decode_batches
from prophet_moe.offload.simulator.engine import EVICTIONS
from prophet_moe.offload.simulator.simulation import (
    NO_PREFETCH,
    Hierarchy,
    Job,
    Outcome,
    PrefetchPlan,
    Times,
    no_prefetches,
    simulate,
)
from prophet_moe.routing.reuse import lru_hits

COUNTED = ("step_tokens", "routed", "counts", "sources", "pending", "oversubscribed")
SECONDS = ("step_seconds", "sums", "compute_seconds", "demand_seconds", "prefetch_seconds")


class Case(NamedTuple):
    """What a run is given."""

    jobs: list[Job]
    hierarchy: Hierarchy
    times: Times
    popularity: np.ndarray
    oversubscribe: bool

    def run(self, simulator=simulate, eviction: str = "lru", **options) -> Outcome:
        """The outcome."""
        arguments = (self.jobs, self.hierarchy, self.times, self.popularity, eviction)
        return simulator(*arguments, oversubscribe=self.oversubscribe, **options)

    def idle(self) -> "Case":
        """The same case without prefetches."""
        return self._replace(jobs=[job._replace(prefetches=no_prefetches(job.batches)) for job in self.jobs])


def decoded(random, sequences: int, layers: int, experts: int, top_k: int, batch: int) -> list[DecodeBatches]:
    """Random choices of sequences of 1 to 5 tokens, in batches; some experts are more popular than others."""
    lengths = random.integers(1, 6, sequences)
    weights = np.log(1 / np.arange(1, experts + 1))
    noise = random.gumbel(size=(lengths.sum(), layers, experts))
    choices = np.argsort(weights + noise, axis=-1)[..., :top_k].astype(np.uint16)
    return list(decode_batches(choices, np.concatenate([[0], np.cumsum(lengths)]), batch, experts))


def random_prefetches(random, batches: DecodeBatches, accesses, hierarchy: Hierarchy) -> np.ndarray:
    """At every point some experts of layers that come, and some of any, some twice, each group at most its room."""
    steps, layers, experts = len(batches.rows), batches.layers, batches.experts
    groups, capacity = layers if hierarchy.per_layer else 1, hierarchy.capacities[0]
    prefetches = np.full((steps, layers + 1, groups * capacity + 1), NO_PREFETCH, np.int32)
    for step in range(steps):
        for point in range(layers + 1):
            ahead = step * layers + point
            begin, end = accesses.of_layer[[min(ahead, steps * layers), min(ahead + 2, steps * layers)]]
            coming = accesses.ids[accesses.starts[begin] : accesses.starts[end]]
            drawn = random.integers(layers * experts, size=random.integers(1, 2 * experts))
            named = random.permutation(np.concatenate([coming, drawn]))[: random.integers(0, 12)]
            group = named // experts if hierarchy.per_layer else np.zeros_like(named)
            fits = [expert for at, expert in enumerate(named) if (group[: at + 1] == group[at]).sum() <= capacity]
            prefetches[step, point, : len(fits)] = fits
    return prefetches


@st.composite
def cases(draw, tiers=(1, 3), oversubscribe=None, deduplicated=None) -> Case:
    """Small runs. Seconds are quarters, so that sums are exact and both simulators see the same ties of times."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers, experts, batch = draw(st.integers(1, 4)), draw(st.integers(2, 8)), draw(st.integers(1, 4))
    top_k = draw(st.integers(1, min(3, experts)))
    parts = decoded(random, draw(st.integers(1, 2)) * batch, layers, experts, top_k, batch)
    deduplicated = draw(st.booleans()) if deduplicated is None else deduplicated
    accesses = [accesses_of(part, deduplicated=deduplicated) for part in parts]
    oversubscribe = draw(st.booleans()) if oversubscribe is None else oversubscribe
    widest = max(access.widest for access in accesses)
    per_layer, inclusive = draw(st.booleans()), draw(st.booleans())
    capacities = [max(1, draw(st.integers(1 if oversubscribe else widest, experts + 1)))]
    for _ in range(draw(st.integers(*tiers)) - 1):
        capacities.append(draw(st.integers(1, 4)) + (capacities[-1] if inclusive else 0))
    hierarchy = Hierarchy(tuple(capacities), per_layer, inclusive)
    planned = [random_prefetches(random, part, access, hierarchy) for part, access in zip(parts, accesses, strict=True)]
    slowness = draw(st.integers(1, 12))
    other, work, fetch = (
        random.integers(0, 1 + draw(st.integers(0, slowness)), count) / 4
        for count in (layers, batch + 1, len(capacities))
    )
    chunk = draw(st.sampled_from([0.25, 0.5, 0.75, 2.0, np.inf]))
    times = Times(other, work, tuple(fetch.tolist()), chunk)
    popularity = random.integers(1, 9, (layers, experts)).astype(float)
    jobs = [Job(*parts) for parts in zip(parts, accesses, planned, strict=True)]
    return Case(jobs, hierarchy, times, popularity, oversubscribe)


def assert_equal(fast: Outcome, plain: Outcome) -> None:
    """All counts exactly, all seconds as sums in another order."""
    for name in COUNTED:
        np.testing.assert_array_equal(getattr(fast, name), getattr(plain, name), name)
    for name in SECONDS:
        np.testing.assert_allclose(getattr(fast, name), getattr(plain, name), rtol=1e-9, atol=1e-12, err_msg=name)


@settings(max_examples=500, deadline=None)
@given(case=cases(), eviction=st.sampled_from(list(EVICTIONS)), warm=st.booleans())
def test_the_engine_does_what_the_reference_says(case, eviction, warm):
    assert_equal(case.run(eviction=eviction, warm=warm), case.run(reference.simulate, eviction, warm=warm))


def test_frequency_and_recency_are_counted_beyond_an_era():
    """As by the reference, which counts in one unit for all steps."""
    random = np.random.default_rng(0)
    steps, experts = 2 * engine.ERA + engine.ERA // 2, 8
    weights = 1 / np.arange(1, experts + 1) ** 2
    chosen = random.choice(experts, size=steps, p=weights / weights.sum())
    batches = DecodeBatches(chosen.astype(np.uint16).reshape(steps, 1, 1), np.arange(steps)[:, None], experts)
    jobs = [Job(batches, accesses_of(batches, deduplicated=True), no_prefetches(batches))]
    arguments = jobs, Hierarchy((3,)), Times(np.ones(1), np.ones(2), (1.0,)), np.ones((1, experts)), "lrfu"
    assert_equal(simulate(*arguments), reference.simulate(*arguments))


def test_unused_experts_are_protected_after_many_eras():
    """Expert 2, never used, is prefetched beside 0, in use; planned again, it is not evicted for 1."""
    steps = 18 * engine.ERA
    batches = DecodeBatches(np.zeros((steps, 1, 1), np.uint16), np.arange(steps)[:, None], 3)
    prefetches = np.full((steps, 2, 2), NO_PREFETCH)
    prefetches[-2, 1, 0], prefetches[-1, 0] = 2, (2, 1)
    jobs = [Job(batches, accesses_of(batches, deduplicated=True), prefetches)]
    times = Times(np.ones(1), np.ones(2), (0.5,))
    outcome = simulate(jobs, Hierarchy((2,)), times, np.ones((1, 3)), "lrfu", warm=False)
    assert causes(outcome) == {"KEPT": steps - 1, "MISSED": 1, "COPIES": 1, "SKIPPED": 1}


@settings(max_examples=200, deadline=None)
@given(case=cases(tiers=(1, 1)), seed=st.integers(0, 2**32))
def test_a_compact_plan_equals_its_array(case, seed):
    """Points share ids, or do not; some are wrong, and are told alike."""
    random = np.random.default_rng(seed)
    layers, experts = case.popularity.shape
    jobs, dense = [], []
    for job in case.jobs:
        ids = random.integers(layers * experts + (seed % 3 == 0), size=30).astype(np.int32)
        begins = random.integers(len(ids), size=(len(job.batches.rows), layers + 1))
        begins = np.sort(begins.ravel()).reshape(begins.shape) if seed % 2 else begins
        ends = np.minimum(begins + random.integers(4, size=begins.shape), len(ids))
        planned = PrefetchPlan(ids, begins, ends)
        assert [expert for expert in planned.array()[0, 0] if expert >= 0] == ids[begins[0, 0] : ends[0, 0]].tolist()
        jobs.append(job._replace(prefetches=planned))
        dense.append(job._replace(prefetches=planned.array()))
    assert told(case._replace(jobs=jobs)) == told(case._replace(jobs=dense))


def told(case: Case) -> list | str:
    """What comes of a run."""
    try:
        outcome = case.run()
    except UserError as error:
        return str(error)
    return [outcome.counts.tolist(), outcome.step_seconds.tolist()]


@settings(max_examples=200, deadline=None)
@given(case=cases(), eviction=st.sampled_from(list(EVICTIONS)), warm=st.booleans())
def test_nothing_is_lost_and_no_time_is_saved(case, eviction, warm):
    outcome = case.run(eviction=eviction, warm=warm)
    layers, experts = case.popularity.shape
    accessed = np.bincount(np.concatenate([job.accesses.ids for job in case.jobs]) // experts, minlength=layers)
    assert outcome.requests.tolist() == accessed.tolist()
    used = outcome.count(engine.PREFETCHED) + outcome.count(engine.LATE)
    assert outcome.count(engine.COPIES) == used + outcome.count(engine.WASTED) + outcome.pending
    copies = outcome.counts[engine.MISSED] + outcome.counts[engine.COPIES]
    assert outcome.sources[0].sum() == 0
    assert outcome.sources.sum(axis=0).tolist() == copies.tolist()
    assert outcome.seconds == pytest.approx(outcome.compute_seconds + outcome.sums[engine.STALL].sum())
    assert (outcome.sums >= 0).all()
    assert (outcome.sums[engine.WASTED_SHARE] <= outcome.counts[engine.WASTED]).all()
    link = outcome.demand_seconds + outcome.prefetch_seconds
    assert max(outcome.compute_seconds, outcome.demand_seconds) <= outcome.seconds <= outcome.compute_seconds + link
    assert link <= outcome.seconds + max(case.times.transfer_seconds), "one copy at a time, the last may end later"


@settings(max_examples=100, deadline=None)
@given(case=cases(tiers=(1, 1), oversubscribe=False, deduplicated=True), warm=st.booleans())
def test_no_rule_copies_less_than_belady(case, warm):
    least = case.idle().run(eviction="belady", warm=warm).count(engine.MISSED)
    for eviction in EVICTIONS:
        assert case.idle().run(eviction=eviction, warm=warm).count(engine.MISSED) >= least
        assert case.run(eviction=eviction, warm=warm).copies >= least


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    layers=st.integers(1, 3),
    experts=st.integers(2, 8),
    capacities=st.lists(st.integers(1, 3), min_size=1, max_size=3),
)
def test_exclusive_tiers_cut_the_exact_lru_curve(seed, layers, experts, capacities):
    random = np.random.default_rng(seed)
    parts = decoded(random, 8, layers, experts, 1, 1)
    jobs = [Job(part, accesses_of(part, deduplicated=True), no_prefetches(part)) for part in parts]
    times = Times(np.ones(layers), np.ones(2), (1.0,) * len(capacities))
    outcome = simulate(jobs, Hierarchy(tuple(capacities)), times, np.ones((layers, experts)), warm=False)
    for layer in range(layers):
        stream = parts[0].choices[:, layer, 0]
        assert outcome.counts[engine.MISSED, layer] == policies.misses("lru", stream, experts, capacities[0])
        curve = lru_hits(stream, experts)
        hits = [curve[min(capacity, experts) - 1] for capacity in np.cumsum(capacities)]
        served = [outcome.counts[engine.KEPT, layer], *outcome.sources[1:, layer]]
        assert served == np.diff([0, *hits, len(stream)]).tolist()


def test_random_eviction_hits_like_fifo_on_independent_requests():
    """Gelenbe: A unified approach to the evaluation of a class of replacement algorithms, 1973."""
    random, experts, capacity = np.random.default_rng(0), 64, 16
    weights = 1 / np.arange(1, experts + 1)
    stream = random.choice(experts, 40_000, p=weights / weights.sum()).astype(np.uint16)
    batches = DecodeBatches(stream[:, None, None], np.arange(len(stream))[:, None], experts)
    job = Job(batches, accesses_of(batches, deduplicated=True), no_prefetches(batches))
    times, popularity = Times(np.ones(1), np.ones(2), (1.0,)), np.ones((1, experts))
    missed = {
        rule: simulate([job], Hierarchy((capacity,)), times, popularity, rule).copies for rule in ("random", "lru")
    }
    fifo = policies.misses("fifo", stream, experts, capacity)
    assert missed["random"] == pytest.approx(fifo, rel=0.02)
    assert missed["lru"] < 0.95 * fifo


OTHER, WORK, FETCH, CHUNK = 2.0, 1.0, 7.0, 3.0


def toy(
    chosen: list,
    planned: dict[tuple[int, int], list[int]] | None = None,
    *,
    capacity: int = 2,
    experts: int = 2,
    fetch: float = FETCH,
    chunk: float = CHUNK,
    warm: bool = False,
    **options,
) -> Outcome:
    """One sequence, `chosen` (T, L, k); `planned` at (step, point); experts are the less popular the higher."""
    choices = np.array(chosen, np.uint16)
    steps, layers, _ = choices.shape
    batches = DecodeBatches(choices, np.arange(steps)[:, None], experts)
    prefetches = np.full(
        (steps, layers + 1, 1 + max(map(len, (planned or {}).values()), default=0)), NO_PREFETCH, np.int32
    )
    for at, ids in (planned or {}).items():
        prefetches[*at, : len(ids)] = ids
    jobs = [Job(batches, accesses_of(batches, deduplicated=True), prefetches)]
    times = Times(np.full(layers, OTHER), np.full(2, WORK), (fetch,), chunk)
    popularity = np.tile(np.arange(experts, 0.0, -1), (layers, 1))
    outcome = simulate(jobs, Hierarchy((capacity,)), times, popularity, warm=warm, **options)
    assert_equal(outcome, reference.simulate(jobs, Hierarchy((capacity,)), times, popularity, warm=warm, **options))
    return outcome


def causes(outcome: Outcome) -> dict[str, int]:
    """Those that happened."""
    names = ("KEPT", "PREFETCHED", "LATE", "MISSED", "COPIES", "WASTED", "SKIPPED")
    return {name: outcome.count(getattr(engine, name)) for name in names if outcome.count(getattr(engine, name))}


def test_missing_experts_are_copied_while_earlier_ones_compute():
    outcome = toy([[[0, 1]]])
    assert outcome.seconds == OTHER + 2 * FETCH + WORK
    assert outcome.sums[engine.STALL, 0] == 2 * FETCH - WORK
    assert (outcome.compute_seconds, outcome.demand_seconds) == (OTHER + 2 * WORK, 2 * FETCH)
    assert causes(outcome) == {"MISSED": 2}


def test_resident_experts_compute_while_missing_ones_are_copied():
    outcome = toy([[[0, 2]]], experts=3, warm=True)
    assert outcome.seconds == OTHER + max(WORK, FETCH) + WORK
    assert causes(outcome) == {"KEPT": 1, "MISSED": 1}


def test_an_oversubscribed_layer_reuses_computed_slots():
    outcome = toy([[[0, 1]]], capacity=1, oversubscribe=True)
    assert outcome.oversubscribed
    assert outcome.seconds == OTHER + 2 * (FETCH + WORK)


def test_a_prefetch_in_time_costs_nothing():
    outcome = toy([[[0], [0], [0], [1]]], {(0, 0): [7]}, capacity=1, warm=True)
    assert 3 * (OTHER + WORK) + OTHER > FETCH
    assert outcome.seconds == outcome.compute_seconds == 4 * (OTHER + WORK)
    assert (outcome.demand_seconds, outcome.prefetch_seconds, outcome.pending) == (0, FETCH, 0)
    assert causes(outcome) == {"KEPT": 3, "PREFETCHED": 1, "COPIES": 1}


def test_a_prefetch_without_use_is_pending_until_it_is_evicted():
    """Of layer 3 with room for one of 0, 1 and 2, id 10 is its expert 1."""
    chosen, planned = [[0], [0], [0]], {(0, 0): [10]}
    outcome = toy([[*chosen, [1]]], planned, capacity=1, experts=3, warm=True)
    assert (causes(outcome), outcome.pending) == ({"KEPT": 3, "PREFETCHED": 1, "COPIES": 1}, 0)
    outcome = toy([[*chosen, [2]]], planned, capacity=1, experts=3, warm=True)
    assert (causes(outcome), outcome.pending) == ({"KEPT": 3, "MISSED": 1, "COPIES": 1, "WASTED": 1}, 0)
    outcome = toy([[*chosen, [0]]], planned, capacity=2, experts=3, warm=False)
    assert outcome.pending == 1


def test_a_late_prefetch_is_waited_for():
    outcome = toy([[[0], [1]]], {(0, 0): [3]}, capacity=1, warm=True)
    assert outcome.seconds == FETCH + WORK
    assert outcome.sums[engine.STALL].tolist() == [0, FETCH - (OTHER + WORK + OTHER)]
    assert causes(outcome) == {"KEPT": 1, "LATE": 1, "COPIES": 1}


def test_a_prefetch_is_paused_at_a_chunk_for_what_is_missing():
    outcome = toy([[[0], [0]]], {(0, 0): [2]})
    pause = CHUNK
    assert outcome.sums[engine.STALL, 0] == pause + FETCH - OTHER
    assert outcome.seconds == pause + FETCH + (FETCH - pause) + WORK
    assert (outcome.demand_seconds, outcome.prefetch_seconds) == (FETCH, FETCH)
    assert causes(outcome) == {"MISSED": 1, "LATE": 1, "COPIES": 1}
    whole = toy([[[0], [0]]], {(0, 0): [2]}, chunk=np.inf)
    assert causes(whole) == {"MISSED": 1, "PREFETCHED": 1, "COPIES": 1}
    assert whole.seconds == FETCH + FETCH + WORK + OTHER + WORK


def test_a_prefetch_its_layer_does_not_need_is_cancelled():
    outcome = toy([[[0]], [[1]]], {(0, 0): [1]})
    assert outcome.step_seconds.tolist() == [CHUNK + FETCH + WORK, OTHER + FETCH + WORK]
    assert causes(outcome) == {"MISSED": 2, "COPIES": 1, "WASTED": 1}
    assert outcome.sums[engine.WASTED_SHARE, 0] == pytest.approx(CHUNK / FETCH)
    assert outcome.prefetch_seconds == CHUNK


def test_the_last_chunk_of_a_cancelled_copy_delays_the_next():
    """Layer 0 cancels the prefetch of 2 and waits for nothing; the chunk still moves when layer 1 misses its own."""
    transfer, chunk = 4 * FETCH, 2 * FETCH
    assert OTHER + WORK + OTHER < chunk < transfer
    outcome = toy([[[0], [2]]], {(0, 0): [2]}, experts=3, warm=True, fetch=transfer, chunk=chunk)
    assert causes(outcome) == {"KEPT": 1, "MISSED": 1, "COPIES": 1, "WASTED": 1}
    assert outcome.seconds == chunk + transfer + WORK
    assert outcome.demand_seconds + outcome.prefetch_seconds == transfer + chunk


def test_prefetches_after_the_last_layer_begin_while_it_computes():
    """The prefetch has begun when the plan before the next step, an empty one, cancels what has not."""
    outcome = toy([[[0]], [[1]]], {(0, 1): [1]}, capacity=2)
    assert outcome.step_seconds.tolist() == [OTHER + FETCH + WORK, FETCH - WORK + WORK]
    assert causes(outcome) == {"MISSED": 1, "LATE": 1, "COPIES": 1}


def test_nothing_is_in_use_before_the_first_access():
    outcome = toy([[[1]]], {(0, 0): [1]}, capacity=1, warm=True)
    assert causes(outcome) == {"LATE": 1, "COPIES": 1}


def test_an_expert_in_a_cancelled_slot_is_not_in_use():
    """The prefetch of 2 in place of 0 is given up; 1, in use, moves there; 0 takes the place of 1, and 2 that of 0."""
    planned = {(0, 0): [1, 2], (0, 1): [0], (1, 0): [2]}
    outcome = toy([[[1]], [[2]]], planned, experts=3, warm=True, fetch=OTHER + WORK / 2, chunk=OTHER)
    assert causes(outcome) == {"KEPT": 1, "LATE": 1, "COPIES": 3, "WASTED": 2}


@pytest.mark.parametrize("eviction", list(EVICTIONS))
def test_a_prefetch_never_evicts_a_planned_expert(eviction):
    """Of a warm cache of 0 and 1, 0 is in use when 1 and 2 are planned."""
    outcome = toy([[[0]], [[0]]], {(0, 1): [1, 2], (1, 0): [1, 2]}, experts=3, warm=True, eviction=eviction)
    assert causes(outcome) == {"KEPT": 2, "SKIPPED": 2}


def one_step(**changes):
    """The arguments of a run of one token that asks two layers for two experts each, of 4."""
    batches = DecodeBatches(np.array([[[0, 1], [2, 3]]], np.uint16), np.array([[0]]), 4)
    job = Job(batches, accesses_of(batches, deduplicated=True), changes.pop("prefetches", no_prefetches(batches)))
    hierarchy = Hierarchy(
        **{"capacities": (2,)} | {name: changes.pop(name) for name in ("capacities", "inclusive") if name in changes}
    )
    transfers = (1.0,) * len(hierarchy.capacities)
    seconds = {"non_expert_seconds": np.ones(2), "expert_seconds": np.ones(2), "transfer_seconds": transfers} | changes
    return [job], hierarchy, Times(**seconds), np.ones((2, 4))


def named(*ids: int, point: int = 0) -> np.ndarray:
    """Wishes at one point of the step."""
    prefetches = np.full((1, 3, len(ids)), NO_PREFETCH, np.int32)
    prefetches[0, point] = ids
    return prefetches


def ranges(last: int, points: int) -> PrefetchPlan:
    """Wishes for expert 0, then 1, that end there at so many points."""
    return PrefetchPlan(np.arange(2, dtype=np.int32), np.zeros((1, points), np.int64), np.full((1, points), last))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"capacities": (1,)},
            "capacity: got 1, expected at least 2, the experts that a layer needs at once. Correct it, or",
        ),
        ({"capacities": (0,)}, r"capacity: got \(0,\), expected at least 1 expert in each tier"),
        ({"capacities": ()}, r"capacity: got \(\), expected at least 1 expert"),
        (
            {"capacities": (2, 2), "inclusive": True},
            r"capacity: got \(2, 2\), expected each inclusive tier",
        ),
        (
            {"non_expert_seconds": np.array([1.0, np.nan])},
            "times: non_expert_seconds: got nan, expected finite seconds from 0 on",
        ),
        ({"expert_seconds": np.array([0.0, np.inf])}, "times: expert_seconds: got inf, expected finite seconds"),
        ({"transfer_seconds": (-1.0,)}, "times: transfer_seconds: got -1.0, expected finite seconds"),
        ({"transfer_seconds": (1.0, 1.0)}, "times: transfer_seconds: got 2 for 1 tiers, expected one from behind each"),
        ({"chunk_seconds": 0.0}, "times: chunk_seconds: got 0.0, expected seconds above 0"),
        ({"chunk_seconds": np.nan}, "times: chunk_seconds: got nan, expected seconds above 0"),
        (
            {"prefetches": named(8)},
            r"strategy: step 0, before the pass: prefetches of expert id 8, expected layer \* 4 \+ expert, below 8",
        ),
        ({"prefetches": ranges(3, 3)}, "strategy: prefetches are not ranges of their 2 ids, of shape "),
        ({"prefetches": ranges(2, 2)}, "strategy: prefetches are not ranges of their 2 ids, of shape "),
        ({"prefetches": named(7, -2, point=2)}, "strategy: step 0, after layer 1: prefetches of expert id -2, "),
        (
            {"prefetches": named(4, 5, 0, 4, point=1)},
            "step 0, after layer 0: more prefetches than the 2 experts of capacity",
        ),
        (
            {"prefetches": named(1)[:, :2]},
            r"prefetches are int32 of shape \(1, 2, 1\), expected whole numbers \(1, 3, any\)",
        ),
        ({"prefetches": named(1)[0]}, r"prefetches are int32 of shape \(3, 1\), expected whole numbers"),
        ({"prefetches": named(1) + 0.5}, r"prefetches are float64 of shape \(1, 3, 1\), expected whole numbers"),
    ],
)
def test_mistakes_are_told(changes, problem):
    with pytest.raises(UserError, match=problem):
        simulate(*one_step(**changes))


def test_nothing_that_can_be_is_refused():
    """What stands beyond the end of a plan, a plan for another layer, and oversubscription."""
    assert simulate(*one_step(prefetches=named(4, 5, 0, 1))).requests.tolist() == [2, 2]
    assert simulate(*one_step(prefetches=named(NO_PREFETCH, 8, -7))).requests.tolist() == [2, 2]
    assert simulate(*one_step(capacities=(1,)), oversubscribe=True).oversubscribed
    assert simulate(*one_step(capacities=(2, 3), inclusive=True)).requests.tolist() == [2, 2]

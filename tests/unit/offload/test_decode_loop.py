"""The clock of the decode loop: against the simulator where their rules agree, SimPy, and times worked out by hand."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.catalog import load_gpus
from prophet_moe.collect.plan import read_as, read_recorded
from prophet_moe.errors import UserError
from prophet_moe.files import sha256
from prophet_moe.hardware.profile import Profile, datasheet_profile
from prophet_moe.hardware.recorded import read_recording
from prophet_moe.offload.decode_loop.clock import step_seconds, tokens_of
from prophet_moe.offload.decode_loop.decisions import Copy, decide, often_chosen, plan_prefetches, tallied
from prophet_moe.offload.decode_loop.plan import (
    ALL_RESIDENT,
    FREQUENCY,
    KIND,
    ON_DEMAND,
    ORACLE,
    PLAN_FILE,
    PROPHET,
    Plan,
    check,
)
from prophet_moe.offload.simulator.batching import DecodeBatches, accesses_of
from prophet_moe.offload.simulator.prefetch import ahead, batch_needs
from prophet_moe.offload.simulator.simulation import Hierarchy, Job, Times, no_prefetches, simulate
from prophet_moe.predict.context import split
from prophet_moe.routing.store import TRACE, read_trace, seal
from studies.prefetch_validation.compute import (
    BEYOND,
    COPIED,
    GIVEN,
    NOT_MEASURED,
    TOLERANCE_PCT,
    WITHIN,
    Machine,
    compare,
    loop_times,
    read_summaries,
    summary,
)
from tests.conftest import ROOT
from tests.shared_link import SharedLink

GPU, LAYERS = "A100-80GB", 6


def times(layers: int, batch: int, other=1.0, work=0.25, fetch=2.0) -> Times:
    return Times(np.full(layers, other), np.array([0.0, *(work + 0.125 * count for count in range(batch))]), (fetch,))


def routed(layers: int, chosen: list[list[list[int]]]) -> np.ndarray:
    """(T, 1, L, k) choices of one sequence."""
    return np.array(chosen, np.uint16).reshape(-1, 1, layers, len(chosen[0][0]))


def seconds_of(choices, planned, slots, most, clock, *, miss_priority=True) -> list[float]:
    steps = decide(choices, planned, slots, most)
    tokens = tokens_of(choices)
    return [
        step_seconds(step, each, clock, miss_priority=miss_priority) for step, each in zip(steps, tokens, strict=True)
    ]


@st.composite
def loops(draw):
    """Choices, plans, slots, prefetches per layer and times of a small loop."""
    layers, experts, batch = draw(st.integers(1, 4)), draw(st.integers(2, 6)), draw(st.integers(1, 3))
    top_k, steps = draw(st.integers(1, min(3, experts))), draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))

    def drawn(count: int) -> np.ndarray:
        return random.random((steps, batch, layers, experts)).argsort(axis=-1)[..., :count].astype(np.uint16)

    def planned(layer: int) -> list[list[int]]:
        ahead = min(lookahead, layers - 1 - layer)
        return [random.permutation(experts)[: random.integers(experts + 1)].tolist() for _ in range(ahead)]

    lookahead, duration = draw(st.integers(1, 3)), st.floats(0, 4)
    clock = times(layers, batch, draw(duration), draw(duration), draw(duration))
    wanted = [[planned(layer) for layer in range(layers)] for _ in range(steps)]
    return drawn(top_k), wanted, draw(st.integers(1, experts)), draw(st.integers(1, 3)), clock


@settings(deadline=None, max_examples=150)
@given(loops())
def test_on_demand_is_that_of_the_simulator(loop):
    """The same misses and seconds; the loop takes experts by number where the simulator takes them as first chosen."""
    choices, _, slots, most, clock = loop
    steps, batch, layers, top_k = choices.shape
    experts = max(int(choices.max()) + 1, slots)
    tokens = choices.reshape(-1, layers, top_k)
    batches = DecodeBatches(tokens, np.arange(len(tokens)).reshape(steps, batch), experts)
    accesses = accesses_of(batches, deduplicated=True)
    order = np.concatenate([begin + np.argsort(accesses.ids[begin:end]) for begin, end in pairwise(accesses.starts)])
    accesses = accesses._replace(ids=accesses.ids[order], tokens=accesses.tokens[order])
    # Experts 0 to slots - 1 lie there at first, the least recently used first.
    popularity = np.tile(np.where(np.arange(experts) < slots, 1.0 + np.arange(experts), 0.0), (layers, 1))
    job = Job(batches, accesses, no_prefetches(batches))
    outcome = simulate([job], Hierarchy((slots,)), clock, popularity, oversubscribe=True)
    misses = tallied(decide(choices, None, slots, most))["misses"]
    assert outcome.copies == misses.sum()
    np.testing.assert_allclose(
        seconds_of(choices, None, slots, most, clock), outcome.step_seconds, rtol=1e-12, atol=1e-12
    )


def by_simpy(step, tokens, clock: Times, *, miss_priority: bool) -> float:
    """The seconds of a step, by processes: one that computes, and one for each stream of copies."""
    env = simpy.Environment()
    link = SharedLink(env)
    streams = {"prefetch": simpy.Store(env)}
    streams["demand"] = simpy.Store(env) if miss_priority else streams["prefetch"]
    arrived, copies = {}, []

    def stream(queue):
        while True:
            before, after = yield queue.get()
            yield env.all_of(before)
            yield link.copied(clock.transfer_seconds[0])
            after.succeed()

    def issue(name, copy, *awaited):
        place, after = (copy.layer, copy.slot), env.event()
        before = [event for event in (arrived.get(place), *awaited) if event is not None]
        arrived[place] = after
        copies.append(after)
        streams[name].put((before, after))
        return after

    def compute():
        for layer, work in enumerate(step):
            yield env.timeout(clock.non_expert_seconds[layer])
            used = {use.expert: env.event() for use in work.uses}
            needs = {use.expert: arrived.get((layer, use.slot)) for use in work.uses if use.copy is None}
            missing = [use.copy for use in work.uses if use.copy]
            needs |= {copy.expert: issue("demand", copy) for copy in missing if not copy.recycled}
            demanded = [needs[copy.expert] for copy in missing if not copy.recycled]
            for copy in work.prefetches:
                issue("prefetch", copy, *demanded)
            needs |= {copy.expert: issue("demand", copy, used[copy.evicted]) for copy in missing if copy.recycled}
            for use in work.uses:
                if needs[use.expert] is not None:
                    yield needs[use.expert]
                yield env.timeout(clock.expert_seconds[tokens[layer][use.expert]])
                used[use.expert].succeed()

    for queue in set(streams.values()):
        env.process(stream(queue))
    env.run(env.process(compute()))
    env.run(env.all_of(copies))
    return env.now


@settings(deadline=None, max_examples=150)
@given(loops(), st.booleans())
def test_the_clock_is_that_of_simpy(loop, miss_priority):
    """And no step is shorter than its work, or longer than all of it in turn."""
    choices, planned, slots, most, clock = loop
    for step, tokens in zip(decide(choices, planned, slots, most), tokens_of(choices), strict=True):
        found = step_seconds(step, tokens, clock, miss_priority=miss_priority)
        assert found == pytest.approx(by_simpy(step, tokens, clock, miss_priority=miss_priority), rel=1e-9, abs=1e-9)
        copies = sum(len(work.prefetches) + sum(use.copy is not None for use in work.uses) for work in step)
        compute = clock.non_expert_seconds.sum() + sum(
            clock.expert_seconds[count] for layer in tokens for count in layer.values()
        )
        link = copies * clock.transfer_seconds[0]
        assert max(compute, link) * (1 - 1e-9) <= found <= (compute + link) * (1 + 1e-9)


def test_a_prefetch_goes_after_the_misses_of_its_layer():
    """Layer 0 asks at 1 for expert 1, there at 3; the prefetch for layer 1, which asks at 4.25, is there at 5."""
    choices, clock = routed(2, [[[1], [1]]]), times(2, 1)
    planned = [[[[1]], []]]
    for miss_priority in (True, False):
        assert seconds_of(choices, planned, 1, 1, clock, miss_priority=miss_priority) == [1 + 2 + 2 + 0.25]
    assert seconds_of(choices, None, 1, 1, clock) == [2 * (1 + 2 + 0.25)]


def test_a_miss_and_an_earlier_prefetch_share_the_link():
    """At 1 layer 0 prefetches for layer 2; layer 1 misses at 2.25: the former ends at 7.75, the latter at 9."""
    choices, clock = routed(3, [[[0], [1], [1]]]), times(3, 1, fetch=4.0)
    planned = [[[[], [1]], [[1]], []]]
    assert seconds_of(choices, planned, 1, 1, clock) == [9 + 0.25 + 1 + 0.25]
    # In one queue the miss waits until 5 and is there at 9, too.
    assert seconds_of(choices, planned, 1, 1, clock, miss_priority=False) == [9 + 0.25 + 1 + 0.25]


def test_a_step_ends_with_its_last_copy():
    """Layer 1 never uses what is prefetched for it, in place of expert 0, but the copy is made."""
    assert seconds_of(routed(2, [[[0], [1]]]), [[[[2]], []]], 2, 1, times(2, 1, fetch=10.0)) == [1 + 10]


def test_a_newer_plan_replaces_what_was_not_begun():
    """One copy a layer: 5 is begun for layer 1; of what waits for layer 2, 6 is planned again, 7 is not."""
    choices = routed(4, [[[0], [5], [6], [3]]])
    planned = [[[[5], [6, 7], [2]], [[6], [3]], [[3]], []]]
    (step,) = decide(choices, planned, 2, 1)
    assert [work.prefetches for work in step] == [
        [Copy(1, 5, 0, 0, False)],
        [Copy(2, 6, 0, 0, False)],
        [Copy(3, 3, 0, 0, False)],
        [],
    ]
    assert [work.dropped for work in step] == [[], [2, 3], [], []]
    tally = tallied([step])
    assert tally["prefetches_dropped"].tolist() == [[0, 0, 1, 1]]
    assert tally["prefetches_used"].tolist() == [[0, 1, 1, 1]]
    assert tally["misses"].sum() == 0
    (step,) = decide(choices, planned, 2, 2)
    begun = [[(copy.layer, copy.expert) for copy in work.prefetches] for work in step]
    assert begun == [[(1, 5), (2, 6)], [(3, 3)], [], []]


def test_what_is_begun_stays_until_its_layer():
    """A newer plan without it takes other slots: of 2 slots the one with expert 0 is left, then none."""
    choices = routed(4, [[[0], [0], [0], [4]]])
    planned = [[[[], [], [4]], [[], [5]], [[6]], []]]
    (step,) = decide(choices, planned, 2, 1)
    assert [work.prefetches for work in step] == [[Copy(3, 4, 0, 0, False)], [Copy(3, 5, 1, 1, False)], [], []]
    assert step[3].dropped == [3], "6 finds no slot"
    assert [use.source for use in step[3].uses] == ["prefetched"]


@st.composite
def scored_loops(draw):
    """Choices (T, B, L, k) of different sequences, scores (D, L, T, B, E), and slots."""
    layers, experts, batch = draw(st.integers(1, 5)), draw(st.integers(2, 6)), draw(st.integers(1, 4))
    steps, lookahead = draw(st.integers(1, 3)), 3
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    choices = random.integers(0, experts, (steps, batch, layers, 1)).astype(np.uint16)
    scores = random.normal(-1, 2, (lookahead, layers, steps, batch, experts)).astype(np.float32)
    return choices, np.round(scores, draw(st.integers(0, 6))), draw(st.integers(1, experts))


@settings(deadline=None, max_examples=60)
@given(scored_loops())
def test_plans_of_prophet_are_those_of_the_simulator(loop):
    """What is likelier than not, the nearest layer first, the likeliest first, and no more of a layer than it holds."""
    choices, scores, slots = loop
    steps, batch, layers, _ = choices.shape
    experts = scores.shape[-1]
    batches = DecodeBatches(choices.reshape(-1, layers, 1), np.arange(steps * batch).reshape(steps, batch), experts)
    with np.errstate(over="ignore"):
        # (n, L, E) at each distance.
        forecasts = [1 / (1 + np.exp(-np.moveaxis(each.reshape(layers, -1, experts), 0, 1))) for each in scores]
    forecasts = [np.ascontiguousarray(each) for each in forecasts]
    for ahead_of, each in enumerate(forecasts, start=1):
        each[:, :ahead_of] = 0
    needs = {distance: batch_needs(batches, each) for distance, each in enumerate(forecasts, start=1)}
    simulated = ahead(batches, needs, Hierarchy((slots,)))
    planned = plan_prefetches(PROPHET, choices, len(scores), np.zeros((layers, 1), int), scores)
    for step, layer in np.ndindex(steps, layers):
        begin, end = simulated.begins[step, layer + 1], simulated.ends[step, layer + 1]
        own = [
            target * experts + expert
            for target, needed in enumerate(planned[step][layer], start=layer + 1)
            for expert in needed[:slots]
        ]
        assert simulated.ids[begin:end].tolist() == own


def test_frequency_goes_by_what_the_other_half_chose(plan):
    """The most chosen experts of the sequences that are not replayed, whatever is chosen now; none of layer 0."""
    (workload,) = plan.workloads.values()
    training = split(read_trace(Path(workload.trace)))[0]
    often = often_chosen(workload)
    assert often.shape == (LAYERS, workload.predicted_experts)
    for layer, chosen in enumerate(often.tolist()):
        counts = [(training.experts[:, layer] == expert).sum() for expert in range(8)]
        assert chosen == sorted(range(8), key=lambda expert: -counts[expert])[: workload.predicted_experts]
    found = plan_prefetches(FREQUENCY, routed(3, [[[0], [1], [2]]]), 3, often)
    assert found == [[[often[1].tolist(), often[2].tolist()], [often[2].tolist()], []]]


def test_check_of_a_policy_that_is_gone_names_the_others(plan):
    with pytest.raises(
        UserError, match="policies: got 'previous_token', expected some of all_resident, on_demand, freq"
    ):
        check(replace(plan, policies=["on_demand", "previous_token"]))


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The plan of the project on its smallest trace, for a few tokens."""
    whole = read_as(Plan, ROOT / PLAN_FILE)
    workload = replace(
        whole.workloads["mixtral"], trace=str(ROOT / "resources/traces/small-6x8-top2"), predictor="", tokens=3
    )
    policies = [ALL_RESIDENT, ON_DEMAND, FREQUENCY, ORACLE]
    return replace(whole, workloads={"mixtral": workload}, batches=[1, 4], policies=policies)


@pytest.fixture(scope="module")
def profile():
    return datasheet_profile(GPU, load_gpus(ROOT / "config/gpus.yaml")[GPU])


@pytest.fixture(scope="module")
def simulated(plan, profile) -> pd.DataFrame:
    return compare(plan, [Machine(GPU, profile)])


def record(
    folder: Path, plan: Plan, profile: Profile, simulated: pd.DataFrame, factors: dict[str, float] | None = None
) -> Path:
    """A measurement of a machine with this profile, in which each policy took so many times what was simulated."""
    (workload,) = plan.workloads.values()
    attention = {
        batch: loop_times(plan, workload, profile, LAYERS, batch).non_expert_seconds.sum() for batch in plan.batches
    }
    rows = simulated[["workload", "policy", "batch", "slots"]].assign(
        row="summary",
        seconds=simulated["simulated_ms_per_token"] / 1e3 * simulated["batch"],
        attention_seconds=simulated["batch"].map(attention),
        expert_bytes=workload.expert_bytes,
        trace_sha256=sha256(Path(workload.trace) / TRACE),
        **dict.fromkeys(COPIED, 0.0) | {COPIED[0]: simulated["copies"] * workload.expert_bytes},
    )
    rows["seconds"] *= rows["policy"].map(factors or dict.fromkeys(plan.policies, 1.0))
    folder.mkdir(parents=True)
    rows.to_csv(folder / f"{KIND}.csv", index=False)
    seal(folder, {"kind": KIND, "plan": plan_as_json(plan)}, f"{KIND}.csv")
    return folder


def plan_as_json(plan: Plan) -> dict:
    return vars(plan) | {"workloads": {name: vars(workload) for name, workload in plan.workloads.items()}}


def held_against(folder: Path, profile) -> pd.DataFrame:
    recording = read_recording(folder, KIND)
    plan = read_recorded(Plan, recording.metadata, folder)
    return compare(plan, [Machine(GPU, profile, read_summaries(recording, plan))])


def test_without_a_measurement_the_table_says_so(simulated):
    assert set(simulated["verdict"]) == {NOT_MEASURED}
    assert simulated["measured_ms_per_token"].isna().all()
    told = summary(simulated).set_index("policy")
    assert set(told["verdict"]) == {NOT_MEASURED}
    assert (told["measured"] == 0).all()
    assert told.loc[ON_DEMAND, "configurations"] == (simulated["policy"] == ON_DEMAND).sum() == 4


def test_summary_compares_equal_sets(simulated):
    """`all_resident` counts at batch 1 and 4 as often as the others do: with two numbers of slots, then with one."""
    twice = pd.concat([simulated, simulated.assign(gpu="another")])
    order = twice[["gpu", "policy"]].drop_duplicates().to_numpy().tolist()
    assert summary(twice)[["gpu", "policy"]].to_numpy().tolist() == order
    assert set(summary(twice)["configurations"]) == {4}
    resident = simulated[simulated["policy"] == ALL_RESIDENT].set_index("batch")["simulated_ms_per_token"]
    told = summary(simulated).set_index("policy")["simulated_ms_per_token"]
    assert told[ALL_RESIDENT] == np.median([resident[1], resident[1], resident[4], resident[4]])
    uneven = simulated[~((simulated["batch"] == 4) & (simulated["slots"] == 2))]
    told = summary(uneven).set_index("policy")
    assert set(told["configurations"]) == {3}
    assert told.loc[ALL_RESIDENT, "simulated_ms_per_token"] == resident[1]
    alone = simulated[simulated["policy"] == ALL_RESIDENT]
    assert summary(alone)["configurations"].tolist() == [2]


def test_errors_are_those_of_the_measurement(tmp_path, plan, profile, simulated):
    near, far = 1 + TOLERANCE_PCT / 200, 1 + TOLERANCE_PCT / 50
    factors = {ALL_RESIDENT: 1.0, ON_DEMAND: 1.0, FREQUENCY: near, ORACLE: far}
    table = held_against(record(tmp_path / GPU, plan, profile, simulated, factors), profile)
    expected = table["policy"].map(lambda policy: 100 * (1 / factors[policy] - 1))
    np.testing.assert_allclose(table["error_pct"], expected, atol=1e-9)
    np.testing.assert_allclose(table["copies"], table["measured_copies"])
    verdicts = summary(table).set_index("policy")["verdict"].to_dict()
    assert verdicts == {ALL_RESIDENT: GIVEN, ON_DEMAND: WITHIN, FREQUENCY: WITHIN, ORACLE: BEYOND}


class Launching(Profile):
    """A machine on which every expert, and the attention of every layer, takes longer than by its datasheet."""

    def expert_seconds(self, *args) -> float:
        return super().expert_seconds(*args) + 400e-6

    def attention_seconds(self, *args) -> float:
        return super().attention_seconds(*args) + 50e-6


def test_slower_kernels_are_learned_from_all_resident(tmp_path, plan, profile, simulated):
    """No policy is blamed for what the profile does not know, be it in attention, beside copies, or in experts."""
    slower = Launching(**vars(profile))
    truth = compare(plan, [Machine(GPU, slower)])
    ratio = truth["simulated_ms_per_token"] / simulated["simulated_ms_per_token"]
    assert ratio[truth["policy"] == ALL_RESIDENT].min() > 1.3
    table = held_against(record(tmp_path / GPU, plan, slower, truth), profile)
    assert table["error_pct"].abs().max() < 0.1


def test_what_cannot_be_compared_is_told(tmp_path, plan, profile, simulated):
    folder = record(tmp_path / "partial" / GPU, plan, profile, simulated[simulated["policy"] != ORACLE])
    with pytest.raises(UserError, match=r"holds no summary of mixtral, oracle, 1, 2, which its plan names"):
        held_against(folder, profile)
    fewer = simulated.assign(copies=simulated["copies"].where(simulated["policy"] != ON_DEMAND, 0.5))
    folder = record(tmp_path / "others" / GPU, plan, profile, fewer)
    with pytest.raises(UserError, match=r"mixtral, on_demand, 1, 2: made 0.5 copies a step, the replay makes"):
        held_against(folder, profile)
    (workload,) = plan.workloads.values()
    elsewhere = replace(workload, trace=workload.trace.replace("6x8-top2", "6x64-top8"))
    recording = read_recording(record(tmp_path / "other" / GPU, plan, profile, simulated), KIND)
    with pytest.raises(UserError, match=r"small-6x64-top8/trace.parquet: is not the trace that mixtral replayed"):
        read_summaries(recording, replace(plan, workloads={"mixtral": elsewhere}))

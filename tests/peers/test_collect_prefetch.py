"""Prefetching: every policy computes the same, moves the bytes that its rules say, and no copy races a computation."""

import csv
import dataclasses
import sys
from collections import defaultdict
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import simpy
import torch
import torch.nn.functional as F
from tests.shared_link import SharedLink

from prophet_moe.catalog import load_gpus
from prophet_moe.collect import measurement, prefetch
from prophet_moe.collect.__main__ import main
from prophet_moe.collect.plan import read_as, read_recorded
from prophet_moe.collect.prefetch.bench import Bench
from prophet_moe.collect.prefetch.plan import check_workload
from prophet_moe.collect.prefetch.queues import COMPUTE, DEMAND, PREFETCH, HostQueues
from prophet_moe.collect.prefetch.schema import policy_rows
from prophet_moe.collect.scoring import Predictor
from prophet_moe.errors import UserError
from prophet_moe.hardware.profile import datasheet_profile
from prophet_moe.hardware.recorded import read_recording
from prophet_moe.offload.decode_loop import decisions
from prophet_moe.offload.decode_loop.clock import step_seconds, tokens_of
from prophet_moe.offload.decode_loop.decisions import (
    MISSED,
    Prefetches,
    Scores,
    contents,
    decide,
    held_out,
    lanes,
    often_chosen,
    plan_prefetches,
    tallied,
)
from prophet_moe.offload.decode_loop.plan import POLICIES, Plan, Workload, check
from prophet_moe.offload.simulator.simulation import Times
from prophet_moe.predict.context import LOOKAHEADS, context_of, split
from prophet_moe.routing.store import read_trace, write_trace
from prophet_moe.routing.trace import DECODE, PREFILL, Origin, Router, Trace
from studies.prefetch_validation.compute import Machine, compare, network_scores, read_summaries

ROOT = Path(__file__).parents[2]
SMALL = "small-6x8-top2"
TRACES, PREDICTORS = ROOT / "resources/traces", ROOT / "resources/predictors"
LAYERS, EXPERTS, TOP_K, SEQUENCES, DECODED = 5, 8, 2, 12, 20
BYTES = 2 * 32 * 48 * 4


@pytest.fixture(scope="module")
def trace_folder(tmp_path_factory) -> Path:
    """A trace in which a token keeps some of the choices of the one before."""
    folder = tmp_path_factory.mktemp("trace")
    random = np.random.default_rng(1)
    length = DECODED + 2
    scores = random.normal(size=(SEQUENCES, length, LAYERS, EXPERTS))
    for token in range(1, length):
        scores[:, token] += 0.8 * scores[:, token - 1]
    experts = np.argsort(-scores, axis=-1)[..., :TOP_K].reshape(-1, LAYERS, TOP_K).astype(np.uint16)
    trace = Trace(
        Router("test", EXPERTS, TOP_K, tuple(range(LAYERS))),
        np.repeat(np.arange(SEQUENCES, dtype=np.int32), length),
        np.tile(np.arange(length, dtype=np.int32), SEQUENCES),
        np.tile(np.array([PREFILL] * 2 + [DECODE] * DECODED, np.uint8), SEQUENCES),
        experts,
        True,
        Origin("a test", "none"),
    )
    write_trace(folder, trace)
    return folder


@pytest.fixture(scope="module")
def trace(trace_folder) -> Trace:
    """The half of the trace that is replayed: 6 sequences."""
    return split(read_trace(trace_folder))[1]


@pytest.fixture(scope="module")
def plan(trace_folder) -> Plan:
    """A plan of one workload of tiny experts."""
    workload = Workload(str(trace_folder), 32, 48, False, "float32", 4, 2, LAYERS * EXPERTS, "", 3, 4, 1, 6)
    policies = [policy for policy in POLICIES if policy != "prophet"]
    return Plan({"w": workload}, [1, 3], [0.25, 0.625], policies, 2, 2, 8, 6, 2, True, 0)


def changed(plan: Plan, **values) -> Plan:
    """The plan with other values, of the workload where it has them."""
    (workload,) = plan.workloads.values()
    own = {key: values.pop(key) for key in list(values) if hasattr(workload, key)}
    return dataclasses.replace(plan, workloads={"w": dataclasses.replace(workload, **own)}, **values)


def noisy(trace: Trace, noise: float) -> Scores:
    """Scores, the same at each distance, that make the true experts likely and no others, and noise on them."""
    scores = np.zeros((LAYERS, len(trace), EXPERTS), np.float32)
    np.put_along_axis(scores, np.moveaxis(trace.experts, 1, 0).astype(int), 1, axis=-1)
    scores += noise * np.random.default_rng(2).normal(size=scores.shape).astype(np.float32)
    return lambda rows: np.stack([scores[:, rows]] * 2)


def all_rows(bench: Bench, trace: Trace, batch: int, scores=None) -> dict[str, list[dict]]:
    """The rows of every policy."""
    policies = POLICIES if scores is not None else bench.plan.policies
    often = often_chosen(bench.workload)
    return {policy: policy_rows(bench, trace, batch, policy, often, scores) for policy in policies}


def planned_by(policy: str, trace: Trace, rows: np.ndarray, noise: float) -> Prefetches | None:
    """What a policy wishes for two layers ahead."""
    often = np.tile(np.arange(3), (LAYERS, 1))
    return plan_prefetches(policy, trace.experts[rows], 2, often, noisy(trace, noise)(rows))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_policy_computes_the_same(plan, trace, gated, dtype):
    bench = Bench(changed(plan, gated=gated, dtype=dtype, capacities=[0.25, 0.625, 1.0]), "w", EXPERTS, LAYERS)
    for batch in (1, 3):
        rows = all_rows(bench, trace, batch, noisy(trace, 0.7))
        summaries = [row for made in rows.values() for row in made if row["row"] == "summary"]
        assert len(summaries) == 1 + 3 * 4
        assert len({row["output_sha256"] for row in summaries}) == 1
        assert {row["distinct_outputs"] for row in summaries} == {1}


@pytest.mark.parametrize(("gated", "copies"), [(False, 40), (True, 7)])
def test_the_outputs_are_those_of_a_plain_computation(plan, trace, gated, copies):
    plan = changed(plan, gated=gated, copies=copies)
    bench = Bench(plan, "w", EXPERTS, LAYERS)
    rows = lanes(trace, 3, 6, 5, 0)
    choices = trace.experts[rows]
    batch = bench.batch(choices)
    steps = decide(choices, planned_by("oracle", trace, rows, 0), 2, plan.prefetches_per_layer)
    outputs = bench.replay(batch, steps, contents([], LAYERS, 2), 1).outputs
    assert len({weights.data_ptr() for weights in bench.host}) == copies
    for number in range(1, len(rows)):
        state = batch.inputs[number]
        for layer in range(LAYERS):
            state = F.rms_norm(state, state.shape[-1:])
            state = state + bench._attention(layer, state)
            made = []
            for token, chosen in zip(state, choices[number, :, layer], strict=True):
                each = []
                for expert in chosen:
                    weights = bench.host[(layer * EXPERTS + int(expert)) % copies]
                    *up, down = weights.view(-1, 32 * 48)
                    inner = [matrix.view(48, 32) @ token for matrix in up]
                    active = F.silu(inner[0]) * inner[1] if gated else F.relu(inner[0])
                    each.append(down.view(32, 48) @ active)
                made.append(torch.stack(each).mean(0))
            state = state + torch.stack(made)
        assert state.isfinite().all()
        torch.testing.assert_close(outputs[number - 1], state)


def test_rows_add_up(plan, trace):
    bench = Bench(plan, "w", EXPERTS, LAYERS)
    for batch in (1, 3):
        every = all_rows(bench, trace, batch, noisy(trace, 0.7))
        unique = None
        for policy, rows in every.items():
            capacities = 1 if policy == "all_resident" else 2
            assert len(rows) == capacities * (1 + LAYERS + 6)
            for number in range(capacities):
                summary, *rest = rows[number * (1 + LAYERS + 6) :][: 1 + LAYERS + 6]
                layers, steps = rest[:LAYERS], rest[LAYERS:]
                assert [row["layer"] for row in layers] == list(range(LAYERS))
                assert [row["step"] for row in steps] == list(range(6))
                for name in ("requests", "hits", "demand_bytes", "prefetch_used_bytes", "prefetch_wrong_bytes"):
                    total = sum(row[name] for row in steps)
                    assert summary[name] * 6 == pytest.approx(total)
                    assert sum(row[name] for row in layers) * 6 == pytest.approx(total)
                for row in steps:
                    assert row["hits"] * BYTES + row["demand_bytes"] == row["requests"] * BYTES
                    assert row["demand_bytes"] % BYTES == row["prefetch_used_bytes"] % BYTES == 0
                unique = unique or [row["requests"] for row in steps]
                assert [row["requests"] for row in steps] == unique
                assert summary["hit_rate"] == pytest.approx(summary["hits"] / summary["requests"])
                assert 0 < summary["seconds_low"] <= summary["seconds"] <= summary["seconds_high"]
                assert "stall_seconds" not in summary
        assert len({row["trace_sha256"] for rows in every.values() for row in rows if "trace_sha256" in row}) == 1


def test_what_the_policies_copy(plan, trace):
    bench = Bench(plan, "w", EXPERTS, LAYERS)
    for batch in (1, 3):
        every = all_rows(bench, trace, batch, noisy(trace, 0.0))
        summaries = {policy: [row for row in rows if row["row"] == "summary"] for policy, rows in every.items()}
        (resident,) = summaries["all_resident"]
        assert resident["slots"] == EXPERTS
        assert resident["hit_rate"] == 1
        kinds = ("demand_bytes", "prefetch_used_bytes", "prefetch_wrong_bytes")
        assert [resident[kind] for kind in kinds] == [0, 0, 0]
        assert [row["slots"] for row in summaries["on_demand"]] == [2, 5]
        for demand, oracle in zip(summaries["on_demand"], summaries["oracle"], strict=True):
            assert oracle["demand_bytes"] < demand["demand_bytes"]
            assert (
                demand["prefetch_used_bytes"] == demand["prefetch_wrong_bytes"] == oracle["prefetch_wrong_bytes"] == 0
            )
        first_misses = [
            [row["demand_bytes"] for row in every[policy] if row["layer"] == 0 and row["slots"] == 5]
            for policy in ("on_demand", "oracle")
        ]
        assert first_misses[0] == first_misses[1], "no policy knows layer 0 ahead"
        if batch == 1:
            later = [row for row in every["oracle"] if row["layer"] and row["slots"] == 5]
            assert all(row["demand_bytes"] == 0 for row in later)
        for sure, oracle in zip(summaries["prophet"], summaries["oracle"], strict=True) if batch == 1 else ():
            told = [{name: row[name] for name in (*kinds, "prefetches_dropped", "hits")} for row in (sure, oracle)]
            assert told[0] == told[1], "who is always right does what the oracle does"
        assert all(row["prefetch_wrong_bytes"] > 0 for row in summaries["frequency"])


def test_the_log_is_a_possible_history(plan, trace):
    """Every copy evicts what is there, every use finds its expert, and prefetching never evicts what it reserved."""
    dropped = defaultdict(int)
    for batch in (1, 3):
        rows = lanes(trace, batch, 12, DECODED, 0)
        for policy, slots, most in product(POLICIES, (1, 2, 5, 8), (1, 3)):
            planned = planned_by(policy, trace, rows, 0.7)
            steps = decide(trace.experts[rows], planned, slots, most)
            held = contents([], LAYERS, slots)
            dropped[policy] += tallied(steps)["prefetches_dropped"].sum()
            for number, step in enumerate(steps):
                fetched, waiting = defaultdict(set), set()
                for layer, work in enumerate(step):
                    meant = dict(enumerate(planned[number][layer] if planned else (), start=layer + 1))
                    assert len(work.prefetches) <= most
                    for copy in work.prefetches:
                        wanted = meant[copy.layer][:slots]
                        assert copy.expert in wanted
                        assert copy.evicted not in wanted
                        assert copy.evicted not in fetched[copy.layer]
                        assert held[copy.layer][copy.slot] == copy.evicted
                        held[copy.layer][copy.slot] = copy.expert
                        fetched[copy.layer].add(copy.expert)
                    late = {(to, expert) for to in meant for expert in meant[to][:slots] if expert not in held[to]}
                    begun = {(copy.layer, copy.expert) for copy in work.prefetches}
                    assert sorted(work.dropped) == sorted(to for to, expert in waiting - late - begun)
                    waiting = late
                    used = set()
                    for use in work.uses:
                        if use.copy:
                            assert held[layer][use.slot] == use.copy.evicted
                            assert use.copy.recycled == (use.slot in used)
                            held[layer][use.slot] = use.expert
                        assert held[layer][use.slot] == use.expert
                        assert (use.source == "prefetched") == (use.expert in fetched[layer])
                        used.add(use.slot)
                    asked = trace.experts[rows[number], layer]
                    assert sorted(use.expert for use in work.uses) == np.unique(asked).tolist()
                assert not waiting
            assert held == contents(steps, LAYERS, slots)
    assert {policy for policy, count in dropped.items() if count} == {"frequency", "prophet", "oracle"}


def test_on_demand_is_least_recently_used():
    """Against time stamps, kept by a loop of its own."""
    random = np.random.default_rng(5)
    choices = random.integers(0, 8, size=(60, 1, 1, 1))
    steps = decide(choices, None, 3, 1)
    stamps = {expert: expert - 3 for expert in range(3)}
    for number, expert in enumerate(choices.ravel().tolist()):
        ((use,),) = (step.uses for step in steps[number])
        assert (use.source == MISSED) == (expert not in stamps)
        if expert not in stamps:
            oldest = min(stamps, key=stamps.get)
            assert use.copy.evicted == oldest
            del stamps[oldest]
        stamps[expert] = number


def test_a_step_worked_by_hand():
    """Two layers, 3 slots each, two sequences: 0 1 2 lie there; for layer 1, 3 2 1 are wished for, 0 3 are true."""
    choices, planned = np.array([[[[5], [0]], [[0], [3]]]]), [[[[3, 2, 1]], []]]
    ((first, second),) = decide(choices, planned, 3, 1)
    assert first.prefetches == [decisions.Copy(1, 3, 0, 0, False)], "1 and 2 are reserved, 0 is not"
    assert first.dropped == second.dropped == []
    assert [(use.expert, use.slot, use.source) for use in first.uses] == [(0, 0, "kept"), (5, 1, "missed")]
    assert [(use.expert, use.slot, use.source) for use in second.uses] == [(3, 0, "prefetched"), (0, 1, "missed")]
    tally = {name: table.tolist() for name, table in tallied([[first, second]]).items()}
    assert tally["misses"] == [[1, 1]]
    assert tally["prefetches_used"] == [[0, 1]]
    assert tally["prefetches_wrong"] == [[0, 0]]
    ((first, second),) = decide(choices, planned, 2, 1)
    assert [copy.expert for copy in first.prefetches] == [3]
    assert second.dropped == [1], "2 waited, 1 is more than 2 slots hold"


def test_lanes_follow_sequences(trace):
    rows = lanes(trace, 2, 10, 4, 7)
    order = np.unique(trace.sequence)[np.random.default_rng(7).permutation(SEQUENCES // 2)]
    assert trace.sequence[rows[:, 0]].tolist() == [order[0]] * 4 + [order[2]] * 4 + [order[4]] * 2
    assert trace.position[rows[:, 1]].tolist() == [3, 4, 5, 6] * 2 + [3, 4]
    assert (trace.phase[rows - 1] == DECODE).all()
    assert (trace.sequence[rows - 1] == trace.sequence[rows]).all()


class Named(HostQueues):
    """Streams that know which of them is handed work."""

    def __init__(self, *, miss_priority: bool) -> None:
        self.name = {COMPUTE: COMPUTE, PREFETCH: PREFETCH, DEMAND: DEMAND if miss_priority else PREFETCH}
        self.current = COMPUTE

    @contextmanager
    def on(self, stream: str):
        before, self.current = self.current, self.name[stream]
        yield
        self.current = before

    def seconds(self, begin, mark) -> float:
        return 0.0


class Ordered(Named):
    """Streams that compute nothing but what is known to happen before what, by vector clocks."""

    def __init__(self, *, miss_priority: bool, deaf: bool = False) -> None:
        """A `deaf` one forgets to wait."""
        super().__init__(miss_priority=miss_priority)
        self.clocks = {stream: defaultdict(int) for stream in set(self.name.values())}
        self.deaf = deaf
        self.touched = defaultdict(list)

    def start(self, head_start: float):
        return self.mark(COMPUTE)

    def mark(self, stream: str):
        return dict(self.clocks[self.name[stream]])

    def wait(self, stream: str, mark) -> None:
        clock = self.clocks[self.name[stream]]
        if not self.deaf:
            clock.update({name: max(clock[name], count) for name, count in mark.items()})

    def end(self):
        for stream in self.clocks:
            self.wait(COMPUTE, self.mark(stream))
        for clock in self.clocks.values():
            clock.update(self.clocks[COMPUTE])
        self.touched.clear()
        return self.mark(COMPUTE)

    def touch(self, what, *, write: bool) -> None:
        """What is touched must come after everything that wrote it, and if it is written, that read it."""
        clock = self.clocks[self.current]
        for stream, count, wrote in self.touched[what]:
            if write or wrote:
                assert clock[stream] >= count, f"{what} is touched on {self.current} and on {stream} in no order"
        clock[self.current] += 1
        self.touched[what].append((self.current, clock[self.current], write))

    def comes_after(self, what) -> bool:
        """Whether what is queued next comes after the last touch of `what`."""
        stream, count, _ = self.touched[what][-1]
        return self.clocks[self.current][stream] >= count


class Watched(Bench):
    """A bench that tells its queues which slot every copy writes and every computation reads."""

    overtaken = 0

    def _fill(self, copy):
        if self.queues.current == self.queues.name[PREFETCH]:
            self.queues.touch("prefetch queue", write=True)
        elif self.queues.touched["prefetch queue"]:
            self.overtaken += not self.queues.comes_after("prefetch queue")
        assert self.queues.comes_after(("attention", self.asking)), "a copy starts before its layer has asked"
        self.queues.touch((copy.layer, copy.slot), write=True)
        super()._fill(copy)

    def _routed(self, layer, *others):
        self.asking = layer
        return super()._routed(layer, *others)

    def _attention(self, layer, state):
        self.queues.touch(("attention", layer), write=True)
        return super()._attention(layer, state)

    def _apply(self, layer, slot, tokens, results):
        self.queues.touch((layer, slot), write=False)
        super()._apply(layer, slot, tokens, results)


@pytest.mark.parametrize("miss_priority", [True, False])
def test_no_copy_races_a_computation(plan, trace, miss_priority):
    bench = Watched(changed(plan, miss_priority=miss_priority), "w", EXPERTS, LAYERS)
    for noise in (0.7, 3.0):
        for batch in (1, 3):
            bench.queues = Ordered(miss_priority=miss_priority)
            all_rows(bench, trace, batch, noisy(trace, noise))
    assert (bench.overtaken > 0) is miss_priority
    bench.queues = Ordered(miss_priority=miss_priority, deaf=True)
    with pytest.raises(AssertionError, match=r"in no order|before its layer"):
        all_rows(bench, trace, 3, noisy(trace, 0.7))


class Timed(Named):
    """Streams whose work SimPy times, once a step has queued it: copies share the link, streams wait for marks."""

    def __init__(self, clock: Times, *, miss_priority: bool) -> None:
        """`clock` has the seconds of what is queued."""
        super().__init__(miss_priority=miss_priority)
        self.clock = clock
        self.queued = defaultdict(list)
        self.step_seconds = []

    def start(self, head_start: float):
        self.queued.clear()
        return self.mark(COMPUTE)

    def queue(self, kind: str, what, stream: str | None = None):
        self.queued[stream or self.current].append((kind, what))
        return what

    def mark(self, stream: str):
        return self.queue("mark", object(), self.name[stream])

    def wait(self, stream: str, mark) -> None:
        self.queue("wait", mark, self.name[stream])

    def end(self):
        env = simpy.Environment()
        link, reached = SharedLink(env), defaultdict(env.event)

        def work(queued):
            for kind, what in queued:
                if kind == "mark":
                    reached[what].succeed()
                elif kind == "wait":
                    yield reached[what]
                elif kind == "compute":
                    yield env.timeout(what)
                else:
                    yield link.copied(what)

        env.run(env.all_of([env.process(work(queued)) for queued in self.queued.values()]))
        self.step_seconds.append(env.now)


class TimedBench(Bench):
    """A bench that tells its queues how long its work takes."""

    def _fill(self, copy):
        self.queues.queue("copy", self.queues.clock.transfer_seconds[0])
        super()._fill(copy)

    def _attention(self, layer, state):
        self.queues.queue("compute", self.queues.clock.non_expert_seconds[layer])
        return super()._attention(layer, state)

    def _apply(self, layer, slot, tokens, results):
        self.queues.queue("compute", self.queues.clock.expert_seconds[len(tokens)])
        super()._apply(layer, slot, tokens, results)


@pytest.mark.parametrize("miss_priority", [True, False])
@pytest.mark.parametrize("fetch", [0.3, 1.1, 7.0])
def test_the_clock_takes_what_the_queues_take(plan, trace, miss_priority, fetch):
    """Of every policy, in waves, with late and wrong prefetches: the simulated loop is the one that is queued."""
    bench = TimedBench(changed(plan, miss_priority=miss_priority), "w", EXPERTS, LAYERS)
    for batch, slots, policy in product((1, 3), (2, 5), POLICIES):
        rows = lanes(trace, batch, 8, 6, 0)
        choices = trace.experts[rows]
        steps = decide(choices, planned_by(policy, trace, rows, 0.7), slots, plan.prefetches_per_layer)
        clock = Times(np.full(LAYERS, 1.0), np.array([0.0, 0.5, 0.75, 0.875]), (fetch,))
        bench.queues = Timed(clock, miss_priority=miss_priority)
        bench.replay(bench.batch(choices), steps, contents([], LAYERS, slots), 1)
        # Before the steps, weights are loaded.
        expected = bench.queues.step_seconds[-len(steps) :]
        told = [
            step_seconds(step, tokens, clock, miss_priority=miss_priority)
            for step, tokens in zip(steps, tokens_of(choices), strict=True)
        ]
        assert told == pytest.approx(expected, rel=1e-9)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "prefetch.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_interrupted_measurement_goes_on(plan, tmp_path, monkeypatch):
    write, written = measurement.write_json, []

    def failing(path, content):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append((path, content))
        write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(measurement, "write_json", failing)
        with pytest.raises(KeyboardInterrupt):
            prefetch.collect(plan, tmp_path / "out")
    kept = [row for path, content in written if path.parent.name == "parts" for row in content["rows"]]
    assert len(kept) == (1 + 2 + 2) * (1 + LAYERS + 6)
    prefetch.collect(plan, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2 * (1 + 2 + 2 + 2) * (1 + LAYERS + 6)
    assert [row["seconds"] for row in rows[: len(kept)]] == [str(row["seconds"]) for row in kept]
    assert {row["policy"] for row in rows} == set(plan.policies)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["SHA256SUMS", "metadata.json", "prefetch.csv"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"policies": ["on_demand", "orakel"]}, "policies: got 'orakel', expected some of all_resident, on_demand"),
        ({"policies": ["prophet"]}, r"workloads\.w\.predictor: is empty, policy prophet asks one"),
        ({"policies": ["prophet"], "predictor": "nowhere"}, r"nowhere: holds no metadata\.json"),
        (
            {"policies": ["prophet"], "predictor": str(PREDICTORS / SMALL)},
            rf"{SMALL}: is for layers \[0, 1, 2, 3, 4, 5\], the trace of test has \[0, 1, 2, 3, 4\]",
        ),
        ({"capacities": [0.0]}, r"capacities: got \[0.0\], expected shares above 0"),
        ({"batches": [0]}, r"batches\[0\]: got 0, expected at least 1"),
        ({"batches": [7]}, "lane 0 of 7 has 6 decode tokens, the plan replays 11"),
        ({"tokens": 90}, "lane 0 of 1 has 36 decode tokens, the plan replays 95"),
        ({"repeats": 1}, "repeats: got 1, expected at least 2"),
        ({"prefetches_per_layer": 0}, "prefetches_per_layer: got 0, expected at least 1"),
        ({"lookahead": 0}, "lookahead: got 0, expected at least 1"),
        ({"dtype": "int8"}, r"workloads\.w\.dtype: got 'int8', expected some of bfloat16, float32"),
        ({"heads": 5}, r"workloads\.w\.heads: got 5 and 2 kv_heads, expected divisors"),
        ({"warmup_tokens": 0}, r"workloads\.w\.warmup_tokens: got 0, expected at least 1"),
        ({"predicted_experts": 9}, "predicted_experts: got 9, there are 8"),
        ({"trace": "nowhere"}, r"nowhere: holds no metadata\.json"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(plan, tmp_path, values, told):
    with pytest.raises(UserError, match=told):
        prefetch.collect(changed(plan, **values), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_real_plan_fits_its_traces_and_predictors(monkeypatch):
    monkeypatch.chdir(ROOT)
    real = read_as(Plan, Path("config/measurements/prefetch.yaml"))
    check(real)
    for name, workload in real.workloads.items():
        trace = held_out(workload)
        check_workload(real, name, trace)
        Predictor(Path(workload.predictor), trace, real.lookahead)
        assert workload.copies == trace.router.experts * len(trace.router.layers), "all experts are different ones"
    sizes = {name: workload.expert_bytes for name, workload in real.workloads.items()}
    assert sizes == {"switch-128": 9_437_184, "olmoe": 12_582_912, "mixtral": 352_321_536}


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Path:
    """The quick plan, measured by the command on this machine."""
    folder = tmp_path_factory.mktemp("quick") / "out"
    command = ["collect", "prefetch", "--plan", "config/measurements/prefetch_quick.yaml", "--out", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", command)
        main()
    return folder


def test_the_command_runs_the_quick_plan(quick):
    """With real traces and predictors: the same outputs by every policy, and fewer demand misses by prediction."""
    summaries = [row for row in rows_of(quick) if row["row"] == "summary"]
    assert len(summaries) == 2 * 2 * (1 + 2 + 2 + 2 + 2)
    outputs, missed, wrong = defaultdict(set), defaultdict(float), defaultdict(float)
    for row in summaries:
        outputs[row["workload"], row["batch"]].add(row["output_sha256"])
        missed[row["policy"], row["workload"], row["batch"]] += float(row["demand_bytes"])
        wrong[row["policy"]] += float(row["prefetch_wrong_bytes"])
        assert (row["predictor_seconds"] != "") == (row["policy"] == "prophet")
        assert row["policy"] != "prophet" or 0 < float(row["predictor_seconds"]) < 1
    assert {len(found) for found in outputs.values()} == {1}
    for workload, batch in outputs:
        found = [missed[policy, workload, batch] for policy in ("oracle", "prophet", "on_demand")]
        assert max(found[:2]) < found[2]
    assert 0 == wrong["oracle"] < wrong["prophet"]


def test_what_is_simulated_copies_what_was_measured(quick, monkeypatch):
    """Without PyTorch, from the recorded plan: the same experts, unless scores of the predictor are all but equal."""
    monkeypatch.chdir(ROOT)
    recording = read_recording(quick, "prefetch")
    plan = read_recorded(Plan, recording.metadata, quick)
    profile = datasheet_profile("A100-80GB", load_gpus(ROOT / "config/gpus.yaml")["A100-80GB"])
    table = compare(plan, [Machine("A100-80GB", profile, read_summaries(recording, plan))])
    assert len(table) == 2 * 2 * (1 + 2 + 2 + 2 + 2)
    np.testing.assert_allclose(table["copies"], table["measured_copies"], rtol=1e-9)
    summaries = [row for row in rows_of(quick) if row["row"] == "summary"]
    assert table["hit_rate"].tolist() == pytest.approx([float(row["hit_rate"]) for row in summaries])
    taken = [float(row["seconds"]) / int(row["batch"]) * 1e3 for row in summaries]
    assert table["measured_ms_per_token"].tolist() == pytest.approx(taken)
    resident = table[table["policy"] == "all_resident"]
    np.testing.assert_allclose(resident["simulated_ms_per_token"], resident["measured_ms_per_token"], rtol=1e-6)


@pytest.fixture(scope="module")
def some_tokens() -> Trace:
    """The first 60 tokens of the real trace."""
    trace = read_trace(TRACES / SMALL)
    return trace.select(np.arange(len(trace)) < 60)


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
def test_scores_are_those_of_the_numpy_predictor(some_tokens, lookahead):
    from prophet_moe.predict.network import read_network

    plain, context = read_network(PREDICTORS / SMALL), context_of(some_tokens)
    rows = np.arange(len(some_tokens)).reshape(-1, 4)
    scores = Predictor(PREDICTORS / SMALL, some_tokens, lookahead).scores(rows)
    np.testing.assert_allclose(network_scores(plain, some_tokens, rows, lookahead), scores, rtol=1e-4, atol=1e-4)
    assert scores.shape == (lookahead, context.choices.shape[1], *rows.shape, EXPERTS)
    for ahead, layer in np.ndindex(scores.shape[:2]):
        found = scores[ahead, layer].reshape(len(some_tokens), -1)
        if layer <= ahead:
            assert not found.any()
        else:
            expected = plain.scores(context.inputs(layer, ahead + 1), layer, ahead + 1)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
@pytest.mark.parametrize("asker", range(5))
def test_a_prediction_uses_what_is_known_when_it_is_made(some_tokens, lookahead, asker):
    """Once layer `asker` has asked: what comes later is not seen, what it asked for is."""
    row, rows = 30, np.array([[30]])
    experts, known = some_tokens.experts, Predictor(PREDICTORS / SMALL, some_tokens, lookahead).scores(rows)
    for first, seen in ((asker + 1, False), (asker, True)):
        changed = experts.copy()
        changed[row, first:] = (changed[row, first:] + 1) % EXPERTS
        changed[row + 1 :] = (changed[row + 1 :] + 1) % EXPERTS
        other = Predictor(PREDICTORS / SMALL, dataclasses.replace(some_tokens, experts=changed), lookahead).scores(rows)
        for target in range(asker + 1, min(asker + lookahead, 5) + 1):
            at = target - asker - 1, target
            assert (other[at] != known[at]).any() == seen


@pytest.mark.parametrize(
    ("router", "lookahead", "told"),
    [
        (Router("m", 9, 2, tuple(range(6))), 3, "is for experts 8, the trace of m has 9"),
        (Router("m", 8, 1, tuple(range(6))), 3, "is for top_k 2, the trace of m has 1"),
        (Router("m", 8, 2, tuple(range(1, 7))), 3, r"is for layers \[0, 1, 2, 3, 4, 5\], the trace of m has \[1, 2"),
        (Router("m", 8, 2, tuple(range(6))), 4, "looks at most 3 layers ahead, expected lookahead 4 of the plan"),
    ],
)
def test_a_predictor_of_something_else_is_refused(some_tokens, router, lookahead, told):
    with pytest.raises(UserError, match=f"{SMALL}: {told}"):
        Predictor(PREDICTORS / SMALL, dataclasses.replace(some_tokens, router=router), lookahead)

"""Traces without decode tokens and of a single session: described, replayed, and said to be so."""

import json
import shutil
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prophet_moe.cli.main import main
from prophet_moe.cli.sim import _capacities
from prophet_moe.errors import UserError
from prophet_moe.offload.replay import SampleSize, metrics, parts_of, run, samples
from prophet_moe.offload.simulator.predictions import TrainingStatistics
from prophet_moe.offload.simulator.simulation import Hierarchy, Times
from prophet_moe.offload.strategies import strategies
from prophet_moe.predict.context import split
from prophet_moe.present.style import trace_look
from prophet_moe.routing import sequences, store, summary
from prophet_moe.routing.datasets import DatasetFile, router_named, timed_model
from prophet_moe.routing.trace import DECODE, PREFILL, Trace
from prophet_moe.settings.style import Style
from prophet_moe.tables import read_table, write_table
from studies.routing_statistics import figure as routing_statistics
from studies.routing_statistics.study import STATISTICS
from tests.builders import uniform_trace
from tests.conftest import ROOT

PREFILL_NOTE = "prefill tokens are used, because the trace holds no decode token"
ONE_TEXT_NOTE = "the trace holds one text: the first half of its tokens is for training, the second half for evaluation"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run prophet-moe in this process, every warning an error: what it prints."""

    def run_command(*arguments: str) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr("sys.argv", ["prophet-moe", *map(str, arguments)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            main()
        return capsys.readouterr().out

    return run_command


def imported(command, folder, lengths, decoded=0):
    """A trace of random routing of OLMoE-1B-7B, imported from arrays; the last `decoded` tokens of each are decoded."""
    ids = np.random.default_rng(0).random((sum(lengths), 16, 64)).argsort(axis=2)[..., :8].astype(np.uint8)
    arrays = {"prompt_len": np.array(lengths, np.int32)}
    if decoded:
        arrays |= {"seq_len": np.array(lengths, np.int32), "prompt_len": np.full(len(lengths), 5, np.int32)}
    np.savez(folder / "arrays.npz", expert_ids=ids, **arrays)
    out = folder / "trace"
    command("trace", "import", "arrays", folder / "arrays.npz", "--model", "OLMoE-1B-7B", "--out", out)
    return out


def mixed_phases(lengths, prompts) -> Trace:
    """A trace whose sequences begin with so many tokens of prefill."""
    trace = uniform_trace(lengths, 2, 8, 2)
    starts = np.cumsum([0, *lengths])
    for start, prompt in zip(starts, prompts, strict=False):
        trace.phase[start : start + prompt] = PREFILL
    return trace


@pytest.mark.parametrize(("prompts", "expected"), [([1, 4], 3), ([2, 4], 2), ([4, 4], 8)])
def test_described_is_decode_or_else_prefill(prompts, expected):
    trace = mixed_phases([4, 4], prompts)
    described = trace.described()
    assert len(described) == expected
    assert set(described.phase.tolist()) == {trace.described_phase}
    assert trace.described_phase == (DECODE if (trace.phase == DECODE).any() else PREFILL)


def test_without_repetition_drops_what_decodes_nothing():
    """Else the held-out half might hold nothing that is replayed."""
    trace = mixed_phases([4, 4, 4, 4], [1, 4, 4, 2])
    assert np.unique(sequences.without_repetition(trace).sequence).tolist() == [0, 3]
    for part in split(trace):
        assert (part.described().phase == DECODE).all()
    prompts = mixed_phases([4, 4], [4, 4])
    assert len(sequences.without_repetition(prompts)) == 8


def of_one_text(sequences_of_it: int, copies: int) -> Trace:
    """A trace whose sequences are of one piece of text, each as often as `copies`."""
    trace = uniform_trace([6] * sequences_of_it * copies, 2, 8, 2)
    trace.experts[:] = np.concatenate([trace.experts[: 6 * sequences_of_it]] * copies)
    pieces = {"sequences": [{"piece": "x"}] * (sequences_of_it * copies)}
    return replace(trace, origin=replace(trace.origin, notes=pieces))


@pytest.mark.parametrize(("distinct", "copies"), [(1, 5), (5, 1), (3, 2)])
def test_metadata_tells_sequences_without_repetition(tmp_path, distinct, copies):
    """By them a build leaves a trace out of the laws before a job of them fails."""
    store.write_trace(tmp_path, of_one_text(distinct, copies))
    assert store.read_metadata(tmp_path)["unrepeated"] == {"sequences": distinct, "texts": 1}


def test_metadata_of_repetition_alone_tells_none(tmp_path):
    trace = uniform_trace([5, 5], 2, 8, 2)
    assert sequences.unrepeated_extent(trace) == {"sequences": 2, "texts": 2}
    flagged = replace(trace.origin, notes={"sequences": [{"has_repetition": True}] * 2})
    assert sequences.unrepeated_extent(replace(trace, origin=flagged)) == {"sequences": 0, "texts": 0}


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), data=st.data())
def test_halves_of_one_text_are_of_its_described_tokens(lengths, data):
    trace = mixed_phases(lengths, [data.draw(st.integers(0, length)) for length in lengths])
    described = len(trace.described())
    training, judged = sequences.split_by_token(trace, 0.5)
    np.testing.assert_array_equal(np.concatenate([training.experts, judged.experts]), trace.experts)
    assert judged.described_phase == trace.described_phase
    assert len(judged.described()) == described - described // 2
    if len(lengths) == 1:
        assert sequences.of_one_text(trace)
        assert len(sequences.split_to_evaluate(trace, 0.5, 0)[1]) == len(judged)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    layers=st.integers(1, 3),
    experts=st.integers(2, 6),
    strategy=st.sampled_from([name for name in strategies() if name != "prophet"]),
    data=st.data(),
)
def test_traces_of_any_phases_and_texts_are_replayed(lengths, layers, experts, strategy, data):
    """By every strategy, however little there is to learn from, without a warning; invariants hold."""
    trace = uniform_trace(lengths, layers, experts, data.draw(st.integers(1, experts)), data.draw(st.integers(0, 99)))
    trace.phase[:] = data.draw(st.lists(st.integers(0, 1), min_size=len(trace), max_size=len(trace)))
    if data.draw(st.booleans()):
        tokens = data.draw(st.lists(st.integers(0, 3), min_size=len(trace), max_size=len(trace)))
        pieces = [{"piece": data.draw(st.sampled_from("xy"))} for _ in lengths]
        origin = replace(trace.origin, notes={"sequences": pieces})
        trace = replace(trace, token=np.array(tokens, np.int32), origin=origin)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training, held_out = split(trace)
        replayed = held_out.described()
        batch = data.draw(st.integers(1, len(np.unique(replayed.sequence))))
        times = Times(
            np.full(layers, 1 / 3), np.arange(batch + 1) / 15, (1 / 7,), data.draw(st.sampled_from([1.0, 0.01]))
        )
        known, hierarchy = TrainingStatistics(training), Hierarchy((data.draw(st.integers(1, experts)),))
        outcome = run(parts_of(known, replayed, batch), known, strategies()[strategy], hierarchy, times)
        metrics(outcome, 1.0)
    assert outcome.step_tokens.sum() == len(replayed) > 0
    assert set(replayed.phase.tolist()) == {trace.described_phase}


@pytest.mark.parametrize("strategy", [name for name in strategies() if name != "prophet"])
def test_one_token_of_prefill_is_described_and_replayed(command, tmp_path, strategy):
    folder = imported(command, tmp_path, [1])
    shown = command("trace", "describe", folder)
    assert PREFILL_NOTE in shown and ONE_TEXT_NOTE in shown
    assert "load_skew" in shown and "nan" not in shown
    told = json.loads(command("sim", "run", "--trace", folder, "--strategy", strategy, "--capacity", 32, "--json"))
    assert (told["tokens"], told["phase"], told["notes"]) == (1, "prefill", [PREFILL_NOTE, ONE_TEXT_NOTE])


def test_prompts_alone_are_described_and_replayed(command, tmp_path):
    folder = imported(command, tmp_path, [30, 20, 10, 20])
    shown = command("trace", "describe", folder)
    assert PREFILL_NOTE in shown and ONE_TEXT_NOTE not in shown
    sim = partial(command, "sim", "run", "--trace", folder, "--strategy", "on_demand", "--capacity", 32, "--batch", 2)
    told = json.loads(sim("--json"))
    training, held_out = split(store.read_trace(folder))
    assert (told["phase"], told["notes"], told["tokens"]) == ("prefill", [PREFILL_NOTE], len(held_out))
    assert len(training) + len(held_out) == 80
    assert f"{len(held_out)} of prefill" in sim() and PREFILL_NOTE in sim()


def test_one_session_is_replayed_from_its_middle(command, tmp_path):
    folder = imported(command, tmp_path, [41], decoded=41)
    assert ONE_TEXT_NOTE in command("trace", "describe", folder)
    sim = partial(command, "sim", "run", "--trace", folder, "--strategy", "static_popular", "--capacity", 32)
    told = json.loads(sim("--json"))
    assert (told["phase"], told["notes"], told["tokens"]) == ("decode", [ONE_TEXT_NOTE], 21)
    assert "21 of decode" in sim()
    training, held_out = split(store.read_trace(folder))
    assert training.position.max() < held_out.position.min()


def test_the_only_session_has_one_batch_size(command, tmp_path):
    folder = imported(command, tmp_path, [9])
    with pytest.raises(SystemExit, match="got 2, expected 1 to the only held-out sequence"):
        command("sim", "run", "--trace", folder, "--strategy", "on_demand", "--capacity", 8, "--batch", 2)


def test_a_trace_of_repetition_alone_is_refused(command, tmp_path):
    """Both commands, in one line."""
    trace = uniform_trace([5, 5], 16, 64, 8)
    notes = {"sequences": [{"has_repetition": True}] * 2}
    router = replace(trace.router, model="OLMoE-1B-7B")
    store.write_trace(tmp_path, replace(trace, router=router, origin=replace(trace.origin, notes=notes)))
    replay = ("sim", "run", "--strategy", "on_demand", "--capacity", 8, "--trace")
    for arguments in (("trace", "describe"), replay):
        with pytest.raises(SystemExit, match="flags every sequence as repetitive, expected at least 1"):
            command(*arguments, tmp_path)


def test_samples_of_prompts_are_of_prefill():
    trace = mixed_phases([12] * 8, [12] * 8)
    size = SampleSize(3, 5)
    (drawn,) = samples(trace, None, size, ("recorded",), 1)
    assert (drawn.trace.phase == PREFILL).all() and len(drawn.trace) == 15
    with pytest.raises(UserError, match="0 held-out sequences of 99 prefill tokens, expected 3"):
        next(samples(trace, None, size._replace(tokens=99), ("recorded",), 1))


def test_the_title_of_a_trace_says_that_it_is_of_prefill(command, tmp_path):
    prompts = store.read_metadata(imported(command, tmp_path, [4, 3]))
    assert store.title_of("mine", store.phase_of(prompts)) == "mine (prefill)"
    answers = prompts | {"tokens_by_phase": {"prefill": 3, "decode": 1}}
    assert store.title_of("mine", store.phase_of(answers)) == "mine"
    style = Style(traces=["other", "mine"])
    assert trace_look(style, "mine (prefill)") == trace_look(style, "mine")


@pytest.mark.parametrize("lengths", [[1], [40], [20, 10]])
def test_the_figure_of_statistics_draws_few_sequences(tmp_path, lengths):
    """Of which no batch of 8 can be drawn, beside a trace of many."""
    rows = summary.summarise("many", uniform_trace([4] * 20, 2, 8, 2))
    rows += summary.summarise("few", uniform_trace(lengths, 2, 8, 2))
    path = tmp_path / "statistics.csv"
    write_table(path, pd.DataFrame(rows), STATISTICS)
    statistics, traces = read_table(path, STATISTICS), ["many", "few"]
    told = routing_statistics.findings(statistics, traces=traces).splitlines()
    assert "8 sequences need" in told[0] and "The trace has fewer than 8 sequences" in told[1]
    routing_statistics.draw(statistics, Style(), traces=traces)


def test_describe_takes_a_name_or_a_folder(command):
    name = "small-6x8-top2"
    assert command("trace", "describe", name) == command("trace", "describe", f"resources/traces/{name}")


def test_import_refuses_a_folder_that_holds_something(command, tmp_path):
    folder = imported(command, tmp_path, [4, 3])
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = ("trace", "import", "arrays", tmp_path / "arrays.npz", "--model", "OLMoE-1B-7B", "--out")
    with pytest.raises(SystemExit, match=r"holds a trace already. Name another one, or add --force"):
        command(*again, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    (tmp_path / "file").write_text("mine")
    for out, problem in ((tmp_path / "file", "is a file"), (tmp_path, "holds other files")):
        for options in ((), ("--force",)):
            with pytest.raises(SystemExit, match=problem):
                command(*again, out, *options)
    (tmp_path / "empty").mkdir()
    assert "7 tokens" in command(*again, tmp_path / "empty")


def test_import_over_counts_says_that_they_are_counts(command, tmp_path):
    folder, counts = tmp_path / "out", ROOT / "docs/samples/counts.csv"
    again = ("trace", "import", "counts", counts, "--model", "made-up", "--out", folder)
    command(*again)
    with pytest.raises(SystemExit, match=r"out: holds counts already\. Name another one, or add --force"):
        command(*again)
    assert "counts only" in command(*again, "--force")


def test_a_predictor_is_neither_described_nor_replaced(command, tmp_path):
    folder = tmp_path / "predictor"
    shutil.copytree("resources/predictors/small-6x8-top2", folder)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SystemExit, match="predictor: holds predictor, expected a trace or counts"):
        command("trace", "describe", folder)
    counts = ROOT / "docs/samples/counts.csv"
    with pytest.raises(SystemExit, match="predictor: holds other files, expected a new folder"):
        command("trace", "import", "counts", counts, "--model", "made-up", "--out", folder, "--force")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


def test_a_forced_import_leaves_nothing_of_the_trace_before(command, tmp_path):
    """What lay beside the old trace, such as inputs of its routers, and is listed with it would be wrong of the new."""
    folder = imported(command, tmp_path, [4, 3])
    (folder / "router_inputs.safetensors").write_bytes(b"of the old trace")
    store.write_sums(folder, ["router_inputs.safetensors", store.TRACE, store.METADATA])
    (folder / "notes.txt").write_text("the user's own")
    arguments = ("trace", "import", "arrays", tmp_path / "arrays.npz", "--model", "OLMoE-1B-7B", "--out", folder)
    with pytest.raises(SystemExit, match="expected integers of shape"):
        command(*[given if given != "OLMoE-1B-7B" else "Mixtral-8x7B" for given in arguments], "--force")
    assert (folder / "router_inputs.safetensors").exists()
    command(*arguments, "--force")
    assert {path.name for path in folder.iterdir()} == {store.TRACE, store.METADATA, store.SUMS, "notes.txt"}
    assert len(store.read_trace(folder)) == 7


def test_clear_deletes_nothing_outside_of_the_folder(tmp_path):
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "trace").mkdir()
    (tmp_path / "trace" / store.SUMS).write_text(f"{'0' * 64}  ../mine\n{'0' * 64}  {tmp_path}/mine\nnonsense\n")
    store.clear(tmp_path / "trace")
    assert (tmp_path / "mine").read_text() == "kept"
    assert not (tmp_path / "trace" / store.SUMS).exists()


@settings(deadline=None)
@given(st.one_of(st.text(), st.text("0123456789,- +_.e٣"), st.lists(st.integers(), min_size=1).map(str)))
def test_capacity_is_whole_numbers_or_one_line(text):
    try:
        capacities = _capacities(text)
    except UserError as told:
        assert "expected whole numbers, such as 64 or 16,16,8" in str(told)
    else:
        assert [int(part) for part in text.split(",")] == list(capacities)
        assert all(capacity >= 0 for capacity in capacities)


def test_an_unknown_model_is_told_each_name_once(models):
    (name,) = list(models)[:1]
    listed = DatasetFile.model_construct(routers={name: None, "gpt-oss-20b": None}, datasets={})
    with pytest.raises(UserError) as told:
        router_named("zzzzzz", models, listed)
    assert str(told.value).count(f"{name},") == 1 and "gpt-oss-20b" in str(told.value)


def test_timed_model_finds_models_of_the_catalogue(models):
    listed = DatasetFile.model_construct(routers={}, datasets={})
    found = timed_model("OLMoE-1B-7B", ROOT / "config/models", listed)
    assert found.architecture == models["OLMoE-1B-7B"].architecture
    assert timed_model("no-such-model", ROOT / "config/models", listed) is None

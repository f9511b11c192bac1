"""Training Prophet's predictor: it learns, goes on after an interruption, and NumPy reads what was meant."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prophet_moe.collect import predictor
from prophet_moe.errors import UserError
from prophet_moe.predict.context import LOOKAHEADS, context_of, network_bytes, split
from prophet_moe.predict.counting import popularity
from prophet_moe.predict.evaluate import true_ranks
from prophet_moe.predict.network import WEIGHTS, Network, read_network
from prophet_moe.routing.sequences import fingerprint
from prophet_moe.routing.store import METADATA, SUMS, read_trace, write_trace
from prophet_moe.routing.trace import DECODE, Origin, Router, Trace

EXPERTS, TOP_K, LAYERS = 8, 2, 3
PLAN = predictor.Plan(
    hidden=16, epochs=12, batch_tokens=64, learning_rate=0.02, weight_decay=0.01, input_dropout=0.1, seed=0
)


@pytest.fixture(scope="module", autouse=True)
def one_thread_of_the_cpu():
    """Equal weights are asked of one CPU thread alone; more threads only slow down what is so small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor.machine, "device", lambda: torch.device("cpu"))
        yield
    torch.set_num_threads(threads)


def made(seed: int, sequences: int = 20, tokens: int = 40) -> Trace:
    """Each layer's choices are those of the layer before, moved on by three; the first layer's are uniform."""
    count = sequences * tokens
    first = np.random.default_rng(seed).random((count, 1, EXPERTS)).argsort(axis=2)[:, :, :TOP_K]
    experts = (first + 3 * np.arange(LAYERS)[:, None]) % EXPERTS
    return Trace(
        Router("made", EXPERTS, TOP_K, (0, 2, 4)),
        np.repeat(np.arange(sequences, dtype=np.int32), tokens),
        np.tile(np.arange(tokens, dtype=np.int32), sequences),
        np.full(count, DECODE, np.uint8),
        experts.astype(np.uint16),
        True,
        Origin("made", "none"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of a small trace that predictors of this module are trained on."""
    written = tmp_path_factory.mktemp("trace")
    write_trace(written, made(0))
    return written


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> tuple[Path, dict[int, predictor.Networks]]:
    """A predictor trained in one go, and the modules that it was written from."""
    out, modules = tmp_path_factory.mktemp("predictor"), {}
    train_one = predictor._train

    def keep(learned, plan, lookahead):
        modules[lookahead], loss = train_one(learned, plan, lookahead)
        return modules[lookahead], loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "_train", keep)
        predictor.train(folder, PLAN, out)
    return out, modules


def interrupted(folder: Path, out: Path, plan: predictor.Plan, at: int, patch: pytest.MonkeyPatch) -> None:
    """Train until the networks of lookahead `at` are to be trained."""
    train_one = predictor._train

    def stop(learned, plan, lookahead):
        if lookahead == at:
            raise KeyboardInterrupt
        return train_one(learned, plan, lookahead)

    with patch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(predictor, "_train", stop)
        predictor.train(folder, plan, out)


def recall(network: Network, trace: Trace, layer: int, lookahead: int) -> tuple[float, float]:
    """Recall@k on held-out sequences: of the network, and of popularity."""
    learned, test = (context_of(part) for part in split(trace))
    inputs, chosen = test.inputs(layer, lookahead), test.choices[:, layer]
    often = popularity(learned.inputs(layer, lookahead), learned.choices[:, layer], EXPERTS)
    scores = (network.scores(inputs, layer, lookahead), often(inputs))
    return tuple(float((true_ranks(given, chosen) < TOP_K).mean()) for given in scores)


def test_it_learns_what_there_is_to_learn(folder, trained):
    """Where the layer before decides, nearly all choices are found; where nothing does, no more than by popularity."""
    network, trace = read_network(trained[0]), read_trace(folder)
    for lookahead in (1, 2):
        for layer in range(lookahead, LAYERS):
            own, counted = recall(network, trace, layer, lookahead)
            assert own > 0.95 > 0.4 > counted
    own, counted = recall(network, trace, 0, 1)
    assert own == pytest.approx(counted, abs=0.1)


def test_it_says_what_it_is(folder, trained):
    out, trace = trained[0], read_trace(folder)
    told = json.loads((out / METADATA).read_text())
    assert told["trained_on"] == fingerprint(trace) == read_network(out).trained_on
    assert told["learned_from"] == fingerprint(split(trace)[0]) == read_network(out).learned_from
    assert (told["experts"], told["top_k"], told["layers"]) == (EXPERTS, TOP_K, [0, 2, 4])
    assert told["plan"] == dataclasses.asdict(PLAN)
    assert told["tokens"] == len(split(trace)[0]) == len(trace) / 2
    assert sorted(path.name for path in out.iterdir()) == sorted([WEIGHTS, METADATA, SUMS])
    assert read_network(out).bytes_bf16 == network_bytes(EXPERTS, LAYERS, PLAN.hidden, len(LOOKAHEADS))
    # One layer ahead two layers are certain, three ahead none is: what is not is at least the entropy of k of E.
    share = TOP_K / EXPERTS
    entropy = -EXPERTS * (share * np.log(share) + (1 - share) * np.log(1 - share))
    losses = told["training_loss"]
    assert 0 < losses["1"] < losses["2"] < losses["3"]
    assert losses["3"] == pytest.approx(entropy, rel=0.1)
    assert losses["1"] < 0.75 * entropy


@torch.no_grad()
def test_numpy_scores_are_those_of_the_module(folder, trained):
    """To float32 of the weights rounded to bf16, and to bf16's eight bits of those that were trained."""
    out, modules = trained
    network, learned = read_network(out), context_of(split(read_trace(folder))[0])
    for lookahead, module in modules.items():
        ids = predictor._tensors(learned, lookahead)[0].long()
        found = np.stack(
            [network.scores(learned.inputs(layer, lookahead), layer, lookahead) for layer in range(LAYERS)], axis=1
        )
        exact = module(ids).numpy()
        np.testing.assert_allclose(found, exact, atol=2**-6 * np.abs(exact).max())
        assert np.abs(found - exact).max() > 1e-4
        rounded = predictor.Networks(LAYERS, EXPERTS, PLAN.hidden, TOP_K / EXPERTS)
        for own, trained_weight in zip(rounded.parameters(), module.parameters(), strict=True):
            own.copy_(trained_weight.to(torch.bfloat16))
        np.testing.assert_allclose(found, rounded(ids).numpy(), rtol=1e-4, atol=1e-4)


def test_nothing_seen_is_not_learned_from(trained):
    """Row 0 of the embedding stands for what is absent: training left it out of every sum."""
    for module in trained[1].values():
        nothing = torch.zeros(1, LAYERS, 4 * TOP_K, dtype=torch.long)
        hidden = module.hidden_bias.relu()
        expected = torch.einsum("lh,lhe->le", hidden, module.output) + module.output_bias
        torch.testing.assert_close(module(nothing)[0], expected)


def test_tensors_name_the_rows_of_each_layer(folder):
    """The embedding's rows from 1 on are layer by layer; each layer's are the ids that Context.inputs gives."""
    learned = context_of(split(read_trace(folder))[0])
    for lookahead in LOOKAHEADS:
        rows, chosen = predictor._tensors(learned, lookahead)
        np.testing.assert_array_equal(chosen.numpy(), learned.choices)
        for layer in range(LAYERS):
            ids = learned.inputs(layer, lookahead)
            expected = [[0 if i == learned.absent else 1 + layer * learned.absent + i for i in row] for row in ids]
            assert rows[:, layer].tolist() == expected


def test_a_start_is_the_probability_of_chance():
    """Before training every expert has about the probability k / E."""
    torch.manual_seed(0)
    networks = predictor.Networks(LAYERS, EXPERTS, 16, TOP_K / EXPERTS)
    probability = networks(torch.ones(1, LAYERS, 4, dtype=torch.long)).sigmoid()
    torch.testing.assert_close(probability, torch.full_like(probability, TOP_K / EXPERTS), rtol=0, atol=0.02)


def test_the_seed_decides_the_weights(folder, trained, tmp_path):
    predictor.train(folder, PLAN, tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (trained[0] / WEIGHTS).read_bytes()
    learned = context_of(split(read_trace(folder))[0])
    other, _ = predictor._train(learned, dataclasses.replace(PLAN, seed=1), 1)
    assert not torch.equal(other.output, trained[1][1].output)


def test_an_interrupted_training_goes_on_with_the_next_lookahead(folder, trained, tmp_path, monkeypatch):
    """And ends with the same weights and losses as if there had been no interruption."""
    out = tmp_path / "predictor"
    interrupted(folder, out, PLAN, 3, monkeypatch)
    assert not (out / SUMS).exists()
    train_one, lookaheads = predictor._train, []

    def noted(learned, plan, lookahead):
        lookaheads.append(lookahead)
        return train_one(learned, plan, lookahead)

    monkeypatch.setattr(predictor, "_train", noted)
    predictor.train(folder, PLAN, out)
    assert lookaheads == [3]
    assert (out / WEIGHTS).read_bytes() == (trained[0] / WEIGHTS).read_bytes()
    losses = [json.loads((path / METADATA).read_text())["training_loss"] for path in (out, trained[0])]
    assert losses[0] == losses[1]


def test_parts_of_another_plan_or_trace_are_refused(folder, tmp_path, monkeypatch):
    out, elsewhere = tmp_path / "predictor", tmp_path / "trace"
    write_trace(elsewhere, made(1))
    interrupted(folder, out, PLAN, 1, monkeypatch)
    for trace, plan in ((folder, dataclasses.replace(PLAN, hidden=17)), (elsewhere, PLAN)):
        with pytest.raises(UserError, match="parts of a predictor of another trace or plan") as caught:
            predictor.train(trace, plan, out)
        assert "\n" not in str(caught.value)
    assert not (out / WEIGHTS).exists()


def test_a_complete_predictor_is_not_trained_over(folder, trained):
    before = (trained[0] / WEIGHTS).read_bytes()
    with pytest.raises(UserError, match="holds a complete predictor"):
        predictor.train(folder, dataclasses.replace(PLAN, seed=1), trained[0])
    assert (trained[0] / WEIGHTS).read_bytes() == before

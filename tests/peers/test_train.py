"""Training: it learns, balances every layer, and goes on after an interruption as if there had been none."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from prophet_moe.collect import tokens, train
from prophet_moe.collect.plan import read_plan
from prophet_moe.collect.train import EncodedCorpus

ROOT = Path(__file__).parents[2]
PLAN = read_plan(ROOT / "config/collect_quick.yaml").models["quick-2x8-top2"]
VOCABULARY = 64


def shortened(steps: int):
    """The quick plan with fewer steps of less text."""
    training = dataclasses.replace(PLAN.training, steps=steps, sequences=4, tokens=32, warmup_steps=2)
    return dataclasses.replace(PLAN, training=training)


@pytest.fixture(scope="module")
def corpus() -> EncodedCorpus:
    """Two domains in which each token all but decides the next one."""
    random = np.random.default_rng(0)
    domains = {}
    for name in ("even", "odd"):
        follower = random.permutation(VOCABULARY)
        ids = [0]
        for _ in range(6000):
            ids.append(int(follower[ids[-1]]) if random.random() < 0.9 else int(random.integers(VOCABULARY)))
        domains[name] = np.array(ids, np.int64)
    held_out = {name: [ids[5000:]] for name, ids in domains.items()}
    return EncodedCorpus({name: ids[:5000] for name, ids in domains.items()}, held_out, VOCABULARY)


def test_it_learns_what_there_is_to_learn(corpus, tmp_path):
    train.train(shortened(120), corpus, tmp_path, "m", "these")
    told = json.loads((tmp_path / train.TRAINING).read_text())
    for nats in told["nats_per_held_out_token"].values():
        assert nats["loss"] < 0.6 * nats["unigram_entropy"]
    assert told["trained_tokens"] == 120 * 4 * 32
    assert train.is_trained(tmp_path, "these") and not train.is_trained(tmp_path, "others")
    assert not (tmp_path / train.CHECKPOINT).exists()


def test_an_interrupted_training_ends_with_the_same_weights(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    train.train(shortened(8), corpus, tmp_path / "whole", "m", "these")

    saved = []
    save = train._save

    def save_and_stop(folder, state):
        save(folder, state)
        saved.append(state["step"])
        if state["step"] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train.train(shortened(8), corpus, tmp_path / "resumed", "m", "these")
    assert not train.is_trained(tmp_path / "resumed", "these")
    saved.clear()
    train.train(shortened(8), corpus, tmp_path / "resumed", "m", "these")
    assert saved == [6, 7], "it did not go on from step 5"
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed"))
    for name, weight in whole.items():
        torch.testing.assert_close(resumed[name], weight, rtol=0, atol=0)


def test_a_checkpoint_of_another_plan_is_not_used(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    save = train._save

    def save_and_stop(folder, state):
        save(folder, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train.train(shortened(4), corpus, tmp_path, "m", "these")
    assert train._resume(tmp_path, "others", torch.device("cpu")) is None
    assert train._resume(tmp_path, "these", torch.device("cpu"))["step"] == 1


def test_imbalance_is_switchs_loss_by_layer():
    """Against the sums of the paper written out; 1 where loads are equal, E where one expert has all."""
    logits = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    probabilities = logits.softmax(-1)
    for expert in range(8):
        chosen = sum(expert in row.topk(2).indices for row in probabilities) / (50 * 2)
        expected += 8 * chosen * probabilities[:, expert].mean().item()
    one_expert = torch.full((50, 8), -30.0)
    one_expert[:, 3] = 30
    cycled = torch.nn.functional.one_hot(torch.arange(48) % 8, 8) * 60.0
    found = train.load_imbalance((logits,), 2)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    assert train.load_imbalance((one_expert, cycled), 1).tolist() == pytest.approx([8, 1], rel=1e-5)


def test_entropies_are_those_of_counting():
    """Unigram and bigram entropy against sums over a text small enough to count by hand."""
    ids, held_out = np.array([0, 1, 0, 1, 0, 2]), np.array([0, 1, 2])
    share = (np.array([3, 2, 1, 0]) + 1) / 10
    assert tokens.unigram_entropy(ids, held_out, 4) == pytest.approx(-np.log(share[[0, 1, 2]]).mean())
    # 0 is followed by 1 twice and 2 once, 1 by 0 twice; d = 0.75.
    after_0 = (2 - 0.75) / 3 + 0.75 * 2 / 3 * share[1]
    after_1 = 0.75 * 1 / 2 * share[2]
    assert tokens.bigram_entropy(ids, held_out, 4) == pytest.approx(-np.log([after_0, after_1]).mean())


def test_windows_depend_on_seed_and_step_alone(corpus):
    plan = shortened(1).training
    one, again = (train._batch(corpus.train, plan, 3) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (4, 32)
    assert (train._batch(corpus.train, plan, 4) != one).any()

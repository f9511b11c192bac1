"""The recorded traces are whole, small enough to commit, and of models that have learned to route."""

import statistics as plain

import numpy as np
import pytest

from prophet_moe.collect.plan import read_plan
from prophet_moe.predict.context import split
from prophet_moe.routing import sequences, statistics, store
from prophet_moe.routing.trace import sequence_starts
from tests.conftest import ROOT

FOLDERS = sorted(path.parent for path in (ROOT / "resources/traces").glob("*/metadata.json"))
PLAN = read_plan(ROOT / "config/collect.yaml")

pytestmark = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def decoded(folder):
    return sequences.without_repetition(store.read_trace(folder)).described()


def test_it_is_the_geometry_of_the_plan(folder):
    trace, model = store.read_trace(folder, folder.name), PLAN.models[folder.name]
    config = model.config
    experts = config.get("num_experts") or config["num_local_experts"]
    router = trace.router
    assert (router.experts, router.top_k) == (experts, config["num_experts_per_tok"])
    assert router.layers == tuple(range(config["num_hidden_layers"]))
    sequences = model.trace.sequences_per_domain * len(PLAN.corpus.domains)
    assert len(trace.described()) == sequences * model.trace.decode_tokens
    assert len(trace) == sequences * (model.trace.decode_tokens + model.trace.prompt_tokens)


def test_it_says_where_it_is_from(folder):
    notes = store.read_metadata(folder, "trace", folder.name)["notes"]
    assert {note["label"] for note in notes["sequences"]} == set(PLAN.corpus.domains)
    assert all(note["piece"].startswith(f"{note['label']}-") for note in notes["sequences"])
    assert notes["training"]["seconds"] > 0
    assert notes["training"]["machine"]["torch"] and notes["machine"]["transformers"]


def test_split_of_it_shares_no_text(folder):
    """No 32 tokens in a row of a held-out sequence were learned from, in any domain; either side has much of each.

    A draw of single sequences shares text: of dialogue 11.5 % of the runs.
    """
    trace = store.read_trace(folder)
    learned, held_out = split(trace)
    shares = {}
    for domain in PLAN.corpus.domains:
        of_domain, judged = (only(part, domain) for part in (learned, held_out))
        assert 0.35 <= len(of_domain) / (len(of_domain) + len(judged)) <= 0.65
        assert sequences.repeated_share(learned, judged) == 0
        shares[domain] = sequences.repeated_share(*drawn_one_by_one(trace, domain))
    assert shares["dialogue"] == pytest.approx(0.115, abs=0.001)
    for part in (learned, held_out):
        assert not set(sequences.notes_of(part, "piece")) & set(sequences.notes_of(only_others(trace, part), "piece"))


def only(trace, domain):
    """The sequences of one domain."""
    of_domain = np.array(sequences.notes_of(trace, "label")) == domain
    return trace.select(np.repeat(of_domain, np.diff(sequence_starts(trace))))


def only_others(trace, part):
    return trace.select(~np.isin(trace.sequence, part.sequence))


def drawn_one_by_one(trace, domain):
    """Half of the sequences, drawn one by one, and those of `domain` among the others."""
    random = np.random.default_rng(0).permutation(len(sequence_starts(trace)) - 1)
    learned = np.isin(trace.sequence, random[: len(random) // 2])
    return trace.select(learned), only(trace.select(~learned), domain)


def test_the_model_has_learned(folder):
    """It is far better than token frequencies on every domain, and better than token pairs over all."""
    losses = store.read_metadata(folder)["notes"]["training"]["nats_per_held_out_token"]
    assert losses.keys() == PLAN.corpus.domains.keys()
    for domain, nats in losses.items():
        assert nats["loss"] < 0.75 * nats["unigram_entropy"], domain
    means = {name: plain.mean(nats[name] for nats in losses.values()) for name in ("loss", "bigram_entropy")}
    assert means["loss"] < means["bigram_entropy"]


def test_its_routing_is_learned(folder):
    """Persistence, dependence between layers and on tokens, each far above what shuffling leaves."""
    trace = decoded(folder)
    control = statistics.shuffled(trace, seed=1)
    overlap, chance = (statistics.consecutive_overlap(t).mean() for t in (trace, control))
    assert overlap > chance + 0.05
    recall, chance = (
        statistics.next_layer_recall(*sequences.split_by_sequence(t, 0.5, seed=1)).naive_bayes[0].mean()
        for t in (trace, control)
    )
    assert recall > chance + 0.1
    information = statistics.token_information(trace, seed=1)
    assert information.bits.mean() > 2 * information.control.mean()


def test_every_layer_uses_its_experts(folder):
    """Load balancing worked: the load's entropy is near that of equal loads."""
    load = statistics.load(decoded(folder))
    share = statistics.load_entropy(load) / statistics.load_entropy(load * 0 + 1 / load.shape[1])
    assert share.min() > 0.8


def test_all_together_are_small_enough_to_commit(folder):
    assert sum(path.stat().st_size for path in folder.parent.rglob("*") if path.is_file()) <= 15e6

"""Traces and networks that several tests build: small ones of any shape, and a published one where it is at hand."""

import csv
import functools

import numpy as np
from hypothesis import strategies as st

from prophet_moe.predict.context import LOOKAHEADS, SOURCES
from prophet_moe.predict.network import Network
from prophet_moe.routing import sequences
from prophet_moe.routing.importers import import_source
from prophet_moe.routing.trace import DECODE, Origin, Router, Trace
from tests.conftest import published


def make_trace(choices, lengths, experts, *, tokens=None, gaps=()) -> Trace:
    """A trace of `choices` (N, L, k) in sequences of `lengths`; positions skip one before each row of `gaps`."""
    choices = np.asarray(choices, np.uint16)
    step = np.ones(len(choices), np.int32)
    step[list(gaps)] = 2
    router = Router("test", experts, choices.shape[2], tuple(range(choices.shape[1])))
    sequence = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    phase = np.full(len(choices), DECODE, np.uint8)
    position = np.cumsum(step, dtype=np.int32)
    return Trace(router, sequence, position, phase, choices, True, Origin("test", "none"), tokens)


def uniform_trace(lengths, layers, experts, top_k, seed=0, **more) -> Trace:
    """A trace whose tokens choose k of E experts uniformly, independently in every layer."""
    rng = np.random.default_rng(seed)
    choices = rng.random((sum(lengths), layers, experts)).argsort(axis=2)[:, :, :top_k]
    return make_trace(choices, lengths, experts, **more)


@functools.cache
def published_trace() -> Trace:
    """gpt-oss-20b decoding, less the sequences that its authors flag as repetitive; skips where it is not at hand."""
    path = published("routing/gptoss20b_decode.npz")
    trace = import_source("arrays", path, Router("gpt-oss-20b", 32, 4, tuple(range(24))), Origin("test", "Apache-2.0"))
    with path.with_name("gptoss20b_decode_sequences.csv").open(encoding="utf-8") as stream:
        repetitive = [row["repetition"] == "True" for row in csv.DictReader(stream)]
    return sequences.without_duplicates(trace.select(~np.array(repetitive)[trace.sequence]))


@st.composite
def traces(draw) -> Trace:
    """Small traces of any shape, with gaps between positions and token ids."""
    experts = draw(st.integers(1, 9))
    lengths = draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    tokens = np.array(draw(st.lists(st.integers(0, 3), min_size=sum(lengths), max_size=sum(lengths))), np.int32)
    return uniform_trace(
        lengths,
        draw(st.integers(1, 3)),
        experts,
        draw(st.integers(1, experts)),
        draw(st.integers(0, 10**6)),
        tokens=tokens,
        gaps=draw(st.sets(st.integers(0, sum(lengths) - 1))),
    )


def random_network(experts: int, layers: int, hidden: int, seed: int = 0) -> Network:
    """A network of random weights, about half of whose hidden units are active."""
    rng = np.random.default_rng(seed)

    def weights(*shape):
        return rng.standard_normal((len(LOOKAHEADS), layers, *shape)).astype(np.float32)

    return Network(
        weights(SOURCES * experts, hidden), weights(hidden), weights(hidden, experts), weights(experts), "none", "none"
    )

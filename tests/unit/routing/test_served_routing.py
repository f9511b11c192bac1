"""What servers return beside the plain case: chat completions, later tokens only, lost tokens, shared experts."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.errors import UserError
from prophet_moe.routing.importers import import_source
from prophet_moe.routing.importers.reading import REMARKS
from prophet_moe.routing.trace import Origin, Router, Trace
from tests.fuzzing import fuzz

ORIGIN = Origin("a test", "CC0-1.0")
ROUTER = Router("Tiny", 8, 2, (1, 2, 4))
HIDDEN = 5
PROMPT, GENERATED = 6, 4


def routing(tokens: int = PROMPT + GENERATED - 1, seed: int = 3) -> np.ndarray:
    """(tokens, hidden layers, k), dense layers 0."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((tokens, HIDDEN, ROUTER.top_k), np.int32)
    everyone = np.broadcast_to(np.arange(ROUTER.experts), (tokens, len(ROUTER.layers), ROUTER.experts))
    ids[:, list(ROUTER.layers)] = rng.permuted(everyone, axis=2)[:, :, : ROUTER.top_k]
    return ids


def encoded(ids: np.ndarray) -> str:
    return base64.b64encode(ids.astype("<i4").tobytes()).decode()


def generated(ids: np.ndarray, prompt: int = PROMPT, completion: int = GENERATED, **meta) -> dict:
    """A response of SGLang's endpoint /generate that carries the expert `ids`, (tokens, hidden layers, k)."""
    told = {"prompt_tokens": prompt, "completion_tokens": completion, "routed_experts": encoded(ids)}
    return {"text": "", "meta_info": told | meta}


def chat(*choices: np.ndarray, completion: int = GENERATED) -> dict:
    """A chat completion of SGLang with one choice for each array of expert ids, (tokens, hidden layers, k)."""
    return {
        "object": "chat.completion",
        "choices": [{"index": i, "sgl_ext": {"routed_experts": encoded(ids)}} for i, ids in enumerate(choices)],
        "usage": {"prompt_tokens": PROMPT, "completion_tokens": completion, "total_tokens": PROMPT + completion},
    }


def read(folder: Path, *responses: dict) -> Trace:
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(response) + "\n" for response in responses))
    return import_source("sglang_routed_experts", path, ROUTER, ORIGIN)


def vllm(folder: Path, **arrays) -> Trace:
    np.savez(folder / "a.npz", **arrays)
    return import_source("vllm_routed_experts", folder / "a.npz", ROUTER, ORIGIN)


def assert_holds(trace: Trace, ids: np.ndarray, first: int = 0) -> None:
    """The trace is `ids`, from the position `first` on."""
    np.testing.assert_array_equal(trace.experts, ids[:, list(ROUTER.layers)])
    assert trace.position.tolist() == list(range(first, first + len(ids)))
    assert trace.phase.tolist() == [int(position >= PROMPT) for position in trace.position]


def test_sglang_chat_completions_are_read(tmp_path):
    trace = read(tmp_path, chat(routing()))
    assert_holds(trace, routing())
    assert REMARKS not in trace.origin.notes


def test_sglang_choices_are_sequences_of_their_own(tmp_path):
    trace = read(tmp_path, chat(routing(9), routing(8, seed=4), completion=7))
    assert np.bincount(trace.sequence).tolist() == [9, 8]


def test_sglang_chat_with_meta_info_of_choices_is_read(tmp_path):
    response = {"choices": [generated(routing()) | {"message": {}}]}
    assert_holds(read(tmp_path, response), routing())


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("start", [1, 4, PROMPT])
def test_sglang_later_tokens_keep_their_positions(tmp_path, start, told):
    response = generated(routing()[start:], **({"routed_experts_start_len": start} if told else {}))
    trace = read(tmp_path, response)
    assert_holds(trace, routing()[start:], start)
    assert trace.origin.notes[REMARKS][0].startswith(
        "of 1 of 1 requests the first tokens have no routing: not asked for"
    )


def test_sglang_a_start_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has 8 tokens, expected 5 or 6 \(prompt \+ completion - start 4\)"):
        read(tmp_path, generated(routing()[1:], routed_experts_start_len=4))


def test_sglang_fewer_tokens_than_any_start_leaves_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"has 2 tokens, expected 9 or 10 \(prompt \+ completion\)"):
        read(tmp_path, generated(routing()[-2:]))


@pytest.mark.parametrize("completion", [0, None])
def test_sglang_prefill_only_lacks_the_last_token(tmp_path, completion):
    trace = read(tmp_path, generated(routing(PROMPT - 1), completion=completion))
    assert_holds(trace, routing(PROMPT - 1))
    assert "of 1 of 1 requests the last token of the prompt has no routing" in trace.origin.notes[REMARKS][0]
    assert "sgl-project/sglang issue 20964" in trace.origin.notes[REMARKS][0]


def with_shared(ids: np.ndarray, shared: int) -> np.ndarray:
    return np.concatenate([ids, np.full((*ids.shape[:2], shared), 255)], axis=2)


@pytest.mark.parametrize("shared", [1, 2])
def test_slots_of_shared_experts_beyond_k_are_left_out(tmp_path, shared):
    ids = routing()
    assert_holds(read(tmp_path, generated(with_shared(ids, shared))), ids)
    assert_holds(vllm(tmp_path, routed_experts=with_shared(ids, shared), prompt_len=PROMPT), ids)


def test_slots_of_shared_experts_among_k_are_named(tmp_path):
    ids = routing()
    ids[:, :, 1] = 255
    for reading in (
        lambda: read(tmp_path, generated(ids)),
        lambda: vllm(tmp_path, routed_experts=ids, prompt_len=PROMPT),
    ):
        with pytest.raises(
            UserError, match="id 255 in the same slot of every token and layer is of a fused shared expert"
        ):
            reading()


def test_slots_of_a_shared_expert_with_a_possible_id_are_named(tmp_path):
    ids = routing(40)
    ids[:, :, 0], ids[:, :, 1] = ids[:, :, 0] % 7, 7
    with pytest.raises(UserError, match="id 7 in the same slot of every token and layer"):
        vllm(tmp_path, routed_experts=ids, prompt_len=PROMPT)


def test_slots_beyond_k_that_are_routing_are_refused(tmp_path):
    ids = np.concatenate([routing(), routing(seed=5)[:, :, :1]], axis=2)
    with pytest.raises(UserError, match="a token has 3 experts, expected 2, or 1 slots of one id"):
        vllm(tmp_path, routed_experts=ids, prompt_len=PROMPT)


def test_vllm_a_cached_prefix_may_be_missing(tmp_path):
    trace = vllm(tmp_path, routed_experts=routing()[4:], prompt_len=PROMPT, generated_len=GENERATED)
    assert_holds(trace, routing()[4:], 4)
    assert "the first tokens have no routing" in trace.origin.notes[REMARKS][0]


def test_vllm_a_prompt_may_lack_its_cached_prefix(tmp_path):
    ids = routing()
    trace = vllm(tmp_path, routed_experts=ids[PROMPT:], prompt_routed_experts=ids[2:PROMPT], prompt_len=PROMPT)
    assert_holds(trace, ids[2:], 2)
    assert REMARKS in trace.origin.notes


def test_vllm_whole_requests_have_no_remark(tmp_path):
    trace = vllm(tmp_path, routed_experts=routing(), prompt_len=PROMPT, generated_len=GENERATED)
    assert_holds(trace, routing())
    assert REMARKS not in trace.origin.notes


VALUES = st.one_of(st.none(), st.integers(-2, 12), st.text(max_size=2), st.just(encoded(routing())), st.booleans())
KEYS = st.sampled_from(
    [
        "prompt_tokens",
        "completion_tokens",
        "routed_experts",
        "routed_experts_start_len",
        "sgl_ext",
        "meta_info",
        "usage",
    ]
)
HOLDERS = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=5),
    lambda inner: st.dictionaries(KEYS, st.one_of(inner, VALUES)),
    max_leaves=6,
)


@fuzz(60)
@given(
    holder=HOLDERS,
    choices=st.lists(st.one_of(HOLDERS, VALUES), max_size=2),
    tokens=st.integers(0, 12),
    shared=st.integers(0, 2),
    prompt=st.integers(0, 12),
    meta=st.dictionaries(KEYS, VALUES, max_size=2),
)
def test_no_response_ends_in_a_traceback(fresh_folder, holder, choices, tokens, shared, prompt, meta):
    """Whatever is told of its tokens, a response is a sequence of positions that ascend, or a line for the user."""
    folder = fresh_folder()
    whole = generated(with_shared(routing(tokens), shared), prompt=prompt, **meta)
    for response in (holder | {"choices": choices}, whole, chat(routing(tokens)) | holder):
        try:
            trace = read(folder, response)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        assert (trace.experts < ROUTER.experts).all() and (trace.position >= 0).all()

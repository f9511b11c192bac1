"""Responses of an SGLang server that runs with --enable-return-routed-experts.

Each response of /generate carries `meta_info.routed_experts`: base64 of int32, little-endian, (tokens, hidden layers,
k), prompt first. A chat completion carries the same as `choices[].sgl_ext.routed_experts`, and the numbers of tokens in
`usage`. The last generated token was never fed back and has no routing, so that tokens are one less than prompt and
completion together, or as many. The server does not sort the experts. Where it balances experts (EPLB) the ids are
physical ones and the response does not tell the logical: run it without.

What is missing is told in the note `remarks`. A request may ask for later tokens only (`routed_experts_start_len`):
that number is taken from the response or from beside it, where it was saved there, else it follows from the number of
tokens. Where nothing is generated, SGLang loses the routing of the last token of the prompt (sgl-project/sglang issue
20964).
Fused shared experts leave slots that hold one id, such as 255: beyond k they are left out, among k they are refused.

docs/samples/sglang_routed_experts.json (model made-up) holds

    [{"meta_info": {"prompt_tokens": 2, "completion_tokens": 2,
       "routed_experts": "AAAAAAEAAAACAAAAAwAAAAEAAAADAAAAAAAAAAIAAAAAAAAAAgAAAAEAAAADAAAA"}},
     {"usage": {"prompt_tokens": 2, "completion_tokens": 2}, "choices": [{"sgl_ext":
       {"routed_experts": "AAAAAAEAAAACAAAAAwAAAAEAAAADAAAAAAAAAAIAAAAAAAAAAgAAAAEAAAADAAAA"}}]}]
"""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from prophet_moe.routing.importers.reading import (
    LAYERS,
    POSITIONS,
    Sequence,
    documents_of,
    fault,
    files_of,
    first_position,
    missing_told,
    moe_layers,
    trace_of,
    whole_sequence,
    with_remarks,
    without_shared_slots,
)
from prophet_moe.routing.trace import Origin, Router, Trace

START = "routed_experts_start_len"
MOST_SHARED = 4
"""Fused shared experts, at most."""


def read(source: Path, router: Router, origin: Origin, hidden_layers: int | None = None) -> Trace:
    """Read JSON lines (.jsonl) or a JSON list (.json) of responses, or a folder of such files.

    `hidden_layers` is the model's number of layers, dense ones included; without it the last layer is a MoE layer.
    """
    layers = max(router.layers) + 1 if hidden_layers is None else hidden_layers
    if not max(router.layers) < layers <= LAYERS:
        expected = f"more than the last MoE layer, {max(router.layers)}, and at most {LAYERS}"
        raise fault(source, f"hidden_layers is {layers}, expected {expected}")
    responses = [parsed for path in files_of(source, ".json", ".jsonl") for parsed in documents_of(path)]
    parts = [part for where, response in responses for part in _parts(response, where)]
    parsed = [_sequence(part, layers, router) for part in parts]
    origin = with_remarks(origin, missing_told(missing for _, missing in parsed))
    return trace_of([sequence for sequence, _ in parsed], router, origin, source, ranked=False)


class _Part(NamedTuple):
    """The routing of one generated text, and the numbers of tokens that are told of it."""

    where: str
    routed: str
    prompt: int
    generated: int | None
    start: int | None


def _parts(response: Any, where: str) -> Iterator[_Part]:
    """Yield what one response holds: one text, or a chat completion's choices."""
    response = response if isinstance(response, dict) else {}
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices:
        yield _part([_within(response, "meta_info"), response], _within(response, "meta_info"), "meta_info", where)
        return
    usage = _within(response, "usage")
    if len(choices) > 1:
        # The completion tokens are those of all choices together.
        usage = {key: value for key, value in usage.items() if key != "completion_tokens"}
    for number, choice in enumerate(choices):
        choice = choice if isinstance(choice, dict) else {}
        held = [_within(choice, "sgl_ext"), _within(choice, "meta_info"), _within(response, "sgl_ext"), response]
        told = _within(choice, "meta_info")
        told, name = (told, "meta_info") if "prompt_tokens" in told else (usage, "usage")
        yield _part(held, told, name, f"{where}, choice {number}" if len(choices) > 1 else where)


def _within(holder: dict, name: str) -> dict:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _part(held: list[dict], counts: dict, name: str, where: str) -> _Part:
    """The first routing among `held`, with the numbers of tokens in `counts`, which the response has as `name`."""
    routed = next((each["routed_experts"] for each in held if isinstance(each.get("routed_experts"), str)), None)
    if routed is None:
        raise fault(
            where,
            "no meta_info.routed_experts or choices[].sgl_ext.routed_experts; "
            "the request must ask for return_routed_experts",
        )
    starts = [_tokens(each, START, START, where) for each in held if each.get(START) is not None]
    generated = None
    if counts.get("completion_tokens") is not None:
        generated = _tokens(counts, "completion_tokens", f"{name}.completion_tokens", where)
    prompt = _tokens(counts, "prompt_tokens", f"{name}.prompt_tokens", where)
    return _Part(where, routed, prompt, generated, starts[0] if starts else None)


def _sequence(part: _Part, layers: int, router: Router) -> tuple[Sequence, str]:
    """Return the tokens of one text, and which of them are missing, in the words of `first_position`."""
    where = part.where
    try:
        data = base64.b64decode(part.routed, validate=True)
    except (binascii.Error, ValueError) as error:
        raise fault(where, f"routed_experts is no base64: {error}") from None
    row = 4 * layers * router.top_k
    slots = _slots(len(data), part, layers, router)
    if slots is None:
        raise fault(
            where, f"routed_experts has {len(data)} bytes, expected a multiple of {row} (4 x {layers} layers x k)"
        )
    ids = np.frombuffer(data, "<i4").reshape(-1, layers, slots)
    first, missing = first_position(len(ids), part.prompt, part.generated, part.start, where)
    experts = moe_layers(without_shared_slots(ids, router, where), router, where)
    return whole_sequence(experts, part.prompt, first), missing


def _slots(size: int, part: _Part, layers: int, router: Router) -> int | None:
    """Return slots of a token and layer: k, or more with fused shared experts where only that fits the tokens told.

    None where `size` bytes are no whole number of tokens.
    """
    if part.generated is not None:
        last = part.prompt + part.generated - 1 - (part.start or 0)
        for slots in range(router.top_k, router.top_k + MOST_SHARED + 1):
            if size in (4 * layers * slots * last, 4 * layers * slots * (last + 1)):
                return slots
    return None if size % (4 * layers * router.top_k) else router.top_k


def _tokens(holder: dict, key: str, name: str, where: str) -> int:
    value = holder.get(key)
    if type(value) is not int or not 0 <= value < POSITIONS:
        raise fault(where, f"{name} is {value!s:.40}, expected a number of tokens")
    return value

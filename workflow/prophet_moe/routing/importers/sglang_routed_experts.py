"""Responses of an SGLang server that runs with --enable-return-routed-experts.

Each response carries `meta_info.routed_experts`: base64 of int32, little-endian, (tokens, hidden layers, k), prompt
first. The last generated token was never fed back and has no routing, so that tokens are one less than prompt and
completion together, or as many. The server does not sort the experts. Where it balances experts (EPLB) the ids are
physical ones and the response does not tell the logical: run it without.
"""

import base64
import binascii
from pathlib import Path
from typing import Any

import numpy as np

from prophet_moe.routing.importers.reading import (
    POSITIONS,
    Sequence,
    documents_of,
    fault,
    files_of,
    moe_layers,
    trace_of,
    whole_sequence,
)
from prophet_moe.routing.trace import Origin, Router, Trace


def read(source: Path, router: Router, origin: Origin, hidden_layers: int | None = None) -> Trace:
    """Read JSON lines (.jsonl) or a JSON list (.json) of responses, or a folder of such files.

    `hidden_layers` is the model's number of layers, dense ones included; without it the last layer is a MoE layer.
    """
    layers = max(router.layers) + 1 if hidden_layers is None else hidden_layers
    if layers <= max(router.layers):
        raise fault(source, f"hidden_layers is {layers}, expected more than the last MoE layer, {max(router.layers)}")
    responses = [found for path in files_of(source, ".json", ".jsonl") for found in documents_of(path)]
    sequences = [_sequence(response, layers, router, where) for where, response in responses]
    return trace_of(sequences, router, origin, source, ranked=False)


def _sequence(response: Any, layers: int, router: Router, where: str) -> Sequence:
    """One response's tokens."""
    meta = response.get("meta_info") if isinstance(response, dict) else None
    if not isinstance(meta, dict) or not isinstance(meta.get("routed_experts"), str):
        raise fault(where, "no meta_info.routed_experts; the request must ask for return_routed_experts")
    try:
        data = base64.b64decode(meta["routed_experts"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise fault(where, f"routed_experts is no base64: {error}") from None
    row = 4 * layers * router.top_k
    if len(data) % row:
        raise fault(
            where, f"routed_experts has {len(data)} bytes, expected a multiple of {row} (4 x {layers} layers x k)"
        )
    ids = np.frombuffer(data, "<i4").reshape(-1, layers, router.top_k)
    prompt = _tokens(meta, "prompt_tokens", where)
    _check_tokens(len(ids), prompt, meta, where)
    return whole_sequence(moe_layers(ids, router, where), prompt)


def _check_tokens(tokens: int, prompt: int, meta: dict, where: str) -> None:
    """Hold the number of tokens against that of the prompt and, where it is told, of the completion."""
    if tokens < prompt:
        raise fault(where, f"routed_experts has {tokens} tokens, expected the {prompt} of the prompt at least")
    if "completion_tokens" in meta:
        both = prompt + _tokens(meta, "completion_tokens", where)
        if tokens not in (both - 1, both):
            raise fault(
                where, f"routed_experts has {tokens} tokens, expected {both - 1} or {both} (prompt + completion)"
            )


def _tokens(meta: dict, name: str, where: str) -> int:
    value = meta.get(name)
    if type(value) is not int or not 0 <= value < POSITIONS:
        raise fault(where, f"meta_info.{name} is {value!s:.40}, expected a number of tokens")
    return value

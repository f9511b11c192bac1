"""Run a model over a batch of prompts: one prefill pass, then one pass per decoded token, with its KV cache."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from prophet_moe.routing.trace import DECODE, PREFILL

STEPS_BETWEEN_END_CHECKS = 32


@dataclass(frozen=True)
class Prompt:
    """One sequence: its number, the prompt's tokens, and the text that follows where that is replayed."""

    number: int
    tokens: list[int]
    continuation: list[int]


@dataclass(frozen=True)
class Decoding:
    """How prompts go on: with the text that follows, a draw at temperature 1, or the model's first choice."""

    mode: Literal["text", "sample", "greedy"]
    tokens: int
    """Tokens decoded at most."""
    seed: int

    def length(self, prompt: Prompt) -> int:
        """Return the tokens decoded after `prompt` at most."""
        return min(self.tokens, len(prompt.continuation)) if self.mode == "text" else self.tokens


@dataclass(frozen=True)
class Pass:
    """One forward pass, before it runs: n recorded tokens of the `tokens` that go through the model."""

    phase: int
    tokens: int
    rows: torch.Tensor | None
    """(n,) which of them are recorded (not padding), on the device; None: all, in order."""
    sequence: NDArray[np.int32]
    position: NDArray[np.int32]
    token: torch.Tensor
    """(n,) ids of the recorded tokens, on the device."""
    alive: torch.Tensor
    """(n,) whether the sequence had not ended before, on the device."""


def passes(
    model: torch.nn.Module, batch: Sequence[Prompt], decoding: Decoding, seed: int
) -> Iterator[tuple[Pass, Callable[[], None]]]:
    """Yield every pass of a batch, each with the function that runs it; run it before asking for the next.

    An encoder-decoder model has decode passes alone: its encoder reads the prompt, its decoder starts at position 0.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    lengths = np.array([decoding.length(prompt) for prompt in batch])
    numbers = np.array([prompt.number for prompt in batch], np.int32)
    forced = _padded([prompt.continuation[: decoding.tokens] for prompt in batch], lengths.max(), left=False).to(device)
    state: dict[str, Any] = {}

    def forward(**inputs: Any) -> None:
        output = model(**inputs, use_cache=True, past_key_values=state.get("cache"), **_last_logits_only(model))
        state.update(cache=output.past_key_values, logits=output.logits[:, -1])

    widest = max(len(prompt.tokens) for prompt in batch)
    ids = _padded([prompt.tokens for prompt in batch], widest, left=True).to(device)
    mask = torch.tensor([[0] * (widest - len(p.tokens)) + [1] * len(p.tokens) for p in batch], device=device)
    encoded = model.config.is_encoder_decoder
    if encoded:
        with torch.no_grad():
            encoding = model.get_encoder()(input_ids=ids, attention_mask=mask)
        prompt_lengths = np.zeros(len(batch), np.int32)
    else:
        prompt_lengths = mask.sum(1).cpu().numpy().astype(np.int32)
        rows = mask.flatten().nonzero().squeeze(1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        read = Pass(
            PREFILL,
            mask.numel(),
            rows,
            np.repeat(numbers, prompt_lengths),
            np.concatenate([np.arange(length, dtype=np.int32) for length in prompt_lengths]),
            ids.flatten()[rows],
            torch.ones(len(rows), dtype=torch.bool, device=device),
        )
        yield read, lambda: forward(input_ids=ids, attention_mask=mask, position_ids=positions)
        mask = torch.cat([mask, torch.ones(len(batch), lengths.max(), dtype=mask.dtype, device=device)], 1)

    limit = torch.from_numpy(lengths).to(device)
    ended = torch.zeros(len(batch), dtype=torch.bool, device=device)
    end = _end_tokens(model, device)
    for step in range(lengths.max()):
        token = _next_token(model, state, decoding, forced, step, generator, len(batch), device)
        now = Pass(DECODE, len(batch), None, numbers, prompt_lengths + np.int32(step), token, ~ended & (step < limit))
        if encoded:
            yield (
                now,
                lambda token=token: forward(
                    decoder_input_ids=token[:, None], encoder_outputs=encoding, attention_mask=mask
                ),
            )
        else:
            place = torch.from_numpy(now.position).to(device)[:, None]
            seen = mask[:, : widest + step + 1]
            yield (
                now,
                lambda token=token, seen=seen, place=place: forward(
                    input_ids=token[:, None], attention_mask=seen, position_ids=place
                ),
            )
        if decoding.mode != "text" and end.numel():
            ended |= torch.isin(token, end)
            if step % STEPS_BETWEEN_END_CHECKS == STEPS_BETWEEN_END_CHECKS - 1 and bool(ended.all()):
                return


def _next_token(
    model: torch.nn.Module,
    state: dict[str, Any],
    decoding: Decoding,
    forced: torch.Tensor,
    step: int,
    generator: torch.Generator,
    batch: int,
    device: torch.device,
) -> torch.Tensor:
    if "logits" not in state:
        return torch.full((batch,), model.config.decoder_start_token_id, device=device)
    if decoding.mode == "text":
        # An encoder-decoder's first token is its start token: its text comes one step later.
        return forced[:, step - 1 if model.config.is_encoder_decoder else step]
    if decoding.mode == "greedy":
        return state["logits"].argmax(-1)
    return torch.multinomial(state["logits"].float().softmax(-1), 1, generator=generator).squeeze(1)


def _padded(rows: list[list[int]], width: int, *, left: bool) -> torch.Tensor:
    padded = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        if row:
            padded[number, slice(width - len(row), None) if left else slice(None, len(row))] = row
    return torch.from_numpy(padded)


def _last_logits_only(model: torch.nn.Module) -> dict[str, int]:
    """Return the option that spares the logits of all prompt tokens, where the class has it."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def _end_tokens(model: torch.nn.Module, device: torch.device) -> torch.Tensor:
    ids = getattr(model.generation_config, "eos_token_id", None)
    return torch.tensor([] if ids is None else np.atleast_1d(ids), dtype=torch.long, device=device)

"""Prompts as JSON lines: `text`, or `tokens` with the `continuation` that may be replayed; a `label` and a `piece`.

`label` is the domain; prompts of one `piece` (a file, a chapter, a dialogue) are never in both halves.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from prophet_moe.collect.decoding import Prompt
from prophet_moe.collect.plan import TracePlan
from prophet_moe.errors import UserError, from_os_error
from prophet_moe.files import write_text


def read_prompts(
    path: Path, tokenize: Callable[[str], list[int]], *, most_tokens: int, limit: int | None
) -> tuple[list[Prompt], list[dict[str, str]]]:
    """Read the first `limit` prompts of a file, cut to `most_tokens`, with `label` and, where known, `piece`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise from_os_error(path, error) from None
    prompts, notes = [], []
    for number, line in enumerate(lines[:limit]):
        try:
            entry = json.loads(line)
            tokens = entry["tokens"] if "tokens" in entry else tokenize(entry["text"])
        except (ValueError, KeyError, TypeError):
            expected = 'a JSON object with "text" or "tokens"'
            raise UserError(
                str(path), f"line {number + 1}: got {line[:40]!r}, expected {expected}", "Mend it."
            ) from None
        prompts.append(Prompt(number, tokens[:most_tokens], entry.get("continuation", [])))
        notes.append({"label": entry.get("label", "")} | {key: entry[key] for key in ("piece",) if key in entry})
    if not prompts or not all(prompt.tokens for prompt in prompts):
        raise UserError(str(path), "holds no prompt, or an empty one", "Write one JSON object a line.")
    return prompts, notes


def write_held_out(path: Path, held_out: dict[str, list], plan: TracePlan) -> None:
    """Write prompts and continuations from the held-out text of every domain, as many of each as planned."""
    text = "".join(f"{json.dumps(entry)}\n" for entry in _held_out(held_out, plan, path))
    write_text(path, text)


def _held_out(held_out: dict[str, list], plan: TracePlan, path: Path) -> Iterator[dict]:
    size = plan.prompt_tokens + plan.decode_tokens
    for name, pieces in held_out.items():
        windows = [
            (piece_name(name, piece), piece[start : start + size])
            for piece in pieces
            for start in range(0, len(piece) - size + 1, size)
        ]
        if len(windows) < plan.sequences_per_domain:
            problem = f"{name} has {len(windows)} held-out windows, expected {plan.sequences_per_domain}"
            raise UserError(str(path), problem, "Plan fewer sequences per domain, or hold out more.")
        # Spread over the whole domain.
        step = len(windows) / plan.sequences_per_domain
        for number in range(plan.sequences_per_domain):
            piece, window = windows[int(number * step)]
            tokens = [int(token) for token in window]
            yield {
                "tokens": tokens[: plan.prompt_tokens],
                "continuation": tokens[plan.prompt_tokens :],
                "label": name,
                "piece": piece,
            }


def piece_name(domain: str, tokens: np.ndarray) -> str:
    """Name a piece by its domain and the SHA-256 of its token ids: the same for the same text and tokenizer."""
    return f"{domain}-{hashlib.sha256(np.asarray(tokens, '<i8').tobytes()).hexdigest()[:12]}"

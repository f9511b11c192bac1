"""Requests in the order of their arrival: when each came, the tokens of its prompt and output, and shared prefixes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.validation import read_csv, read_text

Floats, Integers = NDArray[np.float64], NDArray[np.int64]

AZURE_COLUMNS = ["TIMESTAMP", "ContextTokens", "GeneratedTokens"]
MOONCAKE_BLOCK = 512
"""Tokens of a block of Mooncake's traces, one hash each (its FAST25-release/README)."""
SEED = 0
GET_AGAIN = "Get it again: prophet-moe data fetch"


@dataclass(frozen=True)
class Arrivals:
    """Requests of a service in the order of their arrival."""

    name: str
    seconds: Floats
    prompts: Integers
    """Tokens of each prompt, at least 1."""
    outputs: Integers
    """Tokens that are generated for each, at least 1."""
    starts: Integers
    """(n + 1,): where the blocks of a prompt begin in `blocks`."""
    blocks: Integers
    """Ids, from 0, of the full blocks of all prompts: two prompts that begin alike have the same ids so far."""
    block_tokens: int = 0
    """Tokens of a block; 0: it is not known what prompts share."""

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.seconds)

    @property
    def span(self) -> float:
        """Return the seconds from the first arrival to the last."""
        return float(self.seconds[-1] - self.seconds[0])

    @property
    def rate(self) -> float:
        """Return the requests per second."""
        return (len(self) - 1) / self.span

    def stretched(self, factor: float) -> "Arrivals":
        """Return the same requests with all gaps `factor` times as long."""
        return replace(self, seconds=self.seconds * factor)


def arrivals_of(
    name: str,
    seconds: Sequence[float],
    prompts: Sequence[int],
    outputs: Sequence[int],
    blocks: Sequence[Sequence[int]] | None = None,
    block_tokens: int = 0,
) -> Arrivals:
    """Return requests as arrays, sorted by time; of `blocks`, a list for each prompt, the full ones are kept.

    Fewer than two requests, a time that is no number, and lengths below 1 are a UserError.
    """
    when, asked, made = np.array(seconds, np.float64), np.array(prompts, np.int64), np.array(outputs, np.int64)
    if len(when) < 2 or not np.isfinite(when).all() or when.max() <= when.min():
        raise UserError(name, f"has {len(when)} requests, expected several at different times", "Name another trace.")
    if asked.min() < 1 or made.min() < 1:
        raise UserError(name, "has a prompt or an output of no token", "Leave such requests out.")
    order = np.argsort(when, kind="stable")
    kept = [list(blocks[r])[: asked[r] // block_tokens] if blocks else [] for r in order]
    flat = np.unique(np.array([b for each in kept for b in each], np.int64), return_inverse=True)[1]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in kept])]).astype(np.int64)
    return Arrivals(
        name, when[order] - when.min(), asked[order], made[order], starts, flat.astype(np.int64), block_tokens
    )


def read_azure(path: Path, name: str) -> Arrivals:
    """Read a CSV file of Azure's public traces of LLM inference (2023)."""
    rows = read_csv(path, AZURE_COLUMNS, GET_AGAIN)
    try:
        when = np.array([row[0] for row in rows], "datetime64[ns]")
        lengths = np.array([row[1:] for row in rows], np.int64)
    except ValueError as error:
        raise UserError(str(path), f"malformed: {error}", GET_AGAIN) from None
    return arrivals_of(name, (when - when[0]) / np.timedelta64(1, "s"), lengths[:, 0], lengths[:, 1])


def read_mooncake(path: Path, name: str) -> Arrivals:
    """Read a JSONL file of Mooncake's traces.

    Its times are rounded, to 3 s in the conversations: requests of one time are spread at random until the next.
    """
    try:
        rows = [json.loads(line) for line in read_text(path).splitlines()]
        stamps = np.array([row["timestamp"] for row in rows], np.float64) / 1e3
        prompts, outputs = ([row[key] for row in rows] for key in ("input_length", "output_length"))
        blocks = [row["hash_ids"] for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(str(path), f"malformed: {error!r}", GET_AGAIN) from None
    return arrivals_of(name, spread(stamps), prompts, outputs, blocks, MOONCAKE_BLOCK)


def spread(stamps: Floats) -> Floats:
    """Return times of which those that are equal lie at random between theirs and the next, in their order."""
    distinct, which, counts = np.unique(stamps, return_inverse=True, return_counts=True)
    if len(distinct) < 2:
        return stamps
    until = np.append(distinct[1:], 2 * distinct[-1] - distinct[-2])
    within = np.random.default_rng(SEED).random(len(stamps))
    several = counts[which] > 1
    moved = stamps + np.where(several, within * (until - distinct)[which], 0.0)
    order = np.lexsort((moved, which))
    result = np.empty_like(moved)
    result[np.argsort(which, kind="stable")] = moved[order]
    return result


READERS = {
    "azure-conversation": ("azure-llm-2023", 0, read_azure),
    "azure-code": ("azure-llm-2023", 1, read_azure),
    "mooncake-conversation": ("mooncake-2025", 0, read_mooncake),
}
"""Recorded arrivals by name: the dataset of config/datasets.yaml, which of its files, and how that is read."""

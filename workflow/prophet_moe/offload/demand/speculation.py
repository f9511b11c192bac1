"""Steps that verify consecutive tokens of one sequence: drafted ones, of which the first few are accepted.

A step computes the next token and `draft` drafted ones. Each drafted token is right with the same probability,
independently; the first wrong one and all behind it are dropped, and the next step begins there. The routing of a
wrong token is not in a trace: that of the token which the sequence has at its place stands in for it. The drafter
itself takes no time here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError
from prophet_moe.offload.simulator.batching import ABSENT, DecodeBatches

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Speculation:
    """How many tokens are drafted, and how often one of them is right."""

    draft: int
    acceptance: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible numbers with a UserError."""
        if self.draft < 0:
            raise UserError("draft", f"got {self.draft}, expected at least 0 tokens", "Correct it.")
        if not 0 <= self.acceptance <= 1:
            raise UserError("acceptance", f"got {self.acceptance}, expected 0 to 1", "Correct it.")

    @property
    def tokens_per_step(self) -> float:
        """Return the tokens that a step yields in the mean, 1 + a + a^2 + ... + a^draft."""
        return float((self.acceptance ** np.arange(self.draft + 1)).sum())


def speculated(
    choices: NDArray[np.uint16], starts: Integers, experts: int, speculation: Speculation
) -> tuple[DecodeBatches, Integers]:
    """Return steps over sequences one after another, and (T,) how many tokens each step yields.

    `starts` (S + 1,) is where the sequences begin in `choices` (n, L, k).
    """
    random, rows, emitted = np.random.default_rng(speculation.seed), [], []
    width = speculation.draft + 1
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        first = begin
        while first < end:
            wrong = np.flatnonzero(random.random(speculation.draft) >= speculation.acceptance)
            accepted = int(wrong[0]) if len(wrong) else speculation.draft
            row = first + np.arange(width)
            rows.append(np.where(row < end, row, ABSENT))
            emitted.append(min(accepted + 1, end - first))
            first += accepted + 1
    shape = np.array(rows, np.int64).reshape(-1, width)
    return DecodeBatches(choices, shape, experts), np.array(emitted, np.int64)

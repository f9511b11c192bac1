"""Seconds of a step of a serving engine, tabulated: decoding sequences, their context, and the prompts beside them.

    seconds = matrices(all tokens) + head(sequences) + attention(decoding sequences, their mean context)
              + the sum over prompts of tokens x prefill_attention(context)

A step that only decodes takes what `hardware.estimate.estimate_step` says, at the knots of the table; between them it
is interpolated. Prompts have no table of others: their matrix products and experts follow the same operators to more
tokens than those were fitted to, and their attention takes its operations at a share of the GPU's peak.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from prophet_moe.catalog.architecture import Architecture
from prophet_moe.hardware.estimate import Estimator, Operation, estimate_step, head_operation, step_operations
from prophet_moe.hardware.operators import TFLOP
from prophet_moe.precision import BF16, Precision
from prophet_moe.serving.kernel import Seconds, interpolated

Floats = NDArray[np.float64]

OF_SEQUENCES = ("attention", "mla", "state")
"""Kinds of operators that depend on the sequences and not on the tokens of a step."""
SPACING = 512
"""Tokens between the knots of contexts."""


@dataclass(frozen=True)
class StepTimes:
    """Tables of the seconds of steps, and what they rest on."""

    tables: Seconds
    basis: str
    """What decode steps rest on, as of `estimate.StepEstimate`."""

    def scaled(self, factor: float) -> "StepTimes":
        """Return the times of steps that take `factor` times as long."""
        tables = self.tables
        longer = {name: factor * getattr(tables, name) for name in tables._fields if name != "spacing"}
        return replace(self, tables=tables._replace(**longer))

    def with_more(self, seconds: Floats) -> "StepTimes":
        """Return the times of steps that take so many seconds more, by their tokens from 0."""
        return replace(self, tables=self.tables._replace(matrices=self.tables.matrices + seconds))

    @property
    def most_sequences(self) -> int:
        """Return the most sequences of a step in the tables."""
        return len(self.tables.head) - 1

    @property
    def most_tokens(self) -> int:
        """Return the most tokens of a step in the tables."""
        return len(self.tables.matrices) - 1


def knots(most: int) -> list[int]:
    """Return whole numbers from 1 to `most`, two for every doubling, from which functions are interpolated."""
    found, power = {1, most}, 2
    while power <= most:
        found |= {power, power + power // 2}
        power *= 2
    return sorted(number for number in found if number <= most)


def tabulate(
    estimator: Estimator,
    arch: Architecture,
    precision: Precision = BF16,
    *,
    unique: Callable[[Sequence[int]], Floats],
    most_sequences: int,
    most_tokens: int,
    most_context: int,
    compute_share: float,
) -> StepTimes:
    """Tabulate the seconds of steps with all experts resident.

    Parameters
    ----------
    estimator : Estimator
        The GPU with its operators and constants.
    arch : Architecture
        The model.
    precision : Precision
        Formats of weights and cache.
    unique : function
        u(B) of numbers of tokens.
    most_sequences, most_tokens, most_context : int
        Where the tables end.
    compute_share : float
        Share of the peak that attention of prompts reaches.

    Returns
    -------
    StepTimes
        The tables; at knots they are equal to `estimate_step`.
    """
    used = dict(zip(knots(most_tokens), unique(knots(most_tokens)), strict=True))
    sizes = knots(most_sequences)
    used.update(zip(sizes, unique(sizes), strict=True))

    def matrices(tokens: int) -> float:
        layers = step_operations(arch, tokens, 1, used[tokens], precision)
        return sum(_seconds(estimator, [op for op in layer if op.kind not in OF_SEQUENCES], 1) for layer in layers)

    def head(sequences: int) -> float:
        return _seconds(estimator, [head_operation(arch, sequences, precision)], 0)

    contexts = [context - context % SPACING for context in knots(most_context) if context >= SPACING]
    contexts = sorted({0, *contexts, -(-most_context // SPACING) * SPACING})
    by_batch = np.array(
        [
            [
                estimate_step(estimator, arch, size, max(1, context), used[size], precision).seconds
                - matrices(size)
                - head(size)
                for context in contexts
            ]
            for size in sizes
        ]
    )
    whole = np.arange(0, contexts[-1] + 1, SPACING)
    by_context = np.array([np.interp(whole, contexts, row) for row in by_batch])
    batches = np.arange(most_sequences + 1)
    attention = np.array([np.interp(batches, sizes, column) for column in by_context.T]).T
    prefill = [_prefill_attention(estimator, arch, max(1, context), precision) / compute_share for context in contexts]
    tokens = knots(most_tokens)
    tables = Seconds(
        np.interp(np.arange(most_tokens + 1), tokens, [matrices(each) for each in tokens]),
        np.interp(batches, sizes, [head(each) for each in sizes]),
        np.ascontiguousarray(attention),
        np.interp(whole, contexts, prefill),
        float(by_batch[0, 0]),
        float(SPACING),
    )
    return StepTimes(tables, estimator.basis)


def _seconds(estimator: Estimator, operations: Sequence[Operation], layers: int) -> float:
    return sum(estimator.parts(operations, layers).values())


def _prefill_attention(estimator: Estimator, arch: Architecture, context: int, precision: Precision) -> float:
    """Return the seconds of attention of all layers for one token of a prompt, at the peak of the datasheet."""
    layers = step_operations(arch, 1, context, arch.moe.top_k if arch.moe else 1, precision)
    flops = sum(op.flops for layer in layers for op in layer if op.kind in OF_SEQUENCES)
    return flops / (estimator.spec.peak_tflops * TFLOP)


def decode_seconds(times: StepTimes, batch: int, context: float) -> float:
    """Return the seconds of a step that decodes `batch` sequences of a mean context, from the tables."""
    tables = times.tables
    attention = interpolated(tables.attention[batch], float(context), tables.spacing)
    return float(tables.matrices[batch] + tables.head[batch] + attention)

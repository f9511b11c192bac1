"""Prophet's predictor in PyTorch: its formula, and the scores that it gives to the experts of a trace."""

import statistics
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.nn import functional

from prophet_moe.collect import machine
from prophet_moe.collect.measurement import seconds
from prophet_moe.errors import UserError
from prophet_moe.predict.context import context_of
from prophet_moe.routing.store import read_metadata
from prophet_moe.routing.trace import Trace

WEIGHTS = "predictor.safetensors"
TIMED_STEPS = 50
"""Steps that the predictor is timed over: of its time the median is kept."""


def score(
    ids: torch.Tensor,
    embedding: torch.Tensor,
    hidden_bias: torch.Tensor,
    output: torch.Tensor,
    output_bias: torch.Tensor,
    nothing: int,
) -> torch.Tensor:
    """(n, L, E) scores of what was seen, `ids` (n, L, ids seen), rows of `embedding` (rows, H) but for `nothing`.

    `hidden_bias` is (L, H), `output` (L, H, E) and `output_bias` (L, E); the formula is that of predict/network.py.
    """
    tokens, layers, seen = ids.shape
    summed = functional.embedding_bag(ids.reshape(-1, seen), embedding, mode="sum", padding_idx=nothing)
    hidden = functional.relu(summed.reshape(tokens, layers, -1) + hidden_bias)
    return torch.einsum("nlh,lhe->nle", hidden, output) + output_bias


class Predictor:
    """A predictor that looks at a trace as a decode loop would.

    Layer l is predicted min(l, lookahead) layers ahead: from what is known once layer max(0, l - lookahead) has asked,
    which is when the loop prefetches for it, and by the network that was trained for that distance.
    """

    def __init__(self, folder: Path, trace: Trace, lookahead: int) -> None:
        """Read the predictor in `folder`; one that does not fit `trace` or `lookahead` is a UserError."""
        _check(folder, trace)
        weights = load_file(folder / WEIGHTS)
        reach = len(weights["embedding"])
        if lookahead > reach:
            problem = f"looks at most {reach} layers ahead, expected lookahead {lookahead} of the plan"
            raise UserError(str(folder), problem, "Lower `lookahead`.")
        self._context, self._layers, self._lookahead = context_of(trace), len(trace.router.layers), lookahead
        self._networks = [self._network(weights, layer) for layer in range(1, self._layers)]

    def _network(self, weights: dict[str, torch.Tensor], layer: int) -> tuple[torch.Tensor, ...]:
        """What `score` takes for one layer, on the device in FP32; the last row of the embedding stands for nothing."""
        at = (self._ahead(layer) - 1, layer)
        names = ("embedding", "hidden_bias", "output", "output_bias")
        embedding, *others = (weights[name][at].to(machine.device(), torch.float32) for name in names)
        return torch.cat([embedding, embedding.new_zeros(1, embedding.shape[1])]), *(part[None] for part in others)

    def _ahead(self, layer: int) -> int:
        return min(layer, self._lookahead)

    def _ids(self, layer: int) -> NDArray[np.int32]:
        """(N, 1, ids seen) what is known of every token when `layer` is prefetched for."""
        return self._context.inputs(layer, self._ahead(layer))[:, None]

    def _score(self, layer: int, ids: torch.Tensor) -> torch.Tensor:
        """(n, E) of ids (n, 1, ids seen)."""
        return score(ids, *self._networks[layer - 1], nothing=self._context.absent).squeeze(1)

    @cached_property
    @torch.no_grad()
    def scores(self) -> NDArray[np.float32]:
        """(L, N, E) scores of every expert for the N tokens of the trace; zeros for layer 0, which none foresees."""
        scores = np.zeros((self._layers, len(self._context.choices), self._context.experts), np.float32)
        for layer in range(1, self._layers):
            ids = torch.from_numpy(self._ids(layer)).to(machine.device())
            scores[layer] = self._score(layer, ids).cpu().numpy()
        return scores

    @torch.no_grad()
    def step_seconds(self, batch: int) -> float:
        """Seconds, the median, of scoring `batch` tokens layer by layer, their ids on the device, and nothing else."""
        ids = [torch.from_numpy(self._ids(layer)[:batch]).to(machine.device()) for layer in range(1, self._layers)]

        def step() -> None:
            for layer, seen in enumerate(ids, start=1):
                self._score(layer, seen)

        return statistics.median(seconds(step, TIMED_STEPS))


def _check(folder: Path, trace: Trace) -> None:
    """Refuse a predictor of other experts, layers or choices than the trace's."""
    metadata, router = read_metadata(folder, "predictor"), trace.router
    for name, expected in (("experts", router.experts), ("layers", list(router.layers)), ("top_k", router.top_k)):
        if metadata[name] != expected:
            problem = f"is for {name} {metadata[name]}, the trace of {router.model} has {expected}"
            raise UserError(str(folder), problem, "Name another predictor, or train one on this trace.")

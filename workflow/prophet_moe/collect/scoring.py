"""Prophet's predictor in PyTorch: its formula, and the scores that it gives to the experts of a trace."""

import statistics
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
    """A predictor that looks at a trace as a decode loop would: when a layer has asked, at those ahead.

    Layer l is predicted 1 to min(l, lookahead) layers ahead, each time by the network trained for the distance.
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
        at = [(ahead, layer) for ahead in range(1, lookahead + 1) for layer in range(ahead, self._layers)]
        self._networks = {place: self._network(weights, *place) for place in at}

    def _network(self, weights: dict[str, torch.Tensor], ahead: int, layer: int) -> tuple[torch.Tensor, ...]:
        """What `score` takes for one layer, on the device in FP32; the last row of the embedding stands for nothing."""
        names = ("embedding", "hidden_bias", "output", "output_bias")
        embedding, *others = (weights[name][ahead - 1, layer].to(machine.device(), torch.float32) for name in names)
        return torch.cat([embedding, embedding.new_zeros(1, embedding.shape[1])]), *(part[None] for part in others)

    def _ids(self, ahead: int, layer: int, rows: NDArray[np.int64]) -> torch.Tensor:
        """(n, 1, ids seen) what is known of the tokens in `rows` (n,) `ahead` layers before `layer`, on the device."""
        return torch.from_numpy(self._context.inputs(layer, ahead)[rows][:, None]).to(machine.device())

    def _score(self, ahead: int, layer: int, ids: torch.Tensor) -> torch.Tensor:
        return score(ids, *self._networks[ahead, layer], nothing=self._context.absent).squeeze(1)

    @torch.no_grad()
    def scores(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(lookahead, L, T, B, E) scores of every expert for the tokens in `rows` (T, B) of the trace.

        [d - 1, l] are those of layer l, made d layers before it; zeros where nothing of the token is known yet.
        """
        scores = np.zeros((self._lookahead, self._layers, rows.size, self._context.experts), np.float32)
        for ahead, layer in self._networks:
            ids = self._ids(ahead, layer, rows.ravel())
            scores[ahead - 1, layer] = self._score(ahead, layer, ids).cpu().numpy()
        return scores.reshape(self._lookahead, self._layers, *rows.shape, -1)

    @torch.no_grad()
    def step_seconds(self, batch: int) -> float:
        """Measure the median seconds of scoring `batch` tokens layer by layer, with their ids on the device."""
        ids = {place: self._ids(*place, np.arange(batch)) for place in self._networks}

        def step() -> None:
            for place, seen in ids.items():
                self._score(*place, seen)

        return statistics.median(seconds(step, TIMED_STEPS))


def _check(folder: Path, trace: Trace) -> None:
    """Refuse a predictor of other experts, layers or choices than the trace's."""
    metadata, router = read_metadata(folder, "predictor"), trace.router
    for name, expected in (("experts", router.experts), ("layers", list(router.layers)), ("top_k", router.top_k)):
        if metadata[name] != expected:
            problem = f"is for {name} {metadata[name]}, the trace of {router.model} has {expected}"
            raise UserError(str(folder), problem, "Name another predictor, or train one on this trace.")

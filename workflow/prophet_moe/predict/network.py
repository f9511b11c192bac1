"""Prophet's predictor: for each MoE layer and lookahead a small network from the experts seen to those to come.

hidden = relu(sum of the embeddings of the ids seen + bias), score of expert e = hidden . output[:, e] + bias[e]; the
probability that a token chooses e is 1 / (1 + exp(-score)). Trained by prophet_moe.collect.predictor.
"""

from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401 (makes "bfloat16" a NumPy type, which safetensors asks for)
import numpy as np
from numba import njit
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from prophet_moe.errors import UserError
from prophet_moe.predict.context import Ids, split
from prophet_moe.routing.sequences import fingerprint
from prophet_moe.routing.store import read_metadata
from prophet_moe.routing.trace import Trace

WEIGHTS = "predictor.safetensors"
KIND = "predictor"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """Weights for D lookaheads, L layers, E experts and H hidden units, float32."""

    embedding: Floats
    """(D, L, SOURCES E, H)."""
    hidden_bias: Floats
    """(D, L, H)."""
    output: Floats
    """(D, L, H, E)."""
    output_bias: Floats
    """(D, L, E)."""
    trained_on: str
    """Fingerprint of the trace that it was trained on."""
    learned_from: str
    """Fingerprint of the half of that trace that it learned from."""

    def scores(self, inputs: Ids, layer: int, lookahead: int) -> Floats:
        """(n, E) of `inputs` (n, SOURCES k), as Context.inputs gives them; `layer` counts MoE layers from 0."""
        at = (lookahead - 1, layer)
        return _scores(inputs, self.embedding[at], self.hidden_bias[at], self.output[at], self.output_bias[at])

    @property
    def bytes_bf16(self) -> int:
        """Return the bytes of all weights of the network in bf16."""
        return 2 * sum(part.size for part in (self.embedding, self.hidden_bias, self.output, self.output_bias))


def read_network(folder: Path) -> Network:
    """Read and check the predictor in `folder`."""
    metadata = read_metadata(folder, kind=KIND)
    try:
        parts = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(str(folder / WEIGHTS), f"could not be read: {error}", "Train it again.") from None
    weights = [parts[name].astype(np.float32) for name in ("embedding", "hidden_bias", "output", "output_bias")]
    if not all(np.isfinite(part).all() for part in weights):
        raise UserError(str(folder / WEIGHTS), "holds weights that are no finite numbers", "Train it again.")
    return Network(*weights, metadata["trained_on"], metadata.get("learned_from", ""))


def read_trained(folder: Path, trace: Trace, trace_folder: Path) -> Network:
    """Read the predictor that was trained on a trace.

    Parameters
    ----------
    folder : Path
        The folder of the predictor.
    trace : Trace
        The trace that it must have been trained on.
    trace_folder : Path
        Where that trace lies, for messages.

    Returns
    -------
    Network
        Its weights, float32.

    Raises
    ------
    UserError
        Where the folder is unfinished or changed, or the predictor is of another trace or of another half.
    """
    network = read_network(folder)
    advice = f"Train it anew: python -m prophet_moe.collect predictor {trace_folder} --out {folder}"
    if network.trained_on != fingerprint(trace):
        raise UserError(str(folder), f"was trained on another trace than {trace_folder}", advice)
    if network.learned_from != fingerprint(split(trace)[0]):
        problem = f"has not learned from the half of {trace_folder} that is learned from now, but from sequences judged"
        raise UserError(str(folder), problem, advice)
    return network


@njit(cache=True)
def _scores(inputs, embedding, hidden_bias, output, output_bias):
    """(n, E): one token after another, as they come in decoding."""
    absent, width = len(embedding), len(hidden_bias)
    scores = np.empty((len(inputs), len(output_bias)), np.float32)
    hidden = np.empty(width, np.float32)
    for row in range(len(inputs)):
        hidden[:] = hidden_bias
        for seen in inputs[row]:
            if seen < absent:
                hidden += embedding[seen]
        score = scores[row]
        score[:] = output_bias
        for unit in range(width):
            if hidden[unit] > 0:
                for expert in range(len(score)):
                    score[expert] += hidden[unit] * output[unit, expert]
    return scores

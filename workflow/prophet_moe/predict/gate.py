"""The gate-input predictor: a later layer's router, applied to what an earlier layer's router was given.

Needs no training; needs the router inputs of the token, which a trace of choices alone does not have (compare Eliseev
and Mazur, arXiv 2312.17238, section 3.2).
"""

from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401 (makes "bfloat16" a NumPy type, which safetensors asks for)
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from prophet_moe.errors import UserError
from prophet_moe.routing.trace import Trace

FILE = "router_inputs.safetensors"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RouterInputs:
    """What the routers were given for m tokens, and the routers' weights."""

    sequence: NDArray[np.int32]
    """(m,)."""
    position: NDArray[np.int32]
    """(m,)."""
    inputs: Floats
    """(m, L, hidden)."""
    weights: Floats
    """(L, E, hidden)."""

    def of_tokens(self, trace: Trace, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
        """Return those of `rows` of `trace` with router inputs, ascending (n,), and these inputs (n, L, hidden)."""
        place = {
            pair: number for number, pair in enumerate(zip(self.sequence.tolist(), self.position.tolist(), strict=True))
        }
        pairs = zip(rows.tolist(), trace.sequence[rows].tolist(), trace.position[rows].tolist(), strict=True)
        recorded = [
            (row, place[sequence, position]) for row, sequence, position in pairs if (sequence, position) in place
        ]
        kept = np.array(recorded, np.int64).reshape(-1, 2)
        return kept[:, 0], self.inputs[kept[:, 1]]

    def scores(self, inputs: Floats, layer: int, lookahead: int) -> Floats:
        """(n, E): the router of `layer` on the `inputs` (n, L, hidden) of the layer `lookahead` before."""
        return inputs[:, layer - lookahead] @ self.weights[layer].T


def read_router_inputs(folder: Path) -> RouterInputs | None:
    """Return the router inputs in a trace's folder, None where none were recorded."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        parts = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(str(path), f"could not be read: {error}", "Collect the trace again.") from None
    inputs, weights = (parts[name].astype(np.float32) for name in ("inputs", "router_weights"))
    return RouterInputs(parts["sequence"], parts["position"], inputs, weights)

"""Compile the Numba kernels behind the statistics once, at set-up: `python -m prophet_moe.routing.warm`.

Otherwise every job of the first build would compile them again, for they start together.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from prophet_moe.routing.store import read_trace, write_trace
from prophet_moe.routing.summary import summarise
from prophet_moe.routing.trace import DECODE, Origin, Router, Trace


def main() -> None:
    """Describe a small trace that was read from disk, as those of the build are: kernels differ by type of array."""
    sequences, tokens, router = 4, 8, Router("none", 4, 2, (0, 1))
    count = sequences * tokens
    random = np.random.default_rng(0)
    trace = Trace(
        router,
        np.repeat(np.arange(sequences, dtype=np.int32), tokens),
        np.tile(np.arange(tokens, dtype=np.int32), sequences),
        np.full(count, DECODE, np.uint8),
        random.random((count, 2, 4)).argsort(-1)[..., :2].astype(np.uint16),
        True,
        Origin("random", "none"),
        np.zeros(count, np.int32),
    )
    with TemporaryDirectory() as folder:
        write_trace(Path(folder), trace)
        summarise("none", read_trace(Path(folder)))


if __name__ == "__main__":
    main()

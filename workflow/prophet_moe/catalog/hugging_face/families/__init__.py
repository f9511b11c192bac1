"""How each family of checkpoints says what its layers are: one reader per `model_type`.

A reader takes the fields of a config.json and returns those of an `Architecture`, as data. What it does not read, and
what `HARMLESS` does not list, is refused by name: nothing is guessed.
"""

from collections.abc import Callable, Mapping
from typing import Any

from prophet_moe.catalog.hugging_face.config import Config
from prophet_moe.catalog.hugging_face.families import attention, dense, hybrid, latent, linear, windows

Reader = Callable[[Config], dict[str, Any]]

FAMILIES: Mapping[str, Reader] = {
    **attention.FAMILIES,
    **dense.FAMILIES,
    **hybrid.FAMILIES,
    **windows.FAMILIES,
    **latent.FAMILIES,
    **linear.FAMILIES,
}
"""Readers by `model_type`."""

REFUSED: Mapping[str, str] = {
    "inkling_mm_model": "its attention has convolutions and a projection of relative positions",
    "inkling_text": "its attention has convolutions and a projection of relative positions",
    "jetmoe": "its attention is a mixture of experts too",
    "muse_spark": "its residuals have gates, and its norms are of several kinds",
    "muse_spark_text": "its residuals have gates, and its norms are of several kinds",
    "nllb-moe": "it is an encoder-decoder with biases everywhere",
    "zaya": "its attention is convolutional and its router is a network",
    **latent.REFUSED,
    **linear.REFUSED,
}
"""Families that no schema of this project expresses, with the reason."""

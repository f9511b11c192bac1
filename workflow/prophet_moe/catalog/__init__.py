"""Catalogue of models and GPUs: what they are, with the source of every number."""

from prophet_moe.catalog.gpu import GpuSpec, load_gpus
from prophet_moe.catalog.model import (
    Architecture,
    Attention,
    Constant,
    Mamba,
    ModelSpec,
    Moe,
    Placement,
    Reported,
    load_models,
    model_names,
)

__all__ = [
    "Architecture",
    "Attention",
    "Constant",
    "GpuSpec",
    "Mamba",
    "ModelSpec",
    "Moe",
    "Placement",
    "Reported",
    "load_gpus",
    "load_models",
    "model_names",
]

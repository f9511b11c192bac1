"""Catalogue of models and GPUs: what they are, with the source of every number."""

from prophet_moe.catalog.architecture import Architecture
from prophet_moe.catalog.gpu import GpuSpec, load_gpus
from prophet_moe.catalog.model import Constant, ModelSpec, Reported, load_models, model_names

__all__ = [
    "Architecture",
    "Constant",
    "GpuSpec",
    "ModelSpec",
    "Reported",
    "load_gpus",
    "load_models",
    "model_names",
]

"""Families with linear attention, Mamba or short convolutions in some layers: Qwen3-Next, Nemotron-3 and others."""

from collections.abc import Callable, Mapping
from typing import Any

from prophet_moe.catalog.hugging_face.config import Config

FAMILIES: Mapping[str, Callable[[Config], dict[str, Any]]] = {}

"""Families with latent attention (MLA): DeepSeek, Kimi, GLM-5, LongCat and others."""

from collections.abc import Callable, Mapping
from typing import Any

from prophet_moe.catalog.hugging_face.config import Config

FAMILIES: Mapping[str, Callable[[Config], dict[str, Any]]] = {}

"""Families with softmax attention over windows in some layers: gpt-oss, Llama 4, Gemma 4, MiMo, Trinity and others."""

from collections.abc import Callable, Mapping
from typing import Any

from prophet_moe.catalog.hugging_face.config import Config

FAMILIES: Mapping[str, Callable[[Config], dict[str, Any]]] = {}

"""The formats of weights that a checkpoint ships, from `quantization_config` of its config.json."""

from prophet_moe.catalog.hugging_face.config import Config


def shipped_formats(config: Config) -> dict[str, str]:
    """Return the formats by component (`precision` of a model's file); {} where all weights have 16 bits."""
    if not config.has("quantization_config"):
        return {}
    config.refuse("quantization_config", "is not understood")
    return {}

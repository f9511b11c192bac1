"""Import of a model from the config.json of its checkpoint: every field is understood, or refused by its name."""

from prophet_moe.catalog.hugging_face.importing import Imported, import_config

__all__ = ["Imported", "import_config"]

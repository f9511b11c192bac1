"""Keep Transformers off the network: every model is built from the catalogue's numbers."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

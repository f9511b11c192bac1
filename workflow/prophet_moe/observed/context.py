"""What predictions of observations need: models by any of their names, GPUs, engines, measured profiles."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prophet_moe.catalog import GpuSpec, ModelSpec, load_gpus, load_models
from prophet_moe.catalog.engine import EngineSpec, load_engines, profile_of
from prophet_moe.catalog.names import ModelName, bare, load_names, named
from prophet_moe.routing.published import PUBLISHED, PublishedRouting, read_published

MODELS, CURRENT = Path("config/models"), Path("config/models/current")
GPUS, ENGINES, NAMES = Path("config/gpus.yaml"), Path("config/engines"), Path("config/model_names.yaml")


@dataclass(frozen=True)
class Context:
    """The catalogue that observations are predicted from."""

    models: Mapping[str, ModelSpec]
    gpus: Mapping[str, GpuSpec]
    engines: Mapping[str, EngineSpec]
    names: Sequence[ModelName] = ()
    profiles: Mapping[str, Any] = field(default_factory=dict)
    """Measured performance of GPUs by name, where there is some."""
    published: Sequence[PublishedRouting] = ()
    """Counts of published models, on which pooled popularity rests."""
    root: Path = Path()
    """The project's folder, in which a kind finds what it alone needs."""

    def model(self, *texts: str) -> tuple[ModelSpec, ModelName] | None:
        """Return the model of the first text that names one, and what its checkpoint has of its own; None without."""
        for text in filter(None, texts):
            plain = bare(text)
            by_name = {name.lower(): name for name in self.models}
            entry = named(text, list(self.names))
            if plain.lower() in by_name and (entry is None or entry.model not in self.models):
                name = by_name[plain.lower()]
                return self.models[name], ModelName(match=f"^{re.escape(name)}$", model=name)
            if entry and entry.model in self.models:
                return self.models[entry.model], entry
        return None

    def with_models(self, specs: Sequence[ModelSpec]) -> "Context":
        """Return the context with further models, which come before those of the catalogue."""
        return replace(self, models={**self.models, **{spec.name: spec for spec in specs}})

    def gpu(self, text: str) -> tuple[str, GpuSpec] | None:
        """Return the GPU of config/gpus.yaml that a text names, such as `A100-SXM4-40GB` or `H100 80GB`; None without.

        The words of the name must all be in the text, or the text is the name without its memory. Where the text gives
        no memory, a GPU sold in one size is meant.
        """
        words, head = _words(text), text.partition("-")[0].upper()
        found = [
            name
            for name, spec in self.gpus.items()
            if _words(_device(name, spec)) <= words or name.partition("-")[0].upper() == head
        ]
        sized = [name for name in found if not _sizes(text) or _sizes(name) == _sizes(text)]
        return (sized[0], self.gpus[sized[0]]) if len(sized) == 1 else None

    def engine(self, engine: str, version: str = "") -> EngineSpec | None:
        """Return the profile of a version of an engine; of vLLM 0.8 and 0.9, that of the generation which is named."""
        return profile_of(engine, version, dict(self.engines))


def _device(name: str, spec: GpuSpec) -> str:
    return spec.device_words or name.split("-")[0]


def _words(text: str) -> set[str]:
    spaced = re.sub(r"(?<=[A-Za-z])(?=\d{4}\b)", " ", text.upper())
    return set(re.findall(r"[A-Z0-9]+", spaced))


def _sizes(text: str) -> set[str]:
    return set(re.findall(r"(\d+) ?G", text.upper()))


def load_context(root: Path = Path()) -> Context:
    """Return the catalogue of a project's folder."""
    models = load_models(root / MODELS) | load_models(root / CURRENT)
    engines = load_engines(root / ENGINES)
    published = read_published(root / PUBLISHED)
    return Context(models, load_gpus(root / GPUS), engines, load_names(root / NAMES), published=published, root=root)


def catalogue_files(root: Path = Path()) -> list[Path]:
    """Return every file that predictions of observations rest on, and the observations themselves, in order."""
    patterns = {
        "config": ("gpus.yaml", "model_names.yaml", "links.yaml", "offload.yaml", "engines/*.yaml", "models/**/*.yaml"),
        "resources": ("observations/*.csv", "operators/*.json", "routing/*.json"),
    }
    return [path for folder, names in patterns.items() for name in names for path in sorted((root / folder).glob(name))]

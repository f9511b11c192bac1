"""From a config.json to the fields of a model's file: the family's reader, what is left out, the shipped formats."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prophet_moe.catalog.architecture import Architecture, letters
from prophet_moe.catalog.hugging_face.config import Config
from prophet_moe.catalog.hugging_face.families import FAMILIES, REFUSED
from prophet_moe.catalog.hugging_face.quantisation import FIELDS as QUANTISATION
from prophet_moe.catalog.hugging_face.quantisation import shipped_formats
from prophet_moe.errors import UserError
from prophet_moe.settings.fields import WeightFormats
from prophet_moe.validation import shortened, validate

TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where a multimodal checkpoint keeps the fields of its language model."""
OTHER_PARTS = {
    "vision_config": "the vision tower",
    "audio_config": "the audio tower",
    "talker_config": "the talker, a second model that speaks",
    "code2wav_config": "the vocoder",
}
"""Parts of a multimodal checkpoint that are left out."""
DRAFT_FIELDS = (
    "num_nextn_predict_layers",
    "mtp_num_hidden_layers",
    "num_mtp_modules",
    "mtp_num_layers",
    "num_mtp_layers",
)
"""Fields that count draft (multi-token prediction) layers."""
INHERITED = ("tie_word_embeddings", *QUANTISATION)
"""Fields of the whole checkpoint that hold for its language model as well."""


@dataclass(frozen=True)
class Imported:
    """What a config.json says of a model."""

    model_type: str
    architecture: Architecture
    precision: WeightFormats
    left_out: list[str]
    """Parts of the checkpoint that the architecture leaves out on purpose."""
    notes: list[str]
    """What the file does not state, and how it was read."""


def import_config(fields: Mapping[str, Any], where: str) -> Imported:
    """Read the fields of a config.json.

    Parameters
    ----------
    fields : mapping
        The document.
    where : str
        Its file, for messages.

    Returns
    -------
    Imported
        The architecture, which may be dense, with the shipped formats and what is left out.

    Raises
    ------
    UserError
        Where `model_type` is missing or unknown, and for the first field that is not understood.
    """
    if not isinstance(fields, Mapping):
        raise UserError(where, f"holds {type(fields).__name__}, expected a mapping of fields", "Name a config.json.")
    left_out: list[str] = []
    config = _language_model(Config(fields, where), left_out)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        config.refuse("model_type", f"got {shortened(repr(model_type))}, expected a name")
    if model_type in REFUSED:
        raise UserError(
            where, f"model_type: {model_type!r} cannot be expressed: {REFUSED[model_type]}", "Choose another."
        )
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UserError(where, f"model_type: got {model_type!r}, expected one of {known}", "Write the file by hand.")
    left_out += _drafts(config)
    architecture = _pruned(FAMILIES[model_type](config))
    config.ignore(*QUANTISATION)
    config.refuse_unread()
    checked = validate(Architecture, architecture, where, "Correct the config.json.")
    formats = validate(WeightFormats, shipped_formats(config, checked), where, "Correct the config.json.")
    return Imported(model_type, checked, formats, left_out, config.notes)


def _language_model(config: Config, left_out: list[str]) -> Config:
    """Return the reader of the language model; what stands beside it is noted as left out."""
    if not config.has("model_type"):
        config.refuse("model_type", "is missing, expected the family of the checkpoint")
    for name, what in OTHER_PARTS.items():
        if config.has(name):
            left_out.append(f"{what} ({name})")
    config.ignore(*OTHER_PARTS)  # beside the language model, whose fields may also stand outside them
    part = next((name for name in TEXT_PARTS if config.has(name)), None)
    if part is None:
        return config
    inner = config.below(part, *INHERITED)
    if not inner.has("model_type"):
        inner.fields = {**inner.fields, "model_type": config.get("model_type")}
    return _language_model(inner, left_out)


def _drafts(config: Config) -> list[str]:
    """Return what a file says of draft layers; two fields may count them alike."""
    counts = {name: config.count(name, default=0) for name in DRAFT_FIELDS}
    names = {count: [name for name in counts if counts[name] == count] for count in counts.values() if count}
    return [f"{count} draft (multi-token prediction) layers ({', '.join(names[count])})" for count in names]


def _pruned(architecture: dict[str, Any]) -> dict[str, Any]:
    """Return an architecture without the blocks, mixers and FFNs that its pattern does not use."""
    used = set(letters(architecture["pattern"]))
    blocks = {letter: block for letter, block in architecture["blocks"].items() if letter in used}
    named = {part: {block.get(part) for block in blocks.values()} for part in ("mixer", "ffn")}
    kept = {
        f"{part}s": {name: found for name, found in architecture.get(f"{part}s", {}).items() if name in names}
        for part, names in named.items()
    }
    return architecture | {"blocks": blocks} | kept

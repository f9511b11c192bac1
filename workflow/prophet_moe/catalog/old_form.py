"""Model files in the form of earlier versions, read once more to be written in the form of layer patterns.

An old architecture had one MoE block, one attention and one Mamba block with `placement {first, step}`, the layers of
each: `first`, `first + step`, `first + 2 step` and so on.
"""

from itertools import groupby
from typing import Any

from prophet_moe.catalog.architecture import LARGEST_DEPTH
from prophet_moe.catalog.model import is_old_form
from prophet_moe.errors import UserError

MLA_FIELDS = ("q_lora_rank", "kv_lora_rank", "nope_head_dim", "rope_head_dim", "v_head_dim")
COPIED = ("hidden", "vocab", "native_context", "tied_embeddings")


def converted(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a model file in the new form; a document that is not in the old form is a UserError.

    The block `reported` does not say which model it is of: it is left for its reader to name, with `model`.
    """
    if not is_old_form(document):
        raise UserError(where, "architecture: is not in the form of earlier versions", "There is nothing to convert.")
    try:
        return document | {"architecture": _architecture(document["architecture"])}
    except KeyError as error:
        raise UserError(where, f"architecture: key {error} is missing", "Add that key.") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise UserError(where, f"architecture: has a value of the wrong kind: {error}", "Mend that key.") from None


def _architecture(old: dict[str, Any]) -> dict[str, Any]:
    moe, attention = old["moe"], old["attention"]
    mixers: dict[str, Any] = {"attention": _attention(attention)}
    if old.get("mamba"):
        mixers["mamba"] = {"kind": "mamba1", **old["mamba"]}
    kept = {key: value for key, value in moe.items() if key != "placement"}
    ffns: dict[str, Any] = {"moe": {"kind": "moe", **kept}}
    if old.get("residual_ffn"):
        ffns["moe"]["dense_beside"] = old["residual_ffn"]
    if old.get("dense_ffn"):
        ffns["dense"] = {"kind": "dense", "ffn": old["dense_ffn"]}
        ffns["dense"] |= {"gated": moe["gated"]} if "gated" in moe else {}

    def letters(depth: int) -> list[str]:
        with_moe = _placed(moe.get("placement", {}), depth)
        attending = _placed(attention.get("placement", {}), depth) if old.get("mamba") else range(depth)
        return [_letter(layer in attending, layer in with_moe) for layer in range(depth)]

    for key in ("layers", "encoder_layers"):
        if old.get(key, 0) > LARGEST_DEPTH:
            raise ValueError(f"{key} {old[key]}, expected at most {LARGEST_DEPTH:,}")
    decoder, encoder = letters(old["layers"]), letters(old.get("encoder_layers", 0))
    norms = {"norms": old["norms_per_layer"]} if old.get("norms_per_layer", 2) != 2 else {}
    blocks = {letter: BLOCKS[letter] | norms for letter in dict.fromkeys(decoder + encoder)}
    new = {key: old[key] for key in COPIED if key in old}
    new |= {"mixers": mixers, "ffns": ffns, "blocks": blocks, "pattern": _pattern(decoder)}
    return new | ({"encoder": {"pattern": _pattern(encoder)}} if encoder else {})


BLOCKS = {
    "M": {"mixer": "attention", "ffn": "moe"},
    "D": {"mixer": "attention", "ffn": "dense"},
    "S": {"mixer": "mamba", "ffn": "moe"},
    "s": {"mixer": "mamba", "ffn": "dense"},
}


def _letter(attends: bool, moe: bool) -> str:
    return ("M" if moe else "D") if attends else ("S" if moe else "s")


def _attention(old: dict[str, Any]) -> dict[str, Any]:
    if old["kind"] == "MLA":
        return {"kind": "latent", "heads": old["heads"]} | {key: old[key] for key in MLA_FIELDS}
    new = {"kind": "softmax", "heads": old["heads"], "kv_heads": old["kv_heads"], "head_dim": old["head_dim"]}
    if old.get("qkv_bias"):
        new["bias"] = "qkv"
    return new | {key: old[key] for key in ("qk_norm", "relative_buckets") if key in old}


def _placed(placement: dict[str, int], depth: int) -> range:
    return range(placement.get("first", 0), depth, placement.get("step", 1))


def _pattern(layers: list[str]) -> list[str]:
    """Return the shortest runs of a sequence of letters that repeats with some period from its start on."""
    text = "".join(layers)
    for period in range(1, len(text) // 2 + 1):
        times, rest = divmod(len(text), period)
        if not rest and text == text[:period] * times:
            return [f"{times} x {text[:period]}"]
    runs = ((letter, len(list(equal))) for letter, equal in groupby(text))
    return [f"{count} x {letter}" if count > 1 else letter for letter, count in runs]

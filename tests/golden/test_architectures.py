"""Exact counts of checkpoints of today against golden files: from their architecture, and from their config.json."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from prophet_moe import params
from prophet_moe.catalog.architecture import Architecture
from prophet_moe.catalog.hugging_face.importing import import_config
from prophet_moe.errors import UserError
from prophet_moe.validation import validate

GOLDEN = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "architectures").glob("*.json")}
REFUSED_MODELS = {"JetMoE-8B", "NLLB-MoE-54B", "ZAYA1-8B"}
"""Models that no architecture of this project expresses: their importer must say so."""
EXPRESSED = sorted(GOLDEN.keys() - REFUSED_MODELS)


def test_every_model_but_the_refused_has_a_form():
    assert len(GOLDEN) == 33 and {name for name in GOLDEN if "architecture" not in GOLDEN[name]} == REFUSED_MODELS


@pytest.mark.parametrize("name", EXPRESSED)
def test_architecture_is_counted_exactly(name):
    _assert_exact(validate(Architecture, GOLDEN[name]["architecture"], name, "Mend it."), GOLDEN[name])


@pytest.mark.parametrize("name", EXPRESSED)
def test_imported_config_is_counted_exactly(name):
    config = GOLDEN[name]["config"]
    stated = {"native_context": config["max_position_embeddings"]}
    _assert_exact(import_config(config, f"{name}.json").architecture, GOLDEN[name] | stated)


@pytest.mark.parametrize("name", sorted(REFUSED_MODELS))
def test_model_without_a_form_is_refused_by_name(name):
    config = GOLDEN[name]["config"]
    with pytest.raises(UserError, match=f"model_type: '{config['model_type']}' cannot be expressed"):
        import_config(config, f"{name}.json")


def _assert_exact(arch: Architecture, golden: dict) -> None:
    """Every number of the golden file, which the architecture must give exactly."""
    counts, moe, kept = params.parameter_counts(arch), golden["moe"], params.caches(arch)
    assert {name: count for name, count in asdict(counts).items() if count} == golden["counts"]
    assert counts.total == golden["total"]
    assert params.active_parameters(arch) == golden["active"]
    embedding, tied = arch.vocab * arch.hidden, arch.tied_embeddings
    without_input = golden["active_without_input_embedding"]
    assert params.active_parameters(arch) - (0 if tied else embedding) == without_input
    assert without_input - counts.embeddings + (0 if tied else embedding) == golden["active_without_embeddings"]
    assert params.expert_parameters(arch) == moe["parameters_per_expert"]
    assert (params.moe_layers(arch), arch.moe.experts, arch.moe.top_k) == (moe["layers"], moe["experts"], moe["top_k"])
    assert arch.moe.zero_experts == moe["zero_experts"]
    assert params.growing_bytes_per_token(kept) == golden["kv_growing_bytes_per_token"]
    assert params.bounded_bytes(kept) == golden["kv_bounded_bytes"]
    assert _terms(kept) == _golden_terms(golden["kv"])
    assert params.state_bytes_per_sequence(arch) == golden["state_bytes"]
    assert arch.native_context == golden["native_context"]


def _terms(kept: tuple[params.Cache, ...]) -> list[tuple]:
    """(layers, bytes per token and layer, window) of every cache, sorted: how a cache is called does not matter."""
    return sorted((c.layers, c.bytes_per_entry / c.tokens_per_entry, c.window or 0) for c in kept)


def _golden_terms(kv: list[dict]) -> list[tuple]:
    return sorted((term["layers"], term["bytes_per_token_and_layer"], term["window"] or 0) for term in kv)

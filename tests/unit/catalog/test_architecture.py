"""What an architecture refuses, each in one line that names the key; and which readings of a pattern are equal."""

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given

from prophet_moe import params
from prophet_moe.catalog.architecture import Architecture, letters
from prophet_moe.catalog.model import ModelSpec, load_model
from prophet_moe.errors import UserError
from prophet_moe.validation import validate
from tests import examples  # noqa: F401
from tests.architectures import architecture_documents
from tests.conftest import ROOT
from tests.fuzzing import changed, fuzz

SOFTMAX = {"kind": "softmax", "heads": 32, "kv_heads": 4, "head_dim": 128}
MOE = {"kind": "moe", "experts": 128, "top_k": 8, "ffn": 768}
VALID = {
    "hidden": 2048,
    "vocab": 151936,
    "native_context": 40960,
    "mixers": {"full": SOFTMAX, "local": SOFTMAX | {"window": 128}},
    "ffns": {"moe": MOE, "dense": {"kind": "dense", "ffn": 6144}},
    "blocks": {
        "F": {"mixer": "full", "ffn": "moe"},
        "L": {"mixer": "local", "ffn": "moe"},
        "D": {"mixer": "full", "ffn": "dense"},
    },
    "pattern": ["D", "12 x LLLF"],
}


def _told(document: Any) -> str:
    """The one line that a document is refused with."""
    started = time.process_time()
    with pytest.raises(UserError) as error:
        validate(Architecture, document, "m.yaml", "Mend that key.")
    assert time.process_time() - started < 1
    line = str(error.value)
    assert "\n" not in line and len(line) < 400 and line.startswith("m.yaml: ") and line.endswith(". Mend that key.")
    return line.removeprefix("m.yaml: ").removesuffix(". Mend that key.")


def _with(*path: str | int, value: Any) -> dict:
    document = copy.deepcopy(VALID)
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return document


def _without(*path: str) -> dict:
    document = _with(*path, value=None)
    inside = document
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    return document


def test_valid_example_is_valid():
    arch = validate(Architecture, VALID, "m.yaml", "")
    assert "".join(letters(arch.pattern)) == "D" + 12 * "LLLF"
    assert len(arch.layers()) == 49 and arch.moe_layers == tuple(range(1, 49))


NO_RUN = "expected letters of blocks, such as LLLF, or a run of them: 12 x LLLF"
PATTERNS = [
    (["12 x"], f"pattern[0]: got '12 x', {NO_RUN}"),
    (["0 x D"], f"pattern[0]: got '0 x D', {NO_RUN}"),
    (["1e9 x D"], f"pattern[0]: got '1e9 x D', {NO_RUN}"),
    (["-3 x D"], f"pattern[0]: got '-3 x D', {NO_RUN}"),
    (["D", "12x F"], f"pattern[1]: got '12x F', {NO_RUN}"),
    (["D, F"], f"pattern[0]: got 'D, F', {NO_RUN}"),
    ([""], f"pattern[0]: got '', {NO_RUN}"),
    (["9" * 5000 + " x D"], f"pattern[0]: got '{'9' * 76}..., {NO_RUN}"),
    (["1000000000 x D"], "pattern: got 1,000,000,000 blocks, expected at most 10,000"),
    (["99999 x " + 10_000 * "D"], "pattern: got 999,990,000 blocks, expected at most 10,000"),
    (["5001 x D", "5000 x F"], "pattern: got 10,001 blocks, expected at most 10,000"),
    ([], "pattern: got [], expected a list of at least 1"),
    ("DLLF", "pattern: got 'DLLF', expected a valid list"),
    ([3, "D"], "pattern[0]: got 3, expected a valid string"),
    (["DLF", "Q"], "pattern: got the letter 'Q', expected letters of blocks: F, L, D"),
    (["DLf"], "pattern: got the letter 'f', expected letters of blocks: F, L, D"),
]


@pytest.mark.parametrize("pattern, told", PATTERNS)
def test_pattern_that_cannot_be_read_is_told(pattern, told):
    assert _told(_with("pattern", value=pattern)) == told


@pytest.mark.parametrize("part", ["encoder", "draft"])
def test_patterns_of_other_stacks_are_checked_too(part):
    assert _told(_with(part, value={"pattern": ["Q"]})).startswith(f"{part}.pattern: got the letter 'Q'")
    assert _told(_with(part, value={"pattern": ["9 x"]})).startswith(f"{part}.pattern[0]: got '9 x'")
    assert _told(_with(part, value={"pattern": ["99999 x D"]})).startswith(f"{part}.pattern: got 99,999 blocks")


UNDEFINED = [
    (
        _with("blocks", "F", "mixer", value="ful"),
        "blocks.F.mixer: got 'ful', expected a name under mixers: full, local",
    ),
    (_with("blocks", "F", "ffn", value="moee"), "blocks.F.ffn: got 'moee', expected a name under ffns: moe, dense"),
    (_with("mixers", value={}), "blocks.F.mixer: got 'full', expected a name under mixers: there are none"),
    (_with("blocks", "Z", value={"mixer": "full"}), "blocks.Z: is in no pattern, expected a definition that is used"),
    (_with("mixers", "z", value=SOFTMAX), "mixers.z: is in no block, expected a definition that is used"),
    (_with("ffns", "z", value=MOE), "ffns.z: is in no block, expected a definition that is used"),
    (_with("blocks", "ZZ", value={"mixer": "full"}), "blocks.ZZ: got 'ZZ', expected one letter, no space and no comma"),
    (_with("blocks", ",", value={"mixer": "full"}), "blocks.,: got ',', expected one letter, no space and no comma"),
    (_with("blocks", "", value={"mixer": "full"}), "blocks.: got '', expected one letter, no space and no comma"),
    (_with("blocks", "F", value={}), "blocks.F.mixer: missing, as is ffn, expected at least one of the two"),
    (
        _with("blocks", value={}),
        "blocks: got {}, expected a mapping of at least 1",
    ),
]


@pytest.mark.parametrize("document, told", UNDEFINED, ids=[told for _, told in UNDEFINED])
def test_names_and_definitions_that_do_not_meet_are_told(document, told):
    assert _told(document) == told


def test_layer_that_lost_its_mixer_is_told():
    """M3: 36 of 48 layers of a Qwen3-Next file had no mixer, and its cache came out a quarter as large."""
    told = _told(_without("blocks", "L", "mixer") | {"mixers": {"full": SOFTMAX}})
    assert told == "pattern: block 1, 'L', is an FFN without a mixer in it or before it, expected one"


def test_mixers_and_ffns_may_alternate():
    """Nemotron-3: every layer is a mixer alone or an FFN alone."""
    blocks = {"A": {"mixer": "full"}, "M": {"mixer": "local"}, "E": {"ffn": "moe"}, "D": {"ffn": "dense"}}
    arch = Architecture.model_validate(VALID | {"blocks": blocks, "pattern": ["MEAD", "3 x MEME", "A"]})
    assert params.attention_layers(arch) == 9 and len(arch.moe_layers) == 7
    assert _told(VALID | {"blocks": blocks, "pattern": ["MEAD", "E"]}).startswith("pattern: block 4, 'E', is an FFN")


@pytest.mark.parametrize("kv_heads", [3, 5, 64])
def test_kv_heads_that_do_not_divide_heads_are_told(kv_heads):
    told = _told(_with("mixers", "full", "kv_heads", value=kv_heads))
    assert told == f"mixers.full.kv_heads: got {kv_heads}, expected a divisor of heads, 32"


LATENT = {"kind": "latent", "heads": 8, "q_lora_rank": None, "kv_lora_rank": 512}
LATENT |= {"nope_head_dim": 128, "rope_head_dim": 64, "v_head_dim": 128}
COMPRESSED = {"kind": "compressed", "heads": 8, "head_dim": 512, "q_lora_rank": 8, "o_lora_rank": 8}
COMPRESSED |= {"o_groups": 2, "window": 128}
INDEXER = {"heads": 4, "head_dim": 128}
KINDS = "softmax, latent, compressed, mamba1, mamba2, gated_delta_net, kimi_delta, lightning, short_conv"
MIXERS = [
    (SOFTMAX | {"kind": "MHA"}, f"kind: got 'MHA', expected one of {KINDS}"),
    ({"heads": 32, "kv_heads": 4, "head_dim": 128}, "kind: missing"),
    (
        SOFTMAX | {"key_is_value": True, "v_head_dim": 64},
        "v_head_dim: got 64 with key_is_value, expected head_dim or none",
    ),
    (SOFTMAX | {"window_kind": "chunked"}, "window_kind: got chunked without a window, expected its tokens"),
    (SOFTMAX | {"window": 0}, "window: got 0, expected greater than 0"),
    (SOFTMAX | {"heads": 2**40}, "heads: got 1099511627776, expected less than or equal to 2147483648"),
    (SOFTMAX | {"heads": "32"}, "heads: got '32', expected a valid integer"),
    (SOFTMAX | {"kv_head": 4}, "kv_head: unknown key; did you mean 'kv_heads'"),
    (LATENT | {"indexer": INDEXER}, "indexer: given without q_lora_rank, where its queries come from"),
    ({k: v for k, v in LATENT.items() if k != "q_lora_rank"}, "q_lora_rank: missing"),
    (COMPRESSED | {"o_groups": 3}, "o_groups: got 3, expected a divisor of heads, 8"),
    (COMPRESSED | {"overlap": True}, "compress: missing, expected the tokens of an entry, since entries are indexed"),
]


@pytest.mark.parametrize("mixer, told", MIXERS, ids=[told for _, told in MIXERS])
def test_mixer_whose_fields_contradict_is_told(mixer, told):
    assert _told(_with("mixers", "full", value=mixer)) == f"mixers.full.{told}"


def test_unknown_key_is_told_with_the_keys_of_its_kind():
    told = _told(_with("mixers", "full", value=LATENT | {"window": 128}))
    known = "bias, gate, heads, indexer, kind, kv_lora_rank, nope_head_dim, q_lora_rank, rope_head_dim, sparse_top_k"
    assert told == f"mixers.full.window: unknown key; expected one of {known}, v_head_dim"


FFNS = [
    (MOE | {"top_k": 129}, "top_k: got 129, expected at most experts, 128"),
    (MOE | {"top_k": 141, "zero_experts": 12}, "top_k: got 141, expected at most experts, 128 and 12 zero experts"),
    (MOE | {"shared_ffn": 5}, "shared_ffn: got 5 with shared_experts 0, expected both above 0 or none"),
    (MOE | {"shared_experts": 1}, "shared_ffn: got 0 with shared_experts 1, expected both above 0 or none"),
    (MOE | {"shared_gate": True}, "shared_gate: got true without shared_experts, expected false"),
    (MOE | {"kind": "Moe"}, "kind: got 'Moe', expected one of dense, moe"),
    (MOE | {"num_experts": 8}, "num_experts: unknown key; did you mean 'experts'"),
]


@pytest.mark.parametrize("ffn, told", FFNS, ids=[told for _, told in FFNS])
def test_ffn_whose_fields_contradict_is_told(ffn, told):
    assert _told(_with("ffns", "moe", value=ffn)) == f"ffns.moe.{told}"


@pytest.mark.parametrize("field, value", [("experts", 64), ("top_k", 6), ("ffn", 96), ("gated", False), ("latent", 64)])
def test_two_kinds_of_routed_experts_are_told(field, value):
    document = _with("ffns", "other", value=MOE | {field: value})
    document["blocks"]["D"] = {"mixer": "full", "ffn": "other"}
    del document["ffns"]["dense"]
    expected = MOE.get(field, True if field == "gated" else None)
    told = f"ffns.other.{field}: got {value}, expected {expected} as in ffns.moe: one kind of routed experts"
    assert _told(document) == told


def test_moe_layers_may_differ_beside_their_experts():
    document = _with("ffns", "dense", value=MOE | {"shared_experts": 1, "shared_ffn": 768, "dense_beside": 64})
    assert Architecture.model_validate(document).moe.experts == 128


def test_layer_that_reads_no_earlier_keys_is_told():
    mixers = {"full": SOFTMAX, "local": SOFTMAX | {"own_kv": False}}
    document = VALID | {"mixers": mixers, "pattern": ["LF", "D"]}
    assert _told(document) == "pattern: block 0, 'L', has own_kv false, expected an earlier layer that has keys"
    Architecture.model_validate(document | {"pattern": ["FL", "D"]})


def test_model_whose_layers_all_keep_nothing_is_told():
    mixers = dict.fromkeys(VALID["mixers"], SOFTMAX | {"own_kv": False})
    told = _told(VALID | {"mixers": mixers})
    assert told == "pattern: has no block with a mixer that keeps a cache or a state, expected one"


def test_encoder_with_other_mixers_is_told():
    document = VALID | {"mixers": {"full": SOFTMAX, "local": LATENT}, "encoder": {"pattern": ["2 x D"]}}
    assert _told(document) == "mixers.local: got latent with an encoder, expected softmax"


SPEC = {"name": "Own", "published_name": "Own", "sources": ["here"], "architecture": VALID}


def test_copied_reported_block_is_told():
    """M3: a file copied from another model brought that model's constants into scenario `reported`."""
    copied = yaml.safe_load((ROOT / "config/models/Mixtral-8x7B.yaml").read_text())["reported"]
    with pytest.raises(UserError, match=r"reported\.model: got 'Mixtral-8x7B', expected 'Own': the report's constants"):
        validate(ModelSpec, SPEC | {"reported": copied}, "Own.yaml", "Mend that key.")
    with pytest.raises(UserError, match=r"reported\.model: missing"):
        unnamed = {key: value for key, value in copied.items() if key != "model"}
        validate(ModelSpec, SPEC | {"reported": unnamed}, "Own.yaml", "Mend that key.")


def test_file_names_the_place_of_a_mistake_in_it(tmp_path):
    path = tmp_path / "Own.yaml"
    path.write_text(yaml.safe_dump(SPEC | {"architecture": _with("mixers", "full", "kv_heads", value=3)}))
    with pytest.raises(UserError) as error:
        load_model(path)
    problem = "architecture.mixers.full.kv_heads: got 3, expected a divisor of heads, 32"
    assert str(error.value) == f"{path}: {problem}. Mend that key."


TOTALS = [
    (lambda arch: None, 30.5, 0.0),  # 30.53 B agree within the digit that is stated
    (lambda arch: arch["ffns"]["moe"].update(ffn=6144), 30.5, 6.653),
    (lambda arch: arch.update(hidden=768) or arch["ffns"]["moe"].update(ffn=2048), 30.5, -0.029),
    (lambda arch: None, 30_500.0, -0.999),
    (lambda arch: None, None, 0.0),
]
"""(what is changed in Qwen3-30B-A3B, published total in 10^9, share by which the count is off): the slips of M3."""


@pytest.mark.parametrize("change, published, expected", TOTALS)
def test_total_far_from_the_published_one_is_measured(change: Callable, published, expected):
    fields = VALID | {"mixers": {"full": SOFTMAX | {"qk_norm": "per_head"}}, "ffns": {"moe": MOE}}
    fields = copy.deepcopy(fields | {"blocks": {"F": {"mixer": "full", "ffn": "moe"}}, "pattern": ["48 x F"]})
    change(fields)
    spec = ModelSpec.model_validate(SPEC | {"published_total_b": published, "architecture": fields})
    assert params.deviation_from_published(spec) == pytest.approx(expected, abs=1e-3)
    assert (abs(params.deviation_from_published(spec)) > params.NOTED_DEVIATION) == (expected != 0)


def test_published_total_in_units_is_refused():
    with pytest.raises(UserError, match=r"published_total_b: got 30500000000.0, expected less than or equal to 100000"):
        validate(ModelSpec, SPEC | {"published_total_b": 30_500_000_000.0}, "Own.yaml", "Mend that key.")


@fuzz(200)
@given(architecture_documents().flatmap(changed))
def test_hostile_architecture_is_read_or_told_in_one_line(document):
    try:
        arch = validate(Architecture, document, "m.yaml", "Mend that key.")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return
    counts = params.parameter_counts(arch)
    assert counts.total > 0 and 0 < params.active_parameters(arch) <= counts.total
    assert all(cache.bytes(1000) >= 0 for cache in params.caches(arch))
    assert params.activation_bytes_per_token(arch) > 0


@given(architecture_documents())
def test_kept_document_is_read_again_as_the_same(document):
    arch = Architecture.model_validate(document)
    assert Architecture.model_validate_json(arch.model_dump_json()) == arch
    assert Architecture.model_validate(arch.model_dump(exclude_defaults=True)) == arch

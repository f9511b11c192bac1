"""Parameters are sums over the pattern, layer by layer, and shared parts are counted once."""

import time
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import assume, given

from prophet_moe import params
from prophet_moe.catalog.architecture import Architecture, letters
from prophet_moe.params.weights import block_weights, stack_weights
from prophet_moe.precision import FORMATS, Precision
from tests import examples  # noqa: F401
from tests.architectures import architectures
from tests.golden.test_architectures import EXPRESSED, GOLDEN

HIDDEN, VOCAB = 768, 32_128
ATTENTION = {"kind": "softmax", "heads": 12, "kv_heads": 12, "head_dim": 64}


def _model(**changed) -> Architecture:
    """A decoder of two layers with a dense FFN, with some fields changed."""
    fields = {"hidden": HIDDEN, "vocab": VOCAB, "native_context": 512, "pattern": ["2 x A"]}
    fields |= {"mixers": {"attention": ATTENTION}, "ffns": {"dense": {"kind": "dense", "ffn": 3072}}}
    fields |= {"blocks": {"A": {"mixer": "attention", "ffn": "dense"}}}
    return Architecture.model_validate(fields | changed)


@given(architectures())
def test_counts_are_the_sum_over_single_layers(arch):
    expected: Counter[str] = Counter()
    for letter in letters(arch.pattern):
        _add(expected, block_weights(arch, arch.blocks[letter]))
    _add(expected, stack_weights(arch, arch.pattern))
    if arch.encoder:
        alone = arch.model_copy(update={"encoder": None})
        for letter in letters(arch.encoder.pattern):
            _add(expected, block_weights(alone, arch.blocks[letter]))
        _add(expected, stack_weights(alone, arch.encoder.pattern))
    matrices = 1 if arch.tied_embeddings else 2
    expected["embeddings"] = matrices * arch.vocab * arch.hidden + arch.head_bias * arch.vocab
    if streams := arch.hyper_connections:
        expected["hyper_connections"] += streams * streams * arch.hidden + streams + 1
    expected["other"] = sum(arch.other.values())
    counts = params.parameter_counts(arch)
    assert {name: count for name, count in asdict(counts).items() if count} == +expected
    assert counts.total == expected.total() and counts.non_expert == expected.total() - expected["routed_experts"]


@given(architectures())
def test_a_repeated_pattern_adds_its_layers_again(arch):
    twice = arch.model_copy(update={"pattern": arch.pattern * 2})
    layers = sum(each.parameters for block in arch.layers() for each in block_weights(arch, block))
    assert params.parameter_counts(twice).total - params.parameter_counts(arch).total == layers
    assert len(twice.moe_layers) == 2 * len(arch.moe_layers)


@given(architectures())
def test_runs_and_single_letters_count_the_same(arch):
    single = Architecture.model_validate(arch.model_dump() | {"pattern": list(letters(arch.pattern))})
    assert params.parameter_counts(single) == params.parameter_counts(arch)
    assert params.weight_bytes(single) == params.weight_bytes(arch)
    assert params.active_parameters(single) == params.active_parameters(arch)


@given(architectures())
def test_bytes_of_16_bits_are_twice_the_parameters(arch):
    counts = {name: 2 * count for name, count in asdict(params.parameter_counts(arch)).items() if count}
    assert {name: size for name, size in params.weight_bytes(arch).items() if size} == counts
    assert params.draft_bytes(arch) == 2 * params.draft_parameters(arch)
    assert params.expert_bytes(arch) == 2 * params.expert_parameters(arch)


@given(architectures())
def test_routed_experts_are_so_many_equal_experts(arch):
    experts = params.moe_layers(arch) * arch.moe.experts if arch.moe else 0
    assert params.parameter_counts(arch).routed_experts == experts * params.expert_parameters(arch)
    for name in FORMATS:
        stored = params.weight_bytes(arch, Precision(name)).get("routed_experts", 0)
        assert stored == experts * params.expert_bytes(arch, Precision(name))


@given(architectures())
def test_draft_layers_are_counted_apart(arch):
    assume(arch.draft)
    without = arch.model_copy(update={"draft": None})
    assert params.parameter_counts(without) == params.parameter_counts(arch)
    assert params.draft_parameters(without) == 0
    assert params.caches(without) == params.caches(arch) and params.states(without) == params.states(arch)
    modules, own = arch.draft.modules, 2 * arch.vocab * arch.hidden * arch.draft.own_embeddings
    alone = arch.model_copy(update={"encoder": None})
    blocks = (alone.blocks[letter] for letter in letters(arch.draft.pattern))
    layers = sum(each.parameters for block in blocks for each in block_weights(alone, block))
    norms = arch.draft.norms * arch.hidden * (2 if arch.norm == "layer" else 1)
    assert params.draft_parameters(arch) == layers + modules * (2 * arch.hidden**2 + norms + own)


def _add(counts: Counter[str], parts) -> None:
    for each in parts:
        counts[each.component] += each.parameters


def test_cross_attention_is_counted_in_the_decoder_alone():
    alone, both = _model(), _model(encoder={"pattern": ["2 x A"]})
    layer = 4 * HIDDEN * HIDDEN
    assert params.parameter_counts(alone).attention == 2 * layer
    assert params.parameter_counts(both).attention == 2 * layer + 2 * 2 * layer
    # Two norms a block and one a stack; a decoder's block has a third one, of cross-attention.
    assert params.parameter_counts(alone).norms == (2 * 2 + 1) * HIDDEN
    assert params.parameter_counts(both).norms == (2 * 2 + 1 + 2 * 3 + 1) * HIDDEN
    assert params.source_projections(both, "attention") == 2 * HIDDEN * HIDDEN
    assert params.source_projections(alone, "attention") == 0


def test_relative_positions_are_one_table_a_stack():
    t5 = {"attention": ATTENTION | {"relative_buckets": 32}}
    plain, both = _model(mixers=t5), _model(mixers=t5, encoder={"pattern": ["2 x A"]})
    assert params.parameter_counts(plain).attention == 8 * HIDDEN * HIDDEN + 32 * 12
    assert params.parameter_counts(both).attention == 24 * HIDDEN * HIDDEN + 2 * 32 * 12


def test_layer_without_own_keys_has_no_projection_of_them():
    mixers = {"attention": ATTENTION, "reader": ATTENTION | {"own_kv": False, "bias": "qkv"}}
    blocks = {"A": {"mixer": "attention", "ffn": "dense"}, "R": {"mixer": "reader", "ffn": "dense"}}
    arch = _model(mixers=mixers, blocks=blocks, pattern=["AR"])
    assert params.parameter_counts(arch).attention == (4 + 2) * HIDDEN * HIDDEN + HIDDEN


def test_draft_module_of_deepseek_v3_has_14_billion(models):
    """The checkpoint has 685 B by its own count: one MoE layer, a projection, three norms and its own embeddings."""
    arch = models["DeepSeek-V3-671B"].architecture
    fields = arch.model_dump() | {"draft": {"pattern": ["M"], "own_embeddings": True}}
    drafting = Architecture.model_validate(fields)
    main = params.parameter_counts(drafting)
    assert main == params.parameter_counts(arch)
    layer = sum(each.parameters for each in block_weights(arch, arch.blocks["M"]))
    hidden, vocab = 7168, 129_280
    draft = params.draft_parameters(drafting)
    assert draft == layer + 2 * hidden**2 + 3 * hidden + 2 * vocab * hidden == 13_463_426_048
    assert main.total + draft == pytest.approx(684.5e9, rel=1e-4)


def test_dense_model_has_no_experts():
    arch = _model()
    assert arch.moe is None and arch.moe_layers == () and params.expert_parameters(arch) == 0
    assert params.active_parameters(arch) == params.parameter_counts(arch).total


def test_token_that_chooses_zero_experts_uses_fewer():
    """The active parameters are the most that a token uses: zero experts have no weights."""
    moe = {"kind": "moe", "experts": 2, "zero_experts": 4, "top_k": 3, "ffn": 10}
    arch = _model(ffns={"dense": moe})
    assert params.active_parameters(arch) == params.parameter_counts(arch).total
    assert params.parameter_counts(arch).router == 2 * 6 * HIDDEN


@pytest.mark.parametrize("name", EXPRESSED)
def test_reading_and_counting_a_model_is_fast(name):
    fields, fastest = GOLDEN[name]["architecture"], 1.0
    for _ in range(5):
        started = time.perf_counter()
        params.parameter_counts(Architecture.model_validate(fields))
        fastest = min(fastest, time.perf_counter() - started)
    assert fastest < 5e-3

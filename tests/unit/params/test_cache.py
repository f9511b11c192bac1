"""Caches and states: a plain reference that walks over layers and tokens, and sizes worked out by hand."""

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.catalog.architecture import Architecture, Compressed, Latent, Lightning, Mixer, Softmax
from prophet_moe.errors import UserError
from prophet_moe.precision import BF16, KV_FORMATS, Precision
from tests import examples  # noqa: F401
from tests.architectures import ATTENTION, LINEAR, architectures

TOKENS = st.integers(0, 300)
BLOCKS = {"q8_0": (32, 34), "fp32": (1, 4), "bf16": (1, 2), "fp8": (1, 1)}
"""Values and bytes of a block of each format that all mixers can have."""


def _stored(values: int, kv: str) -> int:
    """Bytes of one vector: whole blocks of its format."""
    block, size = BLOCKS[kv]
    return sum(size for start in range(0, values, block))


def _entries(mixer: Mixer, tokens: int, kv: str) -> list[int]:
    """Bytes of everything that one layer holds after so many tokens, kept token by token."""
    held: list[int] = []
    windowed: list[int] = []
    for token in range(tokens):
        match mixer:
            case Softmax(own_kv=False):
                pass
            case Softmax(kv_heads=heads, head_dim=key):
                value = key if mixer.v_head_dim is None else mixer.v_head_dim
                (held if mixer.window is None else windowed).append(
                    _stored(heads * key, kv) + _stored(heads * value, kv)
                )
                windowed = windowed[-(mixer.window or 1) :]
            case Latent():
                held.append(_stored(mixer.kv_lora_rank, kv) + _stored(mixer.rope_head_dim, kv))
                if mixer.indexer:
                    held.append(_stored(mixer.indexer.head_dim, kv))
            case Compressed():
                windowed = [*windowed, _stored(mixer.head_dim, kv)][-mixer.window :]
                if mixer.compress and token % mixer.compress == 0:
                    held.append(_stored(mixer.head_dim, kv))
                    if mixer.indexer:
                        held.append(_stored(mixer.indexer.head_dim, kv))
    return held + windowed


def _bytes(arch: Architecture, tokens: int, precision: Precision = BF16) -> int:
    return sum(cache.bytes(tokens) for cache in params.caches(arch, precision))


@given(architectures(), TOKENS, st.sampled_from(sorted(BLOCKS)))
def test_cache_equals_the_walk_over_layers_and_tokens(arch, tokens, kv):
    mixers = [arch.mixers[block.mixer] for block in arch.layers() if block.mixer]
    expected = sum(sum(_entries(mixer, tokens, kv)) for mixer in mixers)
    assert _bytes(arch, tokens, Precision(kv=kv)) == expected


@given(architectures(), TOKENS, st.integers(1, 50))
def test_cache_never_shrinks_with_more_tokens(arch, tokens, more):
    assert 0 == _bytes(arch, 0) <= _bytes(arch, tokens) <= _bytes(arch, tokens + more)


@given(architectures(), st.integers(1, 20))
def test_cache_grows_as_told_once_windows_are_full(arch, periods):
    kept = params.caches(arch)
    period, full = 2520, max((cache.window or 0 for cache in kept), default=0)  # 2520 is whole entries of 1 to 9 tokens
    first = -(-full // period) * period
    grown = _bytes(arch, first + periods * period) - _bytes(arch, first)
    assert grown == periods * period * params.growing_bytes_per_token(kept)
    assert _bytes(arch, first) == first * params.growing_bytes_per_token(kept) + params.bounded_bytes(kept)


@given(architectures(), TOKENS)
def test_repeated_pattern_doubles_caches_and_states(arch, tokens):
    twice = arch.model_copy(update={"pattern": arch.pattern * 2})
    assert _bytes(twice, tokens) == 2 * _bytes(arch, tokens)
    assert params.state_bytes_per_sequence(twice) == 2 * params.state_bytes_per_sequence(arch)
    assert params.attention_layers(twice) == 2 * params.attention_layers(arch)


@given(architectures(), TOKENS)
def test_draft_layers_add_theirs_when_they_are_resident(arch, tokens):
    assume(arch.draft)
    both = arch.model_copy(update={"pattern": arch.pattern + arch.draft.pattern})
    resident = params.caches(arch, draft=True)
    assert sum(cache.bytes(tokens) for cache in resident) == _bytes(both, tokens)
    assert params.state_bytes_per_sequence(arch, draft=True) == params.state_bytes_per_sequence(both)


@given(architectures(tuple(ATTENTION)))
def test_model_of_attention_alone_has_no_state(arch):
    assert params.states(arch) == () and params.state_bytes_per_sequence(arch) == 0


@given(architectures(tuple(LINEAR)))
def test_model_without_attention_has_no_cache(arch):
    assert params.caches(arch) == () and params.growing_bytes_per_token(()) == 0 and params.attention_layers(arch) == 0
    assert params.state_bytes_per_sequence(arch) > 0


@given(architectures())
def test_states_are_the_sum_over_layers(arch):
    mixers = [arch.mixers[block.mixer] for block in arch.layers() if block.mixer]
    for precision in (BF16, Precision(state="bf16"), Precision(state="fp32")):
        expected = sum(_state(mixer, arch.hidden, precision.state) for mixer in mixers)
        assert params.state_bytes_per_sequence(arch, precision) == expected


def _state(mixer: Mixer, hidden: int, form: str) -> int:
    """Bytes of one layer's state: columns of convolutions in 16 bits, and matrices in the form that is asked for."""
    own = mixer.state_format if isinstance(mixer, Lightning) else "fp32"
    wide = {"fp32": 4, "bf16": 2}[own if form == "own" else form]
    match mixer.kind:
        case "mamba1":
            return 2 * mixer.conv * mixer.inner + wide * mixer.inner * mixer.state
        case "mamba2":
            channels = mixer.heads * mixer.head_dim
            return 2 * mixer.conv * (channels + 2 * mixer.groups * mixer.state) + wide * channels * mixer.state
        case "gated_delta_net":
            columns = 2 * mixer.key_heads * mixer.key_dim + mixer.value_heads * mixer.value_dim
            return 2 * mixer.conv * columns + wide * mixer.value_heads * mixer.key_dim * mixer.value_dim
        case "kimi_delta":
            return 2 * mixer.conv * 3 * mixer.heads * mixer.head_dim + wide * mixer.heads * mixer.head_dim**2
        case "lightning":
            return wide * mixer.heads * mixer.head_dim**2
        case "short_conv":
            return 2 * mixer.conv * hidden
    return 0


def _model(*mixers: dict, pattern: str | None = None) -> Architecture:
    """A model of mixers without FFNs, the letters A, B and so on, in order or as the pattern says."""
    blocks = {"ABCD"[number]: {"mixer": str(number)} for number in range(len(mixers))}
    fields = {"hidden": 8, "vocab": 8, "native_context": 8, "blocks": blocks, "pattern": [pattern or "".join(blocks)]}
    return Architecture.model_validate(fields | {"mixers": {str(n): mixer for n, mixer in enumerate(mixers)}})


SOFTMAX = {"kind": "softmax", "heads": 8, "kv_heads": 2, "head_dim": 64}
MLA = {"kind": "latent", "heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512}
MLA |= {"nope_head_dim": 128, "rope_head_dim": 64, "v_head_dim": 128}
"""Attention of DeepSeek-V3."""


def test_windowed_and_full_layers_are_told_apart():
    kept = params.caches(_model(SOFTMAX | {"window": 128}, SOFTMAX, pattern="18 x AB"))
    assert kept == (params.Cache("attention", 18, 512, window=128), params.Cache("attention", 18, 512))
    assert params.growing_bytes_per_token(kept) == 18 * 512 and params.bounded_bytes(kept) == 18 * 512 * 128


@pytest.mark.parametrize("tokens, kept", [(0, 0), (1, 1), (99, 99), (100, 100), (101, 100), (10**7, 100)])
def test_window_ends_where_it_is_full(tokens, kept):
    (cache,) = params.caches(_model(SOFTMAX | {"window": 100, "window_kind": "chunked"}))
    assert cache.bytes(tokens) == 512 * kept


@pytest.mark.parametrize("tokens, entries", [(0, 0), (1, 1), (4, 1), (5, 2), (1000, 250)])
def test_compressed_entry_stands_for_its_tokens(tokens, entries):
    sizes = {"heads": 4, "head_dim": 512, "q_lora_rank": 8, "o_lora_rank": 8, "o_groups": 2, "window": 128}
    indexer = {"heads": 64, "head_dim": 128}
    mixer = {"kind": "compressed", "compress": 4, "overlap": True, "indexer": indexer} | sizes
    window, compressed, index = params.caches(_model(mixer))
    assert (window.window, window.bytes(tokens)) == (128, 1024 * min(tokens, 128))
    assert (compressed.bytes(tokens), index.bytes(tokens)) == (1024 * entries, 256 * entries)
    assert params.growing_bytes_per_token((window, compressed, index)) == Fraction(1024 + 256, 4)


def test_sparse_mla_layout_has_656_and_132_bytes():
    """The layout of vLLM for DeepSeek-V3.2: 512 + 4 scales + 64 values of 16 bits, 128 + a scale of an index key."""
    arch = _model(MLA | {"indexer": {"heads": 64, "head_dim": 128, "top_k": 2048}})
    latent, index = params.caches(arch, Precision(kv="fp8_sparse_mla"))
    assert (latent.bytes_per_entry, index.bytes_per_entry) == (656, 132)
    assert [cache.bytes_per_entry for cache in params.caches(arch)] == [1152, 256]


@pytest.mark.parametrize("kind", ["softmax", "compressed"])
def test_sparse_mla_layout_of_other_attention_is_refused(kind):
    compressed = {"heads": 4, "head_dim": 8, "q_lora_rank": 8, "o_lora_rank": 8, "o_groups": 2, "window": 128}
    mixer = {"softmax": SOFTMAX, "compressed": {"kind": "compressed"} | compressed}[kind]
    with pytest.raises(UserError, match=f"fp8_sparse_mla: is a layout of latent attention, .* of kind {kind}"):
        params.caches(_model(mixer), Precision(kv="fp8_sparse_mla"))


def test_decompressed_mla_keeps_keys_and_values_of_all_heads():
    (cache,) = params.caches(_model(MLA), Precision(mla_cache="decompressed"))
    assert cache.bytes_per_entry == 2 * 128 * (128 + 64 + 128)


def test_q8_0_cache_has_8_and_a_half_bits():
    (cache,) = params.caches(_model(SOFTMAX), Precision(kv="q8_0"))
    assert cache.bytes_per_entry == 2 * 2 * 64 * Fraction(17, 16)
    assert 8 * Precision(kv="q8_0").kv_value_bytes == Fraction(17, 2)
    assert KV_FORMATS["q8_0"].bits_of(33) == 2 * 34 * 8


def test_keys_and_values_of_unequal_size():
    (cache,) = params.caches(_model(SOFTMAX | {"head_dim": 192, "v_head_dim": 128}))
    assert cache.bytes_per_entry == 2 * 2 * (192 + 128)


def test_values_made_of_keys_are_cached_all_the_same():
    assert params.caches(_model(SOFTMAX | {"key_is_value": True})) == params.caches(_model(SOFTMAX))


def test_layer_that_reads_an_earlier_cache_keeps_none():
    """Cross-layer attention (CLA) of Hunyuan-Large: every second layer has no keys and values of its own."""
    kept = params.caches(_model(SOFTMAX, SOFTMAX | {"own_kv": False}, pattern="32 x AB"))
    assert kept == (params.Cache("attention", 32, 512),)
    assert params.attention_layers(_model(SOFTMAX, SOFTMAX | {"own_kv": False}, pattern="32 x AB")) == 32


def test_encoder_keeps_no_cache_of_its_own():
    """A source token costs cross-attention in the decoder's layers, as a target token costs self-attention."""
    fields = _model(SOFTMAX, pattern="3 x A").model_dump()
    both = Architecture.model_validate(fields | {"encoder": {"pattern": ["12 x A"]}})
    assert params.caches(both) == (params.Cache("attention", 3, 512),)

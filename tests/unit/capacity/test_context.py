"""The longest context over windows, compressed entries and states: arrays against the reference, token by token."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe import params
from prophet_moe.capacity.context import cache_columns, cached_bytes, longest_context
from prophet_moe.capacity.memory import ModelMemory, model_memory
from prophet_moe.capacity.reference import evaluate, max_context
from prophet_moe.capacity.sweep import INPUTS, sweep
from prophet_moe.catalog import Architecture
from prophet_moe.catalog.architecture import Block, Compressed, Indexer, Latent, Mamba2, Softmax
from prophet_moe.params import Cache
from prophet_moe.settings.fields import LARGEST_CONTEXT
from prophet_moe.settings.scenario import CALIBRATED
from prophet_moe.units import GB

ARCHITECTURES = 100_000
"""Random architectures: as many as it takes to meet every order of windows, entries and full caches."""


def random_architecture(rng: np.random.Generator) -> Architecture:
    """An architecture of up to five kinds of mixers in any number of layers."""

    def pick(*values: int) -> int:
        return values[rng.integers(len(values))]

    def mixer():
        kind = rng.integers(5)
        if kind < 2:
            heads, window = pick(1, 2, 4, 8), (None, pick(1, 16, 128, 1000, 4096, 131_072))[kind]
            return Softmax.model_construct(
                kind="softmax", heads=8, kv_heads=heads, head_dim=pick(64, 96), window=window
            )
        if kind == 2:
            index = Indexer.model_construct(heads=4, head_dim=128) if rng.random() < 0.5 else None
            return Latent.model_construct(kind="latent", heads=8, kv_lora_rank=512, rope_head_dim=64, indexer=index)
        if kind == 3:
            index = Indexer.model_construct(heads=4, head_dim=128) if rng.random() < 0.5 else None
            entry = pick(1, 3, 4, 128)
            sizes = {
                "heads": 8,
                "head_dim": pick(128, 512),
                "window": pick(16, 128),
                "compress": entry,
                "indexer": index,
            }
            return Compressed.model_construct(kind="compressed", **sizes)
        return Mamba2.model_construct(kind="mamba2", heads=8, head_dim=64, groups=1, state=16, conv=4)

    letters = "ABCDE"[: rng.integers(1, 6)]
    return Architecture.model_construct(
        hidden=1024,
        mixers={letter: mixer() for letter in letters},
        blocks={letter: Block.model_construct(mixer=letter) for letter in letters},
        pattern=[f"{rng.integers(1, 40)} x {letter}" for letter in letters],
    )


def test_contexts_of_random_architectures_equal_the_reference():
    """Arrays and the plain reference agree to the token on 100,000 random architectures, budgets and batches."""
    rng = np.random.default_rng(17)
    kept = [params.caches(random_architecture(rng)) for _ in range(ARCHITECTURES)]
    plain = [[c for c in caches if c.window is None and c.tokens_per_entry == 1] for caches in kept]
    growing = np.array([sum(c.bytes(1) for c in caches) for caches in plain])
    further = [tuple(c for c in caches if c not in alone) for caches, alone in zip(kept, plain, strict=True)]
    free = np.exp(rng.uniform(np.log(1e3), np.log(3e11), ARCHITECTURES)).astype(np.int64)
    free[rng.random(ARCHITECTURES) < 0.02] *= -1
    batch = rng.choice([1, 2, 7, 64], ARCHITECTURES)
    columns = {"batch": batch.astype(float), "kv_bytes_per_token": growing.astype(float)} | cache_columns(further)
    found = longest_context(columns, free.astype(float))
    memories = [memory_of(int(kv), caches) for kv, caches in zip(growing, further, strict=True)]
    expected = [max_context(m, int(f), int(b)) for m, f, b in zip(memories, free, batch, strict=True)]
    np.testing.assert_array_equal(found, expected)
    assert len({len(caches) for caches in further}) > 5 and LARGEST_CONTEXT in expected and 0 in expected


def memory_of(kv_bytes_per_token: int, further: tuple[Cache, ...]) -> ModelMemory:
    """A model of which only the cache counts."""
    sizes = {"experts": 8, "top_k": 2, "moe_layers": 4, "expert_bytes": 10**8, "non_expert_bytes": 10**9}
    others = {
        "state_bytes_per_sequence": 0,
        "activation_bytes_per_token": 10**4,
        "activation_bytes_per_sequence": 10**5,
    }
    totals = {"native_context": 131_072, "total_params": 0, "active_params": 0}
    return ModelMemory(**sizes, **others, **totals, kv_bytes_per_token=kv_bytes_per_token, further_caches=further)


caches = st.builds(
    Cache,
    kind=st.just("attention"),
    layers=st.integers(1, 60),
    bytes_per_entry=st.integers(1, 10**5),
    tokens_per_entry=st.sampled_from([1, 1, 2, 4, 128]),
    window=st.none() | st.integers(1, 10**6),
)


@given(st.integers(0, 10**6), st.lists(caches, max_size=5).map(tuple), st.integers(-10, 10**12), st.integers(1, 512))
def test_the_longest_context_fits_and_one_more_does_not(kv, further, free, batch):
    memory = memory_of(kv, further)
    tokens = max_context(memory, free, batch)
    assert tokens == 0 or batch * memory.cached_bytes(tokens) <= free
    assert tokens == LARGEST_CONTEXT or batch * memory.cached_bytes(tokens + 1) > free


@given(st.integers(0, 10**6), st.lists(caches, max_size=4).map(tuple), st.integers(0, 10**7))
def test_cached_bytes_of_arrays_equal_the_reference(kv, further, tokens):
    columns = {"kv_bytes_per_token": np.array([float(kv)])} | cache_columns([further])
    assert cached_bytes(columns, np.array([float(tokens)]))[0] == memory_of(kv, further).cached_bytes(tokens)


def test_sweep_of_models_with_windows_equals_the_reference():
    """Models with and without further caches in one block: every context and cache size is the reference's."""
    window, entries = Cache("attention", 18, 2048, window=128), Cache("compressed", 20, 1024, tokens_per_entry=128)
    memories = [
        memory_of(36_864, (window,)),
        memory_of(98_304, ()),
        memory_of(0, (window, entries)),
        memory_of(0, (window,)),
    ]
    rows = [vars(memory) | {"device_bytes": 20 * GB, "batch": batch} for memory in memories for batch in (1, 16)]
    columns = {name: np.array([row[name] for row in rows], float) for name in INPUTS if name != "forced_not_fitting"}
    columns |= {"forced_not_fitting": np.zeros(len(rows), bool)} | cache_columns(
        [row["further_caches"] for row in rows]
    )
    ((_, metrics),) = sweep(columns, CALIBRATED)
    expected = [evaluate(memory, 20 * GB, batch, CALIBRATED) for memory in memories for batch in (1, 16)]
    for name in ("baseline_max_context", "prophet_max_context", "kv_cache_bytes", "baseline_total_bytes"):
        np.testing.assert_array_equal(metrics[name], [row[name] for row in expected], err_msg=name)


def test_window_layers_of_gpt_oss_bound_their_cache(models):
    """Half of the layers keep 128 tokens: at 131,072 tokens the cache is half of what full layers would keep."""
    full = Softmax(kind="softmax", heads=64, kv_heads=8, head_dim=64, bias="qkvo", sinks=True)
    arch = models["Mixtral-8x7B"].architecture.model_copy(
        update={
            "mixers": {"full": full, "window": full.model_copy(update={"window": 128})},
            "blocks": {"W": Block(mixer="window", ffn="moe"), "F": Block(mixer="full", ffn="moe")},
            "pattern": ["18 x WF"],
        }
    )
    spec = models["Mixtral-8x7B"].model_copy(update={"architecture": arch, "reported": None})
    memory = model_memory(spec, CALIBRATED)
    assert (memory.kv_bytes_per_token_growing, memory.kv_bytes_bounded) == (36_864, 4_718_592)
    assert memory.cached_bytes(131_072) == 131_072 * 36_864 + 4_718_592
    assert memory.cached_bytes(100) == 100 * 2 * 36_864


def test_a_model_without_growing_cache_has_the_largest_context(models):
    """Where every layer ends at a window, memory bounds nothing once the windows are full."""
    memory = replace(model_memory(models["Mixtral-8x7B"], CALIBRATED), kv_bytes_per_token=0)
    memory = replace(memory, further_caches=(Cache("attention", 4, 1000, window=100),))
    assert max_context(memory, 400_000, 1) == LARGEST_CONTEXT
    assert max_context(memory, 399_999, 1) == 99
    assert math.isfinite(evaluate(memory, 200 * GB, 1, CALIBRATED)["kv_cache_bytes"])


def test_state_alone_needs_no_cache():
    arch = Architecture.model_construct(
        hidden=64,
        mixers={"m": Mamba2(kind="mamba2", heads=2, head_dim=8, groups=1, state=4, conv=4)},
        blocks={"M": Block(mixer="m")},
        pattern=["3 x M"],
    )
    assert params.caches(arch) == ()
    assert params.state_bytes_per_sequence(arch) == pytest.approx(3 * ((16 + 8) * 4 * 2 + 16 * 4 * 4))

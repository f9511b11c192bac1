"""Hypothesis strategies of random architectures: every kind of mixer and FFN, in patterns that are valid."""

from typing import Any

from hypothesis import strategies as st

from prophet_moe.catalog.architecture import Architecture

SMALL = st.integers(1, 6)
WIDTH = st.sampled_from([1, 3, 8, 16, 40, 64, 130])
LETTERS = "ABCDEFGHIJKL"


def _softmax() -> st.SearchStrategy[dict[str, Any]]:
    def grown(fields: dict[str, Any]) -> dict[str, Any]:
        """Heads as a multiple of KV heads; no key that contradicts another one."""
        mixer = fields | {"heads": fields["kv_heads"] * fields["heads"]}
        if mixer["key_is_value"]:
            mixer.pop("v_head_dim", None)
        if "window" not in mixer:
            mixer.pop("window_kind", None)
        return mixer

    return st.fixed_dictionaries(
        {
            "kind": st.just("softmax"),
            "heads": SMALL,
            "kv_heads": SMALL,
            "head_dim": WIDTH,
            "key_is_value": st.booleans(),
        },
        optional={
            "v_head_dim": WIDTH,
            "window": st.integers(1, 40),
            "window_kind": st.sampled_from(["sliding", "chunked"]),
            "query_rank": WIDTH,
            "bias": st.sampled_from(["none", "qkv", "qkvo"]),
            "qk_norm": st.sampled_from(["none", "per_head", "full_width"]),
            "gate": st.sampled_from(["none", "per_head", "full"]),
            "sinks": st.booleans(),
            "own_kv": st.booleans(),
            "relative_buckets": st.integers(0, 9),
        },
    ).map(grown)


def _indexers() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"heads": SMALL, "head_dim": WIDTH}, optional={"top_k": SMALL})


def _latent() -> st.SearchStrategy[dict[str, Any]]:
    sizes = ("kv_lora_rank", "nope_head_dim", "rope_head_dim", "v_head_dim")
    gates = {"gate": st.sampled_from(["none", "per_head", "full"]), "bias": st.sampled_from(["none", "qkvo"])}
    always = {"kind": st.just("latent"), "heads": SMALL} | dict.fromkeys(sizes, WIDTH)
    return st.one_of(
        st.fixed_dictionaries(always | {"q_lora_rank": st.none()}, optional=gates | {"sparse_top_k": SMALL}),
        st.fixed_dictionaries(always | {"q_lora_rank": WIDTH}, optional=gates | {"indexer": _indexers()}),
    )


def _compressed() -> st.SearchStrategy[dict[str, Any]]:
    def grown(fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {"heads": fields["o_groups"] * fields["heads"]}

    sizes = {"head_dim": WIDTH, "q_lora_rank": WIDTH, "o_lora_rank": WIDTH, "o_groups": SMALL, "heads": SMALL}
    always = {"kind": st.just("compressed"), "window": st.integers(1, 40), "sinks": st.booleans()} | sizes
    compress = always | {"compress": st.integers(1, 9), "overlap": st.booleans()}
    several = st.fixed_dictionaries(compress, optional={"indexer": _indexers()})
    return st.one_of(st.fixed_dictionaries(always), several).map(grown)


def _of(kind: str, **fields: st.SearchStrategy) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"kind": st.just(kind)} | fields)


ATTENTION = {"softmax": _softmax(), "latent": _latent(), "compressed": _compressed()}
"""Strategies of the mixers that keep a cache, as data, by kind."""
LINEAR = {
    "mamba1": _of("mamba1", inner=WIDTH, state=SMALL, conv=SMALL, dt_rank=SMALL),
    "mamba2": _of(
        "mamba2",
        **dict.fromkeys(("heads", "groups", "conv"), SMALL),
        **dict.fromkeys(("head_dim", "state"), WIDTH),
        **dict.fromkeys(("conv_bias", "bias"), st.booleans()),
    ),
    "gated_delta_net": _of(
        "gated_delta_net",
        **dict.fromkeys(("key_heads", "value_heads", "conv"), SMALL),
        **dict.fromkeys(("key_dim", "value_dim"), WIDTH),
    ),
    "kimi_delta": _of(
        "kimi_delta", heads=SMALL, head_dim=WIDTH, conv=SMALL, gate_rank=st.none() | WIDTH, gate_bias=st.booleans()
    ),
    "lightning": _of(
        "lightning",
        heads=SMALL,
        head_dim=WIDTH,
        qk_norm=st.sampled_from(["none", "per_head"]),
        norm=st.sampled_from(["full_width", "per_head"]),
        bias=st.booleans(),
        state_format=st.sampled_from(["fp32", "bf16"]),
    ),
    "short_conv": _of("short_conv", conv=SMALL, bias=st.booleans()),
}
"""Strategies of the mixers that keep a state, as data, by kind."""
MIXERS = ATTENTION | LINEAR


def _dense() -> st.SearchStrategy[dict[str, Any]]:
    return _of("dense", ffn=WIDTH, gated=st.booleans(), bias=st.booleans())


@st.composite
def _experts(draw: st.DrawFn) -> dict[str, Any]:
    """What is equal in all MoE layers of a model."""
    experts, zero_experts = draw(SMALL), draw(st.integers(0, 3))
    fields = {"experts": experts, "zero_experts": zero_experts, "top_k": draw(st.integers(1, experts + zero_experts))}
    fields |= {"ffn": draw(WIDTH), "gated": draw(st.booleans()), "bias": draw(st.booleans())}
    return fields | draw(st.fixed_dictionaries({}, optional={"latent": WIDTH}))


@st.composite
def _moe(draw: st.DrawFn, experts: dict[str, Any]) -> dict[str, Any]:
    """One MoE FFN with these routed experts, and what stands beside them."""
    flags = ("router_bias", "correction_bias", "router_scales")
    beside = {name: draw(st.booleans()) for name in flags} | {"dense_beside": draw(st.integers(0, 20))}
    if draw(st.booleans()):
        beside |= {"shared_experts": draw(SMALL), "shared_ffn": draw(WIDTH), "shared_gate": draw(st.booleans())}
    return {"kind": "moe"} | experts | beside


@st.composite
def architecture_documents(draw: st.DrawFn, kinds: tuple[str, ...] = tuple(MIXERS)) -> dict[str, Any]:
    """A random architecture as the data of a file: valid, small, with mixers of some of these kinds."""
    encoder = "softmax" in kinds and draw(st.integers(0, 7)) == 0
    mixers = [draw(MIXERS["softmax" if encoder else draw(st.sampled_from(kinds))]) for _ in range(draw(SMALL) % 4 + 1)]
    first = next((mixer for mixer in mixers if mixer["kind"] == "softmax"), {})
    first.pop("own_kv", None)  # it has the keys that later layers may read
    experts = draw(_experts())
    ffns = [draw(st.one_of(_dense(), _moe(experts))) for _ in range(draw(SMALL) % 3 + 1)]
    blocks: dict[str, dict[str, Any]] = {}

    def unit(mixer: int) -> str:
        """One or two letters that mix and then have an FFN, as one block or as two."""
        ffn, norms = draw(st.integers(0, len(ffns) - 1)), draw(st.integers(0, 7))
        both = {"mixer": f"mixer {mixer}", "ffn": f"ffn {ffn}"}
        parts = [both] if encoder or draw(st.booleans()) else [{key: name} for key, name in both.items()]
        return "".join(_letter(blocks, part | {"norms": norms}) for part in parts)

    units = [unit(number) for number in range(len(mixers))]

    def pattern(start: str) -> list[str]:
        run = st.lists(st.sampled_from(units), min_size=1, max_size=3).map("".join)
        text = [(1, start), *draw(st.lists(st.tuples(st.integers(1, 7), run), max_size=4))]
        return [f"{repeat} x {run}" if repeat > 1 or draw(st.booleans()) else run for repeat, run in text]

    document = {
        "hidden": draw(st.integers(1, 300)),
        "vocab": draw(st.integers(1, 1000)),
        "native_context": draw(st.integers(1, 10_000)),
        "tied_embeddings": draw(st.booleans()),
        "norm": draw(st.sampled_from(["rms", "layer"])),
        "head_bias": draw(st.booleans()),
        "hyper_connections": draw(st.sampled_from([0, 0, 2, 4])),
        "pattern": pattern("".join(units)),
        "mixers": {f"mixer {number}": mixer for number, mixer in enumerate(mixers)},
        "blocks": blocks,
        "other": draw(st.dictionaries(st.sampled_from(["vision", "audio"]), SMALL)),
    }
    used = {block["ffn"] for block in blocks.values() if "ffn" in block}
    document["ffns"] = {name: ffn for number, ffn in enumerate(ffns) if (name := f"ffn {number}") in used}
    if encoder:
        document["encoder"] = {"pattern": pattern(units[0])}
    if draw(st.integers(0, 3)) == 0:
        modules = {"modules": draw(SMALL), "norms": draw(SMALL), "own_embeddings": draw(st.booleans())}
        document["draft"] = {"pattern": pattern(units[0])} | modules
    return document


def _letter(blocks: dict[str, dict[str, Any]], block: dict[str, Any]) -> str:
    """Return the letter of a block, which is added where no equal one is there."""
    letter = next((letter for letter, known in blocks.items() if known == block), LETTERS[len(blocks)])
    return blocks.setdefault(letter, block) and letter


def architectures(kinds: tuple[str, ...] = tuple(MIXERS)) -> st.SearchStrategy[Architecture]:
    """Random valid architectures with mixers of some of these kinds."""
    return architecture_documents(kinds).map(Architecture.model_validate)

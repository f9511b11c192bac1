"""The pages docs/models.md, docs/gpus.md and docs/precision.md, made from the classes of the files they explain."""

import inspect
from collections.abc import Iterable, Sequence

import yaml
from pydantic import BaseModel

from prophet_moe import params
from prophet_moe.catalog.architecture import (
    Architecture,
    Block,
    Compressed,
    Dense,
    Draft,
    Encoder,
    GatedDeltaNet,
    Indexer,
    KimiDelta,
    Latent,
    Lightning,
    Mamba1,
    Mamba2,
    Moe,
    ShortConv,
    Softmax,
)
from prophet_moe.catalog.gpu import GpuSpec
from prophet_moe.catalog.hugging_face.families import FAMILIES, REFUSED
from prophet_moe.catalog.model import Constant, ModelSpec, Reported
from prophet_moe.precision import FORMATS, KV_FORMATS, CacheFormat, Format
from prophet_moe.present.keys import field_table
from prophet_moe.settings.fields import WeightFormats
from prophet_moe.settings.scenario import Formats, Scenario

MIXERS = (Softmax, Latent, Compressed, Mamba1, Mamba2, GatedDeltaNet, KimiDelta, Lightning, ShortConv)
FFNS = (Dense, Moe)

EXAMPLE_MODEL = """\
name: Qwen3-Next                   # the file's name
published_name: Qwen3-Next-80B-A3B-Instruct
hugging_face: Qwen/Qwen3-Next-80B-A3B-Instruct
licence: Apache-2.0
published_total_b: 80              # 10^9 parameters, as the authors state them
sources: [config.json of Qwen/Qwen3-Next-80B-A3B-Instruct]
left_out: [1 draft (multi-token prediction) layer]
precision: {default: bf16}         # the formats that are shipped: docs/precision.md
architecture:
  hidden: 2048
  vocab: 151936
  native_context: 262144
  mixers:                          # what mixes tokens, under names of your own
    linear: {kind: gated_delta_net, key_heads: 16, value_heads: 32, key_dim: 128, value_dim: 128, conv: 4}
    full: {kind: softmax, heads: 16, kv_heads: 2, head_dim: 256, qk_norm: per_head, gate: full}
  ffns:                            # dense FFNs and FFNs with experts
    moe: {kind: moe, experts: 512, top_k: 10, ffn: 512, shared_experts: 1, shared_ffn: 512, shared_gate: true}
  blocks:                          # kinds of layers, one letter each
    L: {mixer: linear, ffn: moe}
    F: {mixer: full, ffn: moe}
  pattern: [12 x LLLF]             # the 48 layers in order: three linear ones, then one with a KV cache
"""
"""A whole model file, whose counts the tests compare with the model's class."""

EXAMPLE_GPU = """\
My-GPU-48GB:
  memory_nominal_gb: 48
  memory_visible_gib: 44.4
  hbm_gb_per_s: 864
  link_gb_per_s: 31.5
  peak_tflops: 181
  sources: [the datasheet and its date, torch.cuda.mem_get_info of one such GPU]
"""
"""An entry of config/gpus.yaml."""

EXAMPLE_SCENARIO = """\
scenarios:
  mxfp4:
    title: "mxfp4: published architectures, routed experts of 4 bits, KV cache of 8 bits"
    precision: {default: bf16, routed_experts: mxfp4}
    kv_format: fp8
"""
"""An overlay with formats of its own."""

CONFIG_JSON: dict[type[BaseModel], dict[str, str]] = {
    Architecture: {
        "hidden": "`hidden_size`, `d_model` (DBRX, Switch)",
        "vocab": "`vocab_size`",
        "native_context": "`max_position_embeddings`, `max_seq_len` (DBRX)",
        "tied_embeddings": "`tie_word_embeddings`",
        "hyper_connections": "`hc_mult` (DeepSeek-V4)",
        "pattern": "`num_hidden_layers`, with `layer_types`, `mlp_layer_types`, `first_k_dense_replace`, "
        "`decoder_sparse_step`; `layers_block_type` or `hybrid_override_pattern` (Nemotron-3)",
        "draft": "`num_nextn_predict_layers`",
    },
    Softmax: {
        "heads": "`num_attention_heads`, `n_heads` (DBRX), `num_heads` (Switch)",
        "kv_heads": "`num_key_value_heads`, `attn_config.kv_n_heads` (DBRX); where it is missing, `heads`",
        "head_dim": "`head_dim`, `d_kv` (Switch); where it is missing, `hidden_size` / `num_attention_heads`",
        "v_head_dim": "`v_head_dim` (MiMo-V2)",
        "window": "`sliding_window`, `attention_chunk_size` (Llama 4)",
        "window_kind": "`chunked` where there is `attention_chunk_size` (Llama 4)",
        "bias": "`attention_bias`, `qkv_bias`",
        "key_is_value": "`attention_k_eq_v` (Gemma 4)",
        "relative_buckets": "`relative_attention_num_buckets` (Switch)",
    },
    Latent: {
        "heads": "`num_attention_heads`",
        "q_lora_rank": "`q_lora_rank`, which may be null",
        "kv_lora_rank": "`kv_lora_rank`",
        "nope_head_dim": "`qk_nope_head_dim`",
        "rope_head_dim": "`qk_rope_head_dim`",
        "v_head_dim": "`v_head_dim`",
        "bias": "`attention_bias`",
    },
    Indexer: {"heads": "`index_n_heads`", "head_dim": "`index_head_dim`", "top_k": "`index_topk`"},
    Compressed: {
        "heads": "`num_attention_heads`",
        "head_dim": "`head_dim`",
        "q_lora_rank": "`q_lora_rank`",
        "o_lora_rank": "`o_lora_rank`",
        "o_groups": "`o_groups`",
        "window": "`sliding_window`",
        "compress": "`compress_ratios`",
    },
    Mamba1: {
        "inner": "`mamba_expand` * `hidden_size`",
        "state": "`mamba_d_state`",
        "conv": "`mamba_d_conv`",
        "dt_rank": "`mamba_dt_rank`",
    },
    Mamba2: {
        "heads": "`mamba_num_heads` (Nemotron-3), `mamba_n_heads` (Granite)",
        "head_dim": "`mamba_head_dim`, `mamba_d_head`",
        "groups": "`n_groups`, `mamba_n_groups`",
        "state": "`ssm_state_size`, `mamba_d_state`",
        "conv": "`conv_kernel`, `mamba_d_conv`",
        "conv_bias": "`use_conv_bias`, `mamba_conv_bias`",
        "bias": "`mamba_proj_bias`",
    },
    GatedDeltaNet: {
        "key_heads": "`linear_num_key_heads`",
        "value_heads": "`linear_num_value_heads`",
        "key_dim": "`linear_key_head_dim`",
        "value_dim": "`linear_value_head_dim`",
        "conv": "`linear_conv_kernel_dim`",
    },
    KimiDelta: {
        "heads": "`linear_num_heads`, `linear_attn_config.num_heads`",
        "head_dim": "`linear_head_dim`, `linear_attn_config.head_dim`",
        "conv": "`linear_conv_kernel_dim`, `linear_attn_config.short_conv_kernel_size`",
    },
    Lightning: {"heads": "`num_attention_heads`", "head_dim": "`head_dim`"},
    ShortConv: {"conv": "`conv_L_cache`", "bias": "`conv_bias`"},
    Dense: {
        "ffn": "`intermediate_size`, `intermediate_size_mlp` (Llama 4), `ffn_hidden_size` (LongCat), `d_ff` (Switch)"
    },
    Moe: {
        "experts": "`num_local_experts`, `num_experts`, `n_routed_experts`, `ffn_config.moe_num_experts` (DBRX)",
        "top_k": "`num_experts_per_tok`, `moe_topk` (LongCat), `ffn_config.moe_top_k` (DBRX); Switch has 1",
        "ffn": "`moe_intermediate_size`; `intermediate_size` where that is missing; `expert_ffn_hidden_size` "
        "(LongCat), `ffn_config.ffn_hidden_size` (DBRX), `d_ff` (Switch)",
        "gated": "`is_gated_act` (Switch); false where `mlp_hidden_act` is relu2 (Nemotron-3)",
        "zero_experts": "`zero_expert_num` (LongCat)",
        "shared_experts": "`n_shared_experts`",
        "shared_ffn": "`n_shared_experts` * `moe_intermediate_size` (DeepSeek, GLM); "
        "`shared_expert_intermediate_size` (Qwen), `shared_intermediate_size` (Granite), "
        "`moe_shared_expert_intermediate_size` (Nemotron-3)",
        "latent": "`moe_latent_size` (Nemotron-3 Super)",
    },
}  # fmt: skip
"""Where config.json of a checkpoint has the number behind a key of ours, as far as that is certain."""

TRAPS = {
    "`intermediate_size`": "The expert's width in Mixtral, gpt-oss, MiniMax, Hunyuan, Llama 4 and Granite; the dense "
    "layer's in DeepSeek, GLM, Qwen and Ling; the dense FFN beside the experts in Gemma 4.",
    "shared experts": "`n_shared_experts` * `moe_intermediate_size` in DeepSeek, GLM, dots and ERNIE. Qwen, Granite, "
    "Step and Nemotron give the whole width in a field of its own.",
    "`head_dim`": "Often not `hidden_size` / `num_attention_heads`.",
    "`num_hidden_layers`": "Nemotron-3 counts mixers and FFNs one by one. `num_layers` of LongCat counts pairs: 28 are "
    "56 attention layers.",
    "`sliding_window`": "May be there without effect: in Qwen with `use_sliding_window: false`, in Phi-3.5-MoE, in "
    "dots.llm1.",
    "`layer_types`": "It decides, where it is there, and not an interval beside it (`full_attention_interval`).",
    "`no_rope_layers`": "In Llama 4, 1 is a layer with rotary positions, which is chunked; 0 is one over all tokens.",
    "lists of layers": "Those of Kimi-Linear are counted from 1. `compress_ratios` of DeepSeek-V4 has one entry more "
    "than layers, for the draft layer.",
    "`attention_k_eq_v`": "Gemma 4 has no projection of values, but its cache keeps values all the same.",
    "output gates": "They may be part of `q_proj` (Qwen3-Next, Qwen3.5), so that no field names them.",
    "`q_lora_rank: null`": "A fact and no omission: queries are projected at once (DeepSeek-V2-Lite, Kimi-Linear).",
    "zero experts": "`moe_topk` of LongCat counts them, `n_routed_experts` does not.",
    "published totals": "With or without draft layers, vision and embeddings: DeepSeek-V3 is 671 or 685 B. Active "
    "parameters are stated with both embeddings, with one, or without. Here they are counted with both.",
    "native context": "`max_position_embeddings` can exceed what the authors state.",
}
"""What fields of config.json mean that looks otherwise."""

LARGE = 4096
"""Rows and columns of the matrix whose bits per weight the page shows."""


FROM_CONFIG_JSON = """\
# Model files

Made from `workflow/prophet_moe/catalog/` by `prophet-moe config write`. A test fails when they differ.

## A model from its `config.json`

One command writes the file of a model, here of {name}. The next one asks for a GPU.

```
prophet-moe model import config.json --name {name} --out config/models/current/{name}.yaml
prophet-moe capacity --model {name} --gpu H100-80GB
```

`config.json` is that of the checkpoint; the folder of the checkpoint will do as well. `docs/examples/qwen3_next/` has
one to try it with. The import prints what it counts:

```
{name} ({experts} experts, top {top_k}): {total:,} parameters, {active:,} active.
KV cache of 16 bits: {growing:,.0f} B per token, {bounded:,} B in windows; state: {states:,} B per sequence.
Checkpoint: {stored:,} B ({formats}).
```

It also prints what is left out. Where `model.safetensors.index.json` lies beside the file, its total is compared.
Where the file has no formats and `hf_quant_config.json` lies beside it, they are read from there.
Without `--out` the model's file is printed.

Nothing is guessed. A field that is not understood ends in one line with its name. What is left out on purpose, such as
vision and draft layers, is listed in the file, and every output about the model names it.

`config/models/` holds the models of the reports: a file there is in every figure and table. `config/models/current/`
holds models that people serve today. No list of models has to be edited. `prophet-moe models` counts all of them, or
the files that it is given, and `--json` prints the counts as JSON. `prophet-moe capacity` also takes a file in place of
a name: `--model config.json`.

"""

BY_HAND = """\
## By hand

A model is one file, named like the model. This is the whole file of the model above:

```yaml
{example}```

* **Mixers** are attention and what stands in its place. **FFNs** are dense or have experts. Their names are your own.
* A **block** is one layer: a mixer, an FFN, or both, with its norms. Its name is one letter of your own.
* The **pattern** has the blocks in the order of the layers, as runs. `12 x LLLF` is LLLF twelve times, 48 layers.
  `[D, 59 x M]` is one dense layer and 59 with experts. An encoder and draft layers have patterns of their own, of the
  same blocks.
* Where a model counts mixers and FFNs one by one, as Nemotron-3 does, each of them is a block.
* Layers that differ in any width are different blocks: windows, KV heads and head sizes may change by layer. The routed
  experts of all layers have one number and one width.
* What changes no byte has no key: rotary positions, scoring functions, scaling factors, groups of experts.

Sizes have no unit unless one is given: they count layers, experts, heads or weights, at most 2^31. The column
`config.json` of the tables below says where a checkpoint has a number, as far as that is certain. `prophet-moe models`
then counts every parameter, and notes a deviation of more than 1 % from `published_total_b`.

## A file of an earlier version

Earlier files had `family`, `layers`, `moe`, `attention` and `placement`. They are refused by name, and this converts
them:

    prophet-moe model convert FILE --out config/models/mine.yaml

A block `reported` then needs the key `model`, the name of the model that the report means.

## What is refused

Each of these ends in one line that names the file and the key:

* an unknown key, a key given twice, a value of another type or beyond its limits
* a letter of a pattern that is no block; a block, a mixer or an FFN that nothing uses
* an FFN alone that does not follow a mixer alone: that layer has lost its mixer
* a pattern in which no layer keeps a cache or a state
* `kv_heads` that do not divide `heads`
* `top_k` above the number of experts; `shared_ffn` without `shared_experts`, or the reverse
* routed experts of two kinds in one model
* an encoder together with a mixer other than `softmax`
* a `name` that is not the file's name, and constants in `reported` that are of another model

"""


def models_page() -> str:
    """Return docs/models.md: a model from its config.json, the form of its file, and every key."""
    return "".join(
        (
            _from_config_json(example_spec()),
            BY_HAND.format(example=EXAMPLE_MODEL),
            _families(),
            f"\n## What fields of config.json mean\n\n{_table(('field', 'meaning'), TRAPS.items())}",
            f"\n## The file\n\n{field_table(ModelSpec)}\n`precision` has the keys of [precision.md](precision.md).\n",
            f"\n## `architecture`\n\n{_class_table(Architecture)}",
            "\n## `architecture.mixers`\n\nA mixer has a `kind` and the keys of that kind.\n",
            *(_kind_section(kind) for kind in MIXERS),
            f"\n### `indexer`, of `latent` and `compressed`\n\n{_class_table(Indexer)}",
            "\n## `architecture.ffns`\n\nAn FFN has a `kind` and the keys of that kind.\n",
            *(_kind_section(kind) for kind in FFNS),
            f"\n## `architecture.blocks`\n\n{_class_table(Block)}",
            f"\n## `architecture.encoder`\n\n{_class_table(Encoder)}",
            f"\n## `architecture.draft`\n\n{_class_table(Draft)}",
            f"\n## `reported`\n\n{_class_table(Reported)}",
            f"\n## Each constant of `reported`\n\n{_class_table(Constant)}",
        )
    )


def example_spec() -> ModelSpec:
    """Return the model of the page's example."""
    return ModelSpec.model_validate(yaml.safe_load(EXAMPLE_MODEL))


def _from_config_json(spec: ModelSpec) -> str:
    arch, precision = spec.architecture, Formats(precision="shipped").precision_of(spec.precision)
    kept = params.caches(arch)
    return FROM_CONFIG_JSON.format(
        name=spec.name,
        total=params.parameter_counts(arch).total,
        active=params.active_parameters(arch),
        growing=float(params.growing_bytes_per_token(kept)),
        bounded=params.bounded_bytes(kept),
        states=params.state_bytes_per_sequence(arch),
        stored=sum(params.weight_bytes(arch, precision).values()) + params.draft_bytes(arch, precision),
        formats=precision.named().partition(", KV")[0],
        experts=arch.moe.experts,
        top_k=arch.moe.top_k,
    )


def _families() -> str:
    known = ", ".join(f"`{name}`" for name in sorted(FAMILIES))
    refused = _table(("`model_type`", "why"), ((f"`{name}`", reason) for name, reason in sorted(REFUSED.items())))
    return (
        "## Families that the import understands\n\n"
        f"By `model_type` of `config.json`, or of its `text_config`: {known}.\n\n"
        f"These are refused, since the form cannot express them:\n\n{refused}"
    )


def _kind_section(kind: type[BaseModel]) -> str:
    """Heading, meaning and keys of one kind of mixer or FFN."""
    name = kind.model_fields["kind"].annotation.__args__[0]
    return f"\n### `{name}`\n\n{_class_table(kind)}"


def _class_table(model: type[BaseModel]) -> str:
    """What a class says of itself, and its keys."""
    said = " ".join(inspect.getdoc(model).split())
    return f"{said}\n\n{field_table(model, CONFIG_JSON.get(model))}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (heads, ["---"] * len(heads), *rows))


GPUS = """\
# GPUs

Made from `workflow/prophet_moe/catalog/gpu.py` by `prophet-moe config write`.
A test fails when they differ.

A GPU is one entry of `config/gpus.yaml`. `gpus` in `config/experiment.yaml`, overlays and the option
`--gpu` of `prophet-moe capacity` use its name. The overlay `config/overlays/h200.yaml` adds a GPU to the
results.

```yaml
{example}```

An unknown key is an error. Datasheets state `hbm_gb_per_s`, `link_gb_per_s` and `peak_tflops`; take the
dense throughput, not the one with sparsity. On a machine with the GPU this prints `memory_visible_gib`:

    python -c "import torch; print(torch.cuda.mem_get_info()[1] / 2**30)"

Times that rest on these peaks are lower bounds. `python -m prophet_moe.collect hardware` measures what a
GPU reaches.

{keys}"""


def gpus_page() -> str:
    """Return docs/gpus.md: how a GPU is added, and every key."""
    return GPUS.format(example=EXAMPLE_GPU, keys=field_table(GpuSpec))


PRECISION = """\
# Formats of weights and caches

Made from `workflow/prophet_moe/precision.py` by `prophet-moe config write`. A test fails when they differ.

A format says how numbers are stored, with their scales and their padding. Memory and times take the same formats. A
scenario chooses them, for published architectures:

{keys}
An overlay adds a scenario with formats of its own. `config/overlays/int8_weights.yaml` is another one:

```yaml
{example}```

`precision: int8` takes one format for all components. `precision: shipped` takes those in which the authors ship the
weights, `precision` of the model's file ([models.md](models.md)). `prophet-moe capacity` has the options `--format` and
`--kv-format` for the same names.

## Formats of weights

Bits per weight are those of a matrix of {large:,} x {large:,}, its scales included. A block that a row does not fill
has a whole scale, and formats of GGUF store it whole. So a narrow matrix takes more.

{weights}
## Components

The keys of `precision`, in a scenario and in a model's file. A component without a format has that of `default`.
Routers, norms, biases, convolutions and `other` weights have 16 bits in every format.

{components}
## Formats of the KV cache

{caches}
## Recurrent states

`state_format` is that of the states of linear attention and Mamba. `own` is what the model's class keeps: 32 bits, but
for lightning attention whose file says `state_format: bf16`. The inputs that a convolution keeps have 16 bits.
"""


def precision_page() -> str:
    """Return docs/precision.md: the formats of weights, caches and states, and the keys that choose them."""
    weights = ((f"`{name}`", bits_per_weight(found), found.says) for name, found in FORMATS.items())
    caches = ((f"`{name}`", _bits_per_value(name, found), found.says) for name, found in KV_FORMATS.items())
    keys = ("precision", "kv_format", "state_format", "mla_cache", "draft_layers")
    return PRECISION.format(
        keys=field_table(Scenario, only=keys),
        example=EXAMPLE_SCENARIO,
        large=LARGE,
        weights=_table(("format", "bits per weight", "what it is"), weights),
        components=field_table(WeightFormats),
        caches=_table(("format", "bits per value", "what it is"), caches),
    )


def bits_per_weight(found: Format) -> str:
    """Return the bits per weight of a large matrix, with as many digits as scales need."""
    return _number(8 * found.bytes(LARGE, LARGE) / LARGE**2)


def _bits_per_value(name: str, found: CacheFormat) -> str:
    """Return the bits per value of a cache; a layout of several formats has no single number."""
    return "by part" if name == "fp8_sparse_mla" else _number(found.bits_of(found.block) / found.block)


def _number(value: float) -> str:
    return f"{value:.5f}".rstrip("0").rstrip(".")

"""The formats of weights that a checkpoint ships, from `quantization_config` of its config.json.

A quantiser names modules: the ones that it converts, or the ones that it leaves alone. Every matrix of the model is
looked up under the names that families give it. A component of which a part only is converted has no format here, and
is refused, as is a name that no module of the model has. The input embedding keeps 16 bits.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from prophet_moe.catalog.architecture import Architecture
from prophet_moe.catalog.hugging_face.config import Config
from prophet_moe.catalog.hugging_face.modules import HEAD, Names, Part, parts
from prophet_moe.validation import shortened

FIELDS = ("quantization_config", "compression_config", "expert_dtype")
"""Fields of a config.json that are read here."""
PLAIN = "bf16"
"""Format of what is not converted."""

PARTS = {"attention_output": "attention", "output_embedding": "embeddings"}
"""Parts that may differ in format from their component."""

KEPT: Mapping[str, tuple[str, ...]] = {"kimi_linear": ("latent_projections",)}
"""Components that checkpoints keep at 16 bits though their list does not say so: Kimi-K3's, by its tensors."""

Scheme = Callable[[Part], str]
"""The format of a part of the model."""

MODELOPT: Mapping[str, str] = {
    "FP8": "fp8_tensor",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8_channel",
    "FP8_PB_WO": "fp8_block128",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A16_NVFP4": "nvfp4",
    "W4A8_NVFP4_FP8": "nvfp4",
    "MXFP8": "mxfp8",
    "MXFP4": "mxfp4",
    "W4A8_MXFP4_FP8": "mxfp4",
    "W8A8_SQ_PER_CHANNEL": "int8",
    "W4A16_AWQ": "int4_group128",
}
"""Formats of ModelOpt by `quant_algo`."""


def shipped_formats(config: Config, arch: Architecture) -> dict[str, str]:
    """Return the formats by component (`precision` of a model's file); {} where all weights have 16 bits."""
    name = next((name for name in FIELDS[:2] if config.has(name)), None)
    if name is None:
        return {"routed_experts": "mxfp4"} if config.only("expert_dtype", "fp4", default=None) else {}
    block = config.below(name)
    unnamed = "modelopt" if block.has("quant_algo") else None  # ModelOpt wrote no method before 0.33
    method = block.get("quant_method", default="compressed-tensors" if name == "compression_config" else unnamed)
    if not isinstance(method, str) or method not in METHODS:
        block.refuse("quant_method", f"got {shortened(repr(method))}, expected one of {', '.join(METHODS)}")
    scheme, head = METHODS[method](block, config)
    found = _by_component(block, arch, scheme, head)
    experts = [each.only("expert_dtype", "fp4", "fp8", default=None) for each in (config, block)]
    block.refuse_unread()
    found |= {
        component: PLAIN for component in KEPT.get(config.get("model_type", default=""), ()) if component in found
    }
    if "fp4" in experts and found.get("routed_experts") != "nvfp4":
        found["routed_experts"] = "mxfp4"  # another quantiser may have converted them since, and left the field
    return _written(found)


def _by_component(block: Config, arch: Architecture, scheme: Scheme, head: bool) -> dict[str, str]:
    """Return the format of every component; with `head`, a quantiser converts the output embedding, too."""
    found: dict[str, str] = {}
    for part in [*parts(arch), *([HEAD] if head and not arch.tied_embeddings else [])]:
        its = scheme(part)
        if found.setdefault(part.component, its) != its:
            problem = f"gives parts of {part.component} different formats, {found[part.component]} and {its}"
            block.refuse("quant_method", f"{problem} ({part.names[0]}); without the block, all have 16 bits")
    return found


def _written(found: dict[str, str]) -> dict[str, str]:
    """Return the formats as a file writes them: a default for all but the embeddings, or single components."""
    whole = {part: found.get(component, PLAIN) for part, component in PARTS.items()}
    found = {name: its for name, its in found.items() if whole.get(name) != its}
    used = {its for name, its in found.items() if name not in PARTS}
    if len(used) == 1 and used != {PLAIN}:
        own = {name: its for name, its in found.items() if name in PARTS}
        return {"default": used.pop(), "embeddings": PLAIN} | own
    chosen = {name: its for name, its in found.items() if its != PLAIN or whole.get(name, PLAIN) != PLAIN}
    return {"default": PLAIN} | chosen if chosen else {}


def _all_but(names: Names, its: str) -> Scheme:
    """Return the scheme that gives one format to all parts that no name covers."""
    return lambda part: PLAIN if names.cover(part) else its


def _fp8(block: Config, config: Config) -> tuple[Scheme, bool]:
    """FP8 of DeepSeek and Transformers: with a scale per 128 x 128, or one a matrix.

    Where ModelOpt has converted parts of such a checkpoint, it says so in fields of its own; the rest is as before.
    """
    block.only("fmt", "e4m3", "float8_e4m3fn", default="e4m3")
    block.only("store_dtype", "fp8", default="fp8")
    block.only("scale_fmt", "ue8m0", default=None)
    block.ignore("activation_scheme", "dequantize", "kv_cache_scheme", "packed_modules_mapping")
    size = block.items("weight_block_size", default=None)
    if size not in (None, [128, 128]):
        block.refuse("weight_block_size", f"got {size}, expected [128, 128], or none for one scale a matrix")
    names = _names(block, config, "modules_to_not_convert", "ignored_layers")
    rest = _all_but(names, "fp8_block128" if size else "fp8_tensor")
    if not block.has("quantized_layers"):
        return rest, False
    block.only("quant_algo", "MIXED_PRECISION")
    block.ignore("moe_quant_algo", "group_size", "kv_cache_quant_algo", "producer")
    converted = _by_layer(block, config)
    return lambda part: rest(part) if converted(part) == PLAIN else converted(part), False


def _fbgemm_fp8(block: Config, config: Config) -> tuple[Scheme, bool]:
    block.ignore("activation_scale_ub")
    return _all_but(_names(block, config, "modules_to_not_convert"), "fp8_channel"), False


def _mxfp8(block: Config, config: Config) -> tuple[Scheme, bool]:
    block.only("fmt", "e4m3", default="e4m3")
    block.only("scale_fmt", "ue8m0", default=None)
    block.only("weight_block_size", [1, 32], default=None)
    block.ignore("activation_scheme")
    return _all_but(_names(block, config, "modules_to_not_convert", "ignored_layers"), "mxfp8"), False


def _mxfp4(block: Config, config: Config) -> tuple[Scheme, bool]:
    """MXFP4 of gpt-oss, of routed experts alone: Transformers and engines convert no other module."""
    if config.get("model_type", default=None) != "gpt_oss":
        block.refuse("quant_method", "got 'mxfp4', which is understood for gpt_oss alone")
    names = _names(block, config, "modules_to_not_convert")
    return lambda part: "mxfp4" if part.component == "routed_experts" and not names.cover(part) else PLAIN, False


def _gptq(block: Config, config: Config) -> tuple[Scheme, bool]:
    """GPTQ, whose files hold zero points of symmetric weights, too."""
    block.only("bits", 4)
    for name in ("desc_act", "lm_head", "static_groups"):
        block.only(name, False, default=False)
    block.ignore(
        "sym", "damp_percent", "true_sequential", "checkpoint_format", "format", "meta", "model_file_base_name"
    )
    block.ignore("model_name_or_path", "quant_algo", "pack_dtype", "is_marlin_format", "dataset", "damp_auto_increment")
    block.ignore("hyb_act", "act_group_aware", "mse")
    excluded = list(block.items("modules_to_not_convert", default=[]))
    for rule in block.below("dynamic").fields if block.has("dynamic") else ():
        if not str(rule).startswith("-:"):
            block.refuse("dynamic", f"got {shortened(repr(rule))}, expected rules that exclude modules (-:)")
        excluded.append(f"re:{rule[2:]}")
    names = Names(excluded, block, "dynamic", config.size("num_hidden_layers", default=None))
    return _all_but(names, _int4(block, zero=True)), False


def _awq(block: Config, config: Config) -> tuple[Scheme, bool]:
    block.only("bits", 4)
    block.ignore("version", "backend", "do_fuse", "fuse_max_seq_len", "exllama_config")
    zero = block.flag("zero_point", default=True)
    return _all_but(_names(block, config, "modules_to_not_convert"), _int4(block, zero)), False


def _int4(block: Config, zero: bool) -> str:
    size = block.size("group_size", "q_group_size")
    if size not in (32, 128):
        block.refuse("group_size", f"got {size}, expected 32 or 128")
    return f"int4_group{size}" + ("_zero" if zero else "")


def _compressed_tensors(block: Config, config: Config) -> tuple[Scheme, bool]:
    """compressed-tensors: groups of modules with a format each, but for those it ignores."""
    block.ignore("quantization_status", "version", "global_compression_ratio", "kv_cache_scheme", "format")
    block.ignore("transform_config")
    sparsity = block.get("sparsity_config", default=None)
    if sparsity and (not isinstance(sparsity, Mapping) or sparsity.get("format") != "dense"):
        block.refuse("sparsity_config", f"got {shortened(repr(sparsity))}, expected none")
    return _grouped(block, config, "ignore"), True


def _modelopt(block: Config, config: Config) -> tuple[Scheme, bool]:
    """ModelOpt: one format for all modules but the excluded ones, or one per module."""
    block.ignore("producer", "kv_cache_scheme")
    inner = block.below("quantization") if block.has("quantization") else block
    inner.ignore("kv_cache_quant_algo")
    algorithm = inner.get("quant_algo")
    excluded = "exclude_modules" if inner.has("exclude_modules") else "ignore"
    if algorithm == "MIXED_PRECISION":
        scheme = _by_layer(inner, config) if inner.has("quantized_layers") else _grouped(inner, config, excluded)
    elif its := _algorithm(algorithm):
        inner.ignore("config_groups")
        if algorithm == "W4A16_AWQ":
            inner.only("group_size", 128, default=128)
            inner.ignore("has_zero_point", "pre_quant_scale")
        inner.only("group_size", 16, 32, 128, default=None)
        scheme = _all_but(_names(inner, config, excluded), its)
    else:
        known = ", ".join([*MODELOPT, "MIXED_PRECISION"])
        inner.refuse("quant_algo", f"got {shortened(repr(algorithm))}, expected one of {known}")
    if inner is not block:
        inner.refuse_unread()
    return scheme, True


def _algorithm(name: Any) -> str | None:
    return MODELOPT.get(name) if isinstance(name, str) else None


def _by_layer(block: Config, config: Config) -> Scheme:
    """Return the scheme of a mapping that names every converted module."""
    block.ignore("exclude_modules", "ignore", "config_groups")
    layers = block.below("quantized_layers").fields
    named: dict[str, list[str]] = {}
    for module, fields in layers.items():
        its = _algorithm(fields.get("quant_algo")) if isinstance(fields, Mapping) else None
        if its is None:
            block.refuse("quantized_layers", f"got {shortened(repr(fields))} for {module}, expected a known quant_algo")
        named.setdefault(its, []).append(module)
    depth = config.size("num_hidden_layers", default=None)
    formats = {its: Names(modules, block, "quantized_layers", depth, strict=False) for its, modules in named.items()}
    return lambda part: next((its for its, names in formats.items() if names.cover(part)), PLAIN)


def _grouped(block: Config, config: Config, excluded: str) -> Scheme:
    """Return the scheme of groups of modules; a group that names modules comes before one of all linear layers."""
    ignored = _names(block, config, excluded)
    depth = config.size("num_hidden_layers", default=None)
    groups, rest = [], PLAIN
    container = block.below("config_groups")
    if not container.fields:
        block.refuse("config_groups", "is empty, expected a group of modules")
    for name in container.fields:
        group = container.below(name)
        its, targets = _group_format(group), group.items("targets", default=["Linear"])
        if "Linear" in targets:
            if rest != PLAIN:
                container.refuse(name, "is the second group of all linear layers, expected one")
            rest = its
        else:
            groups.append((Names(targets, group, "targets", depth), its))
        group.refuse_unread()

    def scheme(part: Part) -> str:
        if ignored.cover(part):
            return PLAIN
        return next((its for names, its in groups if names.cover(part)), rest)

    return scheme


def _group_format(group: Config) -> str:
    """Return the format of the weights of a group."""
    group.ignore("input_activations", "output_activations")
    layout = group.get("format", default=None)
    weights = group.below("weights")
    weights.ignore("dynamic", "observer", "observer_kwargs", "zp_dtype", "scale_dtype", "actorder")
    if weights.fields.get("actorder") == "group":
        weights.refuse("actorder", "got 'group', expected an order of columns that takes no room")
    bits, kind, size = weights.get("num_bits"), weights.get("type"), weights.get("group_size", default=None)
    size = None if size == -1 else size
    strategy = weights.get("strategy", default="group" if size else "tensor")
    symmetric = weights.flag("symmetric", default=True)
    structure = weights.get("block_structure", default=None)
    weights.refuse_unread()
    for its, known in GROUPS.items():
        if known == (bits, kind, strategy, size if strategy != "block" else structure, symmetric):
            return its
    got = f"{bits} bits, {kind}, {strategy}, group_size {size}, block_structure {structure}, symmetric {symmetric}"
    if layout:
        got += f", {layout}"
    weights.refuse("num_bits", f"got {got}, expected one of the formats of this project")
    return PLAIN


GROUPS: Mapping[str, tuple[int, str, str, Any, bool]] = {
    "int4_group32": (4, "int", "group", 32, True),
    "int4_group32_zero": (4, "int", "group", 32, False),
    "int4_group128": (4, "int", "group", 128, True),
    "int4_group128_zero": (4, "int", "group", 128, False),
    "int8": (8, "int", "channel", None, True),
    "fp8_tensor": (8, "float", "tensor", None, True),
    "fp8_channel": (8, "float", "channel", None, True),
    "fp8_block128": (8, "float", "block", [128, 128], True),
    "mxfp8": (8, "float", "group", 32, True),
    "nvfp4": (4, "float", "tensor_group", 16, True),
    "mxfp4": (4, "float", "group", 32, True),
}
"""Bits, type, strategy, group size (or block structure) and symmetry of a group's weights, by format."""


def _names(block: Config, config: Config, *fields: str) -> Names:
    """Return the modules that lists of a quantiser name; a class (`Llama4TextAttention`) is no matrix."""
    entries = [entry for field in fields for entry in block.items(field, default=[]) if not _is_class(entry)]
    given = next((field for field in fields if block.has(field)), fields[0])
    return Names(entries, block, given, config.size("num_hidden_layers", default=None))


def _is_class(entry: Any) -> bool:
    return isinstance(entry, str) and entry != "Linear" and re.fullmatch(r"[A-Z][a-z]\w+", entry) is not None


METHODS: Mapping[str, Callable[[Config, Config], tuple[Scheme, bool]]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fbgemm_fp8,
    "mxfp8": _mxfp8,
    "mxfp4": _mxfp4,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "gptq": _gptq,
    "awq": _awq,
}
"""Readers by `quant_method`: the scheme, and whether it converts the output embedding where it does not name it."""

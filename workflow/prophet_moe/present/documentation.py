"""JSON schemas and reference pages made from the typed settings and the column lists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from prophet_moe.capacity.record import EXTENDED_RECORD, RECORD, RECORD_COLUMNS, RECORDS
from prophet_moe.catalog.gpu import GpuFile, GpuSpec
from prophet_moe.catalog.model import Architecture, Attention, Constant, Mamba, ModelSpec, Moe, Placement, Reported
from prophet_moe.collect.plan import Plan
from prophet_moe.present.catalog_table import CATALOG
from prophet_moe.present.reproduction import reproduction_page
from prophet_moe.routing.datasets import DatasetFile
from prophet_moe.settings.experiment import with_studies
from prophet_moe.settings.style import Style, StyleFile
from prophet_moe.study import Figure, load_studies
from prophet_moe.tables import Column, Table

JSON_TYPES = {"text": "string", "integer": ["integer", "null"], "number": ["number", "null"], "boolean": "boolean"}


EXAMPLE_MODEL = """\
name: My-MoE-8x1B
published_name: My MoE
licence: Apache-2.0
published_total_b: 5.9
sources: [config.json of my-lab/my-moe, revision 0123abc]
architecture:
  family: decoder
  layers: 16
  hidden: 2048
  vocab: 32000
  native_context: 8192
  moe: {experts: 8, top_k: 2, ffn: 7168}
  attention: {kind: GQA, heads: 16, kv_heads: 4, head_dim: 128}
"""
"""A model file with nothing but what is required."""

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

CONFIG_JSON: dict[type[BaseModel], dict[str, str]] = {
    Architecture: {
        "family": "`encoder_decoder` where `is_encoder_decoder`, `hybrid` where `attn_layer_period`, else `decoder`",
        "layers": "`num_hidden_layers`, `n_layers` (DBRX), `num_decoder_layers` (Switch)",
        "encoder_layers": "`num_layers` (Switch)",
        "hidden": "`hidden_size`, `d_model` (DBRX, Switch)",
        "vocab": "`vocab_size`",
        "native_context": "`max_position_embeddings`, `max_seq_len` (DBRX), or less where the authors state less",
        "tied_embeddings": "`tie_word_embeddings`",
        "norms_per_layer": "no key: count them in the model's code (2; Grok-1 4, Arctic 3)",
        "moe": "see below",
        "dense_ffn": "`intermediate_size` (DeepSeek, Jamba), `d_ff` (Switch); leave it out where no layer is dense",
        "residual_ffn": "no key: Arctic's residual FFN is as wide as `hidden_size`",
        "attention": "see below",
        "mamba": "see below",
    },
    Moe: {
        "experts": "`num_local_experts` (Mixtral), `num_experts` (Qwen, OLMoE, Jamba, Switch), `n_routed_experts` "
        "(DeepSeek), `ffn_config.moe_num_experts` (DBRX)",
        "top_k": "`num_experts_per_tok`, `ffn_config.moe_top_k` (DBRX); Switch has 1",
        "ffn": "`moe_intermediate_size` (DeepSeek, Qwen), `intermediate_size` (Mixtral, OLMoE, Jamba), "
        "`ffn_config.ffn_hidden_size` (DBRX), `d_ff` (Switch)",
        "gated": "`is_gated_act` (Switch); all others are gated",
        "placement": "`first`: `first_k_dense_replace` (DeepSeek), `expert_layer_offset` (Jamba), "
        "`decoder_sparse_step` - 1 (Qwen), 1 (Switch); `step`: `moe_layer_freq` (DeepSeek), "
        "`expert_layer_period` (Jamba), `decoder_sparse_step` (Qwen, Switch)",
        "shared_experts": "`n_shared_experts` (DeepSeek); Qwen: `shared_expert_intermediate_size` / "
        "`moe_intermediate_size`",
        "shared_ffn": "`n_shared_experts` * `moe_intermediate_size` (DeepSeek), "
        "`shared_expert_intermediate_size` (Qwen)",
        "shared_gate": "no key: true for Qwen1.5-MoE and Qwen2-MoE",
    },
    Attention: {
        "kind": "`MLA` where `kv_lora_rank`, `MHA` where `num_key_value_heads` is missing or equals the heads, "
        "else `GQA`",
        "heads": "`num_attention_heads`, `n_heads` (DBRX), `num_heads` (Switch)",
        "kv_heads": "`num_key_value_heads`, `attn_config.kv_n_heads` (DBRX); for `MHA` and `MLA` as `heads`",
        "head_dim": "`head_dim`, `d_kv` (Switch), else `hidden_size` / `num_attention_heads`; "
        "MLA: `qk_nope_head_dim` + `qk_rope_head_dim`",
        "placement": "`first`: `attn_layer_offset`, `step`: `attn_layer_period` (Jamba)",
        "qkv_bias": "`attention_bias`, `qkv_bias`; true for Qwen1.5-MoE and Qwen2-MoE",
        "qk_norm": "no key: `per_head` for Qwen3, `full_width` for OLMoE",
        "q_lora_rank": "`q_lora_rank`",
        "kv_lora_rank": "`kv_lora_rank`",
        "nope_head_dim": "`qk_nope_head_dim`",
        "rope_head_dim": "`qk_rope_head_dim`",
        "v_head_dim": "`v_head_dim`",
        "relative_buckets": "`relative_attention_num_buckets` (Switch)",
    },
    Mamba: {
        "state": "`mamba_d_state`",
        "conv": "`mamba_d_conv`",
        "inner": "`mamba_expand` * `hidden_size`",
        "dt_rank": "`mamba_dt_rank`",
    },
}
"""Where config.json of a Hugging Face repository has the number behind a key of ours."""


def documents() -> dict[Path, str]:
    """Every generated reference file, by its path from the project's root."""
    schemas = {
        "experiment": _experiment(),
        "style": StyleFile,
        "model": ModelSpec,
        "gpus": GpuFile,
        "datasets": DatasetFile,
        "collect": Plan,
    }
    folder = Path("workflow/schemas")
    pages = {folder / f"{name}.schema.json": _json(TypeAdapter(kind).json_schema()) for name, kind in schemas.items()}
    pages[folder / "record.schema.json"] = _json(_record_schema())
    pages[Path("docs/configuration.md")] = _configuration_page()
    pages[Path("docs/data.md")] = _data_page()
    pages[Path("docs/models.md")] = _models_page()
    pages[Path("docs/gpus.md")] = _gpus_page()
    pages[Path("docs/reproduce.md")] = reproduction_page(load_studies())
    return pages


def _experiment() -> type[BaseModel]:
    return with_studies({name: study.settings for name, study in load_studies().items()})


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _record_schema() -> dict[str, Any]:
    row = {
        column.name: {"type": JSON_TYPES[column.kind], "description": _described(column)} for column in RECORD_COLUMNS
    }
    required = [column.name for column in RECORD_COLUMNS]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Record: one object per model, GPU and batch size",
        "type": "array",
        "items": {"type": "object", "properties": row, "required": required, "additionalProperties": False},
    }


def _described(column: Column) -> str:
    return f"{column.description} [{column.unit}]" if column.unit else column.description


def _configuration_page() -> str:
    text = (
        "# Configuration keys\n\n"
        "Made from `workflow/prophet_moe/settings/` and the studies by `prophet-moe config write`.\n"
        "A test fails when they differ.\n\n"
        "An unknown key is an error. The [glossary](glossary.md) defines the words.\n"
    )
    for title, model in (("config/experiment.yaml", _experiment()), ("config/style.yaml, under `style`", Style)):
        keys = ((f"`{key}`", kind, default, _linked(note)) for key, kind, default, note in _keys(model))
        rows = "\n".join(f"| {' | '.join(cells)} |" for cells in keys)
        text += f"\n## {title}\n\n| key | type | default | meaning |\n|---|---|---|---|\n{rows}\n"
    return text


def _keys(model: type[BaseModel], prefix: str = "", given: Any = None) -> Iterator[tuple[str, str, str, str]]:
    """Key path, type, default and meaning of every field; `given` holds the defaults that an outer field gives."""
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        default = getattr(given, name) if given is not None else field.default
        inner = _nested(field.annotation)
        if get_origin(field.annotation) is Union and inner:
            shown = default.model_dump() if isinstance(default, BaseModel) else default
            yield key, _kind(properties[name]), f"`{json.dumps(shown)}`", " ".join(field.description.split())
            yield from _keys(inner, f"{key}.")
        elif inner is field.annotation:
            yield from _keys(inner, f"{key}.", default)
        elif inner is not None:
            yield from _keys(inner, f"{key}.<name>.")
        else:
            shown = "required" if default is PydanticUndefined else f"`{json.dumps(default)}`"
            yield key, _kind(properties[name]), shown, " ".join((field.description or "").split())


def _models_page() -> str:
    text = (
        "# Model files\n\n"
        "Made from `workflow/prophet_moe/catalog/model.py` by `prophet-moe config write`.\n"
        "A test fails when they differ.\n\n"
        "A model is one file, `config/models/<name>.yaml`. To add one, write that file and run `prophet-moe models`.\n"
        "The command counts every parameter from `architecture`, shows the count beside the published total, and\n"
        "notes a deviation above 1 %. No list of models has to be edited. An unknown key is an error. Sizes have no\n"
        "unit unless one is given: they count layers, experts, heads or weights.\n\n"
        "This file has all that is required. The column `config.json` below says where a Hugging Face repository has\n"
        "each number. The files in `config/models/` are further examples.\n\n"
        f"```yaml\n{EXAMPLE_MODEL}```\n"
    )
    for title, model in (
        ("The file", ModelSpec),
        ("`architecture`", Architecture),
        ("`architecture.moe`", Moe),
        ("`architecture.attention`", Attention),
        ("`architecture.mamba`", Mamba),
        ("`placement`, of `moe` and of `attention`", Placement),
        ("`reported`", Reported),
        ("Each constant of `reported`", Constant),
    ):
        text += f"\n## {title}\n\n{_field_table(model, CONFIG_JSON.get(model))}"
    return text


def _gpus_page() -> str:
    return (
        "# GPUs\n\n"
        "Made from `workflow/prophet_moe/catalog/gpu.py` by `prophet-moe config write`.\n"
        "A test fails when they differ.\n\n"
        "A GPU is one entry of `config/gpus.yaml`. `gpus` in `config/experiment.yaml`, overlays and the option\n"
        "`--gpu` of `prophet-moe capacity` use its name. The overlay `config/overlays/h200.yaml` adds a GPU to the\n"
        "results.\n\n"
        f"```yaml\n{EXAMPLE_GPU}```\n\n"
        "An unknown key is an error. Datasheets state `hbm_gb_per_s`, `link_gb_per_s` and `peak_tflops`; take the\n"
        "dense throughput, not the one with sparsity. On a machine with the GPU this prints\n"
        "`memory_visible_gib`:\n\n"
        '    python -c "import torch; print(torch.cuda.mem_get_info()[1] / 2**30)"\n\n'
        "Times that rest on these peaks are lower bounds. `python -m prophet_moe.collect hardware` measures what a\n"
        "GPU reaches.\n\n"
        f"{_field_table(GpuSpec)}"
    )


def _field_table(model: type[BaseModel], theirs: dict[str, str] | None = None) -> str:
    """Table of a class's own fields; `theirs` adds where config.json has each."""
    heads = ["key", "allowed", "default", "meaning", *(["config.json"] if theirs else [])]
    rows = [heads, ["---"] * len(heads)]
    for name, schema in model.model_json_schema()["properties"].items():
        default = f"`{json.dumps(schema['default'])}`" if "default" in schema else "required"
        meaning = _linked(" ".join(model.model_fields[name].description.split()))
        rows.append([f"`{name}`", _kind(schema), default, meaning, *([theirs[name]] if theirs else [])])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _linked(text: str) -> str:
    """A page's text with every citation of a report's lines as a link to docs/reports.md."""
    return re.sub(r"(?<!\[)\b(00[0-4]):(\d+(?:-\d+)?)", r"[\g<0>](reports.md#\1-\2)", text)


def _kind(schema: dict[str, Any]) -> str:
    """A field's JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "$ref" in schema:
        return "mapping"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    if schema["type"] == "object":
        return f"mapping of names to {_kind(schema['additionalProperties'])}"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "boolean": "true or false",
        "null": "`null`",
    }[schema["type"]]
    limits = {"exclusiveMinimum": "> {}", "minimum": ">= {}", "maximum": "<= {}", "pattern": "like `{}`"}
    return ", ".join([words, *(text.format(schema[limit]) for limit, text in limits.items() if limit in schema)])


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The settings class behind a field: its own type, or the values of a mapping."""
    candidates = (annotation, *getattr(annotation, "__args__", ())[1:])
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def declared_tables() -> list[Table]:
    """Return every table of the project: the record, the catalogue, and those of the studies, by study."""
    return [*RECORDS, CATALOG, *(table for study in load_studies().values() for table in study.declared)]


def _data_page() -> str:
    text = (
        "# Columns\n\n"
        "Made by `prophet-moe config write` from the declared tables: those of a study in\n"
        "`workflow/studies/<study>/study.py`, the record in `workflow/prophet_moe/capacity/record.py`. A test fails\n"
        "when they differ, and another when a committed table has other columns or cells of another type.\n\n"
        "Numbers have 6 significant digits. An empty cell is undefined or unknown. GB is 10^9 bytes, MB 10^6 bytes.\n"
        "`<limit>` in a name stands for a value that settings give, with one group of columns for each. Tables 1 to 4\n"
        "and the record are written for every scenario, those of scenario `reported` in `tables/reported/`. There, GB\n"
        'is the report\'s own mixture of units: see [model.md](model.md), "Scenario `reported`". The\n'
        "[glossary](glossary.md) defines the words. `read_table` of `prophet_moe.tables` reads a table, typed.\n\n"
        "## The record\n\n"
        "One row per model, GPU and batch size. The first of the two is written as JSON, too.\n"
        f"{_table_section(RECORD)}{_table_section(EXTENDED_RECORD, RECORD)}"
        f"\n## The catalogue of models\n\n"
        "One row per model and constant, as published and as the report has it.\n"
        f"{_table_section(CATALOG)}"
    )
    for study in load_studies().values():
        readme = f"[README](../workflow/studies/{study.id}/README.md)"
        text += f"\n## {study.id}\n\n{study.question} ({readme})\n{''.join(map(_table_section, study.tables))}"
        text += "".join(_figure_section(figure) for figure in study.figures)
        explained = {table.name: table for table in study.tables}
        text += "".join(_table_section(table, explained[table.name]) for table in study.extended)
    return text


def _figure_section(figure: Figure) -> str:
    """Heading and notebook of a figure."""
    path = figure.path.format(scenario_dir="")
    return f"\n### `{path}.pdf`, `.png`\n\nDrawn by the [notebook](../notebooks/{figure.name}.ipynb).\n"


def _table_section(table: Table, beside: Table | None = None) -> str:
    """Heading and columns of a table; of one that has all columns `beside` it, only the further ones."""
    known = {column.name for column in beside.columns} if beside else set()
    shown = [column for column in (*table.columns, *table.repeated) if column.name not in known]
    rows = "".join(f"| `{c.name}` | {c.kind} | {c.unit} | {_linked(c.description)} |\n" for c in shown)
    also = f"The columns of `{_file_of(beside)}`, and:\n\n" if beside else ""
    return f"\n### `{_file_of(table)}`\n\n{also}| column | type | unit | meaning |\n|---|---|---|---|\n{rows}"


def _file_of(table: Table) -> str:
    """Path of a table in the default scenario."""
    return table.path.format(scenario_dir="")

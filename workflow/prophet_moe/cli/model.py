"""Commands about models: list them with exact counts, import one from its config.json, convert an old file."""

import argparse
import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from prophet_moe import params
from prophet_moe.catalog import ModelSpec, load_models, model_names
from prophet_moe.catalog.model import load_model
from prophet_moe.cli.catalog import MODELS
from prophet_moe.cli.terminal import console, errors
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.precision import Precision
from prophet_moe.settings.scenario import Formats
from prophet_moe.units import GB, MB
from prophet_moe.validation import read_json, read_yaml, validate

CURRENT = MODELS / "current"
"""Models that people serve today, beside those of the report in MODELS."""
LARGEST_CONFIG, LARGEST_INDEX = 4 * MB, 64 * MB
"""Largest config.json and index of weights that are read. Real ones have some kB and some MB."""
WIDTH = 150
"""Columns that the table of models needs, wherever it is printed."""
INDEX = "model.safetensors.index.json"
FORMATS = "hf_quant_config.json"
"""Where ModelOpt writes the formats of a checkpoint, at first in place of fields of the config.json."""
EXAMPLES = """\
examples:
  prophet-moe model import Qwen3-Next-80B-A3B-Instruct/config.json --name Qwen3-Next \\
      --out config/models/current/Qwen3-Next.yaml
  prophet-moe model import ~/checkpoints/gpt-oss-120b          (a folder; its index of weights is compared)
  prophet-moe model convert mine.yaml --out config/models/mine.yaml"""


def add_commands(commands: Any) -> None:
    """Add the commands `models` and `model` to the parser."""
    models = commands.add_parser(
        "models",
        help="list the catalogue, or models of files, with exact counts",
        description="Print one line per model of config/models/ and config/models/current/, or of the given files. "
        "B are 10^9 parameters, GB 10^9 and MB 10^6 bytes, k 1,024 tokens. Active parameters are "
        "those that one token uses. Published "
        "is the authors' total; a count that differs by more than 1 %, beyond rounding, is noted below the table. The "
        "KV cache, of 16 bits, is shown as what each token adds for good (growing), and what windows hold once full "
        "(bounded), per sequence. Shipped is the size of the checkpoint in the formats of its authors.",
        epilog="examples: prophet-moe models\n          prophet-moe models config.json mine.yaml --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models.add_argument(
        "files", nargs="*", metavar="FILE", help="a model's YAML file, a config.json, or the folder of a checkpoint"
    )
    models.add_argument("--json", action="store_true", help="print JSON: a list with one entry per model")
    models.set_defaults(run=list_models)

    model = commands.add_parser(
        "model",
        help="import a model from its config.json, or convert an old file",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = model.add_subparsers(required=True, metavar="ACTION")
    importing = actions.add_parser(
        "import",
        help="write a model's file from the config.json of its checkpoint",
        description="Write a model's file from the config.json of its checkpoint. Every field is understood, or "
        "refused by its name; parts that are left out on purpose are listed in the file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importing.add_argument("config", type=Path, metavar="CONFIG.json", help="the file, or the folder of a checkpoint")
    importing.add_argument("--name", metavar="N", help="name of the model (default: that of --out, or of the folder)")
    importing.add_argument("--out", type=Path, metavar="FILE", help="the file to write (default: print it)")
    importing.set_defaults(run=import_model)
    converting = actions.add_parser("convert", help="write a file of the form before layer patterns in today's form")
    converting.add_argument("file", type=Path, metavar="FILE", help="the old file")
    converting.add_argument("--out", type=Path, metavar="FILE", help="the file to write (default: print it)")
    converting.set_defaults(run=convert_model)


def find_model(text: str) -> ModelSpec:
    """Return the model that a command line names: of the catalogue, of a YAML file, or of a config.json.

    A folder is one of a checkpoint. An unknown name is a UserError that suggests the nearest one.
    """
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        return load_model(path)
    if path.suffix == ".json" or path.is_dir():
        return read_checkpoint(path, None)[0]
    folder = CURRENT if text in model_names(CURRENT) and text not in model_names(MODELS) else MODELS
    if text not in model_names(folder) and (near := _nearest(text)):
        raise UserError("--model", f"unknown model {text!r}; did you mean {near!r}", "See: prophet-moe models")
    return load_models(folder, [text])[text]


def _nearest(text: str) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(text, [*model_names(MODELS), *model_names(CURRENT)], n=1)), None)


def list_models(arguments: argparse.Namespace) -> None:
    """Print one line per model; files that cannot be read are told at the end, and fail the command."""
    specs, problems = [], []
    names = arguments.files or [str(path) for folder in (MODELS, CURRENT) for path in sorted(folder.glob("*.yaml"))]
    for name in names:
        try:
            specs.append(find_model(name))
        except UserError as error:
            problems.append(error)
    if arguments.json:
        print(json.dumps([described(spec) for spec in specs], indent=2))
    elif specs:
        _print_table(specs)
    for problem in problems[:-1]:
        print(problem, file=sys.stderr)
    if problems:
        raise problems[-1]


def described(spec: ModelSpec) -> dict[str, Any]:
    """Return the exact counts of a model, JSON-like: caches of 16 bits, weights in the shipped formats."""
    arch, precision = spec.architecture, shipped(spec)
    kept = params.caches(arch)
    stored = sum(params.weight_bytes(arch, precision).values()) + params.draft_bytes(arch, precision)
    return {
        "name": spec.name,
        "total_parameters": params.parameter_counts(arch).total,
        "active_parameters": params.active_parameters(arch),
        "draft_parameters": params.draft_parameters(arch),
        "published_total_b": spec.published_total_b,
        "published_active_b": spec.published_active_b,
        "dense": arch.moe is None,
        "experts": arch.moe.experts if arch.moe else 0,
        "top_k": arch.moe.top_k if arch.moe else 0,
        "moe_layers": params.moe_layers(arch),
        "expert_parameters": params.expert_parameters(arch),
        "kv_bytes_per_token_growing": _whole(params.growing_bytes_per_token(kept)),
        "kv_bytes_bounded": params.bounded_bytes(kept),
        "state_bytes": params.state_bytes_per_sequence(arch),
        "checkpoint_bytes": stored,
        "formats": precision.named(),
        "native_context": arch.native_context,
        "left_out": spec.left_out,
    }


def shipped(spec: ModelSpec) -> Precision:
    """Return the formats that a model's file ships, with caches of 16 bits."""
    return Formats(precision="shipped").precision_of(spec.precision)


def _whole(number: Fraction) -> int | float:
    return number.numerator if number.denominator == 1 else float(number)


def _print_table(specs: list[ModelSpec]) -> None:
    table = Table(
        Column("model", min_width=max(len(spec.name) for spec in specs)),
        *("total (B)", "published (B)", "active (B)", "MoE layers", "E", "k", "expert (MB)"),
        *("shipped (GB)", "KV growing (B/token)", "KV bounded (MB)", "state (MB)", "context (k)"),
    )
    for spec in specs:
        found = described(spec)
        table.add_row(
            spec.name,
            f"{found['total_parameters'] / 1e9:.2f}",
            "" if spec.published_total_b is None else f"{spec.published_total_b:g}",
            f"{found['active_parameters'] / 1e9:.2f}",
            *(str(found[key]) if not found["dense"] else "dense" for key in ("moe_layers", "experts", "top_k")),
            f"{params.expert_bytes(spec.architecture, shipped(spec)) / MB:.1f}",
            f"{found['checkpoint_bytes'] / GB:.2f}",
            f"{found['kv_bytes_per_token_growing']:,}",
            f"{found['kv_bytes_bounded'] / MB:,.1f}",
            f"{found['state_bytes'] / MB:,.1f}",
            f"{found['native_context'] / 1024:,.0f}",
        )
    console(least=WIDTH).print(table)
    for note in (note for spec in specs for note in notes_on(spec)):
        console().print(note, highlight=False, markup=False, soft_wrap=True)


def notes_on(spec: ModelSpec) -> Iterator[str]:
    """Yield what a reader of a model's numbers should know: parts left out, and a total that is not the stated one."""
    if spec.left_out:
        yield f"note: {spec.name}: left out: {'; '.join(spec.left_out)}."
    deviation = params.deviation_from_published(spec)
    if abs(deviation) > params.NOTED_DEVIATION:
        total = params.parameter_counts(spec.architecture).total / 1e9
        stated = f"{total:.2f} B parameters are counted, {deviation:+.1%} off the total that is stated"
        yield f"note: {spec.name}: {stated}. Check its widths, layers and experts, or its notes."


def read_checkpoint(path: Path, name: str | None) -> tuple[ModelSpec, dict[str, Any]]:
    """Read a config.json, or that of a folder; returns the model and its file's fields, JSON-like."""
    # Only what reads a config.json needs the families.
    from prophet_moe.catalog.hugging_face import import_config

    config = path / "config.json" if path.is_dir() else path
    fields = _with_formats(_read_limited(config, LARGEST_CONFIG, "config.json"), config.parent / FORMATS)
    found = import_config(fields, str(config))
    repository = fields.get("_name_or_path")
    document: dict[str, Any] = {"name": name or _name_of(config), "published_name": name or _name_of(config)}
    if isinstance(repository, str) and repository.count("/") == 1 and not repository.startswith((".", "/")):
        document["hugging_face"] = repository
    document["sources"] = [f"{config.name} of the checkpoint, model_type {found.model_type}"]
    if found.notes:
        document["notes"] = found.notes
    if found.left_out:
        document["left_out"] = found.left_out
    if formats := found.precision.model_dump(mode="json", exclude_defaults=True):
        document["precision"] = formats
    document["architecture"] = found.architecture.model_dump(mode="json", exclude_defaults=True)
    return validate(ModelSpec, document, str(config), "Correct the config.json."), document


def _with_formats(fields: Any, formats: Path) -> Any:
    """Return the fields of a config.json with the formats that ModelOpt wrote beside it, where it has none itself."""
    if not isinstance(fields, dict) or "quantization_config" in fields or not formats.exists():
        return fields
    return fields | {"quantization_config": {"quant_method": "modelopt"} | _mapping(formats)}


def _mapping(formats: Path) -> dict[str, Any]:
    document = _read_limited(formats, LARGEST_CONFIG, formats.name)
    if not isinstance(document, dict):
        raise UserError(str(formats), f"holds {type(document).__name__}, expected a mapping of fields", "Correct it.")
    return document


def _name_of(config: Path) -> str:
    return config.resolve().parent.name if config.name == "config.json" else config.stem.removesuffix("_config")


def _read_limited(path: Path, most: float, what: str) -> Any:
    try:
        size = path.stat().st_size
    except OSError:
        size = 0  # Reading it tells what is wrong.
    if size > most:
        problem = f"has {size / MB:,.0f} MB, expected a {what} of at most {most / MB:.0f} MB"
        raise UserError(str(path), problem, "Name another file.")
    return read_json(path)


def import_model(arguments: argparse.Namespace) -> None:
    """Write or print a model's file, and say what was counted and what is left out."""
    out = arguments.out
    name = arguments.name or (out.stem if out else None)
    if out and out.stem != name:
        raise UserError("--name", f"got {name!r}, expected {out.stem!r}, the name of --out", "Make them equal.")
    spec, document = read_checkpoint(arguments.config, name)
    _write(document, out)
    report = errors()
    for line in _told(spec, arguments.config):
        report.print(line, highlight=False, markup=False, soft_wrap=True)


def _told(spec: ModelSpec, config: Path) -> Iterator[str]:
    found = described(spec)
    kind = (
        "dense: it has no experts to offload" if found["dense"] else f"{found['experts']} experts, top {found['top_k']}"
    )
    counted = f"{found['total_parameters']:,} parameters, {found['active_parameters']:,} active"
    yield f"{spec.name} ({kind}): {counted}."
    cache = f"{found['kv_bytes_per_token_growing']:,} B per token, {found['kv_bytes_bounded']:,} B in windows"
    yield f"KV cache of 16 bits: {cache}; state: {found['state_bytes']:,} B per sequence."
    yield f"Checkpoint: {found['checkpoint_bytes']:,} B ({found['formats'].partition(', KV')[0]})."
    yield from (f"Note: {note}." for note in spec.notes)
    yield from (f"Left out: {part}." for part in spec.left_out)
    index = (config if config.is_dir() else config.parent) / INDEX
    if index.exists():
        yield _compared(found["checkpoint_bytes"], index)


def _compared(counted: int, index: Path) -> str:
    document = _read_limited(index, LARGEST_INDEX, "index of weights")
    total = document.get("metadata", {}).get("total_size") if isinstance(document, dict) else None
    if not isinstance(total, int | float) or total <= 0:
        return f"{index.name} does not state total_size: nothing to compare."
    return f"{index.name} states {total:,.0f} B: {counted / total - 1:+.3%} are counted."


def convert_model(arguments: argparse.Namespace) -> None:
    """Write or print an old file in today's form."""
    # Only this command needs the old form.
    from prophet_moe.catalog.old_form import converted

    document = converted(read_yaml(arguments.file), str(arguments.file))
    _write(document, arguments.out)
    reported = document.get("reported")
    if isinstance(reported, dict) and "model" not in reported:
        note = "note: `reported` needs the key `model`, the name of the report's model; or remove the block."
        errors().print(note, highlight=False, markup=False, soft_wrap=True)


def _write(document: dict[str, Any], out: Path | None) -> None:
    # Only what writes a file needs its form.
    from prophet_moe.catalog.writing import model_text

    if out is None:
        print(model_text(document), end="")
        return
    if out.exists():
        raise UserError(str(out), "exists already", "Name another --out, or remove that file.")
    parents = out.resolve().parent
    above = "../" * len(parents.relative_to(Path.cwd()).parts) if parents.is_relative_to(Path.cwd()) else ""
    write_text(out, model_text(document, above))

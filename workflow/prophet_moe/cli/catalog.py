"""Commands about models, GPUs and the configuration."""

import argparse
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from prophet_moe import params
from prophet_moe.catalog import load_models
from prophet_moe.cli.terminal import console
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.units import GB

MODELS, GPUS, EXPERIMENT = Path("config/models"), Path("config/gpus.yaml"), Path("config/experiment.yaml")
HARDWARE = Path("resources/hardware")


def add_commands(commands: Any) -> None:
    """Add the commands `models` and `config` to the parser."""
    models = commands.add_parser(
        "models",
        help="list the catalogue with exact counts",
        description="Print one line per model of config/models/. B are 10^9 parameters, GB 10^9 and MB 10^6 bytes at "
        "16 bits. Active parameters are those that one token uses. Published is the authors' total. A count "
        "that differs by more than 1 %, beyond rounding, is noted below the table.",
        epilog="example: prophet-moe models",
    )
    models.set_defaults(run=list_models)

    config = commands.add_parser("config", help="write or check the generated schemas and reference pages")
    config.add_argument("action", choices=["write", "check"])
    config.set_defaults(run=generated_documents)


def list_models(arguments: argparse.Namespace) -> None:
    """Print one line per model."""
    specs = load_models(MODELS)
    table = Table(
        Column("model", min_width=max(map(len, specs), default=0)),
        "total (B)",
        "published (B)",
        "active (B)",
        "MoE layers",
        "E",
        "k",
        "expert (MB)",
        "non-expert (GB)",
        "KV (B/token)",
        "native context",
    )
    notes = []
    for name, spec in specs.items():
        arch = spec.architecture
        counts = params.parameter_counts(arch)
        deviation = params.deviation_from_published(spec)
        if abs(deviation) > params.NOTED_DEVIATION:
            stated = f"{counts.total / 1e9:.2f} B parameters are counted, {deviation:+.1%} off the total that is stated"
            notes.append(f"note: {MODELS / name}.yaml: {stated}. Check its widths, layers and experts.")
        table.add_row(
            name,
            f"{counts.total / 1e9:.2f}",
            f"{spec.published_total_b:g}",
            f"{params.active_parameters(arch) / 1e9:.2f}",
            str(params.moe_layers(arch)),
            str(arch.moe.experts),
            str(arch.moe.top_k),
            f"{2 * params.expert_parameters(arch) / 1e6:.1f}",
            f"{2 * counts.non_expert / GB:.2f}",
            f"{params.kv_bytes_per_token(arch):,}",
            f"{arch.native_context:,}",
        )
    console().print(table)
    for note in notes:
        console().print(note, highlight=False, markup=False, soft_wrap=True)


def generated_documents(arguments: argparse.Namespace) -> None:
    """Write the schemas and reference pages, or say which differ from their source."""
    # Only this command needs what is documented, pandas among it.
    from prophet_moe.present.documentation import documents

    for path, text in documents().items():
        if arguments.action == "write":
            write_text(path, text)
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            raise UserError(
                str(path), "differs from its source in workflow/prophet_moe", "Run: prophet-moe config write"
            )

"""The command about the configuration, and the files that commands read."""

import argparse
from pathlib import Path
from typing import Any

from prophet_moe.errors import UserError
from prophet_moe.files import write_text

MODELS, GPUS, EXPERIMENT = Path("config/models"), Path("config/gpus.yaml"), Path("config/experiment.yaml")
HARDWARE, OPERATORS = Path("resources/hardware"), Path("resources/operators")
LINKS = Path("config/links.yaml")
ENGINES, MODEL_NAMES = Path("config/engines"), Path("config/model_names.yaml")


def add_commands(commands: Any) -> None:
    """Add the command `config` to the parser."""
    config = commands.add_parser("config", help="write or check the generated schemas and reference pages")
    config.add_argument("action", choices=["write", "check"])
    config.set_defaults(run=generated_documents)


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

"""The command line that all workflow scripts share: files in, files out, parameters, and a sidecar for every output."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prophet_moe.errors import exit_on_user_error
from prophet_moe.files import temporary_path
from prophet_moe.provenance.sidecar import origin, write_sidecar


def run(
    build: Callable[[SimpleNamespace, dict[str, Any]], None],
    reads: Sequence[str] = (),
    reads_many: Sequence[str] = (),
    reads_any: Sequence[str] = (),
    writes: Sequence[str] = (),
) -> None:
    """Run `build(files, parameters)` as a command.

    `reads` and `writes` name options of one path each, `reads_many` of one or more, `reads_any` of none or more; they
    are attributes of `files`, along with `files.config_hash`. A UserError ends the command with one line and exit
    code 1.
    """
    parser = argparse.ArgumentParser(description=sys.modules[build.__module__].__doc__)
    for name in reads:
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE")
    for name in reads_many:
        parser.add_argument(f"--{name}", type=Path, required=True, nargs="+", metavar="FILE")
    for name in reads_any:
        parser.add_argument(f"--{name}", type=Path, default=[], nargs="*", metavar="FILE")
    for name in writes:
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="OUTPUT")
    parser.add_argument("--parameters", type=json.loads, default={}, metavar="JSON", help="parameters of the output")
    parser.add_argument("--rule", default="", help="the rule that runs this command, for the sidecars")
    parser.add_argument("--code", type=Path, nargs="+", default=[], metavar="FILE", help="code, for the sidecars")
    files = parser.parse_args()

    several = (*reads_many, *reads_any)
    inputs = [getattr(files, name) for name in reads] + [path for name in several for path in getattr(files, name)]
    outputs = [getattr(files, name) for name in writes]
    try:
        with exit_on_user_error():
            made_from = origin(files.rule, inputs, files.code, files.parameters)
            files.config_hash = made_from["config_hash"]
            build(files, files.parameters)
            for output in outputs:
                write_sidecar(output, made_from)
    finally:
        # What another process of this job, such as a notebook's kernel, left when it was stopped.
        for output in outputs:
            temporary_path(output).unlink(missing_ok=True)

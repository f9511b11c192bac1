"""Compile a document with latexmk, the same bytes every time."""

import os
import subprocess
import sys
from pathlib import Path

from prophet_moe.errors import UserError


def typeset(main: Path) -> None:
    """Run latexmk beside `main`, without what an earlier run left; what TeX refuses is a UserError.

    The log of TeX goes to standard output.
    """
    command = ["latexmk", "-gg", "-cd", "-pdf", "-interaction=nonstopmode", "-halt-on-error", str(main)]
    done = subprocess.run(
        command,
        env=os.environ | {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout + done.stderr)
    if done.returncode != 0:
        first = next((line for line in done.stdout.splitlines() if line.startswith("!")), "latexmk failed")
        raise UserError(str(main), first.removeprefix("! ").rstrip("."), "The log of TeX stands above.")

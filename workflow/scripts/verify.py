"""Recompute the hashes behind every output, compare with the committed copies, and print a table of PASS and FAIL."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from prophet_moe.errors import exit_on_user_error
from prophet_moe.present.documentation import declared_tables
from prophet_moe.provenance.verify import failures, remedies, verify
from prophet_moe.tables import tolerances


def main():
    """Check the outputs given; exit code 1 when one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("outputs", type=Path, nargs="+")
    with exit_on_user_error():
        allowed = tolerances(declared_tables())
        checks = [verify(output, allowed) for output in parser.parse_args().outputs]

    table = Table("", "output", "sidecar", "committed copy")
    for check in checks:
        table.add_row("PASS" if check.passed else "FAIL", check.output, check.sidecar, check.committed)
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    failed = failures(checks)
    print(f"{len(checks) - len(failed)} PASS, {len(failed)} FAIL")
    for command in remedies(checks):
        print(f"To mend what failed by its sidecar: {command}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

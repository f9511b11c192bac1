"""The command `compare`: the outputs of a named run and the committed ones."""

import argparse
from typing import Any

from rich.table import Table

from prophet_moe.cli.terminal import console


def add_commands(commands: Any) -> None:
    """Add the command `compare` to the parser."""
    compare = commands.add_parser(
        "compare",
        help="compare the outputs of a named run with the committed ones",
        epilog="example: prophet-moe compare talk, after a build with an overlay that holds `name: talk`",
    )
    compare.add_argument("name", help="the `name` in the run's overlay; its outputs are in results/runs/NAME/")
    compare.set_defaults(run=compare_with_committed)


def compare_with_committed(arguments: argparse.Namespace) -> None:
    """Print what differs by table and column, and write a page with the figures side by side."""
    # Only this command needs pandas, whose import takes a while.
    from prophet_moe.provenance.compare import cells, compare_run, write_page

    differences = compare_run(arguments.name)
    changed = [difference for difference in differences if difference.verdict != "the same"]
    table = Table("output", "column", "rows that differ", "largest relative difference")
    for difference in changed:
        table.add_row(difference.output, difference.verdict)
        for column in difference.columns:
            table.add_row("", *cells(column))
    console().print(table)
    print(
        f"This run built {len(differences)} figures and tables; {len(differences) - len(changed)} of them are the same."
    )
    print(f"Side by side: {write_page(arguments.name, differences)}")

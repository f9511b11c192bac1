"""The command line `prophet-moe`: ask the library without the workflow. Run it from the project's root."""

import argparse

from prophet_moe.cli import catalog, compare, sim, trace
from prophet_moe.errors import ends_in_one_line


def main() -> None:
    """Run one subcommand; a user's mistake ends in one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="prophet-moe", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    catalog.add_commands(commands)
    trace.add_commands(commands)
    sim.add_commands(commands)
    compare.add_commands(commands)
    arguments = parser.parse_args()
    with ends_in_one_line():
        arguments.run(arguments)

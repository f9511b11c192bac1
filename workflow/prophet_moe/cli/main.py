"""The command line `prophet-moe`: use the library without the workflow. Run it from the project's root."""

import argparse
from typing import NoReturn

from prophet_moe.cli import capacity, catalog, compare, kick_the_tires, model, observe, plan, sim, times, trace
from prophet_moe.errors import UserError, exit_on_lost_output, exit_on_user_error

EXAMPLES = """\
examples:
  prophet-moe models
  prophet-moe model import config.json --out config/models/current/mine.yaml
  prophet-moe capacity --model Mixtral-8x7B --gpu A100-80GB --batch 1 16
  prophet-moe plan --model gpt-oss-120b --gpu RTX5090-32GB --context 8192 65536
  prophet-moe trace describe resources/traces/small-6x8-top2
  prophet-moe observe check resources/observations/memory.csv --kind memory
  prophet-moe sim run --trace small-12x128-top1 --strategy prophet --capacity 64 --batch 8

prophet-moe COMMAND --help lists options, units and defaults."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors end in one line, like every other mistake of a user."""

    def error(self, message: str) -> NoReturn:
        """Raise the error of argparse as a UserError."""
        raise UserError(self.prog, " ".join(message.split()), f"See: {self.prog} --help")


class Version(argparse.Action):
    """Print the version of the package and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Look up the version only when it is requested, because this takes a while."""
        from importlib.metadata import version

        print(f"prophet-moe {version('prophet-moe')}")
        parser.exit()


def command_line() -> Parser:
    """Return the parser of `prophet-moe` with all of its subcommands."""
    parser = Parser(
        prog="prophet-moe",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    model.add_commands(commands)
    catalog.add_commands(commands)
    capacity.add_command(commands)
    plan.add_command(commands)
    trace.add_commands(commands)
    sim.add_commands(commands)
    times.add_commands(commands)
    compare.add_commands(commands)
    observe.add_commands(commands)
    kick_the_tires.add_command(commands)
    return parser


def main() -> None:
    """Run one subcommand; a user's mistake ends in one line and exit code 1."""
    with exit_on_lost_output(), exit_on_user_error():
        arguments = command_line().parse_args()
        if not catalog.EXPERIMENT.exists():
            raise UserError(str(catalog.EXPERIMENT), "no such file", "Run it in the project's folder.")
        arguments.run(arguments)

"""The command line `python -m prophet_moe.collect`, for the machine with the model."""

import argparse
import sys
from pathlib import Path

from prophet_moe.errors import UserError, ends_in_one_line

# Downloaded packages, and models while they train; not committed.
WORK = Path("results/collect")


def main() -> None:
    """Run one subcommand; a user's mistake ends in one line and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m prophet_moe.collect", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    corpus = commands.add_parser("corpus", help="download the packages of the corpus")
    _add_plan(corpus)
    corpus.set_defaults(run=fetch_corpus)

    train = commands.add_parser("train", help="train a small MoE model of the plan; goes on where it was stopped")
    train.add_argument("model", help="a name under `models` of the plan")
    _add_plan(train)
    train.set_defaults(run=train_model)

    arguments = parser.parse_args()
    with ends_in_one_line():
        arguments.run(arguments)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, default=Path("config/collect.yaml"), metavar="FILE")
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help=f"default: {WORK}")


def fetch_corpus(arguments: argparse.Namespace) -> None:
    """Download the packages of the corpus."""
    from prophet_moe.collect import corpus
    from prophet_moe.collect.plan import read_plan

    corpus.fetch(read_plan(arguments.plan).corpus, arguments.work / "corpus")


def train_model(arguments: argparse.Namespace) -> None:
    """Train one model of the plan, unless it is there already."""
    from prophet_moe.collect import train
    from prophet_moe.collect.plan import read_plan

    plan = read_plan(arguments.plan)
    if arguments.model not in plan.models:
        raise UserError(str(arguments.plan), f"no model {arguments.model!r}; has {', '.join(plan.models)}", "Correct it.")
    folder = arguments.work / arguments.model
    made_from = train.fingerprint(plan, arguments.model)
    if train.is_trained(folder, made_from):
        print(f"{folder} holds the trained model already", file=sys.stderr)
        return
    encoded = train.prepared_corpus(plan, arguments.work)
    train.train(plan.models[arguments.model], encoded, folder, arguments.model, made_from)


if __name__ == "__main__":
    main()

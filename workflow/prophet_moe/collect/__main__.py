"""The command line `python -m prophet_moe.collect`, for the machine with the model."""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from prophet_moe.collect.plan import read_as, read_plan
from prophet_moe.errors import UserError, exit_on_lost_output, exit_on_user_error
from prophet_moe.files import write_json

WORK = Path("results/collect")
"""Where packages and models are kept while they are needed; not committed."""
PLAN = Path("config/collect.yaml")
PREDICTOR = Path("config/predictor.yaml")
CAMPAIGN = Path("config/measurements/campaign.yaml")
MEASUREMENTS = {
    "hardware": "measure transfers, copies and kernels of this GPU",
    "memory": "measure the memory of real architectures with random weights",
    "prefetch": "replay a trace with expert weights in host memory, policy by policy",
    "overhead": "measure what recording a trace costs decode steps",
}
"""Measurements of this machine, each a module of its name: what it does."""


def command_line() -> argparse.ArgumentParser:
    """Return the parser of `python -m prophet_moe.collect` with all of its subcommands."""
    parser = argparse.ArgumentParser(prog="python -m prophet_moe.collect", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    corpus = commands.add_parser("corpus", help="download the packages that the corpus is made of")
    _add_plan(corpus)
    corpus.set_defaults(run=fetch_corpus)

    train = commands.add_parser("train", help="train a small MoE model of the plan; goes on where it was stopped")
    train.add_argument("model", help="a name under `models` of the plan")
    _add_plan(train)
    train.set_defaults(run=train_model)

    trace = commands.add_parser("trace", help="record which experts a model chooses; goes on where it was stopped")
    trace.add_argument("model", help="a folder or hub id of a Transformers MoE model")
    trace.add_argument("--name", help="the model's name in the trace; default: the last part of MODEL")
    trace.add_argument("--prompts", type=Path, required=True, metavar="JSONL", help='lines of {"text": ...}')
    trace.add_argument("--out", type=Path, required=True, metavar="DIR")
    trace.add_argument(
        "--decode", choices=["sample", "greedy", "text"], default="sample", help="text: the continuation"
    )
    trace.add_argument("--decode-tokens", type=_positive, default=256, metavar="N", help="default: 256")
    trace.add_argument("--prompt-tokens", type=_positive, default=2048, metavar="N", help="cut prompts; default: 2048")
    trace.add_argument("--batch", type=_positive, default=8, metavar="N", help="sequences at once; default: 8")
    trace.add_argument("--limit", type=_positive, metavar="N", help="the first N prompts only")
    trace.add_argument("--hidden", type=int, default=0, metavar="N", help="keep router inputs of N tokens too")
    trace.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    trace.add_argument("--seed", type=int, default=0)
    trace.add_argument("--licence", default="unstated", help="licence of the trace, kept in its metadata")
    trace.add_argument("--verify-overhead", action="store_true", help="measure what recording costs, too")
    trace.set_defaults(run=collect_trace)

    predictor = commands.add_parser(
        "predictor", help="train Prophet's predictor on a trace; goes on where it was stopped"
    )
    predictor.add_argument("trace", type=Path, metavar="TRACE", help="a folder with a trace")
    predictor.add_argument("--plan", type=Path, default=PREDICTOR, metavar="FILE", help=f"default: {PREDICTOR}")
    predictor.add_argument("--out", type=Path, required=True, metavar="DIR")
    predictor.set_defaults(run=train_predictor)

    for name, summary in MEASUREMENTS.items():
        measurement = commands.add_parser(name, help=f"{summary}; goes on where it was stopped")
        plan = Path(f"config/measurements/{name}.yaml")
        measurement.add_argument("--plan", type=Path, default=plan, metavar="FILE", help=f"default: {plan}")
        measurement.add_argument("--out", type=Path, required=True, metavar="DIR")
        measurement.set_defaults(run=measure, measurement=name)

    campaign = commands.add_parser(
        "campaign", help=f"{', '.join(MEASUREMENTS)} within some minutes; goes on where it was stopped"
    )
    campaign.description = (
        "Run all measurements within a budget, each in a process of its own, those worth most first; in their short "
        "form where the full one does not fit. What is whole is kept. The exit code is 0 when all of them are whole."
    )
    campaign.add_argument("--minutes", type=_minutes, required=True, metavar="N", help="all that may be spent")
    campaign.add_argument("--plan", type=Path, default=CAMPAIGN, metavar="FILE", help=f"default: {CAMPAIGN}")
    campaign.add_argument("--name", help="the GPU's name; default: that in config/gpus.yaml")
    campaign.add_argument("--out", type=Path, metavar="DIR", help="default: `out` of the plan")
    campaign.add_argument("--dry-run", action="store_true", help="say what would be run, and run nothing")
    campaign.set_defaults(run=run_campaign)

    described = commands.add_parser("machine", help="print the device, its memory and the versions, a line of JSON")
    described.set_defaults(run=describe_machine)
    return parser


def main() -> None:
    """Run one subcommand; a user's mistake ends in one line and exit code 1."""
    with exit_on_lost_output(), exit_on_user_error():
        arguments = command_line().parse_args()
        try:
            arguments.run(arguments)
        except ModuleNotFoundError as error:
            raise _without(error) from None
        except KeyboardInterrupt:
            sys.exit("interrupted")


def _without(error: ModuleNotFoundError) -> UserError:
    """Say which package this Python lacks, and which Python has it."""
    advice = "Run: make gpu; then use .venv-gpu/bin/python, or another Python with PyTorch and Transformers."
    return UserError(sys.executable, f"has no package {error.name!r}", advice)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, default=PLAN, metavar="FILE", help=f"default: {PLAN}")
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help=f"default: {WORK}")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {number}, expected at least 1")
    return number


def _minutes(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, expected a number above 0")
    return number


def fetch_corpus(arguments: argparse.Namespace) -> None:
    """Download the packages that the texts of the corpus are taken from."""
    from prophet_moe.collect import corpus

    corpus.fetch(read_plan(arguments.plan).corpus, arguments.work / "corpus")


def train_model(arguments: argparse.Namespace) -> None:
    """Train one model of the plan, unless it is there already, and write the prompts that its trace is made of."""
    from prophet_moe.collect import prompts, train

    plan = read_plan(arguments.plan)
    if arguments.model not in plan.models:
        raise UserError(
            str(arguments.plan),
            f"no model {arguments.model!r}, expected one of {', '.join(plan.models)}",
            "Correct it.",
        )
    folder = arguments.work / arguments.model
    made_from = train.fingerprint(plan, arguments.model)
    corpus = train.prepared_corpus(plan, arguments.work)
    if not train.is_trained(folder, made_from):
        train.train(plan.models[arguments.model], corpus, folder, arguments.model, made_from)
    prompts.write_held_out(folder / "prompts.jsonl", corpus.held_out, plan.models[arguments.model].trace)


def collect_trace(arguments: argparse.Namespace) -> None:
    """Collect the trace of one model as the command line asks."""
    from transformers import AutoTokenizer

    from prophet_moe.collect import machine, overhead, prompts, trace
    from prophet_moe.collect.decoding import Decoding
    from prophet_moe.routing.trace import Origin

    model = trace.load_model(arguments.model, arguments.dtype)
    read, about = prompts.read_prompts(
        arguments.prompts,
        lambda text: AutoTokenizer.from_pretrained(arguments.model)(text)["input_ids"],
        most_tokens=arguments.prompt_tokens,
        limit=arguments.limit,
    )
    notes = {"machine": machine.described(), "dtype": arguments.dtype, "decode": arguments.decode}
    notes["sequences"] = about
    training = Path(arguments.model) / "training.json"
    if training.exists():
        notes["training"] = json.loads(training.read_text())
    job = trace.Job(
        read, Decoding(arguments.decode, arguments.decode_tokens, arguments.seed), arguments.batch, arguments.hidden
    )
    name = arguments.name or Path(arguments.model).name
    begun = time.perf_counter()
    source = f"recorded by this project from {name}"
    trace.collect(model, name, job, Origin(source, arguments.licence, "", machine.collector(), notes), arguments.out)
    print(f"{arguments.out}: complete after {time.perf_counter() - begun:,.0f} s", file=sys.stderr)
    if arguments.verify_overhead:
        measured = overhead.measure(model, (1, 16), rounds=20, steps=64)
        write_json(arguments.out / "overhead.json", {"machine": machine.described(), "hooks": measured})
        for result in measured:
            print(f"recording at batch {result['batch']}: {result['ratio']:.3f} times the time", file=sys.stderr)


def train_predictor(arguments: argparse.Namespace) -> None:
    """Train the predictor of one trace as the command line asks."""
    from prophet_moe.collect import predictor

    predictor.train(arguments.trace, read_as(predictor.Plan, arguments.plan), arguments.out)


def measure(arguments: argparse.Namespace) -> None:
    """Make the one of the MEASUREMENTS that the command line names."""
    module = importlib.import_module(f"prophet_moe.collect.{arguments.measurement}")
    module.collect(read_as(module.Plan, arguments.plan), arguments.out)


def run_campaign(arguments: argparse.Namespace) -> None:
    """Run the MEASUREMENTS that the campaign's plan names within the budget; exit code 1 unless all are whole."""
    from prophet_moe.collect import campaign

    begun, seconds = time.monotonic(), 60 * arguments.minutes
    plan = campaign.read(arguments.plan, MEASUREMENTS)
    out = arguments.out or Path(plan.out)
    if arguments.dry_run and arguments.name:
        print("\n".join(campaign.planned(plan, arguments.name, out, seconds)))
        return
    machine = campaign.probe()
    if plan.needs_gpu and machine["device"] == "cpu":
        advice = f"To try a campaign without one: --plan {CAMPAIGN.with_stem('campaign_quick')}"
        raise UserError("machine", "PyTorch sees no GPU", advice)
    name = arguments.name or campaign.name_of(machine)
    if arguments.dry_run:
        print("\n".join(campaign.planned(plan, name, out, seconds)))
        return
    summary = campaign.run(plan, name, out, seconds, machine, begun)
    print("\n".join(campaign.described(summary)))
    sys.exit(not summary["whole"])


def describe_machine(arguments: argparse.Namespace) -> None:
    """Print what measurements say of this machine, as a line of JSON."""
    from prophet_moe.collect import machine

    print(json.dumps(machine.described()))


if __name__ == "__main__":
    main()

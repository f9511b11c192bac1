"""Commands about times: fit operators and constants of estimates, and hold estimates against what others timed."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.cli.catalog import GPUS, MODELS
from prophet_moe.cli.model import CURRENT, find_model
from prophet_moe.cli.terminal import console
from prophet_moe.cli.trace import DATASETS
from prophet_moe.cli.values import between, whole
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.precision import FORMATS, KV_FORMATS
from prophet_moe.routing import datasets
from prophet_moe.settings.fields import LARGEST_BATCH, LARGEST_CONTEXT
from prophet_moe.settings.scenario import Formats

if TYPE_CHECKING:
    import pandas as pd

    from prophet_moe.observed.times import Known

OBSERVED, TABLES = Path("resources/observations/times.csv"), "aiconfigurator-operators"
FOLDERS = {"A100-80GB": "a100_sxm", "H100-80GB": "h100_sxm", "H200-141GB": "h200_sxm"}
"""Folders of the tables by GPU."""


def add_commands(commands: Any) -> None:
    """Add the command `times` to the parser."""
    times = commands.add_parser("times", help="fit estimates of time to published measurements, and check them")
    actions = times.add_subparsers(required=True, metavar="ACTION")
    fit = actions.add_parser(
        "fit",
        help="fit operators and constants, and write them to resources/operators/",
        description="Fit the operators of each GPU to the tables of the dataset aiconfigurator-operators, where it is "
        "available locally, and the constants of estimates to the clean rows of resources/observations/times.csv.",
        epilog="example: PROPHET_DATA=/where/it/lies prophet-moe times fit",
    )
    fit.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: resources/operators)")
    fit.set_defaults(run=fit_times)
    check = actions.add_parser(
        "check",
        help="hold estimates against published times, groups left out",
        description="Print how far laws of time are from rows that they have not seen: constants are fitted to all "
        "rows but those of one model, engine and GPU, which are then predicted. Rows of a file of your own are "
        f"predicted from those of {OBSERVED}. Rows that are not clean do not count.",
        epilog="examples: prophet-moe times check\n          prophet-moe times check mine.csv --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("file", nargs="?", type=Path, default=OBSERVED, help=f"observations (default: {OBSERVED})")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=check_times)

    step = actions.add_parser(
        "step",
        help="estimate a decode step of a model on one GPU or several",
        description="Print the bound and the estimate of a decode step with all experts resident, its interval of 90 % "
        "and its parts, in ms. Distinct experts are those of uniform occupancy unless they are given.",
        epilog="example: prophet-moe times step --model gpt-oss-120b --gpu H200-141GB --gpus 2 --batch 1 16 64",
    )
    add = step.add_argument
    add("--model", required=True, metavar="NAME|FILE", help="a model of the catalogue, its file, or a config.json")
    add("--gpu", required=True, metavar="NAME", help="a GPU of config/gpus.yaml")
    add("--gpus", type=whole("--gpus", 1, 1024), default=1, metavar="N", help="GPUs that share the model (default: 1)")
    add("--whole-experts", action="store_true", help="a GPU has whole experts, not a part of each")
    batch = whole("--batch", 1, LARGEST_BATCH)
    add("--batch", nargs="+", type=batch, default=[1], metavar="B", help="sequences that decode together (default: 1)")
    context = whole("--context", 1, LARGEST_CONTEXT)
    add("--context", type=context, default=4096, metavar="TOKENS", help="cached tokens of each (default: 4096)")
    formats = f"format of weights: shipped, or {', '.join(FORMATS)} (default: shipped)"
    add("--format", choices=["shipped", *FORMATS], default="shipped", metavar="FORMAT", help=formats)
    add("--kv-format", choices=list(KV_FORMATS), default="bf16", metavar="FORMAT", help="format of the KV cache")
    add("--unique-experts", type=between("--unique-experts", "experts", 1, LARGEST_BATCH), metavar="U", help="u(B)")
    add("--engine", default="", metavar="NAME", help="engine whose own residuals make the interval, where it has some")
    add("--json", action="store_true", help="print JSON: a list with one entry per batch size")
    step.set_defaults(run=estimate_times)


def estimate_times(arguments: argparse.Namespace) -> None:
    """Print the bound and the estimate of a step at every batch size."""
    from prophet_moe.hardware.estimate import Split, estimate_step, read_estimators
    from prophet_moe.observed.times import OPERATORS, uniform_experts

    spec, gpus = find_model(arguments.model), load_gpus(GPUS, [arguments.gpu])
    formats = Formats(precision=arguments.format, kv_format=arguments.kv_format)
    precision, split = formats.precision_of(spec.precision), Split(arguments.gpus, arguments.whole_experts)
    estimator = read_estimators(OPERATORS, gpus)[arguments.gpu]
    found = []
    for batch in arguments.batch:
        used = arguments.unique_experts or uniform_experts(spec.architecture, batch)
        step = estimate_step(
            estimator, spec.architecture, batch, arguments.context, used, precision, split, arguments.engine
        )
        times = {name: 1e3 * getattr(step, name) for name in ("bound", "seconds", "low", "high")}
        parts = {kind: 1e3 * seconds for kind, seconds in step.parts.items()}
        found.append({"batch": batch, "unique_experts": used, **times, "basis": step.basis, "parts": parts})
    if arguments.json:
        print(json.dumps([{"estimate" if k == "seconds" else k: v for k, v in row.items()} for row in found], indent=2))
        return
    kinds = list(found[0]["parts"])
    table = Table("batch", "u(B)", "bound ms", "estimate ms", "interval ms", *kinds)
    for row in found:
        interval = f"{row['low']:.3g} to {row['high']:.3g}"
        shown = (
            str(row["batch"]),
            f"{row['unique_experts']:.1f}",
            f"{row['bound']:.3g}",
            f"{row['seconds']:.3g}",
            interval,
        )
        table.add_row(*shown, *(f"{row['parts'][kind]:.3g}" for kind in kinds))
    console().print(table)
    console().print(f"{precision.named()}; estimates rest on {found[0]['basis']}.", soft_wrap=True, highlight=False)


def fit_times(arguments: argparse.Namespace) -> None:
    """Fit operators and constants, write them, and print the fits."""
    from prophet_moe.hardware.estimate import BARE, CONSTANTS
    from prophet_moe.hardware.operators import to_json
    from prophet_moe.observed import times

    out = arguments.out or times.OPERATORS
    gpus = load_gpus(GPUS)
    for gpu, operators in _fitted_operators(gpus).items():
        write_text(out / f"{gpu}.json", to_json(operators))
        table = Table(
            "operator", "format", "fixed us", "per expert us", "HBM share", "peak share", "rows", "error", "left out"
        )
        for fit in operators.fits:
            peak = "" if fit.peak_share is None else f"{fit.peak_share:.2f}"
            shown = f"{fit.fixed_us:.1f}", f"{fit.each_us:.2f}", f"{fit.hbm_share:.3f}", peak, str(fit.rows)
            table.add_row(fit.kind, fit.format, *shown, f"{fit.mean_error:.1%}", f"{fit.left_out_mean_error:.1%}")
        console().print(f"{out / gpu}.json")
        console().print(table)
    bare = times.Known(_models().get, gpus, times.fits(gpus, out), BARE)
    constants = times.fit_constants(times.features(_rows(OBSERVED), bare), str(OBSERVED))
    write_text(out / CONSTANTS, constants.model_dump_json(indent=2) + "\n")
    console().print(f"{out / CONSTANTS}: {constants.with_operators.layer_us:g} us per layer beside operators")


def _fitted_operators(gpus: Any) -> dict[str, Any]:
    """Return the fits of every GPU with tables; a UserError where they are not available locally."""
    from prophet_moe.hardware.operators import POINTS, fit_operators

    dataset = datasets.load_datasets(DATASETS).datasets[TABLES]
    paths = datasets.located(TABLES, dataset, datasets.data_folders())
    if paths is None:
        raise UserError(TABLES, "is not available locally", datasets.how_to_get(TABLES, dataset))
    datasets.check_files(dataset, paths)
    found = {}
    for gpu, folder in FOLDERS.items():
        tables, sums = {}, {}
        for file, path in zip(dataset.files, paths, strict=True):
            name = next((name for name in POINTS if file.path.startswith(f"operators/{folder}/{name}/vllm/")), None)
            if name:
                tables[name], sums[file.path] = path, file.sha256
        head = {"source": dataset.project, "commit": dataset.commit, "licence": dataset.licence, "files": sums}
        found[gpu] = fit_operators(gpu, gpus[gpu], tables, head)
    return found


def check_times(arguments: argparse.Namespace) -> None:
    """Print how far laws are from rows of groups that they have not seen, and the errors of estimates by group."""
    from prophet_moe.observed import times

    rows, known = _rows(arguments.file), _known()
    features = times.features(rows, known)
    fitted = None if arguments.file.resolve() == OBSERVED.resolve() else times.features(_rows(OBSERVED), known)
    if not features["clean"].any():
        raise UserError(
            str(arguments.file), "has no clean row that can be predicted", "Compare its rows with the docs."
        )
    judged, by_group = times.judged(features, fitted), times.by_group(features, fitted)
    found = times.predictions(rows, known)
    reasons = found.loc[found["left_out"] != "", "left_out"].value_counts()
    if arguments.json:
        told = {"laws": judged, "groups": by_group, "left_out": reasons.rename_axis("reason").reset_index(name="rows")}
        print(json.dumps({name: frame.to_dict("records") for name, frame in told.items()}, indent=2))
        return
    laws = Table("law", "", "rows", "within 20 %", "within 30 %", "mean error", "median", "p90")
    for row in judged.itertuples():
        errors = row.mean_error, row.median_error, row.p90_error
        shares = (f"{each:.1%}" for each in (row.within_20_pct, row.within_30_pct, *errors))
        laws.add_row(row.law, row.title, str(row.rows), *shares)
    groups = Table(
        "GPU", "engine", "model", "GPUs", "rows", "estimate / measured: median", "least", "most", "bound / measured"
    )
    for row in by_group.itertuples():
        names = row.gpu, row.engine, row.model, str(row.gpus), str(row.rows)
        groups.add_row(*names, *(f"{each:.2f}" for each in (row.median, row.least, row.most, row.bound)))
    console().print(laws, groups)
    for reason, count in reasons.items():
        console().print(f"left out, {count} rows: {reason}", soft_wrap=True, highlight=False)


def _rows(path: Path) -> "pd.DataFrame":
    import pandas as pd

    if not path.exists():
        raise UserError(str(path), "no such file", "Check the path.")
    from prophet_moe.observed.times import NEEDED

    try:
        rows = pd.read_csv(path)
    except ValueError as error:
        problem = f"malformed CSV: {' '.join(str(error).split())}"
        raise UserError(str(path), problem, "Mend the file.") from None
    missing = next((name for name in NEEDED if name not in rows), None)
    if missing is not None:
        raise UserError(str(path), f"has no column {missing!r}", f"Compare it with {OBSERVED}.")
    return rows


def _models() -> Any:
    return load_models(MODELS) | load_models(CURRENT)


def _known() -> "Known":
    from prophet_moe.observed import times

    return times.known(_models(), load_gpus(GPUS))

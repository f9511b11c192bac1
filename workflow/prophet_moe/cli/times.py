"""Commands about times: fit operators and constants of estimates, and hold estimates against what others timed."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from prophet_moe.catalog import load_gpus, load_models
from prophet_moe.cli.catalog import GPUS, MODELS
from prophet_moe.cli.model import CURRENT
from prophet_moe.cli.terminal import console
from prophet_moe.cli.trace import DATASETS
from prophet_moe.errors import UserError
from prophet_moe.files import write_text
from prophet_moe.routing import datasets

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
        "rows but those of one model, engine and GPU, which are then predicted. Rows that are not clean do not count.",
        epilog="examples: prophet-moe times check\n          prophet-moe times check mine.csv --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("file", nargs="?", type=Path, default=OBSERVED, help=f"observations (default: {OBSERVED})")
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=check_times)


def fit_times(arguments: argparse.Namespace) -> None:
    """Fit operators and constants, write them, and print the fits."""
    from prophet_moe.hardware.estimate import BARE
    from prophet_moe.observed import times

    out = arguments.out or times.OPERATORS
    gpus = load_gpus(GPUS)
    for gpu, operators in _fitted_operators(gpus).items():
        write_text(out / f"{gpu}.json", operators_json(operators))
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
    write_text(out / times.CONSTANTS, constants.model_dump_json(indent=2) + "\n")
    console().print(f"{out / times.CONSTANTS}: {constants.with_operators.layer_us:g} us per layer beside operators")


def _fitted_operators(gpus: Any) -> dict[str, Any]:
    """Return the fits of every GPU whose tables are available locally."""
    from prophet_moe.hardware.operators import POINTS, fit_operators

    dataset = datasets.load_datasets(DATASETS).datasets[TABLES]
    paths = datasets.located(TABLES, dataset, datasets.data_folders())
    if paths is None:
        raise UserError(TABLES, "is not available locally", datasets.how_to_get(TABLES, dataset))
    datasets.check_files(dataset, paths)
    by_path = {file.path: path for file, path in zip(dataset.files, paths, strict=True)}
    found = {}
    for gpu, folder in FOLDERS.items():
        named = {name: [p for p in by_path if p.startswith(f"operators/{folder}/{name}/vllm/")] for name in POINTS}
        used = [dataset.files[list(by_path).index(path)] for (path,) in named.values()]
        provenance = {
            "source": dataset.project,
            "commit": dataset.commit,
            "licence": dataset.licence,
            "files": {file.path: file.sha256 for file in used},
        }
        tables = {name: by_path[path] for name, (path,) in named.items()}
        found[gpu] = fit_operators(gpu, gpus[gpu], tables, provenance)
    return found


def operators_json(operators: Any) -> str:
    """Return the text of a file of fits."""
    from prophet_moe.hardware.operators import to_json

    return to_json(operators)


def check_times(arguments: argparse.Namespace) -> None:
    """Print how far laws are from rows of groups that they have not seen, and the errors of estimates by group."""
    from prophet_moe.observed import times

    rows, known = _rows(arguments.file), _known()
    judged = times.judged(times.features(rows, known))
    by_group = times.by_group(times.features(rows, known))
    reasons = times.predicted(rows, known)["left_out"].replace("", None).dropna().value_counts()
    if arguments.json:
        told = {"laws": judged, "groups": by_group, "left_out": reasons.rename_axis("reason").reset_index(name="rows")}
        print(json.dumps({name: frame.to_dict("records") for name, frame in told.items()}, indent=2))
        return
    laws = Table("law", "", "rows", "within 20 %", "within 30 %", "median error", "p90")
    for row in judged.itertuples():
        shares = (f"{each:.1%}" for each in (row.within_20_pct, row.within_30_pct, row.median_error, row.p90_error))
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
    return pd.read_csv(path, keep_default_na=True)


def _models() -> Any:
    return load_models(MODELS) | load_models(CURRENT)


def _known() -> "Known":
    from prophet_moe.observed import times

    return times.known(_models(), load_gpus(GPUS))

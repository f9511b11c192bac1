"""The commands `trace` and `data`: routing traces and datasets of other projects."""

import argparse
import math
from pathlib import Path
from typing import Any

from rich.table import Table

from prophet_moe.catalog import load_models
from prophet_moe.cli.terminal import console
from prophet_moe.errors import UserError
from prophet_moe.files import canonical_hash, sha256
from prophet_moe.routing import datasets, sequences, store
from prophet_moe.routing.importers import FORMATS, SELF_DESCRIBED, about, import_source
from prophet_moe.routing.importers.reading import REMARKS
from prophet_moe.routing.published import read_balancing, read_published
from prophet_moe.routing.trace import Counts, Origin, Trace

MODELS, DATASETS = Path("config/models"), Path("config/datasets.yaml")
TRACES = Path("resources/traces")
A_TRACE = f"a folder, or its name in {TRACES}/"
HELD = {"trace": "holds a trace already", "counts": "holds counts already"}
OBSERVATIONS, ROUTINGS = Path("resources/observations/hit_curves.csv"), Path("resources/routing")

EXAMPLES = """\
examples:
  prophet-moe trace describe resources/traces/small-6x8-top2
  prophet-moe trace import vllm_routed_experts records/ --model OLMoE-1B-7B --out resources/traces/mine --licence MIT

docs/formats.md describes each format."""


def add_commands(commands: Any) -> None:
    """Add the commands `trace` and `data` to the parser."""
    shown = {"epilog": EXAMPLES, "formatter_class": argparse.RawDescriptionHelpFormatter}
    trace = commands.add_parser("trace", help="import and describe routing traces", **shown).add_subparsers(
        required=True, metavar="ACTION"
    )
    imported = trace.add_parser(
        "import",
        help="turn a routing record of another program into a trace folder",
        epilog=f"{EXAMPLES}\n\nprophet-moe trace import FORMAT --help shows the format with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    imported.add_argument("-h", "--help", action=FormatHelp, nargs=0, help="show this, or a named format, and exit")
    imported.add_argument("format", choices=list(FORMATS))
    imported.add_argument("source", type=Path, help="a file or a folder")
    imported.add_argument("--model", required=True, help="a model of config/models/ or of config/datasets.yaml")
    imported.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder, or an empty one")
    imported.add_argument("--force", action="store_true", help="replace the trace in DIR")
    imported.add_argument(
        "--licence", default="unstated", help="licence of the source, kept in the metadata; default: unstated"
    )
    imported.add_argument("--hidden-layers", type=int, metavar="N", help="layers of the model, dense ones included")
    lines = imported.add_argument_group("for the format lines, if the file does not have it")
    lines.add_argument(
        "--columns",
        metavar="NAME=COLUMN,...",
        help="such as token=pos,layer=il,experts=e0..e5; without a header 1, 2, ...",
    )
    lines.add_argument("--experts", type=int, metavar="E", help="routed experts of a layer")
    lines.add_argument(
        "--top-k", type=int, metavar="K", help="experts of a token, where the run used fewer than the model"
    )
    lines.add_argument("--prompt-tokens", type=int, metavar="N", help="first tokens of every sequence (default 0)")
    imported.set_defaults(run=import_trace)
    described = trace.add_parser("describe", help="print statistics of the routing in a trace", **shown)
    described.add_argument("folder", type=trace_folder, metavar="TRACE", help=A_TRACE)
    described.set_defaults(run=describe_trace)
    curve = trace.add_parser("fit-curve", help="fit a synthetic routing to the published hit rates of a curve")
    curve.add_argument("curve", help="a name in resources/observations/hit_curves.csv")
    curve.add_argument("--out", type=Path, default=ROUTINGS, metavar="DIR", help=f"default: {ROUTINGS}")
    curve.set_defaults(run=fit_curve)

    data = commands.add_parser("data", help="list and download datasets of other projects")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="list all datasets, and where each is available locally").set_defaults(
        run=list_data
    )
    fetched = actions.add_parser("fetch", help="download a dataset that has a public address")
    fetched.add_argument("id")
    fetched.set_defaults(run=fetch_data)


class FormatHelp(argparse.Action):
    """Print the help of a parser and, after a format, the description of that format."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Print the help of the parser and exit."""
        parser.print_help()
        named = getattr(namespace, "format", None)
        if named in FORMATS:
            print(f"\nformat {named}:\n\n{about(named)}")
        parser.exit()


def trace_folder(text: str) -> Path:
    """The folder of the trace that a user calls `text`: a folder, or its name in resources/traces/."""
    return TRACES / text if not Path(text).exists() and (TRACES / text).exists() else Path(text)


def import_trace(arguments: argparse.Namespace) -> None:
    """Import a record and write it as a trace folder, or as counts where the source has no token order."""
    if not arguments.source.exists():
        raise UserError(str(arguments.source), "no such file or folder", "Check the path.")
    _check_out(arguments.out, force=arguments.force)
    listed = datasets.load_datasets(DATASETS)
    models = load_models(MODELS)
    router = datasets.known_router(arguments.model, models, listed) or arguments.model
    if isinstance(router, str) and arguments.format not in SELF_DESCRIBED:
        router = datasets.router_named(arguments.model, models, listed)
    origin = Origin(arguments.source.name, arguments.licence, _source_sha256(arguments.source))
    names = ("hidden_layers", "columns", "experts", "top_k", "prompt_tokens")
    options = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    read = import_source(arguments.format, arguments.source, router, origin, **options)
    store.clear(arguments.out)
    if isinstance(read, Trace):
        store.write_trace(arguments.out, read)
        shape = f"{len(read):,} tokens x {len(read.router.layers)} layers x {read.router.top_k}"
        console().print(f"{arguments.out}: {shape}")
    else:
        store.write_counts(arguments.out, read)
        console().print(f"{arguments.out}: counts only (the source has no token order), windows: {len(read.counts):,}")
    for remark in read.origin.notes.get(REMARKS, []):
        console().print(f"note: {remark}.", soft_wrap=True, markup=False)


def _check_out(folder: Path, *, force: bool) -> None:
    """Refuse a folder that holds something, unless it is a trace, or counts, that is to be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(str(folder), "is a file, expected a new folder", "Name another one.")
    held = store.kind_in(folder)
    if any(folder.iterdir()) and not (force and held):
        problem = HELD[held] if held else "holds other files, expected a new folder"
        raise UserError(str(folder), problem, "Name another one, or add --force." if held else "Name another one.")


def _source_sha256(source: Path) -> str:
    """SHA-256 of a file, or of the names and hashes of all files of a folder."""
    if source.is_file():
        return sha256(source)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return canonical_hash({str(path.relative_to(source)): sha256(path) for path in files})


def fit_curve(arguments: argparse.Namespace) -> None:
    """Fit a routing to a curve of published hit rates, write it, and print how far it is from each point."""
    # Only this command needs Numba and SciPy, whose imports take half a second.
    from prophet_moe.routing import calibrated

    observations = calibrated.read_observations(OBSERVATIONS)
    routing = calibrated.fit_observed(arguments.curve, observations, read_published(), read_balancing())
    path = calibrated.write_calibrated(routing, arguments.out)
    table = Table("resident", "tokens", "start", "lookup", "published hit rate", "error", "use", "source")
    for use, points in (("fit", routing.fitted), ("left out", routing.left_out)):
        for point in points:
            shown = (f"{point.resident_share:.1%}", str(point.tokens), point.start, point.lookup)
            table.add_row(*shown, f"{point.hit_rate:.3f}", f"{point.error:+.3f}", use, point.source)
    console().print(table)
    popularity = routing.popularity_cv
    interval = f"{popularity.low:g} to {popularity.high:g}"
    console().print(f"popularity CV {popularity.value:g} ({interval}): {popularity.source}")
    console().print(f"{path}: " + ", ".join(f"{name} {value:g}" for name, value in routing.scalars))


def list_data(arguments: argparse.Namespace) -> None:
    """Print the list of datasets, and where each is available locally."""
    table = Table("id", "kind", "licence", "MB", "available locally")
    folders = datasets.data_folders()
    for name, dataset in datasets.load_datasets(DATASETS).datasets.items():
        paths = datasets.located(name, dataset, folders)
        size = sum(file.bytes for file in dataset.files) / 1e6
        here = str(paths[0].parent) if paths else f"no: {datasets.how_to_get(name, dataset)}"
        table.add_row(name, dataset.kind, dataset.licence, f"{size:.1f}", here)
    console().print(table)


def fetch_data(arguments: argparse.Namespace) -> None:
    """Download the files of one data set and check them."""
    known = datasets.load_datasets(DATASETS).datasets
    if arguments.id not in known:
        raise UserError("id", f"unknown dataset {arguments.id!r}, expected one of {', '.join(known)}", "Correct it.")
    for path in datasets.fetch(arguments.id, known[arguments.id]):
        console().print(str(path))


def describe_trace(arguments: argparse.Namespace) -> None:
    """Print what a trace or counts folder holds."""
    metadata = store.read_metadata(arguments.folder)
    _describe_origin(arguments.folder, metadata)
    if metadata["kind"] == "counts":
        _describe_counts(store.read_counts(arguments.folder))
        return
    # Only this command needs Numba, whose import takes half a second.
    from prophet_moe.routing import long_traces
    from prophet_moe.routing.summary import summarise_described

    found = long_traces.describe(arguments.folder, metadata)
    for note in filter(None, [*sequences.caveats(found.trace), found.note]):
        console().print(f"note: {note}", highlight=False, soft_wrap=True)
    rows = [row for row in summarise_described(metadata["model"], found.trace, found.totals) if row.layer is None]
    simple = Table("statistic (mean over layers)", "value", "shuffled", "uniform")
    curves = Table("statistic (mean over layers)", "at", "value", "95 % interval", "shuffled", "uniform")
    for row in rows:
        if row.x is None:
            simple.add_row(row.statistic, *map(_shown, (row.value, row.control, row.uniform)))
        else:
            place = f"B = {row.x}" if row.x >= 1 and "distinct" in row.statistic else f"{100 * row.x:.4g} % of E"
            interval = "" if row.low is None else f"{_shown(row.low)} to {_shown(row.high)}"
            curves.add_row(row.statistic, place, _shown(row.value), interval, *map(_shown, (row.control, row.uniform)))
    console().print(simple, curves)


def _describe_origin(folder: Path, metadata: dict[str, Any]) -> None:
    layers = metadata["layers"]
    table = Table("", str(folder), show_header=True)
    table.add_row("model", metadata["model"])
    table.add_row("MoE layers", f"{len(layers)} ({layers[0]} to {layers[-1]})")
    table.add_row("experts, top-k", f"{metadata['experts']}, {metadata['top_k']}")
    for key in ("tokens", "sequences", "tokens_by_phase", "ranked", "windows"):
        if key in metadata:
            table.add_row(
                key.replace("_", " "), f"{metadata[key]:,}" if type(metadata[key]) is int else str(metadata[key])
            )
    for key in ("source", "licence", "source_sha256", "collector"):
        table.add_row(key, metadata[key])
    for remark in metadata["notes"].get(REMARKS, []):
        table.add_row("note", remark)
    for domain, losses in metadata["notes"].get("training", {}).get("nats_per_held_out_token", {}).items():
        template = "loss {loss:.3f}, unigram entropy {unigram_entropy:.3f}, bigram entropy {bigram_entropy:.3f}"
        table.add_row(f"held-out {domain}", template.format(**losses) + " nats per token")
    console().print(table)


def _describe_counts(counts: Counts) -> None:
    """Print load and popularity CV by layer, and u(B) by the measured popularity and by the law."""
    # Only describing needs Numba, whose import takes half a second.
    from prophet_moe.routing import counted
    from prophet_moe.routing.counted_law import beside_law

    shares = counted.popularity(counts)
    popularity_cv, chance = counted.popularity_cv(shares), counted.popularity_cv_by_chance(counts)
    table = Table("layer", "load max/mean", "experts never chosen", "popularity CV", "by chance")
    for row, layer in enumerate(counts.router.layers):
        load = f"{shares[row].max() / shares[row].mean():.2f}"
        never = str(int((shares[row] == 0).sum()))
        table.add_row(str(layer), load, never, f"{popularity_cv[row]:.3f}", f"{chance[row]:.3f}")
    table.add_row("all", "", "", f"{counted.overall(popularity_cv):.3f}", f"{counted.overall(chance):.3f}")
    console().print(table)
    law = beside_law(counts)
    curves = Table(
        "u(B), mean over layers",
        "by popularity",
        f"law at {law.measured:.3f} (popularity CV)",
        "error",
        f"law at {law.effective:.3f} (effective CV)",
        "error",
        "uniform",
    )
    for row in law.rows:
        cells = (_shown(row.skewed), _shown(row.at_measured), f"{row.measured_error:+.1%}")
        curves.add_row(
            f"B = {row.batch}", *cells, _shown(row.at_effective), f"{row.effective_error:+.1%}", _shown(row.uniform)
        )
    console().print(curves)
    interval = (
        "no interval: " + law.no_interval
        if law.interval is None
        else "95 % interval {:.3f} to {:.3f}".format(*law.interval)
    )
    console().print(
        f"effective CV for dirichlet_occupancy (key routing.variation): {law.effective:.3f}, {interval}.",
        soft_wrap=True,
    )


def _shown(value: float | None) -> str:
    return "" if value is None else "-" if math.isnan(value) else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"

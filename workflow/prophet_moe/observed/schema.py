"""Files of observations: their columns by kind, with units and bounds, and a reader that refuses impossible rows."""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic.fields import FieldInfo

from prophet_moe.errors import UserError
from prophet_moe.observed import hit_columns
from prophet_moe.routing.published import BATCHES, PublishedRouting
from prophet_moe.tables import Column, flag, integer, number, parsed, text
from prophet_moe.validation import read_csv, shortened

if TYPE_CHECKING:
    import pandas as pd

KindName = Literal["memory", "times", "hit_rates", "routing"]
"""Kinds of observations, and the names of their files in resources/observations/."""

MEND = "Mend that cell, or leave the row out."
EPSILON = 0.02
"""GiB by which printed terms may exceed a card through their rounding."""

RESULT_COLUMNS = (
    text("id", "Id of the observation."),
    text("kind", "Kind of the observation: memory, times, hit_rates or routing."),
    text("quantity", "What was measured."),
    text("engine", "Engine, or what took its place."),
    text("gpu", "GPU as the source names it."),
    text("model", "Model as the source names it."),
    number("measured", "", "Measured value, in `unit`."),
    number("predicted", "", "Predicted value, in `unit`; empty where nothing can be predicted."),
    text("unit", "Unit of the two values."),
    number("error_pct", "%", "Predicted over measured, minus 1."),
    number("allowed_pct", "%", "Error that the rounding of the print allows; empty where it is not known."),
    flag("clean", "Whether the row counts in errors and goals."),
    text("left_out", "Why it does not; empty where it does."),
    text("basis", "What the prediction rests on, where a kind has several ways."),
)
"""Columns of what `predicted` of every kind returns: one row per observation and quantity."""


@dataclass(frozen=True)
class Kind:
    """The columns of one kind of observations."""

    name: KindName
    columns: tuple[Column, ...]
    required: tuple[str, ...]
    """Columns that a file must have, without empty cells."""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Lowest and highest possible values by column."""

    def column(self, name: str) -> Column | None:
        """Return a column by its name; None where the kind has none of that name."""
        return next((column for column in self.columns if column.name == name), None)


GIB_COLUMN = (0.0, 10_000.0)
COUNT = (1, 1e9)
SHARE = (0.0, 1.0)
POSITIVE = (0.0, 1e15)

MEMORY = Kind(
    "memory",
    (
        text("id", "Id of the observation, unique in the file."),
        text("engine", "Engine: vllm, sglang, llama.cpp, ik_llama.cpp, freetoken or transformers."),
        text("engine_version", "Its version; `~` where it is inferred, (V0) or (V1) for the generations of vLLM."),
        text("model", "Model as the source names it."),
        text("hf_id", "Repository of the checkpoint, as owner/name."),
        text("weight_dtype", "Format of the weights in the source's words."),
        text("kv_dtype", "Format of the KV cache in the source's words; auto: that of the model."),
        text("gpu", "GPU as the source names it."),
        integer("gpus", "", "GPUs of the server."),
        integer("tp", "", "Tensor-parallel GPUs."),
        integer("pp", "", "Pipeline stages."),
        integer("ep", "", "Expert-parallel GPUs; empty or 1: experts are split like other matrices."),
        integer("dp", "", "Copies of attention."),
        number("gpu_memory_utilization", "", "Share of memory for the engine (SGLang: mem_fraction_static)."),
        integer("max_model_len", "tokens", "Longest sequence."),
        integer("max_num_seqs", "", "Most sequences of a step."),
        integer("max_num_batched_tokens", "tokens", "Most tokens of a step (llama.cpp: n_ubatch)."),
        number("total_gpu_gib", "GiB", "Memory of a GPU as CUDA reports it."),
        number("weights_gib_per_gpu", "GiB", "Weights on one GPU."),
        number("non_torch_gib", "GiB", "Memory outside of PyTorch on one GPU."),
        number("activation_peak_gib", "GiB", "Peak of activations (llama.cpp: compute buffer)."),
        number("cudagraph_gib", "GiB", "Memory of CUDA graphs."),
        number("kv_cache_gib_per_gpu", "GiB", "KV pool of one GPU (llama.cpp: cache over all devices)."),
        integer("kv_tokens", "tokens", "Tokens that the pool holds, as printed."),
        integer("kv_blocks", "", "Blocks of the pool."),
        integer("block_size", "tokens", "Tokens of a block."),
        number("max_concurrency", "", "Sequences of max_model_len that the pool holds, as printed."),
        text("source", "Where it was published: owner/repo#number, or repository@commit and path."),
        text("date", "Day of the observation or of its publication."),
        text("notes", "What is inferred and what a reader should know."),
        text("left_out", "What must not be used and why: `weights: reason; kv_pool: reason`, or `all: reason`."),
    ),
    ("id", "engine", "model", "source"),
    {
        "gpu_memory_utilization": SHARE,
        "non_torch_gib": (-1000.0, 10_000.0),
        "kv_cache_gib_per_gpu": (-1000.0, 10_000.0),
        **dict.fromkeys(("total_gpu_gib", "weights_gib_per_gpu", "activation_peak_gib", "cudagraph_gib"), GIB_COLUMN),
        **dict.fromkeys(("gpus", "tp", "pp", "ep", "dp", "max_num_seqs", "max_num_batched_tokens"), COUNT),
        **dict.fromkeys(("max_model_len", "block_size"), COUNT),
        **dict.fromkeys(("kv_tokens", "kv_blocks", "max_concurrency"), POSITIVE),
    },
)  # fmt: skip
"""Memory of servers: what engines print when they start."""

TEXT_OF_TIMES = "id kind engine version model model_as_named dtype gpu quantity unit cache pcie source notes left_out"
NUMBERS_OF_TIMES = """
table gpus tp ep batch input_len output_len value measured_ms datasheet hit_rate link_gb_per_s missing_gb_per_token
resident_ms context_assumed weight_bits_assumed expert_bits_assumed kv_bits_assumed unique_experts layers weights_ms
experts_ms attention_ms head_ms all_reduce_ms clean
"""


def _columns(words: str, numbers: str) -> tuple[Column, ...]:
    return (
        *(text(name, f"{name.replace('_', ' ')}, in words of the source.") for name in words.split()),
        *(number(name, "", f"{name.replace('_', ' ')}, a number.") for name in numbers.split()),
    )


def column_of(name: str, field: FieldInfo) -> Column:
    """Return the column of a field of a row that is declared as a class."""
    kinds: dict[Any, str] = {int: "integer", int | None: "integer", float: "number", bool: "boolean"}
    return Column(name, kinds.get(field.annotation, "text"), "", field.description or "", name)


TIMES = Kind(
    "times",
    _columns(TEXT_OF_TIMES, NUMBERS_OF_TIMES),
    ("id", "quantity", "value", "unit", "source"),
    {"hit_rate": SHARE, "value": POSITIVE, "gpus": COUNT, "tp": COUNT, "ep": COUNT, "batch": COUNT},
)
"""Times of servers, operators and links."""
HIT_RATES = Kind("hit_rates", hit_columns.COLUMNS, hit_columns.REQUIRED, hit_columns.BOUNDS)
"""Hit rates of expert caches, and tokens per second with them."""
UNIQUE = tuple(f"u_{batch}" for batch in BATCHES)
ROUTING = Kind(
    "routing",
    tuple(column_of(name, field) for name, field in PublishedRouting.model_fields.items()),
    ("id", "model", "experts", "top_k", *UNIQUE, "source"),
    {"experts": COUNT, "top_k": COUNT, "effective_cv": (0.0, 1e3), **dict.fromkeys(UNIQUE, POSITIVE)},
)
"""Distinct experts of batches, by the popularity that was counted in a published model."""
KINDS: dict[str, Kind] = {kind.name: kind for kind in (MEMORY, TIMES, HIT_RATES, ROUTING)}
"""Kinds of observations by name."""


def read_observations(path: Path, kind: Kind) -> "pd.DataFrame":
    """Read a file of observations, typed; columns that it lacks are empty.

    A column of another kind, a missing source, a repeated id and an impossible value are UserErrors that name the line.
    """
    header: list[str] = []
    rows = read_csv(path, lambda found: header.extend(_known(path, kind, found)) or found, MEND)
    return _typed(header, rows, kind, path)


def check_text(text: str, kind: Kind, where: str) -> None:
    """Refuse the text of a file of observations that could not be read back, before it is written."""
    header, *rows = csv.reader(text.splitlines(), strict=True)
    _typed(_known(Path(where), kind, header), rows, kind, Path(where))


def _typed(header: list[str], rows: list[list[str]], kind: Kind, path: Path) -> "pd.DataFrame":
    import pandas as pd  # Only reading needs it, and its import takes a quarter of a second.

    cells = pd.DataFrame(rows, columns=header, dtype=object)
    frame = pd.DataFrame(
        {
            column.name: parsed(cells[column.name], column, path, MEND)
            if column.name in header
            else _empty(column, len(cells))
            for column in kind.columns
        }
    )
    check_rows(frame, kind, str(path))
    return frame


def _known(path: Path, kind: Kind, header: list[str]) -> list[str]:
    names = [column.name for column in kind.columns]
    unknown = next((name for name in header if name not in names), None)
    if unknown is not None:
        expected = f"a file of kind {kind.name} has {', '.join(names)}"
        raise UserError(str(path), f"column {shortened(repr(unknown))} is unknown; {expected}", "Rename or drop it.")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(str(path), f"column {twice!r} is given twice", "Drop one.")
    missing = next((name for name in kind.required if name not in header), None)
    if missing is not None:
        raise UserError(str(path), f"column {missing!r} is missing, every observation needs it", "Add it.")
    return header


def _empty(column: Column, length: int) -> "pd.Series":
    import pandas as pd

    return parsed(pd.Series([""] * length, dtype=object), column, Path())


def check_rows(frame: "pd.DataFrame", kind: Kind, where: str) -> None:
    """Refuse rows without what every observation needs, repeated ids, and values that cannot be."""
    for number_of_line, row in enumerate(frame.to_dict("records"), start=2):
        at = f"{where}: line {number_of_line}"
        for name in kind.required:
            if is_missing(row[name]):
                raise UserError(f"{at}: {name}", "is empty, every observation needs it", MEND)
        for name, (low, high) in kind.bounds.items():
            value = row[name]
            if not is_missing(value) and not low <= value <= high:
                raise UserError(f"{at}: {name}", f"got {value:g}, expected {low:g} to {high:g}", MEND)
        if kind.name == "memory":
            _check_memory(row, at)
    repeated = frame["id"][frame["id"].duplicated()]
    if len(repeated):
        line = int(repeated.index[0]) + 2
        raise UserError(
            f"{where}: line {line}: id", f"got {repeated.iloc[0]!r} a second time", "Give every row its own."
        )


def is_missing(value: object) -> bool:
    """Return whether a cell is empty, whatever its column's type."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>"


def _check_memory(row: Mapping, at: str) -> None:
    """Refuse terms that exceed the card, alone or together."""
    total = row["total_gpu_gib"]
    if is_missing(total):
        return
    terms = {
        "weights_gib_per_gpu": "the weights are",
        "kv_cache_gib_per_gpu": "the KV pool is",
        "activation_peak_gib": "the activations are",
        "non_torch_gib": "the memory outside of PyTorch is",
    }
    given = {name: row[name] for name in terms if not is_missing(row[name])}
    for name, value in given.items():
        if value > total + EPSILON:
            problem = f"got {value:g} GiB, {terms[name]} above the card's {total:g} GiB"
            raise UserError(f"{at}: {name}", problem, MEND)
    if sum(given.values()) > total + EPSILON:
        names = " + ".join(given)
        raise UserError(f"{at}: {names}", f"are {sum(given.values()):g} GiB, the card has {total:g}", MEND)


def result_row(**cells: object) -> dict[str, object]:
    """Return one row of predictions, its error computed; cells that are not given are empty."""
    measured, predicted = cells.get("measured", math.nan), cells.get("predicted", math.nan)
    known = predicted is not None and measured is not None and measured and not math.isnan(predicted)
    error = 100 * (predicted / measured - 1) if known and not math.isnan(measured) else math.nan
    left_out = str(cells.get("left_out", ""))
    empty = {column.name: "" if column.kind == "text" else math.nan for column in RESULT_COLUMNS}
    return {**empty, **cells, "error_pct": error, "clean": not left_out, "left_out": left_out}


def result_frame(rows: Iterable[Mapping[str, object]]) -> "pd.DataFrame":
    """Return rows of predictions as a frame with the columns of RESULT_COLUMNS."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=[column.name for column in RESULT_COLUMNS])

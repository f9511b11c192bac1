"""Files of observations: their columns by kind, with units and bounds, and a reader that refuses impossible rows."""

import csv
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic.fields import FieldInfo

from prophet_moe.errors import UserError
from prophet_moe.observed import gathered, hit_columns
from prophet_moe.routing.published import BATCHES, PublishedRouting
from prophet_moe.tables import Column, flag, integer, number, parsed, text
from prophet_moe.validation import read_csv, shortened

if TYPE_CHECKING:
    import pandas as pd

KindName = Literal["memory", "times", "hit_rates", "routing"]
"""Kinds of observations, and the names of their files in resources/observations/."""

MEND = "Mend that cell, or leave the row out."
UNNUMBERED = ("id", "routing")
"""The column that a file of a kind may lack as a whole: rows of counts have no ids, and are numbered by their lines."""
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
    number("low", "", "Low end of the interval of the prediction, 90 %; empty where it has none."),
    number("high", "", "High end of that interval."),
    text("unit", "Unit of the two values."),
    number("error_pct", "%", "Predicted over measured, minus 1."),
    number("allowed_pct", "%", "Error that the rounding of the print allows; empty where it is not known."),
    flag("clean", "Whether the row counts in errors and goals."),
    text("left_out", "Why it does not; empty where it does."),
    text("basis", "What the prediction rests on; empty where that is the engine's profile."),
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
    complete: Callable[[dict[str, str]], dict[str, str]] = dict
    """Turns the cells of a row, as people gather them, into those of `columns`; every file is read through it."""
    gathered: str = ""
    """Regular expression of the names of further columns, which `complete` reads or drops."""

    def column(self, name: str) -> Column | None:
        """Return a column by its name; None where the kind has none of that name."""
        return next((column for column in self.columns if column.name == name), None)


GIB_COLUMN = (0.0, 10_000.0)
COUNT = (1, 1e9)
SHARE = (0.0, 1.0)
POSITIVE = (0.0, 1e15)

# Columns that memory and times share.
ID = text("id", "Id of the observation, unique in the file.")
GPU_NAMED = text("gpu", "GPU as the source names it.")
GPUS = integer("gpus", "", "GPUs of the server.")
TENSOR_PARALLEL = integer("tp", "", "Tensor-parallel GPUs.")
EXPERT_PARALLEL = integer("ep", "", "Expert-parallel GPUs; empty or 1: experts are split like other matrices.")
SOURCE = text("source", "Where it was published: owner/repo#number, or repository@commit and path.")
NOTES = text("notes", "What is inferred and what a reader should know.")

MEMORY = Kind(
    "memory",
    (
        ID,
        text("engine", "Engine: vllm, sglang, llama.cpp, ik_llama.cpp, freetoken or transformers."),
        text("engine_version", "Its version; `~` where it is inferred, (V0) or (V1) for the generations of vLLM."),
        text("model", "Model as the source names it."),
        text("hf_id", "Repository of the checkpoint, as owner/name."),
        text("weight_dtype", "Format of the weights in the source's words."),
        text("kv_dtype", "Format of the KV cache in the source's words; auto: that of the model."),
        GPU_NAMED,
        GPUS,
        TENSOR_PARALLEL,
        integer("pp", "", "Pipeline stages."),
        EXPERT_PARALLEL,
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
        SOURCE,
        text("date", "Day of the observation or of its publication."),
        NOTES,
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

TIMES = Kind(
    "times",
    (
        ID,
        text("kind", "What was timed: `e2e decode` (a step), `e2e ubatch`, `operator: one MoE layer` and others."),
        text("engine", "Engine: vllm, sglang, trtllm, llama.cpp and others."),
        text("version", "Its version or date."),
        text("model", "Model, by its name in the catalogue where it is there."),
        text("model_as_named", "Model as the source names it."),
        text("dtype", "Formats of weights in the source's words, or a format of `precision`."),
        GPU_NAMED,
        GPUS,
        TENSOR_PARALLEL,
        EXPERT_PARALLEL,
        integer("batch", "", "Sequences that are decoded together (operators: tokens)."),
        integer("input_len", "tokens", "Tokens of a prompt."),
        integer("output_len", "tokens", "Tokens of an answer."),
        text("quantity", "What the source prints, in its words."),
        number("value", "", "The printed value, in `unit`."),
        text("unit", "Its unit: ms, us, s, tok/s, GB/s or %."),
        number("measured_ms", "ms", "The same as a time of one step; empty: it follows from value and unit."),
        number("datasheet", "GB/s", "Peak of a link or a memory by its datasheet."),
        number("hit_rate", "", "Requests for an expert that found it, over all requests."),
        text("cache", "Cache of experts in the source's words."),
        text("pcie", "Link between host and GPU in the source's words."),
        number("link_gb_per_s", "GB/s", "Its rate as measured there."),
        number("missing_gb_per_token", "GB", "Bytes that one token fetches."),
        number("resident_ms", "ms", "Time of a step without misses."),
        number("context_assumed", "tokens", "Cached tokens of a sequence; empty: input_len and half of output_len."),
        number("weight_bits_assumed", "bit", "Bits of a weight, as far as the source tells."),
        number("expert_bits_assumed", "bit", "Bits of a weight of a routed expert."),
        number("kv_bits_assumed", "bit", "Bits of a value in the KV cache; empty: 16."),
        text("clean", "1: the conditions are stated and nothing is known to be wrong; 0: not; empty: not judged."),
        SOURCE,
        NOTES,
    ),
    ("id", "source"),
    {
        "hit_rate": SHARE,
        **dict.fromkeys(("value", "measured_ms", "resident_ms", "context_assumed", "datasheet"), POSITIVE),
        **dict.fromkeys(("link_gb_per_s", "missing_gb_per_token", "input_len", "output_len"), POSITIVE),
        **dict.fromkeys(("gpus", "tp", "ep", "batch"), COUNT),
        **dict.fromkeys(("weight_bits_assumed", "expert_bits_assumed", "kv_bits_assumed"), (1, 64)),
    },
    gathered.times,
    gathered.OF_TIMES,
)
"""Times of servers, operators and links."""
HIT_RATES = Kind(
    "hit_rates",
    hit_columns.COLUMNS,
    hit_columns.REQUIRED,
    hit_columns.BOUNDS,
    gathered.hit_rates,
)
"""Hit rates of expert caches, and tokens per second with them."""


def column_of(name: str, field: FieldInfo) -> Column:
    """Return the column of a field of a row that is declared as a class."""
    kinds: dict[Any, str] = {int: "integer", int | None: "integer", float: "number", bool: "boolean"}
    return Column(name, kinds.get(field.annotation, "text"), "", field.description or "", name)


UNIQUE = tuple(f"u_{batch}" for batch in BATCHES)
ROUTING = Kind(
    "routing",
    tuple(column_of(name, field) for name, field in PublishedRouting.model_fields.items()),
    ("id", "model", "experts", "top_k", *UNIQUE, "source"),
    {"experts": COUNT, "top_k": COUNT, "effective_cv": (0.0, 1e3), **dict.fromkeys(UNIQUE, POSITIVE)},
    gathered.routing,
    gathered.OF_ROUTING,
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

    names = [column.name for column in kind.columns]
    filled = [kind.complete(dict(zip(header, row, strict=True))) for row in rows]
    if "id" not in header:
        filled = [{**row, "id": f"{path.stem}-{line}"} for line, row in enumerate(filled, start=2)]
    cells = pd.DataFrame([[row.get(name, "") for name in names] for row in filled], columns=names, dtype=object)
    frame = pd.DataFrame({column.name: parsed(cells[column.name], column, path, MEND) for column in kind.columns})
    check_rows(frame, kind, str(path))
    return frame


def _known(path: Path, kind: Kind, header: list[str]) -> list[str]:
    names = [column.name for column in kind.columns]
    unknown = next((name for name in header if name not in names and not re.fullmatch(kind.gathered, name)), None)
    if unknown is not None:
        expected = f"a file of kind {kind.name} has {', '.join(names)}"
        raise UserError(str(path), f"column {shortened(repr(unknown))} is unknown; {expected}", "Rename or drop it.")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise UserError(str(path), f"column {twice!r} is given twice", "Drop one.")
    missing = next((name for name in kind.required if name not in header and (name, kind.name) != UNNUMBERED), None)
    if missing is not None:
        raise UserError(str(path), f"column {missing!r} is missing, every observation needs it", "Add it.")
    return header


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
        for check in CHECKS.get(kind.name, ()):
            check(row, at)
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


def _check_time(row: Mapping, at: str) -> None:
    """Refuse a value without a unit, and a share above the whole."""
    if is_missing(row["value"]):
        return
    if is_missing(row["unit"]):
        raise UserError(f"{at}: unit", "is empty, every observation needs it", MEND)
    if row["unit"] == "%" and row["value"] > 100:
        raise UserError(f"{at}: value", f"got {row['value']:g} %, expected at most 100", MEND)


def _check_hit_rate(row: Mapping, at: str) -> None:
    """Refuse more experts of a token than a layer has, and words that name no way to measure."""
    for name, known in hit_columns.WORDS.items():
        if row[name] not in ("", *known):
            raise UserError(f"{at}: {name}", f"got {shortened(repr(row[name]))}, expected {' or '.join(known)}", MEND)
    experts, top_k = row["experts_per_layer"], row["top_k"]
    if not is_missing(experts) and not is_missing(top_k) and top_k > experts:
        raise UserError(f"{at}: top_k", f"got {top_k}, expected at most the {experts} experts", MEND)


CHECKS = {"memory": (_check_memory,), "times": (_check_time,), "hit_rates": (_check_hit_rate,)}
"""What must hold between the cells of a row, by kind."""


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

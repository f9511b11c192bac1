"""Traces and counts on disk: a folder with the data, readable metadata and checksums.

trace.parquet has one row per token: `sequence`, `position`, `phase`, `experts` (fixed-size list of L*k logical ids,
layer by layer) and, where known, `token`. counts.npz holds counts. metadata.json says what they are; the Parquet file
carries the same in its schema. Needs NumPy and pyarrow only: the machine that collects uses it too.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prophet_moe.errors import UserError, from_os_error
from prophet_moe.files import atomic_write, sha256, write_json, write_text
from prophet_moe.routing.arrays import TOO_LARGE, machine_memory, read_arrays
from prophet_moe.routing.sequences import unrepeated_extent
from prophet_moe.routing.trace import (
    PHASES,
    Counts,
    Origin,
    Router,
    Trace,
    check,
    check_blocks,
    check_counts,
    check_router,
)

MAKE = {
    "trace": "Make one: prophet-moe trace import",
    "counts": "Make them: prophet-moe trace import",
    "predictor": "Train one: python -m prophet_moe.collect predictor",
}
"""How to come by a folder of each kind."""
TRACE, COUNTS, METADATA, SUMS = "trace.parquet", "counts.npz", "metadata.json", "SHA256SUMS"
PREFILL_TITLE = " (prefill)"
"""What follows the name of a trace whose tokens are all of prefill."""
METADATA_KEY = b"prophet_moe"
ROW_GROUP_TOKENS = 65_536
FORM: dict[str, type] = {"kind": str, "model": str, "experts": int, "top_k": int, "layers": list}
"""What the metadata of every kind of folder hold."""
SHARED: dict[str, type] = {"source": str, "licence": str, "source_sha256": str, "collector": str, "notes": dict}
FORM_OF: dict[str, dict[str, type]] = {
    "trace": SHARED | {"ranked": bool, "tokens": int, "sequences": int, "tokens_by_phase": dict},
    "counts": SHARED | {"windows": int},
}
"""What those of traces and of counts hold besides."""
BLOCK_IDS = 2**22
"""Expert ids of a block that is read at once."""
BUFFER_BYTES = 2**20
"""Bytes of each column that are read ahead of a block."""
AGAIN = "Collect or import it again."


def write_trace(folder: Path, trace: Trace) -> None:
    """Check a trace, then write trace.parquet, metadata.json and SHA256SUMS to a folder.

    Parameters
    ----------
    folder : Path
        Where the files go; SHA256SUMS is written last and marks the folder as whole.
    trace : Trace
        The tokens, sequences one after another.

    Raises
    ------
    UserError
        Where the trace is unsound, or the files cannot be written.
    """
    check(trace, folder)
    metadata = describe(trace.router, trace.origin) | {
        "kind": "trace",
        "ranked": trace.ranked,
        "tokens": len(trace),
        "sequences": len(np.unique(trace.sequence)),
        "tokens_by_phase": {name: int((trace.phase == number).sum()) for number, name in enumerate(PHASES)},
        "unrepeated": unrepeated_extent(trace),
    }
    schema = schema_of(trace.router, metadata, with_tokens=trace.token is not None)
    with atomic_write(folder / TRACE) as partial, pq.ParquetWriter(partial, schema, **PARQUET) as writer:
        for start in range(0, len(trace), ROW_GROUP_TOKENS):
            writer.write_batch(batch_of(trace, slice(start, start + ROW_GROUP_TOKENS), schema))
    seal(folder, metadata, TRACE)


def clear(folder: Path) -> None:
    """Delete the files of `folder` that its SHA256SUMS lists, and SHA256SUMS: nothing of one trace outlives another."""
    sums = folder / SUMS
    lines = sums.read_text(encoding="utf-8", errors="replace").splitlines() if sums.is_file() else []
    for name in [SUMS, *(line.partition("  ")[2] for line in lines)]:
        if Path(name).name == name and (folder / name).is_file():
            (folder / name).unlink()


def kind_in(folder: Path) -> str:
    """Return whether `folder` holds a trace or counts, as its file names say: "trace", "counts", or nothing."""
    if not (folder / METADATA).exists():
        return ""
    return next((kind for kind, name in (("trace", TRACE), ("counts", COUNTS)) if (folder / name).exists()), "")


def write_part(path: Path, trace: Trace) -> None:
    """Write a part of a trace to a file of its own."""
    metadata = describe(trace.router, trace.origin) | {"kind": "part", "ranked": trace.ranked}
    schema = schema_of(trace.router, metadata, with_tokens=trace.token is not None)
    with atomic_write(path) as partial, pq.ParquetWriter(partial, schema, **PARQUET) as writer:
        writer.write_batch(batch_of(trace, slice(None), schema))


def read_part(path: Path) -> Trace:
    """Read a part, as it lies in the folder of an unfinished collection."""
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    sequences = len(table["sequence"].unique())
    return check(_trace_of(table, metadata | {"tokens": table.num_rows, "sequences": sequences}, path), path)


def join_parts(folder: Path, parts: Sequence[Path]) -> dict[str, Any]:
    """Write the trace of all `parts`, in their order, to `folder`, and return its metadata; nothing is sealed yet.

    The parts pass through memory one by one.
    """
    tables = [pq.read_table(part, columns=["sequence", "phase"]) for part in parts]
    heads = pa.concat_tables(tables)
    phases = {entry["values"]: entry["counts"] for entry in heads["phase"].cast(pa.string()).value_counts().to_pylist()}
    first = pq.read_schema(parts[0])
    metadata = json.loads(first.metadata[METADATA_KEY]) | {
        "kind": "trace",
        "tokens": heads.num_rows,
        "sequences": len(heads["sequence"].unique()),
        "tokens_by_phase": {phase: phases.get(phase, 0) for phase in PHASES},
    }
    schema = first.with_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    with atomic_write(folder / TRACE) as partial, pq.ParquetWriter(partial, schema, **PARQUET) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part).replace_schema_metadata(schema.metadata))
    return metadata


def phase_of(metadata: dict[str, Any]) -> str:
    """Return the phase of the tokens that are described: prefill where none is decoded."""
    return "decode" if metadata["tokens_by_phase"]["decode"] else "prefill"


def title_of(name: str, phase: str) -> str:
    """Return what tables call the trace `name`: one without decode tokens is marked as prefill."""
    return name if phase == "decode" else f"{name}{PREFILL_TITLE}"


def write_counts(folder: Path, counts: Counts) -> None:
    """Check `counts`, then write counts.npz, metadata.json and SHA256SUMS to `folder`."""
    check_counts(counts, folder)
    metadata = describe(counts.router, counts.origin) | {"kind": "counts", "windows": len(counts.counts)}
    with atomic_write(folder / COUNTS) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, counts=counts.counts)
    seal(folder, metadata, COUNTS)


def read_trace(folder: Path, model: str | None = None) -> Trace:
    """Read and check the trace in a folder.

    Parameters
    ----------
    folder : Path
        A folder with trace.parquet, metadata.json and SHA256SUMS.
    model : str, optional
        The model that the trace must be of.

    Returns
    -------
    Trace
        The tokens, with logical expert ids in the range of the model.

    Raises
    ------
    UserError
        Where the folder is unfinished or changed, of another model, or holds an impossible choice.
    """
    metadata = read_metadata(folder, "trace", model)
    path = folder / TRACE
    with _reading(path):
        _check_size(path, metadata)
        table = pq.read_table(path, memory_map=True)
    return check(_trace_of(table, metadata, path), path)


def read_blocks(folder: Path, metadata: dict[str, Any], ids: int = BLOCK_IDS) -> Iterator[Trace]:
    """Yield the trace in `folder` in blocks of whole tokens with about `ids` expert ids, unchecked.

    Memory is bounded by a block, whatever the file's row groups. `check_trace` checks what this yields.
    """
    path = folder / TRACE
    tokens = max(1, ids // (len(metadata["layers"]) * metadata["top_k"]))
    # A mapped or prefetched file would count as memory, and without a buffer a row group is read at once.
    with _reading(path), pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False) as file:
        for batch in file.iter_batches(tokens):
            yield _rows_of(pa.Table.from_batches([batch]), metadata, path)


def check_trace(blocks: Iterable[Trace], folder: Path, metadata: dict[str, Any]) -> Iterator[Trace]:
    """Yield the blocks of the whole trace in `folder` after the checks of `read_trace`."""
    tokens = sequences = 0
    last = None
    for block in check_blocks(blocks, folder / TRACE):
        tokens += len(block)
        sequences += len(np.unique(block.sequence)) - (block.sequence[0] == last)
        last = block.sequence[-1]
        yield block
    _check_totals(tokens, sequences, metadata, folder / TRACE)


def read_counts(folder: Path, model: str | None = None) -> Counts:
    """Read the counts in `folder`, which must be of `model` where one is named."""
    metadata = read_metadata(folder, "counts", model)
    router = router_of(metadata)
    arrays = read_arrays(folder / COUNTS, AGAIN)
    if "counts" not in arrays:
        raise UserError(str(folder / COUNTS), "holds no array by the name counts", AGAIN)
    counts = Counts(router, arrays["counts"], _origin_of(metadata))
    if len(counts.counts) != metadata["windows"]:
        problem = f"has {len(counts.counts)} windows, metadata.json says {metadata['windows']}"
        raise UserError(str(folder / COUNTS), problem, AGAIN)
    return check_counts(counts, folder / COUNTS)


def read_metadata(folder: Path, kind: str | None = None, model: str | None = None) -> dict[str, Any]:
    """Return the metadata of a folder of one `kind`, by default a trace or counts, once its checksums were compared."""
    path = folder / METADATA
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(str(folder), f"holds no {METADATA}: no {kind or 'trace'}", MAKE[kind or "trace"]) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(str(path), f"could not be read: {error}", AGAIN) from None
    if problem := _problem(metadata):
        raise UserError(str(path), problem, AGAIN)
    check_router(router_of(metadata), path, AGAIN)
    if metadata["kind"] not in ([kind] if kind else FORM_OF):
        expected = f"a {kind}" if kind else "a trace or counts"
        raise UserError(str(folder), f"holds {metadata['kind']:.60}, expected {expected}", "Name another folder.")
    if model is not None and metadata["model"] != model:
        raise UserError(str(folder), f"is of model {metadata['model']!r}, expected {model!r}", "Name another folder.")
    check_sums(folder)
    return metadata


def _problem(metadata: Any) -> str:
    """What is wrong with the form of metadata; empty where nothing is."""
    if not isinstance(metadata, dict):
        return f"holds {type(metadata).__name__}, expected an object"
    for key, kind in (FORM | FORM_OF.get(str(metadata.get("kind")), {})).items():
        if key not in metadata:
            return f"has no {key}"
        if type(metadata[key]) is not kind:
            return f"{key} is {metadata[key]!r:.60}, expected {kind.__name__}"
    if not all(type(layer) is int for layer in metadata["layers"]):
        return f"layers is {metadata['layers']!r:.60}, expected whole numbers"
    tokens = metadata.get("tokens_by_phase", dict.fromkeys(PHASES, 0))
    if set(tokens) != set(PHASES) or not all(type(number) is int for number in tokens.values()):
        return f"tokens_by_phase is {tokens!r:.60}, expected whole numbers of {' and '.join(PHASES)}"
    sequences = metadata.get("notes", {}).get("sequences", [])
    if not isinstance(sequences, list) or not all(isinstance(about, dict) for about in sequences):
        return "notes.sequences is no list of objects"
    return ""


def check_sums(
    folder: Path, names: Iterable[str] = (METADATA,), *, unfinished: str = AGAIN, damaged: str = AGAIN
) -> None:
    """Hold the files of `folder` against SHA256SUMS, which is written last and must list `names`; else a UserError.

    `unfinished` and `damaged` are its next step where SHA256SUMS is missing, and where anything else is wrong.
    """
    sums = folder / SUMS
    if not sums.is_file():
        raise UserError(str(folder), f"unfinished, holds no {SUMS}", unfinished)
    try:
        lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise from_os_error(sums, error) from None
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in names:
        if name not in listed:
            raise UserError(str(sums), f"does not list {name}", damaged)
    for name, digest in listed.items():
        if not (folder / name).is_file() or sha256(folder / name) != digest:
            raise UserError(str(folder / name), f"missing, or not as {SUMS} has it", damaged)


PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": ["phase"],
    "column_encoding": {"experts.list.element": "BYTE_STREAM_SPLIT"},
    "write_statistics": False,
    # A half-written last row group must not cost the finished ones; CRCs find damaged pages.
    "write_page_checksum": True,
}


def describe(router: Router, origin: Origin) -> dict[str, Any]:
    """Return the metadata that traces and counts share, JSON-like."""
    return {
        "model": router.model,
        "experts": router.experts,
        "top_k": router.top_k,
        "layers": list(router.layers),
        "source": origin.source,
        "licence": origin.licence,
        "source_sha256": origin.source_sha256,
        "collector": origin.collector,
        "notes": origin.notes,
    }


def schema_of(router: Router, metadata: dict[str, Any], *, with_tokens: bool) -> pa.Schema:
    """Return the Arrow schema of a trace.parquet with this router and metadata."""
    fields = [
        pa.field("sequence", pa.int32(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("phase", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field(
            "experts",
            pa.list_(pa.field("element", pa.uint16(), nullable=False), len(router.layers) * router.top_k),
            nullable=False,
        ),
    ]
    if with_tokens:
        fields.append(pa.field("token", pa.int32(), nullable=False))
    return pa.schema(fields, {METADATA_KEY: json.dumps(metadata, sort_keys=True)})


def batch_of(trace: Trace, rows: slice, schema: pa.Schema) -> pa.RecordBatch:
    """Convert the rows of a trace that `rows` selects to an Arrow batch."""
    phase = pa.DictionaryArray.from_arrays(trace.phase[rows].astype(np.int8), pa.array(PHASES))
    ids = pa.array(np.ascontiguousarray(trace.experts[rows]).reshape(-1))
    experts = pa.FixedSizeListArray.from_arrays(ids, type=schema.field("experts").type)
    columns = [pa.array(trace.sequence[rows]), pa.array(trace.position[rows]), phase, experts]
    if trace.token is not None:
        columns.append(pa.array(trace.token[rows]))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def seal(folder: Path, metadata: dict[str, Any], *names: str) -> None:
    """Write metadata.json, then the checksums of it and of the files `names`: last, so that they mark completeness."""
    write_json(folder / METADATA, metadata)
    write_sums(folder, [*names, METADATA])


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the SHA-256 of files of `folder` to its SHA256SUMS."""
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in sorted(names)))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a Parquet file is read into a line for the user."""
    try:
        yield
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(str(path), f"truncated, or no Parquet file: {reason}", AGAIN) from None
    except OSError as error:
        raise from_os_error(path, error) from None


def _trace_of(table: pa.Table, metadata: dict[str, Any], path: Path) -> Trace:
    trace = _rows_of(table, metadata, path)
    _check_totals(len(trace), len(np.unique(trace.sequence)), metadata, path)
    return trace


def _check_size(path: Path, metadata: dict[str, Any]) -> None:
    """Refuse a file with other rows than its metadata, or too large for memory, by its footer: before it is read."""
    footer = pq.read_metadata(path)
    if footer.num_rows != metadata["tokens"]:
        problem = f"has {footer.num_rows} tokens, metadata.json says {metadata['tokens']}"
        raise UserError(str(path), problem, AGAIN)
    ids = footer.num_rows * len(metadata["layers"]) * metadata["top_k"]
    told = sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))
    if max(told, ids * np.dtype(np.uint16).itemsize) > machine_memory():
        raise UserError(str(path), TOO_LARGE, "Use a part of it, or a machine with more memory.")


def _check_totals(tokens: int, sequences: int, metadata: dict[str, Any], path: Path) -> None:
    for name, counted in (("tokens", tokens), ("sequences", sequences)):
        if counted != metadata[name]:
            raise UserError(str(path), f"has {counted} {name}, metadata.json says {metadata[name]}", AGAIN)


def _rows_of(table: pa.Table, metadata: dict[str, Any], path: Path) -> Trace:
    router = router_of(metadata)
    width = len(router.layers) * router.top_k
    wanted = {"sequence", "position", "phase", "experts"}
    if not wanted <= set(table.column_names):
        raise UserError(str(path), f"has columns {', '.join(table.column_names)}, expected {', '.join(wanted)}", AGAIN)
    column_type = table.schema.field("experts").type
    if not pa.types.is_fixed_size_list(column_type) or column_type.list_size != width:
        expected = f"{width} ({len(router.layers)} layers x {router.top_k})"
        raise UserError(str(path), f"column experts is {column_type}, expected lists of {expected}", AGAIN)
    phase = table.column("phase").cast(pa.string()).combine_chunks()
    experts = table.column("experts").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    numbers = pa.compute.index_in(phase, pa.array(PHASES)).fill_null(len(PHASES))
    return Trace(
        router,
        table.column("sequence").to_numpy(),
        table.column("position").to_numpy(),
        numbers.to_numpy(zero_copy_only=False).astype(np.uint8),
        experts.reshape(-1, len(router.layers), router.top_k),
        metadata["ranked"],
        _origin_of(metadata),
        table.column("token").to_numpy() if "token" in table.column_names else None,
    )


def router_of(metadata: dict[str, Any]) -> Router:
    """Return the routers of the model that a folder's metadata names."""
    return Router(metadata["model"], metadata["experts"], metadata["top_k"], tuple(metadata["layers"]))


def _origin_of(metadata: dict[str, Any]) -> Origin:
    return Origin(*(metadata[key] for key in ("source", "licence", "source_sha256", "collector", "notes")))

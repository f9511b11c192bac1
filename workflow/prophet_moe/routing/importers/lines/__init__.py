"""Routing as lines, one for a choice of one token in one layer, as engines with expert caches log it.

CSV (commas, semicolons, tabs or spaces) and JSON lines have named columns: a token's position (or tokens in the order
of the lines), the layer, and the experts in one cell, in k columns or in k rows; perhaps a phase, ranks, weights, a hit
flag and a sequence or turn. `columns.KNOWN` lists the names; others are given on the command line. A `#` header as
BigMoeOnEdge writes it states model, layers, experts, k and the bytes of an expert by layer.

Read without named columns: the logs of GGML_MOE_LOG and of colibri, imp's JSON, binary records of llama-moe-trace, and
routing atlases. Any of them may be compressed with gzip. Where no phase is stated, tokens are decode tokens but for the
first `prompt_tokens`.

docs/samples/lines.csv (model made-up) holds

    pos,phase,layer,e0,e1
    0,decode,0,0,1
    0,decode,1,2,3
    1,decode,0,1,3
    1,decode,1,0,2
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from prophet_moe.routing.importers.lines import forms
from prophet_moe.routing.importers.lines.entries import (
    EXPERTS,
    Entries,
    Stated,
    router_of,
    sequences_of,
)
from prophet_moe.routing.importers.lines.tables import Lines, csv_entries, json_entries, lines_of
from prophet_moe.routing.importers.reading import (
    Sequence,
    fault,
    files_of,
    read_bytes,
    trace_of,
    with_notes,
    with_remarks,
)
from prophet_moe.routing.trace import Origin, Router, Trace

SUFFIXES = (".csv", ".tsv", ".txt", ".log", ".jsonl", ".ndjson", ".json", ".bin", ".gz")
STATED = {"n_layer": "hidden_layers", "n_expert": "experts", "n_expert_used": "top_k"}
"""Names in a header, and what they state."""
MOST_REMARKS = 12
"""Lines that are told at most."""
PER_LAYER = ("layer", "expert_bytes", "dense_bytes")
PAIR = re.compile(r"(?<!\w)(\w+)=([^=]*)(?=\s\w|$)")
"""A name and its value, which may hold spaces."""


def read(
    source: Path,
    router: Router | str,
    origin: Origin,
    *,
    columns: str | None = None,
    experts: int | None = None,
    top_k: int | None = None,
    prompt_tokens: int | None = None,
) -> Trace:
    """Read one file or a folder of them; of a model that only has a name, the file or `experts` states E."""
    for name, value in (("--experts", experts), ("--top-k", top_k), ("--prompt-tokens", prompt_tokens)):
        if value is not None and not (0 if name == "--prompt-tokens" else 1) <= value <= EXPERTS:
            raise fault(name, f"got {value}, expected a whole number up to {EXPERTS}")
    asked = Stated(experts, top_k, usual_top_k=router.top_k if isinstance(router, Router) else None)
    sequences: list[Sequence] = []
    about: list[dict[str, str]] = []
    notes: dict[str, Any] = {}
    remarks: list[str] = []
    ranked, run = True, None
    for path in files_of(source, *SUFFIXES):
        entries, stated = entries_of(path, columns, asked)
        if prompt_tokens is not None and entries.phase is not None:
            raise fault("--prompt-tokens", f"got {prompt_tokens}, but {path} states the phase of every token")
        described = router_of(entries, router, stated)
        if run is not None and described != run:
            raise fault(
                path, f"is of k = {described.top_k}, layers {list(described.layers)}; the files before it are not"
            )
        run = described
        parts, left_out = sequences_of(entries, run, prompt_tokens or 0)
        sequences += parts
        about += [{"file": path.name}] * len(parts)
        ranked &= entries.ranked
        remarks += _remarks_on(entries, len(parts), left_out, router, run)
        notes[path.name] = dict(stated.notes) | dict(entries.notes)
    origin = with_remarks(with_notes(origin, sequences=about, lines=notes), _few(remarks))
    return trace_of(sequences, run, origin, source, ranked=ranked)


def _remarks_on(entries: Entries, sequences: int, left_out: int, router: Router | str, run: Router) -> list[str]:
    """Return what the user should know of how one file was read."""
    name, remarks = entries.path.name, []
    if isinstance(router, str):
        layers = f"{len(run.layers)} MoE layers ({run.layers[0]} to {run.layers[-1]})"
        remarks.append(f"{name}: model {router!r} is not in config/; taken from the file: E = {run.experts}, {layers}")
    elif router.top_k != run.top_k:
        remarks.append(f"{name}: the run used {run.top_k} experts of a token, {router.model} has {router.top_k}")
    if entries.sequence is None and sequences > 1:
        remarks.append(f"{name}: {sequences} sequences, as positions start anew {sequences - 1} times")
    if left_out:
        remarks.append(f"{name}: {left_out} prompt tokens left out: the last MoE layer was not run for them")
    if unnumbered := entries.notes.get("lines_without_token"):
        remarks.append(f"{name}: {unnumbered} lines left out: prompt tokens without a position")
    if together := entries.notes.get("lines_of_many_tokens"):
        remarks.append(f"{name}: {together} lines left out: they name the experts of many tokens together")
    if entries.phase is None:
        remarks.append(f"{name}: no phase is stated: decode tokens, but for --prompt-tokens")
    if recorded := entries.notes.get("recorded_cache"):
        phases = recorded.get("by_phase", {}).items()
        rates = "".join(f", {phase} {found['hit_rate']:.1%}" for phase, found in phases)
        remarks.append(
            f"{name}: the run's own cache: {recorded['hit_rate']:.1%} of {recorded['requests']:,} hit{rates}"
        )
    return remarks


def _few(remarks: list[str]) -> list[str]:
    """Return the first lines of what there is to tell of many files."""
    return (
        remarks
        if len(remarks) <= MOST_REMARKS
        else [*remarks[:MOST_REMARKS], f"and {len(remarks) - MOST_REMARKS} lines more of this kind"]
    )


def entries_of(path: Path, columns: str | None, stated: Stated) -> tuple[Entries, Stated]:
    """Return the entries of one file in whatever form, prompt tokens that lack a layer included, and what it states."""
    content = read_bytes(path)
    if b"\0" in content[:64]:
        return forms.binary_entries(content, path, stated)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(path, f"neither text (byte {error.start} is not UTF-8) nor records of int32") from None
    return _of_text(text, path, columns, _header(text, path, stated))


def _of_text(text: str, path: Path, columns: str | None, stated: Stated) -> tuple[Entries, Stated]:
    lines = lines_of(text, path)
    first = lines.text[0].lstrip()
    if first[0] == "[" or (first[0] == "{" and not _is_line(lines)):
        return forms.document_entries(forms.parsed(text, path), path, stated)
    if first[0] == "{":
        return json_entries(lines, columns, stated)
    if columns is None and forms.COLIBRI.fullmatch(first):
        return forms.colibri_entries(lines, stated)
    if columns is None and forms.is_tensor_log(first):
        return forms.tensor_log_entries(lines, stated)
    return csv_entries(lines, columns, stated)


def _is_line(lines: Lines) -> bool:
    """Return whether the first line is a JSON object of its own, and no document on one line."""
    try:
        content = json.loads(lines.text[0])
    except (ValueError, RecursionError):
        return len(lines.text) > 1 and lines.text[1].lstrip()[0] == "{"
    return len(lines.text) > 1 or not forms.DOCUMENT.intersection(content)


def _header(text: str, path: Path, asked: Stated) -> Stated:
    """Return what the `#` lines state, besides what the command line does."""
    notes: dict[str, Any] = {}
    layers: dict[int, dict[str, int]] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.startswith("#"):
            if line.strip():
                break
            continue
        values = dict(PAIR.findall(line))
        where = f"{path}: line {number}"
        if "layer" in values:
            numbers = {name: _number(values[name], name, where) for name in PER_LAYER if name in values}
            layer = numbers.pop("layer")
            if layer in layers:
                raise fault(where, f"layer {layer} is stated twice")
            layers[layer] = numbers
        for name in ("model", "arch", *STATED):
            if name in values:
                notes[name] = _number(values[name], name, where) if name in STATED else values[name]
    stated = {STATED[name]: notes[name] for name in STATED if name in notes}
    for name in ("n_expert", "n_expert_used"):
        if name in notes and not 0 < notes[name] <= EXPERTS:
            raise fault(path, f"states {name}={notes[name]}, expected a number from 1 to {EXPERTS}")
    with_experts = tuple(layer for layer in sorted(layers) if layers[layer].get("expert_bytes"))
    if with_experts:
        stated["layers"] = with_experts
        notes |= {
            name: {str(layer): layers[layer][name] for layer in sorted(layers) if name in layers[layer]}
            for name in PER_LAYER[1:]
        }
    for name in ("experts", "top_k"):
        in_file, given = stated.get(name), getattr(asked, name)
        if None not in (in_file, given) and in_file != given:
            raise fault(path, f"states {name} {in_file}, the command line {given}")
    return replace(asked, **stated, notes=notes)


def _number(value: str, name: str, where: str) -> int:
    if not re.fullmatch("[0-9]{1,15}", value):
        raise fault(where, f"{name}={value[:60]}, expected a whole number")
    return int(value)

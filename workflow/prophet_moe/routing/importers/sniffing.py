"""What a file is, whatever it is called: told from its first bytes, for the user who gave it to the wrong importer."""

import json
import re
import shlex
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from prophet_moe.errors import UserError
from prophet_moe.routing.arrays import HEAD_BYTES, array_head
from prophet_moe.routing.importers import counts, prompt_csv

HEAD = 1 << 16
"""Bytes of a file that are looked at."""
FILES = 100
"""Files of a folder that are looked at."""
KINDS = {
    "arrays": ("npz",),
    "prompt_json": ("json",),
    "prompt_csv": ("csv",),
    "sglang_recorder": ("pt", "pickle", "json"),
    "sglang_routed_experts": ("json",),
    "vllm_routed_experts": ("npz",),
    "transformers_logits": ("npz",),
    "counts": ("csv", "npy", "npz", "json"),
    "lines": ("csv", "json", "compressed"),
}
"""The kinds of file that each format comes in."""
GZIP, ZIP, NPY, PICKLE, PARQUET = b"\x1f\x8b", b"PK\x03\x04", b"\x93NUMPY", b"\x80", b"PAR1"
OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of other compressions, and their names."""
JSON_KEYS = {
    "router_data": ("prompt_json",),
    "logical_count": ("sglang_recorder", "counts"),
    "counts": ("counts",),
    "routed_experts": ("sglang_routed_experts",),
    "records": ("sglang_recorder",),
}
"""Keys that tell a format, the first that is found counts, and the formats that read it."""
ARRAY_NAMES = {
    "expert_ids": "arrays",
    "prompt_routed_experts": "vllm_routed_experts",
    "routed_experts": "vllm_routed_experts",
    "router_logits": "transformers_logits",
    "counts": "counts",
    "logical_count": "counts",
}
"""Names of arrays that tell a format."""


@dataclass(frozen=True)
class Found:
    """What a file turned out to be, in words and by the formats that read it."""

    kind: str
    """npz, npy, pt, json, csv, or another word for what no format comes in."""
    what: str
    """In words that follow "is"."""
    formats: tuple[str, ...] = ()
    """The formats that read it; empty where no format does, or it does not tell."""
    advice: str = ""
    """What to do before it can be imported."""

    def may_be(self, name: str) -> bool:
        """Return whether a file like this can be of the format `name`."""
        return self.kind in KINDS.get(name, (self.kind,)) and (not self.formats or name in self.formats)


def mistaken(source: Path, name: str) -> UserError | None:
    """Return the error for a user who gave `source` to the importer `name`, where it is another one's, else None.

    Of a folder, a file of the right format excuses all others.
    """
    files = sorted(path for path in source.iterdir() if path.is_file())[:FILES] if source.is_dir() else [source]
    known = [(path, found) for path in files if (found := recognise(path))]
    if any(found.may_be(name) and name in found.formats for _, found in known):
        return None
    for path, found in known:
        if not found.may_be(name):
            use = f"Import it as {' or '.join(found.formats)}." if found.formats else "Name another file or format."
            return UserError(str(path), f"is {found.what}, expected format {name}", f"{found.advice} {use}")
    return None


def recognise(path: Path) -> Found | None:
    """Return what the file at `path` is; None where its first bytes do not tell."""
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
        if head.startswith(ZIP):
            return _archive(path)
        return _recognised(head, str(path))
    except Exception:
        # A damaged archive or head of an array raises whatever zipfile and NumPy stumble over: it tells nothing.
        return None


def _recognised(head: bytes, name: str) -> Found | None:
    if head.startswith(GZIP):
        return _gzipped(head, name)
    for magic, method in OTHERS.items():
        if head.startswith(magic):
            return Found("compressed", f"a file compressed with {method}", advice=f"Decompress {name} first.")
    if head.startswith(NPY):
        return _array(array_head(head)[0])
    if head.startswith(PARQUET):
        advice = "A trace folder of this project needs no import: prophet-moe trace describe FOLDER."
        return Found("parquet", "a Parquet file", advice=advice)
    if head.startswith(PICKLE):
        return Found("pickle", "a file of pickled Python objects", advice="Save its arrays with numpy.savez.")
    return _text(head)


def _gzipped(head: bytes, name: str) -> Found:
    advice = f"Decompress it first: gunzip {shlex.quote(name)}."
    inside = _recognised(zlib.decompressobj(wbits=31).decompress(head, HEAD), "")
    if inside is None:
        return Found("compressed", "a gzip file", advice=advice)
    return Found("compressed", f"a gzip file that holds {inside.what}", inside.formats, advice)


def _archive(path: Path) -> Found:
    """Return an .npz file, by the names and shapes of its arrays, or a .pt file of PyTorch."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("/data.pkl") for name in names):
            return Found("pt", "a file of PyTorch", ("sglang_recorder",), "Bare tensors are saved with numpy.save.")
        arrays = [name for name in names if name.endswith(".npy")]
        if names and not arrays:
            return Found("zip", "a zip archive without arrays", advice="Unpack it first.")
        shapes = {}
        for name in arrays:
            with archive.open(name) as member:
                shapes[name.removesuffix(".npy")] = array_head(member.read(HEAD_BYTES))[0]
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    formats = tuple(
        form for name, form in ARRAY_NAMES.items() if any(re.fullmatch(rf"{name}(_[0-9]+)?", held) for held in shapes)
    )
    if not formats and [len(shape) for shape in shapes.values()] == [2]:
        formats = ("counts",)
    return Found("npz", f"an .npz file of {listed:.200}", formats[:1])


def _array(shape: tuple[int, ...]) -> Found:
    """Return an .npy file: counts where it has two axes; with three it may be counts or expert ids."""
    what = f"one array {shape} without a name"
    if len(shape) == 3:
        advice = "Ids of experts get names: numpy.savez(PATH, expert_ids=..., prompt_len=...) for arrays. Or counts:"
        return Found("npy", what, ("counts",), advice)
    return Found("npy", what, ("counts",) if len(shape) == 2 else ())


def _text(head: bytes) -> Found | None:
    """JSON, JSON lines or CSV, and the format whose names are in it."""
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    if "\x00" in text or text.count("\ufffd") > 1 or not text:
        return None
    if text[0] in "{[":
        return _json(text)
    header = [name.strip().strip('"') for name in text.splitlines()[0].split(",")]
    if len(header) == 1:
        return None
    lower = {name.lower() for name in header}
    forms = {"prompt_csv": {name.lower() for name in prompt_csv.COLUMNS}, "counts": set(counts.COLUMNS)}
    formats = tuple(form for form, columns in forms.items() if columns <= lower)
    return Found("csv", f"a CSV file with columns {', '.join(header):.120}", formats)


def _json(text: str) -> Found:
    what = "JSON lines" if _has_lines(text) else "JSON"
    for key, formats in JSON_KEYS.items():
        if f'"{key}"' in text:
            return Found("json", f"{what} with {key}", formats)
    nested = re.match(r"\[\s*\[\s*[-0-9\[]", text)
    return Found("json", f"{what} of nested lists", ("counts", "lines")) if nested else Found("json", what)


def _has_lines(text: str) -> bool:
    """Return whether one document a line is what JSON text begins with."""
    first, _, rest = text.partition("\n")
    try:
        return rest.lstrip()[:1] in ("{", "[") and json.loads(first) is not None
    except (ValueError, RecursionError):
        return False

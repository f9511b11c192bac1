"""The deposit: `python -m prophet_moe.provenance.archive` packs sources, outputs and their RO-Crate into one file.

It holds what belongs to the project (`tracked.tracked_files`) and every file that the crate describes, and no other
file of the folder. Three files are added: the metadata of the crate, the MANIFEST that stands for git's list of files,
and SHA256SUMS. The same state gives the same bytes.
"""

import gzip
import hashlib
import io
import os
import sys
import tarfile
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from prophet_moe.errors import UserError, exit_on_user_error, from_os_error
from prophet_moe.files import atomic_write, sha256, write_text
from prophet_moe.provenance.citation import Citation, read_citation
from prophet_moe.provenance.sidecar import SUFFIX
from prophet_moe.provenance.tracked import MANIFEST, tracked_files
from prophet_moe.validation import read_json

NAME = "prophet-moe"
FOLDER = Path("results/archive")
CRATE = Path("results/crate/ro-crate-metadata.json")
SUMS = "SHA256SUMS"


def described_files(crate: Mapping[str, Any]) -> list[str]:
    """Return the paths of the files that a crate holds, sorted; those it only names have identifiers with #."""
    entities = ((entity["@id"], entity["@type"]) for entity in crate["@graph"])
    return sorted(path for path, kind in entities if "File" in kind and not path.startswith("#"))


def archive_files(tracked: Collection[str], crate: bytes, described: Collection[str]) -> dict[str, bytes]:
    """Return what an archive holds by path, sorted: files of the project, the crate, the manifest and the checksums.

    A file that is tracked or described but not there is a UserError.
    """
    held = {path: _content(path) for path in {*tracked, *described}}
    held |= {CRATE.name: crate, MANIFEST: "".join(f"{path}\n" for path in sorted(tracked)).encode()}
    sums = "".join(f"{hashlib.sha256(held[path]).hexdigest()}  {path}\n" for path in sorted(held))
    return dict(sorted((held | {SUMS: sums.encode()}).items()))


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        advice = "Restore it, or commit that it is gone."
        raise UserError(path, "no such file, but it belongs to the project", advice) from None
    except OSError as error:
        raise from_os_error(path, error) from None


def write_archive(path: Path, files: Mapping[str, bytes], citation: Citation) -> None:
    """Write `files` as a gzipped tar whose bytes depend on them and on the citation alone.

    All carry the date of the citation. Outputs, which have a sidecar, are a second older, so that a build makes them
    again from the sources, as it does in a new clone.
    """
    released = int(datetime.combine(citation.released, time(), UTC).timestamp())
    with (
        atomic_write(path) as partial,
        partial.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in files.items():
            member = tarfile.TarInfo(f"{NAME}-{citation.version}/{name}")
            member.size = len(content)
            member.mode = 0o755 if os.access(name, os.X_OK) else 0o644
            member.mtime = released - (name.endswith(SUFFIX) or f"{name}{SUFFIX}" in files)
            tar.addfile(member, io.BytesIO(content))


def main() -> None:
    """Write the archive and the file of its checksum; say what is in it, and what git does not track."""
    with exit_on_user_error():
        if not CRATE.exists():
            raise UserError(str(CRATE), "no such file", "Make the crate and the archive: make archive")
        citation, tracked = read_citation(), tracked_files()
        files = archive_files(tracked, _content(str(CRATE)), described_files(read_json(CRATE)))
        path = FOLDER / f"{NAME}-{citation.version}.tar.gz"
        write_archive(path, files, citation)
        digest = sha256(path)
        write_text(path.with_name(f"{path.name}.sha256"), f"{digest}  {path.name}\n")
        left_out = sorted(set(tracked_files(with_new=True)) - set(files))
    if left_out:
        print(f"note: not tracked by git, so left out: {', '.join(left_out)}", file=sys.stderr)
    print(f"{path}: {len(files)} files, {path.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")


if __name__ == "__main__":
    main()

"""Arrays in .npy and .npz files of others: what they expand to is checked before anything is expanded.

Needs NumPy only: the machine that collects uses it too.
"""

import io
import math
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from prophet_moe.errors import UserError, from_os_error

HEAD_BYTES = 2**16
"""The head of an .npy file fits into these."""
EXPANDED_BYTES = 2**28
"""Bytes that a compressed file may expand to whatever its size: half a second's work."""
ARRAYS_RATIO = 500
"""Beyond these bytes, how many times its own size an archive of arrays may expand to. Recorded routing packs less well:
one-token windows of counts for 128 experts, top-1, shrink to 1/290. Zeros, with which archives are made to fill a
memory, shrink to 1/1030."""
TOO_LARGE = "holds arrays that do not fit into this machine's memory"


def read_arrays(path: Path, next_step: str) -> dict[str, NDArray]:
    """Return all arrays of an .npz file by name; the one array of an .npy file has the name "".

    What heads and directory say of their sizes is checked before anything is expanded. A file that is too large or
    damaged is a UserError with `next_step`.
    """
    try:
        _check_sizes(path, next_step)
        arrays = np.load(path, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            return {"": arrays}
        with arrays:
            held = {name: arrays[name] for name in arrays.files}
            return {name: array for name, array in held.items() if isinstance(array, np.ndarray)}
    except UserError:
        raise
    except MemoryError:
        raise UserError(str(path), TOO_LARGE, next_step) from None
    except OSError as error:
        raise from_os_error(path, error) from None
    except Exception:
        # A damaged file raises whatever NumPy and zipfile stumble over, errors of Python's tokenizer included.
        raise UserError(
            str(path), f"truncated, or no {path.suffix or '.npz'} file of plain arrays", next_step
        ) from None


def _check_sizes(path: Path, next_step: str) -> None:
    """Refuse arrays that are larger than their file tells, and an archive that expands to far more than its size."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            _check_array(stream, path.stat().st_size, path, next_step)
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_expansion(path, sum(member.file_size for member in members), ARRAYS_RATIO, next_step)
        for member in members:
            if member.filename.endswith(".npy"):
                with archive.open(member) as stream:
                    _check_array(stream, member.file_size, path, next_step)


def _check_array(stream: IO[bytes], size: int, path: Path, next_step: str) -> None:
    """Refuse an array whose head, at the begin of `stream`, tells of more bytes than the `size` that there are."""
    shape, dtype = array_head(stream.read(HEAD_BYTES))
    told = math.prod(shape) * dtype.itemsize
    if told > machine_memory():
        raise UserError(str(path), TOO_LARGE, next_step)
    if told > size and not dtype.hasobject:
        raise UserError(str(path), f"truncated: an array of {told:,} bytes in {size:,}", next_step)


def array_head(head: bytes) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array whose .npy file begins with `head`."""
    stream = io.BytesIO(head)
    old = np.lib.format.read_magic(stream) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def check_expansion(path: Path, expanded: int, ratio: int, next_step: str) -> None:
    """Refuse a compressed file that expands to more than `ratio` times its size, or does not fit into the memory."""
    if expanded > machine_memory():
        raise UserError(str(path), TOO_LARGE, next_step)
    if expanded > largest_expansion(path, ratio):
        raise UserError(
            str(path),
            f"its {path.stat().st_size:,} bytes expand to {expanded:,} or more: no recorded routing",
            next_step,
        )


def largest_expansion(path: Path, ratio: int) -> int:
    """Bytes that a compressed file may expand to at most."""
    return max(EXPANDED_BYTES, ratio * path.stat().st_size)


def machine_memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

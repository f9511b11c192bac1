"""The errors that users see, their own mistakes and the program's, and how each ends a command in one line."""

import errno
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

REPORTED = ("prophet-moe", "numpy", "numba")
"""Packages whose versions a report of a fault names."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What writing to a full disk fails with."""


class UserError(Exception):
    """A mistake that a user can mend, told in one line: where, what, what was expected, what to do next."""

    def __init__(self, where: str, problem: str, next_step: str = "") -> None:
        """`where` names the file (and key), `problem` the value and what was expected, `next_step` the next command."""
        line = f"{where}: {problem}."
        super().__init__(" ".join(f"{line} {next_step}".split()))


class Fault(Exception):
    """A mistake of this program, not of its user: what it computed cannot be."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """End the program with exit code 1 and one line on standard error when a UserError or a Fault comes this far."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")
    except Fault as fault:
        sys.exit(
            f"error: {fault}. This is a mistake in prophet-moe, not yours: please report this line. {_report_context()}"
        )


@contextmanager
def exit_on_lost_output() -> Iterator[None]:
    """End the program with exit code 1 and no traceback when its output cannot be written.

    Silently where nobody reads it any more, as with `| head -1`, and in one line where the disk is full.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE and error.errno not in FULL:
            raise
        # Python would try once more to write what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1 if error.errno == errno.EPIPE else f"error: {from_os_error('output', error)}")


def _report_context() -> str:
    versions = [f"Python {platform.python_version()}"]
    for name in REPORTED:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} is not installed")
    return f"Command: {shlex.join(sys.argv)}; versions: {', '.join(versions)}."


def from_os_error(path: object, error: OSError) -> UserError:
    """Turn a failed read or write of `path` into a line for the user."""
    if error.errno in FULL:
        return UserError(
            str(path), "could not be written: the disk is full", "Free some space and run the command again."
        )
    return UserError(str(path), f"could not be used: {error.strerror or error}", "Check the path and its permissions.")

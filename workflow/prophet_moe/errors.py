"""The one error that users see, and how it ends a command."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake that a user can mend, told in one line: where, what, what was expected, what to do next."""

    def __init__(self, where: str, problem: str, next_step: str = "") -> None:
        """`where` names the file (and key), `problem` the value and what was expected, `next_step` the next command."""
        line = f"{where}: {problem}."
        super().__init__(" ".join(f"{line} {next_step}".split()))


@contextmanager
def ends_in_one_line() -> Iterator[None]:
    """End the program with exit code 1 and one line on standard error when a UserError comes this far."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")


def from_os_error(path: object, error: OSError) -> UserError:
    """Turn a failed read or write of `path` into a line for the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(
            str(path), "could not be written: the disk is full", "Free some space and run the command again."
        )
    return UserError(str(path), f"could not be used: {error.strerror or error}", "Check the path and its permissions.")

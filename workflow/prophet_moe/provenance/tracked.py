"""Which files belong to the project: what git tracks, or what the manifest of an unpacked archive lists."""

import subprocess
from pathlib import Path

from prophet_moe.errors import UserError
from prophet_moe.validation import read_text

MANIFEST = "MANIFEST"
"""Name of the list that an archive ships in place of git's: one path a line."""


def tracked_files(root: Path = Path(), with_new: bool = False) -> list[str]:
    """Return the paths, from `root` and sorted, of every file of the project that lies there.

    In a git checkout these are the files that git tracks, and `with_new` adds those that it neither tracks nor ignores.
    In an unpacked archive they are those of its MANIFEST. Elsewhere, and without git, it is a UserError.
    """
    if (root / ".git").exists():
        return _of_git(root, with_new)
    if not (root / MANIFEST).exists():
        problem = "no such file, and no git checkout either, so the files of the project are unknown"
        raise UserError(str(root / MANIFEST), problem, "Work in a clone or in an unpacked archive.")
    return read_text(root / MANIFEST).splitlines()


def _of_git(root: Path, with_new: bool) -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", *(["--others", "--exclude-standard"] if with_new else [])]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True)
    except FileNotFoundError:
        raise UserError("git", "is not installed, but this is a git checkout", "Install it.") from None
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip().removeprefix("fatal: ").rstrip(".")
        raise UserError(str(root / ".git"), " ".join(told.split()), "Mend the checkout.") from None
    return sorted(set(filter(None, listed.stdout.decode().split("\0"))))

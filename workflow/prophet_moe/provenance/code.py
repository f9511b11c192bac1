"""Which library modules a script or a notebook runs: its code version, and what Snakemake must watch."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp

from prophet_moe.errors import UserError
from prophet_moe.validation import read_json, read_text

PACKAGES = ("prophet_moe", "studies")


def code_of(entry: Path, library: Path) -> list[str]:
    """Paths of `entry` (.py or .ipynb) and of every module of `library` that it imports, directly or through others.

    `library` is the folder that holds the package; paths come back as given, sorted. An entry that is missing or cannot
    be parsed is a UserError.
    """
    graph = _import_graph()
    found: set[str] = set()
    todo = [name for name in _imported_names(entry) if name in graph.modules]
    while todo:
        module = todo.pop()
        if module in found:
            continue
        found.add(module)
        todo += graph.find_modules_directly_imported_by(module)
        parent = module.rpartition(".")[0]
        todo += [parent] if parent else []  # importing a module runs its packages first
    return [str(entry), *sorted(str(_file_of(module, library)) for module in found)]


@cache
def _import_graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def _imported_names(entry: Path) -> Iterator[str]:
    for source in _sources(entry):
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError) as error:
            raise UserError(str(entry), f"is no Python: {error}", "Mend it.") from None
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module
                yield from (f"{node.module}.{name.name}" for name in node.names)


def _sources(entry: Path) -> list[str]:
    if entry.suffix != ".ipynb":
        return [read_text(entry)]
    try:
        return ["".join(cell["source"]) for cell in read_json(entry)["cells"] if cell["cell_type"] == "code"]
    except (KeyError, TypeError):
        raise UserError(str(entry), "is no notebook", "Restore or mend it.") from None


def _file_of(module: str, library: Path) -> Path:
    path = library / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

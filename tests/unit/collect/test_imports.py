"""What `python -m prophet_moe.collect` may import: it runs on machines that have little besides PyTorch."""

import sys

import grimp

COLLECT = "prophet_moe.collect"
ALLOWED = {"numpy", "pyarrow", "safetensors", "tokenizers", "torch", "tqdm", "transformers", "yaml"}
"""NumPy, pyarrow, PyYAML, PyTorch, and Transformers with the packages that it requires itself."""


def packages_reached(graph: grimp.ImportGraph, room: str) -> set[str]:
    """Third-party packages that the modules of `room` import, directly or through any module of the project.

    A late import in a function counts. Importing a module runs the packages around it, so theirs count too.
    """
    project = room.split(".")[0]
    waiting, seen = {room} | graph.find_descendants(room), set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        if module.split(".")[0] == project:
            around = {module.rpartition(".")[0]} - {""}
            waiting |= (graph.find_modules_directly_imported_by(module) | around) - seen
    return {name for name in seen if name.split(".")[0] != project} - sys.stdlib_module_names


def test_collect_imports_only_what_a_bare_machine_has():
    graph = grimp.build_graph("prophet_moe", include_external_packages=True, exclude_type_checking_imports=True)
    assert packages_reached(graph, COLLECT) <= ALLOWED


def test_packages_reached_finds_an_import_behind_a_package():
    graph = grimp.ImportGraph()
    for name in ("a", "a.collect", "a.collect.trace", "a.room", "a.room.store"):
        graph.add_module(name)
    for name in ("json", "new_package", "numpy"):
        graph.add_module(name, is_squashed=True)
    for importer, imported in (
        ("a.collect.trace", "a.room.store"),
        ("a.collect.trace", "json"),
        ("a.room.store", "numpy"),
        ("a.room", "new_package"),
    ):
        graph.add_import(importer=importer, imported=imported)
    assert packages_reached(graph, "a.collect") == {"numpy", "new_package"}

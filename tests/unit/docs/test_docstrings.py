"""Docstrings can be read alone."""

import ast

import pytest

from tests.conftest import ROOT

FEWEST_WORDS = 5


def short_docstrings(source: str) -> list[str]:
    """The names of what has a docstring of fewer than five words."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    docstrings = [(getattr(node, "name", "module"), ast.get_docstring(node)) for node in nodes]
    return [name for name, text in docstrings if text is not None and len(text.split()) < FEWEST_WORDS]


def test_docstrings_of_the_workflow_have_five_words():
    short = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "workflow").rglob("*.py")
        for name in short_docstrings(path.read_text(encoding="utf-8"))
    }
    assert not short


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ('"""Tokens."""', ["module"]),
        ('"""All the tokens of a trace."""\nclass A:\n    def f(self):\n        """See `g` instead."""', ["f"]),
        (
            'class A:\n    def f(self):\n        """Begin."""\n\n\ndef f():\n    """Begin with no token at all."""',
            ["f"],
        ),
        ("def f():\n    pass", []),
    ],
)
def test_short_docstrings_are_found_by_name(source, short):
    assert short_docstrings(source) == short


LONGEST_NAME = 60


def test_names_of_tests_have_at_most_60_characters():
    sources = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in (ROOT / "tests").rglob("*.py"))
    functions = [
        (path, node.name) for path, tree in sources for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    ]
    assert not [(str(path), name) for path, name in functions if name.startswith("test_") and len(name) > LONGEST_NAME]

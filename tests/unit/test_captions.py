"""Captions from the READMEs of studies."""

import pytest

from prophet_moe.captions import caption, captions
from prophet_moe.errors import UserError
from prophet_moe.files import write_text

README = """\
# Why?

## Outputs

### tables/data/a.csv

What {{ scope }}
holds at {{ limits | join(", ") }}.

A second paragraph, which is no caption.

### figures/b

It is {{ misspelt }}.

### figures/c

{{ limits | no_such_filter }}

### figures/d

{{ scope.none_such }}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder of one study, s, with the README above."""
    write_text(tmp_path / "s/README.md", README)
    return tmp_path


def test_captions_are_the_paragraphs_below_the_paths(folder):
    found = captions("s", folder)
    assert found["tables/data/a.csv"] == 'What {{ scope }} holds at {{ limits | join(", ") }}.'
    assert found["figures/b"] == "It is {{ misspelt }}."


def test_caption_fills_in_the_values(folder):
    values = {"scope": "this", "limits": [1.5, 2]}
    assert caption("s", "tables/data/a.csv", values, folder) == "What this holds at 1.5, 2."


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("figures/none", "has no caption of figures/none"),
        ("figures/b", "caption of figures/b: 'misspelt' is undefined"),
        ("figures/c", "caption of figures/c: No filter named 'no_such_filter'"),
        ("figures/d", "caption of figures/d: 'str object' has no attribute 'none_such'"),
        ("tables/data/a.csv", "caption of tables/data/a.csv: "),
    ],
)
def test_caption_that_cannot_be_made_names_readme_and_reason(folder, monkeypatch, output, problem):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError) as told:
        caption("s", output, {"scope": "this", "limits": 3}, folder)
    assert str(told.value).startswith(f"s/README.md: {problem}")
    assert "\n" not in str(told.value)

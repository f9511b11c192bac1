"""config/answers.yaml: what the reports advise, and answers whose numbers and judgements come from finished tables."""

import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from prophet_moe.claims.bindings import Binding, check, names_in
from prophet_moe.claims.claimed import Value
from prophet_moe.claims.evaluators import Tables, Undefined, evaluated
from prophet_moe.errors import UserError
from prophet_moe.validation import StrictModel, read_yaml, validate

ANSWERS_FILE = Path("config/answers.yaml")
KINDS = ("decision tree", "recommendation", "faq", "talking point", "suggested text")
"""Kinds of advice, in the order of docs/answers.md."""
UNJUDGED = "not judged"
"""In place of a judgement where a build has no rows for it, as one of fewer models."""


class Outcome(StrictModel):
    """A judgement, and when it is due."""

    judgement: Literal["kept", "changed", "dropped"]
    when: Binding | None = None
    """The condition; without one it is due where no outcome before it is."""
    why: str
    """The reason in one sentence, a template."""


class Told(StrictModel):
    """Text with values in braces, `{gain:.2f}`; `%` as the last sign of a format makes percent of a share."""

    given: dict[str, Binding] = {}
    """Values by the names that texts and conditions use, beside those that all share."""


class Advice(Told):
    """What a report advises, with its answer."""

    id: str = Field(pattern=r"^[a-z0-9.-]+$")
    kind: Literal["decision tree", "recommendation", "faq", "talking point", "suggested text"]
    at: list[str] = Field(min_length=1)
    """Lines of the reports, `000:778`."""
    said: str
    """What the report says or asks, in one sentence of our own."""
    answer: str
    """What is found, a template."""
    outcomes: list[Outcome] = Field(min_length=2)
    """Judgements in the order in which they are tried; the last has no condition."""


class Step(Told):
    """A question of our own decision tree. Where it is answered with yes, `leaf` is what to do."""

    question: str
    """The question; empty at the end."""
    leaf: str
    """A leaf of tables/data/decision_tree.csv."""
    action: str
    """What to do there, in a few words."""
    detail: str
    """What that means in numbers, a template."""


class Answers(StrictModel):
    """The whole file of advice and answers."""

    shared: dict[str, Binding]
    """Values that all texts and conditions may use."""
    tree: list[Step]
    answers: list[Advice]


class Scope:
    """The values of an entry by name, each evaluated where it is first used; `read` are the tables that they read."""

    def __init__(self, shared: Mapping[str, Binding], own: Mapping[str, Binding], tables: Tables) -> None:
        """`own` values hide `shared` ones of the same name."""
        self.read: set[str] = set()
        self._bindings, self._tables, self._known = {**shared, **own}, _Noted(tables, self.read), {}

    def __getitem__(self, name: str) -> Value:
        """Return a value; a name that nothing defines is a KeyError."""
        if name not in self._known:
            self._known[name] = self.of(self._bindings[name])
        return self._known[name]

    def of(self, binding: Binding) -> Value:
        """Return the value of a binding, whose references are names of this scope."""
        return evaluated(binding, self._tables, self.__getitem__)

    def told(self, template: str) -> str:
        """Return a text with its values."""
        return _Numbers().vformat(template, (), self)


class _Noted(Tables):
    """Tables whose names are noted where they are read."""

    def __init__(self, tables: Tables, read: set[str]) -> None:
        super().__init__(tables.__getitem__)
        self._read = read

    def __getitem__(self, name: str) -> pd.DataFrame:
        self._read.add(name)
        return super().__getitem__(name)


class _Numbers(string.Formatter):
    """Formats ranges by both ends, and shares as percent."""

    def format_field(self, value: Value, format_spec: str) -> str:
        if isinstance(value, tuple):
            low, high = (self.format_field(end, format_spec) for end in value)
            return low if low == high else f"{low} to {high}"
        if format_spec.endswith("%"):
            return f"{100 * value:{format_spec[:-1]}f} %"
        return super().format_field(value, format_spec)


def read_answers(path: Path = ANSWERS_FILE) -> Answers:
    """Return the file. An unknown key, evaluator or name is a UserError that names the entry."""
    answers = validate(Answers, read_yaml(path), str(path), "See the head of config/answers.yaml.")
    ids = [advice.id for advice in answers.answers]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise UserError(str(path), f"{twice[0]}: is there twice, expected once", "Remove one.")
    _check(f"{path}: shared", answers.shared, [], list(answers.shared.values()))
    for advice in answers.answers:
        *tried, last = advice.outcomes
        if last.when is not None or not all(outcome.when for outcome in tried):
            problem = "expected a condition for every outcome but the last"
            raise UserError(f"{path}: {advice.id}", problem, "Correct its outcomes.")
        texts = [advice.answer, *(outcome.why for outcome in advice.outcomes)]
        bindings = [*advice.given.values(), *(outcome.when for outcome in tried)]
        _check(f"{path}: {advice.id}", {**answers.shared, **advice.given}, texts, bindings)
    for step in answers.tree:
        _check(f"{path}: {step.leaf}", {**answers.shared, **step.given}, [step.detail], list(step.given.values()))
    return answers


def _check(where: str, known: Mapping[str, Binding], texts: list[str], bindings: list[Binding]) -> None:
    """Refuse evaluators and names that there are not."""
    check(bindings, where)
    told = {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name is not None}
    if unknown := sorted((told | set(names_in(bindings))) - set(known)):
        raise UserError(where, f"no value is named {unknown[0]!r}", f"Add it to its values: {', '.join(known)}.")


def judged(answers: Answers, tables: Tables) -> pd.DataFrame:
    """Return every advice with its answer and judgement: a row of text each, by kind and then in the file's order.

    Parameters
    ----------
    answers : Answers
        The file.
    tables : Tables
        Finished tables.

    Returns
    -------
    DataFrame
        id, kind, line, said, answer, judgement, why and read_from.
    """
    rows = []
    for advice in sorted(answers.answers, key=lambda each: KINDS.index(each.kind)):
        scope = Scope(answers.shared, advice.given, tables)
        answer, judgement, why = _tried(lambda scope=scope, advice=advice: _judged(advice, scope), advice.id)
        rows.append(
            {
                "id": advice.id,
                "kind": advice.kind,
                "line": ", ".join(advice.at),
                "said": advice.said,
                "answer": answer,
                "judgement": judgement,
                "why": why,
                "read_from": ", ".join(sorted(scope.read)),
            }
        )
    return pd.DataFrame(rows)


def _judged(advice: Advice, scope: Scope) -> tuple[str, str, str]:
    due = next(each for each in advice.outcomes if each.when is None or scope.of(each.when))
    return scope.told(advice.answer), due.judgement, scope.told(due.why)


def _tried(judge: Callable[[], tuple[str, str, str]], entry: str) -> tuple[str, str, str]:
    """Return answer, judgement and reason; the reason alone where a build lacks what they rest on."""
    try:
        return judge()
    except (Undefined, KeyError) as lacking:
        return "", UNJUDGED, f"There is no value: {lacking.args[0]}."
    except (ValueError, TypeError) as mistake:
        raise ValueError(f"{ANSWERS_FILE}: {entry}: {mistake}") from mistake


def steps(answers: Answers, tables: Tables) -> pd.DataFrame:
    """Return the questions of our own decision tree, a row of text each: question, leaf, action, detail, read_from.

    A detail is empty where a build lacks its numbers.
    """
    rows = []
    for step in answers.tree:
        scope = Scope(answers.shared, step.given, tables)
        detail, *_ = _tried(lambda scope=scope, step=step: (scope.told(step.detail), "", ""), step.leaf)
        found = {"question": step.question, "leaf": step.leaf, "action": step.action, "detail": detail}
        rows.append(found | {"read_from": ", ".join(sorted(scope.read))})
    return pd.DataFrame(rows)

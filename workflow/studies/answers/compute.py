"""Answers to what the reports advise, and the questions of our own decision tree with their numbers."""

import pandas as pd

from prophet_moe.claims.answers import judged, read_answers, steps
from prophet_moe.claims.bindings import finished
from prophet_moe.tables import write_table
from studies.answers.study import ANSWERS, DECISION_STEPS, DECISION_TREE, LEAVES


def counted(asked: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of DECISION_STEPS: questions with how many pairs come to each, and how many say yes.

    Parameters
    ----------
    asked : DataFrame
        What `steps` returns, one row for each of LEAVES in their order.
    pairs : DataFrame
        The leaf of every pair.
    """
    if list(asked["leaf"]) != list(LEAVES):
        raise ValueError(f"tree: got the leaves {', '.join(asked['leaf'])}, expected {', '.join(LEAVES)}")
    yes = [int((pairs["leaf"] == leaf).sum()) for leaf in LEAVES]
    rows = asked.assign(step=range(1, len(LEAVES) + 1), pairs_yes=yes)
    rows["pairs_asked"] = [sum(yes[number:]) for number in range(len(yes))]
    return rows[[column.name for column in DECISION_STEPS.columns]]


def build(files, parameters):
    """Write table 23, answers to the reports' advice, and the steps of our own decision tree."""
    answers = read_answers(files.answers)
    tables = finished(dict(zip(parameters["tables"], files.tables, strict=True)))
    write_table(files.table, judged(answers, tables), ANSWERS)
    write_table(files.steps, counted(steps(answers, tables), tables[DECISION_TREE.name]), DECISION_STEPS)

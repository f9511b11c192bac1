"""docs/answers.md: what the reports advise, with answers and judgements, made from finished tables."""

from textwrap import fill

import pandas as pd

from prophet_moe.study import Study
from prophet_moe.tables import Table

WIDTH = 130
"""Letters of a line of the page."""
TITLES = {
    "decision tree": "The decision tree of report 002",
    "recommendation": "Recommendations",
    "faq": "Frequent questions",
    "talking point": "Talking points",
    "suggested text": "Suggested text",
}
"""Headings by kind, in their order."""
JUDGEMENTS = {
    "kept": "It is right, and what it rests on holds.",
    "changed": "It is right in part, or for another reason. The last sentence says what to do instead.",
    "dropped": "What it rests on is not so.",
}
"""Judgements, and what each means."""


def answers_page(study: Study, answers: pd.DataFrame, steps: pd.DataFrame) -> str:
    """Return the page in Markdown.

    Parameters
    ----------
    study : Study
        The study that makes the tables, of which the page tells command and minutes.
    answers : DataFrame
        Table 23, one row of text for each advice.
    steps : DataFrame
        The questions of our own decision tree.
    """
    return (
        "# Should I do this? What the reports advise, answered\n\n"
        "Made from `tables/table23_answers.csv` and `tables/data/decision_steps.csv` by `prophet-moe config write`.\n"
        "A test fails when they differ.\n\n"
        "Reports 000 to 002 ([reports.md](reports.md)) end in recommendations, prepared answers, text for a paper and\n"
        "a decision tree. Each is answered here with computed numbers, and judged by conditions over them\n"
        "(`config/answers.yaml`), so that other settings can change both. Times are estimated, since no GPU was\n"
        "measured ([findings.md](findings.md)).\n\n"
        f"{_study_line(study)}\n"
        "![When to keep all experts, to offload, to quantise or to use more GPUs](../figures/decision_tree.png)\n\n"
        "## In short\n\nFor one sequence that decodes, counted over the models and machines of table 16:\n\n"
        f"{_in_short(steps)}\n"
        f"## How the advice is judged\n\n{_counts(answers)}"
        f"{''.join(_section(kind, answers[answers['kind'] == kind]) for kind in TITLES)}"
    )


def _study_line(study: Study) -> str:
    """Command and minutes of the study, as every page of a study has them."""
    link = f"[Study `{study.id}`](../workflow/studies/{study.id}/README.md)"
    return (
        f"{link}, {study.minutes:g} minutes on two cores after set-up:\n\n"
        "```bash\nsnakemake --cores 8 tables/table23_answers.csv figures/decision_tree.pdf\n```\n"
    )


def _in_short(steps: pd.DataFrame) -> str:
    """Our own decision tree as a list; a table and its figure have the same words."""
    lines = []
    for row in steps.itertuples():
        asked = f"{row.question} If so: " if row.question else "Else: "
        lines.append(
            f"{row.step}. {asked}**{row.action}.** {row.pairs_yes} of {row.pairs_asked} pairs. {row.detail}".rstrip()
        )
    return "".join(f"{fill(line, WIDTH, subsequent_indent='   ', **WHOLE)}\n" for line in lines)


WHOLE = {"break_long_words": False, "break_on_hyphens": False}
"""Keeps links whole where lines are filled."""


def _counts(answers: pd.DataFrame) -> str:
    """How many of each kind are kept, changed and dropped, with what that means."""
    found = pd.crosstab(answers["judgement"], answers["kind"]).reindex(columns=list(TITLES), fill_value=0)
    judgements = [*JUDGEMENTS, *(name for name in found.index if name not in JUDGEMENTS)]
    head = f"| judgement | means | {' | '.join(TITLES)} |\n|{'---|' * (2 + len(TITLES))}\n"
    rows = [
        f"| **{name}** | {JUDGEMENTS.get(name, 'This build lacks its rows.')} | {' | '.join(map(str, row))} |\n"
        for name, row in found.reindex(judgements, fill_value=0).iterrows()
    ]
    return head + "".join(rows)


def _section(kind: str, answers: pd.DataFrame) -> str:
    return f"\n## {TITLES[kind]}\n\n{''.join(_entry(row) for row in answers.itertuples())}"


def _entry(row) -> str:
    """One advice: its judgement first, then what is said, what is found and why."""
    lines = ", ".join(f"[{line}](reports.md#{line.replace(':', '-')})" for line in row.line.split(", "))
    tables = ", ".join(f"[{name}](../{_path(name)})" for name in row.read_from.split(", "))
    said = f"* **{row.judgement.capitalize()}**: {row.said.rstrip('.')} ({lines})."
    found = f"  *Found:* {row.answer}" if row.answer else ""
    parts = [said, found, f"  *So:* {row.why} From {tables}."]
    return "".join(f"{fill(part, WIDTH, subsequent_indent='  ', **WHOLE)}\n" for part in parts if part)


def _path(name: str) -> str:
    """The path of a table of the default build by its name; one of another scenario has that before it."""
    scenario, _, table = name.rpartition("/")
    return Table(table, (), by_scenario=True).path.format(scenario_dir=f"{scenario}/" if scenario else "")

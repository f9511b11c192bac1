"""Messages of a build: models that a figure leaves out, failed jobs, and where the outputs are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

HOW_TO_GET_TEX = (
    "paper/main.pdf and its supplement were not built: latexmk is not installed. To install it: apt-get install "
    "latexmk texlive-latex-recommended texlive-fonts-recommended texlive-science texlive-latex-extra"
)


def other_models(figure: str, scenario: str, listed: Sequence[str], drawn: Sequence[str], known: Sequence[str]) -> str:
    """Return the note that a figure of a scenario does not draw all models of its list; empty where it does.

    `known` are the models of the run: those of the list that are not among them were left out on purpose.
    """
    lacking = [name for name in listed if name in known and name not in drawn]
    if not lacking and set(drawn) & set(listed):
        return ""
    why = f"lacks {', '.join(lacking)}" if lacking else "has none of its models"
    return f"note: {figure} of scenario {scenario} shows {', '.join(drawn)}: the scenario {why}"


def failures(logs: Path, since: float, folder: Path) -> list[str]:
    """Return the lines in which jobs that failed after `since` (seconds of the epoch) said what was wrong.

    A log with a traceback gives its last line, and its path below `folder`.
    """
    lines = []
    for path in sorted(logs.rglob("*.log")):
        text = path.read_text() if path.stat().st_mtime >= since else ""
        reported = [line for line in text.splitlines() if line.startswith("error: ")]
        unexpected = "Traceback (most recent call last)" in text
        lines += reported or ([f"see {folder / path}: {text.splitlines()[-1]}"] if unexpected else [])
    return lines


def summary(scenario_dirs: Mapping[str, str], headlines: Path, run: str, run_folder: Path | None) -> str:
    """Return the message at the end of a build: where the outputs are, and the most important numbers."""
    places = ", ".join(f"{name} in {at}" if at else f"{name} at the top" for name, at in scenario_dirs.items())
    lines = ["", f"Outputs: figures/, tables/, paper/generated/, results/notebooks/. Scenarios: {places}.", ""]
    if headlines.exists():
        lines += [headlines.read_text()]
    if run_folder:
        lines += [f"All of them are below {run_folder}/. The committed outputs did not change."]
        return "\n".join([*lines, f"To compare with them: prophet-moe compare {run}"])
    return "\n".join([*lines, "Compare with the committed outputs: snakemake --cores 2 verify"])

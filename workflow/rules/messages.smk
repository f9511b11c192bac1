"""What a build tells its user: notes before, numbers after, and what was wrong."""

import sys
import time

STARTED = time.time()


def notes():
    """What a user should know before the build: models that no GPU can hold, missing data, how long training takes."""
    unfit = [f"note: {model}: {problem}; its rows show fit state `neither`" for model, problem in TOO_LARGE.items()]
    missing = missing_datasets() + of_prefill() + too_few_to_fit() + without_predictor()
    missing += without_times() + unmeasured()
    return unfit + other_models() + missing + expected_minutes() + without_paper()


def other_models():
    """One line for each figure that does not draw all models of its list, since a scenario lacks them."""
    lines = []
    for scenario, covered in COVERED.items():
        for figure, listed in EXPERIMENT.figure_models:
            lacking = [name for name in listed if name in MODELS and name not in covered]
            drawn = EXPERIMENT.figure_models.drawn(figure, covered)
            of_scenario = figure in FIGURE_NAMES or scenario == EXPERIMENT.scenario
            if of_scenario and (lacking or not set(drawn) & set(listed)):
                why = f"lacks {', '.join(lacking)}" if lacking else "has none of its models"
                lines.append(f"note: {figure} of scenario {scenario} shows {', '.join(drawn)}: the scenario {why}")
    return lines


def without_paper():
    """One line where the paper is left out because a scenario that it speaks of is not built."""
    if PAPER_IS_TOLD:
        return []
    return ["note: paper/main.pdf is left out: it needs scenario calibrated as the default one, and reported beside it"]


def failures():
    """The lines in which failed jobs told what was wrong."""
    lines = []
    folder = RUN_FOLDER or Path()
    for path in sorted(Path("logs").rglob("*.log")):
        text = path.read_text() if path.stat().st_mtime >= STARTED else ""
        told = [line for line in text.splitlines() if line.startswith("error: ")]
        unexpected = (
            [f"see {folder / path}: {text.splitlines()[-1]}"] if "Traceback (most recent call last)" in text else []
        )
        lines += told or unexpected
    return lines


def summary():
    """What the end of a build tells: where the outputs are, and the numbers to look at first."""
    places = ", ".join(f"{name} in {at}" if at else f"{name} at the top" for name, at in PLACES.items())
    lines = ["", f"Outputs: figures/, tables/, paper/generated/, results/notebooks/. Scenarios: {places}.", ""]
    if Path(HEADLINES).exists():
        lines += [Path(HEADLINES).read_text()]
    if RUN_FOLDER:
        lines += [f"All of them below {RUN_FOLDER}/; the committed outputs are as they were."]
        lines += [f"What differs from these: prophet-moe compare {EXPERIMENT.name}"]
    else:
        lines += ["Compare with the committed outputs: snakemake --cores 2 verify"]
    return "\n".join(lines + ([] if TEX_IS_INSTALLED else [HOW_TO_GET_TEX]))

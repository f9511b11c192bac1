"""Estimates of decode steps beside aiconfigurator, on the same published rows: how many each answers, and how well.

The rows are the clean ones of servers on H100 and H200 in resources/observations/times.csv. Constants of this project
are fitted without the model, engine and GPU of the row that is predicted. aiconfigurator is asked for the same batch,
lengths and split with `backend_version` `current`, in its modes `agg` (a server) and `static_gen` (decode steps alone).
`agg_any_split` is `agg`, asked once more for whole experts on each GPU where it refuses to split them. It needs an
environment of its own:

    python -m venv /tmp/aiconfigurator && /tmp/aiconfigurator/bin/pip install aiconfigurator==0.12.0

usage: python benches/aiconfigurator.py --python /tmp/aiconfigurator/bin/python
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

SYSTEMS = {"H100-80GB": "h100_sxm", "H200-141GB": "h200_sxm"}
MODES, ANY_SPLIT = ("agg", "static_gen"), "agg_any_split"


def answer(cases: list[dict]) -> list[dict]:
    """Return what aiconfigurator says of each case in each mode: milliseconds per output token, or its complaint."""
    import logging
    import warnings

    from aiconfigurator.cli.api import cli_estimate

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)

    def told(case: dict, mode: str) -> float | str:
        try:
            return float(cli_estimate(mode=mode, backend_version="current", **case).tpot)
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"

    answers = []
    for case in cases:
        found = {mode: told(case, mode) for mode in MODES}
        by_expert = case | {"moe_tp_size": 1, "moe_ep_size": case["tp_size"]}
        refused = isinstance(found["agg"], str)
        answers.append({**found, ANY_SPLIT: told(by_expert, "agg") if refused else found["agg"]})
    return answers


def case_of(row) -> dict:
    """Return the arguments of aiconfigurator for one row."""
    gpus, by_expert = int(row.gpus), int(row.ep) > 1
    return {
        "model_path": row.model_as_named,
        "system_name": SYSTEMS[row.gpu],
        "backend_name": row.engine,
        "isl": int(row.input_len),
        "osl": int(row.output_len),
        "batch_size": int(row.batch),
        "tp_size": gpus,
        "moe_tp_size": 1 if by_expert else gpus,
        "moe_ep_size": gpus if by_expert else 1,
    }


def compare(python: str) -> None:
    """Print coverage and errors of both, on all rows that each answers and on those that both answer."""
    import numpy as np
    import pandas as pd

    from prophet_moe.catalog import load_gpus, load_models
    from prophet_moe.observed import times

    rows = pd.read_csv("resources/observations/times.csv")
    models = load_models(Path("config/models")) | load_models(Path("config/models/current"))
    features = times.features(rows, times.known(models, load_gpus(Path("config/gpus.yaml"))))
    features = features[features["clean"] & features["operators"].notna()].reset_index(drop=True)
    features["own"] = times.left_out(times.LAWS["B3"][1], features, times.GROUP)
    asked = rows[(rows["clean"] == 1) & (rows["kind"] == "e2e decode") & rows["gpu"].isin(list(SYSTEMS))]
    asked = asked.merge(features[["id", "own"]], on="id", how="left").reset_index(drop=True)
    command = [python, __file__, "--answer"]
    cases = json.dumps([case_of(row) for row in asked.itertuples()])
    answers = json.loads(subprocess.run(command, input=cases, capture_output=True, text=True, check=True).stdout)
    for mode in (*MODES, ANY_SPLIT):
        said = [found[mode] if isinstance(found[mode], float) else np.nan for found in answers]
        asked[mode] = said / asked["measured_ms"]
    names = ["own", *MODES, ANY_SPLIT]
    print(f"{len(asked)} clean rows on {' and '.join(SYSTEMS)}")
    for name in names:
        _tell(name, asked[name], len(asked))
    for mode in (*MODES, ANY_SPLIT):
        both = asked[["own", mode]].dropna()
        print(f"\non the {len(both)} rows that both this project and {mode} answer")
        for name in ("own", mode):
            _tell(name, both[name], len(both))
    print()
    grouped = asked.groupby(["gpu", "engine", "version", "model", "gpus"])
    print(grouped.agg(rows=("id", "size"), **{n: (n, "median") for n in names}).round(2).to_string())
    complaints = pd.Series([f[MODES[0]] for f in answers if isinstance(f[MODES[0]], str)], dtype=object)
    print()
    for complaint, count in complaints.value_counts().items():
        print(f"{count} rows: {complaint}")


def _tell(name: str, ratio, asked: int) -> None:
    error = (ratio.dropna() - 1).abs()
    if error.empty:
        print(f"{name:>13}: answers none")
        return
    within = f"{(error <= 0.2).mean():.1%} within 20 %, {(error <= 0.3).mean():.1%} within 30 %"
    errors = f"mean error {error.mean():.1%}, median {error.median():.1%}"
    print(f"{name:>13}: answers {len(error)} of {asked}; {within}; {errors}")


def main() -> None:
    """Compare, or answer cases from standard input under the other environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="interpreter of the environment with aiconfigurator")
    parser.add_argument("--answer", action="store_true", help="answer cases given as JSON, used by the bench itself")
    arguments = parser.parse_args()
    if arguments.answer:
        # Its own folder has a module of the peer's name, this file.
        sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
        print(json.dumps(answer(json.load(sys.stdin))))
    elif arguments.python:
        compare(arguments.python)
    else:
        parser.error("--python is needed")


if __name__ == "__main__":
    main()

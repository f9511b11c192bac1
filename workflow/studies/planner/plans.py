"""What `prophet-moe plan` says of every model and GPU of the grid, as a table."""

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from prophet_moe.cli.plan import Basis, add_command, plans_of
from prophet_moe.planning.pages import Plan
from prophet_moe.planning.situation import Range
from prophet_moe.settings.scenario import Scenario
from prophet_moe.tables import write_table
from studies.planner.study import PLANS


def build(files, parameters):
    """Plan every model, GPU and batch size as the command line does."""
    scenario = Scenario.model_validate(parameters["scenario"])
    basis = Basis(
        parameters["scenario_name"], scenario, parameters["link"], parameters["compute_share"], parameters["counts"]
    )
    plans = planned(basis, parameters["models"], parameters["gpus"], parameters["batches"])
    write_table(files.table, plan_table(plans), PLANS)


def planned(basis: Basis, models: Sequence[str], gpus: Sequence[str], batches: Sequence[int]) -> Iterator[Plan]:
    """Yield the plan of every model, batch size and GPU, with the options of the command `plan` left as they are."""
    parser = ArgumentParser()
    add_command(parser.add_subparsers())
    for model in models:
        for batch in batches:
            arguments = ["plan", "--model", model, "--batch", str(batch), "--gpu", *gpus]
            yield from plans_of(parser.parse_args(arguments), basis)


def plan_table(plans: Iterator[Plan]) -> pd.DataFrame:
    """Return the rows of PLANS, a row for every context of every plan."""
    rows = [row for plan in plans for row in _rows(plan)]
    table = pd.DataFrame(rows, columns=[column.name for column in PLANS.columns])
    return table.astype({column.name: "Int64" for column in PLANS.columns if column.kind == "integer"})


def _rows(plan: Plan) -> Iterator[dict[str, Any]]:
    advice = plan.advice
    for split in plan.splits:
        yield {
            "model": plan.model,
            "gpu": plan.gpu,
            "batch_size": split.batch,
            "context": split.context,
            "slots": max(0, split.slots),
            "slots_per_layer": max(0, split.per_layer),
            "experts": split.experts,
            "resident_share_pct": 100 * max(0.0, split.share),
            **_ends("hit_rate", split.hit),
            **_ends("tokens_per_s", split.tokens_per_s),
            **_ends("slowdown", split.slowdown),
            "prefill_s": split.prefill_seconds,
            "works": split.works,
            "refusals": "; ".join(each.reason for each in split.refusals),
            "advised_context": advice.context,
            "advice": advice.sentence,
            "reasons": "; ".join(advice.reasons),
        }


def _ends(name: str, found: Range | None) -> dict[str, float | None]:
    ends = (None, None, None) if found is None else (found.middle, found.low, found.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))

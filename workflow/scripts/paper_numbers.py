"""Write the numbers that only the paper quotes, and the line below each of its figures and tables, as LaTeX macros."""

from pathlib import Path

import pandas as pd

from prophet_moe.capacity.limits import CONTEXT_GAINED
from prophet_moe.capacity.record import RECORD
from prophet_moe.errors import UserError
from prophet_moe.files import sha256, write_text
from prophet_moe.present import latex, paper_numbers
from prophet_moe.present.price import summary
from prophet_moe.provenance.sidecar import code_version, sidecar_of
from prophet_moe.routing.law_schema import FITS
from prophet_moe.tables import read_table
from prophet_moe.validation import read_json
from studies.alternatives.figure import SMALL_FORMAT
from studies.alternatives.study import ALTERNATIVES, BASELINE_FORMAT
from studies.comparison.study import SAVINGS, STRATEGIES
from studies.dynamic_batching.figure import least_loaded
from studies.dynamic_batching.study import CLAIMS, DYNAMIC_BATCHING
from studies.headline.study import SENSITIVITY as HEADLINE_SENSITIVITY
from studies.planner.figure import plans, rates
from studies.planner.study import PLANNER, RATE_FACTOR
from studies.prediction.study import SUMMARY
from studies.report_tables.figure import NEAR, by_table
from studies.report_tables.study import REPORT_TABLES
from studies.routing_law.study import EXPONENTS, PUBLISHED_POOLS, PUBLISHED_TRANSFER
from studies.sensitivity.figure import shares
from studies.sensitivity.study import SENSITIVITY
from studies.several_gpus.figure import of_first_gpu, within_limit
from studies.several_gpus.study import SEVERAL_GPUS
from studies.use_cases.study import USE_CASES
from studies.where_it_pays.figure import shown
from studies.where_it_pays.study import WHERE_IT_PAYS

TABLES = {
    "transfer": PUBLISHED_TRANSFER,
    "fits": FITS,
    "exponents": EXPONENTS,
    "pools": PUBLISHED_POOLS,
    "predicted": SUMMARY,
    "strategies": STRATEGIES,
    "savings": SAVINGS,
    "gained": CONTEXT_GAINED,
    "record": RECORD,
    "pays": WHERE_IT_PAYS,
    "alternatives": ALTERNATIVES,
    "gpus": SEVERAL_GPUS,
    "served": DYNAMIC_BATCHING,
    "batching": CLAIMS,
    "varied": SENSITIVITY,
    "assumed": HEADLINE_SENSITIVITY,
    "planned": PLANNER,
    "cases": USE_CASES,
    "printed": REPORT_TABLES,
}
"""Inputs by name, with the declarations of the tables that they are."""


def build(files, parameters):
    """Read every table, select rows as the figures do, and write one macro per number."""
    read = {name: read_table(getattr(files, name), table) for name, table in TABLES.items()}
    settings = parameters["settings"]
    try:
        numbers = paper_numbers.setting_numbers(settings) | _of_tables(read, settings)
    except (KeyError, IndexError, ValueError) as error:
        problem = f"the settings leave out what the paper tells of: {' '.join(str(error).split())}"
        raise UserError(
            "paper/main.tex", problem, "Build the other outputs by name, or restore the settings."
        ) from None
    for ledger in files.ledger:
        numbers |= paper_numbers.claim_numbers(pd.read_csv(ledger, dtype=str, keep_default_na=False))
    numbers |= paper_numbers.made_lines(_origins(files, parameters["printed"]))
    write_text(files.macros, latex.header(files.config_hash) + latex.macros(numbers))


def _of_tables(read: dict[str, pd.DataFrame], settings: dict) -> dict[str, str]:
    """The numbers of every study."""
    gpus = of_first_gpu(read["gpus"])
    batching = read["batching"]
    varied = read["varied"]
    by_rate = varied[
        (varied["analysis"] == "one_at_a_time")
        & (varied["outcome"] == "slowdown")
        & (varied["input"] == "hit_rate")
        & (varied["model"] == "all")
    ]
    record = read["record"]
    return (
        paper_numbers.routing_numbers(read["transfer"], read["fits"], read["exponents"], read["pools"])
        | paper_numbers.prediction_numbers(read["predicted"])
        | paper_numbers.strategy_numbers(read["strategies"], read["savings"])
        | paper_numbers.frontier_numbers(
            read["gained"],
            summary(read["gained"]),
            record.loc[record["baseline_fits"], "kv_extension_factor"].astype(float),
        )
        | paper_numbers.pays_numbers(shown(read["pays"]), settings["claimed_slowdown"])
        | paper_numbers.alternative_numbers(read["alternatives"], settings["gpu"], BASELINE_FORMAT, SMALL_FORMAT)
        | paper_numbers.several_gpu_numbers(gpus, within_limit(gpus))
        | paper_numbers.serving_numbers(
            least_loaded(read["served"]), batching[batching["arrivals"] == batching["arrivals"].iloc[0]]
        )
        | paper_numbers.sensitivity_numbers(
            *(shares(varied, outcome)["total"] for outcome in ("gained_share", "slowdown")),
            by_rate.set_index(by_rate["level"].astype(float))["value"],
        )
        | paper_numbers.headline_numbers(read["assumed"])
        | paper_numbers.planner_numbers(rates(read["planned"]), plans(read["planned"]), RATE_FACTOR)
        | paper_numbers.use_case_numbers(read["cases"])
        | paper_numbers.printed_numbers(by_table(read["printed"]).sum(), NEAR)
    )


def _origins(files, printed: dict[str, dict]) -> dict[str, tuple[str, list[str], str]]:
    """What made each figure and table, from which data, by which code; by the name of its line."""
    found = {}
    for name, given in printed.items():
        made_from = read_json(sidecar_of(Path(given["output"]))) if given["output"] else _this(files)
        found[name] = (given["maker"], given["data"], code_version(made_from))
    return found


def _this(files) -> dict[str, dict[str, str]]:
    """The code of this job, whose sidecar is written after it."""
    return {"code": {str(path): sha256(path) for path in sorted(files.code)}}

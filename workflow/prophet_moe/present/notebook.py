"""What a notebook needs before its figure: the project's folder and checked parameters.

Imports neither Matplotlib nor pandas, so that a notebook can call `enter_project` before they load.
"""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from prophet_moe.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def enter_project() -> None:
    """Change to the nearest folder, here or above, that holds a Snakefile; paths in notebooks start there."""
    here = Path.cwd()
    project = next((folder for folder in (here, *here.parents) if (folder / "Snakefile").is_file()), None)
    if project is None:
        raise UserError(str(here), "no Snakefile here or above", "Start the notebook inside the project.")
    os.chdir(project)
    # "Matplotlib is building the font cache" would otherwise be printed into the first notebook that a machine runs.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


def require(record: "pd.DataFrame", where: str, **values: object) -> None:
    """Refuse a parameter that names what the record does not hold.

    Each keyword is a column of the record, its value one entry or a list of entries; `where` names the record.
    """
    for column, wanted in values.items():
        known = record[column].unique().tolist()
        entries = wanted if isinstance(wanted, list) else [wanted]
        strange = [entry for entry in entries if entry not in known]
        if strange or not entries:
            what = f"{column} {strange[0]!r} is not in the record" if strange else f"{column}: an empty list"
            raise UserError(where, f"{what}, expected one of {', '.join(map(str, known))}")

"""Our own decision tree: which leaf each pair of model and machine comes to."""

import pandas as pd

from prophet_moe.tables import write_table
from studies.answers.study import DECISION_TREE, KEEP_ALL, MORE_GPUS, QUANTISE, SHIPPED, SLOTS, SLOW_SLOTS

PAIR = ["model", "gpu", "bus"]
LEAF_OF = {"all_fit": KEEP_ALL, "slots": SLOTS, "too_slow": SLOW_SLOTS, "too_large": MORE_GPUS}
"""Leaves by the state of table 16 in shipped formats, where no format of fewer bits holds every expert."""


def leaves(pays: pd.DataFrame) -> pd.DataFrame:
    """Return the leaf of every pair of model and machine.

    Parameters
    ----------
    pays : DataFrame
        Table 16. Its formats go from wide to narrow. Machines of unified memory are left out: nothing is copied there.

    Returns
    -------
    DataFrame
        The columns of DECISION_TREE, in the order of table 16.
    """
    copied = pays[~pays["unified_memory"].astype(bool)]
    shipped = copied[copied["format"] == SHIPPED].copy()
    shipped["leaf"] = shipped["state"].map(LEAF_OF)
    narrower = copied[(copied["format"] != SHIPPED) & (copied["state"] == "all_fit")]
    widest = narrower.drop_duplicates(PAIR).set_index(PAIR)["format"]
    fitting = pd.MultiIndex.from_frame(shipped[PAIR]).map(widest.to_dict())
    fewer_bits = shipped["leaf"].isin([SLOW_SLOTS, MORE_GPUS]) & pd.notna(fitting)
    shipped["leaf"] = shipped["leaf"].mask(fewer_bits, QUANTISE)
    shipped["format"] = shipped["format"].mask(fewer_bits, pd.Series(fitting, shipped.index))
    return shipped[[column.name for column in DECISION_TREE.columns]].reset_index(drop=True)


def build(files, parameters):
    """Write the leaf of every pair of model and machine."""
    write_table(files.table, leaves(pd.read_csv(files.pays)), DECISION_TREE)

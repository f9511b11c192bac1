"""What pages of models are read from: tables of the default scenario, and what several sections ask of them."""

from dataclasses import dataclass

import pandas as pd

from prophet_moe.present.select import where


@dataclass(frozen=True)
class Results:
    """Tables of the default scenario; None where a build does not make one."""

    catalog: pd.DataFrame
    """Published and reported constants, `model_catalog`."""
    record: pd.DataFrame
    """The extended record: a row per model, GPU and batch size."""
    gained: pd.DataFrame | None = None
    """Table 11, the context gained within limits of slowdown."""
    points: pd.DataFrame | None = None
    """The simulated points of the frontier."""
    several: pd.DataFrame | None = None
    """Table 18, the GPUs that a model needs."""
    claims: pd.DataFrame | None = None
    """The ledger of claims, all text; `model` has the names of models, separated by a comma and a space."""

    def of(self, model: str) -> "Results":
        """Return the rows of one model in every table."""
        tables = {name: table for name, table in vars(self).items() if name != "claims"}
        rows = {name: None if table is None else where(table, model=model) for name, table in tables.items()}
        if self.claims is None:
            return Results(**rows)
        about = [model in names.split(", ") for names in self.claims["model"]]
        return Results(**rows, claims=self.claims[about])


def both_fit(record: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in which the baseline and Prophet fit, which alone have a KV extension."""
    return where(record, fit_state="both")


def extensions(gained: pd.DataFrame | None, strategy: str, limit: float) -> pd.Series:
    """KV extension of a strategy within a limit of slowdown, of the configurations whose baseline fits."""
    if gained is None:
        return pd.Series(dtype=float)
    return where(gained, strategy=strategy)[f"kv_extension_at_{limit:g}x"].dropna()


def by_gpu(rows: pd.DataFrame, gpus: list[str]) -> pd.DataFrame:
    """Return rows in the order of `gpus`, and by batch size."""
    place = rows["gpu"].map({gpu: number for number, gpu in enumerate(gpus)})
    order = rows.assign(place=place).sort_values(["place", "batch_size"], kind="stable")
    return order.drop(columns="place")


def gpus_of(record: pd.DataFrame) -> list[str]:
    """Return the GPUs of the record, in its order."""
    return list(dict.fromkeys(record["gpu"]))

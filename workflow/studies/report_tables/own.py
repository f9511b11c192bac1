"""Report 003 under its own constants: its formulas, and the constants that its tables and calculations print.

Where it states a formula, that formula holds, also where its table shows another number. Activations of Switch models
are a share of all weights in its tables; those of Qwen are, as it says, a share of the active parameters times B.
"""

from dataclasses import dataclass
from functools import partial

import pandas as pd

from prophet_moe.units import GB

FACTORS_PER_TOKEN = 4
"""Keys and values, of 2 bytes each: a token takes 4 L H bytes (003:81)."""


@dataclass(frozen=True)
class Constants:
    """What report 003 states of one model on one GPU: GB, bytes and experts."""

    other_gb: float
    all_experts_gb: float
    kept_experts_gb: float
    slot_gb: float
    """One resident expert in every layer."""
    experts: float
    kept: float
    shared: float
    layers: float
    activation_gb: float
    predictor_gb: float
    kv_bytes_per_token: float
    device_gb: float

    def values(self, batch: int, context: float, slots: float) -> dict[str, float]:
        """Return every quantity that a table of report 003 has, by its name in resources/reports/printed.csv."""
        kv = batch * context * self.kv_bytes_per_token / GB
        found: dict[str, float] = {
            "non_expert_gb": self.other_gb,
            "kv_gb": kv,
            "activation_gb": self.activation_gb,
            "predictor_gb": self.predictor_gb,
            "one_layer_expert_gb": self.all_experts_gb / self.layers,
            "shared_experts": self.shared,
            "num_experts": self.experts,
            "resident_experts": self.kept,
            "expert_savings_gb": self.all_experts_gb - self.kept_experts_gb,
            "expert_savings_pct": 100 * (1 - (slots or self.kept) / self.experts),
            "slots_extension": self.experts / slots if slots else float("nan"),
        }
        kept = {
            "baseline": self.all_experts_gb,
            "prophet": slots * self.slot_gb if slots else self.kept_experts_gb,
            "slots": slots * self.slot_gb,
        }
        for side, experts in kept.items():
            predictor = self.predictor_gb if side == "prophet" else 0.0
            fixed = self.other_gb + self.activation_gb + experts + predictor
            free = self.device_gb - fixed
            found |= {
                f"{side}_expert_gb": experts,
                f"{side}_fixed_gb": fixed,
                f"{side}_total_gb": fixed + kv,
                f"{side}_available_gb": free,
                f"{side}_fits_context": float(fixed + kv <= self.device_gb),
                f"{side}_max_context": max(0.0, free * GB // (batch * self.kv_bytes_per_token)),
            }
        baseline, prophet = found["baseline_max_context"], found["prophet_max_context"]
        found["kv_extension_factor"] = prophet / baseline if baseline else float("nan")
        found["total_freed_gb"] = found["baseline_total_gb"] - found["prophet_total_gb"]
        found["total_freed_pct"] = 100 * found["total_freed_gb"] / found["baseline_total_gb"]
        return found


def constants_of(cell: pd.Series, printed: pd.DataFrame, active_params_b: float, shares: dict[str, float]) -> Constants:
    """Return the constants behind one cell of report 003, read from what it prints.

    Parameters
    ----------
    cell : Series
        The cell: its table, model, GPU and batch.
    printed : DataFrame
        All printed numbers.
    active_params_b : float
        Active parameters of the model in the reports, in 10^9.
    shares : dict from str to float
        activation_share (of all weights), qwen_activation_share (of the active parameters, times B), device_gb.
    """
    said = partial(_said, printed)
    of_model = printed[(printed["table"] == "003 T1") & (printed["model"] == cell["model"])]
    first = of_model.set_index("quantity")["claimed"]
    kv = FACTORS_PER_TOKEN * first["layers"] * first["hidden"]
    device, predictor = shares["device_gb"], said("003:46", "predictor_gb")
    if cell["table"] == "003 T6":
        layer = first["expert_mb"] / 1000 * first["layers"]
        kept, shared, experts = said("003:170", "resident_experts"), said("003:162", "shared_experts"), 0.0
        experts = said("003:163", "num_experts")
        activation = shares["qwen_activation_share"] * active_params_b * int(cell["batch"])
        sizes = experts * layer, (shared + kept) * layer, layer
        return Constants(
            first["non_expert_gb"], *sizes, experts, kept, shared, first["layers"], activation, predictor, kv, device
        )
    kept, experts = said("003:59", "resident_experts"), first["num_experts"]
    other = first["non_expert_gb"]
    if "XXL" in cell["model"]:
        other = said("003:42", "non_expert_gb")
        everything = said("003:301", "one_layer_expert_gb") * first["layers"]
    elif cell["table"] == "003 T5":
        everything = experts * first["expert_mb"] / 1000 * first["layers"]
    else:
        everything = said("003:218", "baseline_expert_gb")
    activation = shares["activation_share"] * (other + everything)
    slot = everything / experts
    sizes = everything, kept * slot, slot
    return Constants(other, *sizes, experts, kept, 0.0, first["layers"], activation, predictor, kv, device)


def _said(printed: pd.DataFrame, source: str, quantity: str) -> float:
    found = printed[(printed["source"] == source) & (printed["quantity"] == quantity)]
    return float(found["claimed"].iloc[0])

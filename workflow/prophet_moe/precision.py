"""The precision of weights and caches, which memory and time must count alike."""

from dataclasses import dataclass
from typing import Literal

MlaCache = Literal["latent", "decompressed"]
"""What multi-head latent attention caches: one latent per token, or the expanded keys and values of every head."""


@dataclass(frozen=True)
class Precision:
    """Bits per number, and what multi-head latent attention caches; made once, by `Scenario.precision`.

    Whatever counts bytes or seconds takes this one value, so that no number has one size in memory and another in time.
    """

    weight_bits: int = 16
    kv_bits: int = 16
    """Bits per value of the KV cache, and of the convolution window of a Mamba layer."""
    ssm_state_bits: int = 32
    mla_cache: MlaCache = "latent"

    @property
    def weight_bytes(self) -> float:
        """Return the bytes per weight, 0.5 for four bits."""
        return self.weight_bits / 8

    @property
    def kv_bytes(self) -> float:
        """Return the bytes per value of the KV cache."""
        return self.kv_bits / 8


BF16 = Precision()
"""Weights and caches of 16 bits, SSM states of 32 and the latent of MLA: what published models are served with."""

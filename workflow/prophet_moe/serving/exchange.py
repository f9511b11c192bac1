"""Bytes that GPUs send one another for every decoded token, counted over all GPUs.

* Tensor parallel: the sum after every mixer and FFN. A ring of n GPUs sends 2 (n - 1) hidden vectors.
* Data and expert parallel: all-to-all before and after the experts of a layer. A token goes to its k experts, of which
  those on other GPUs cost a vector each way: k x hidden x bytes x (1 - 1/n), if experts and tokens are spread evenly.
  Kernels that send a token once to a GPU, however many of its experts are there, send less (`once_per_gpu`).
* Tensor-parallel copies of attention dispatch a part of their tokens each and gather the results: n - 1 vectors.
* Pipeline: one hidden vector between stages.

Source: Shoeybi et al. 2019 (arXiv 1909.08053) for the sums, Patarasuk and Yuan 2009 for the ring, DeepSeek-V3 (arXiv
2412.19437, section 3.2.2) and DeepEP for the all-to-all.
"""

import math
from dataclasses import dataclass

from prophet_moe.catalog.architecture import Architecture
from prophet_moe.params.sharding import Parallelism


@dataclass(frozen=True)
class Exchange:
    """Bytes sent between GPUs per decoded token, over all GPUs."""

    sums: float
    """Sums over tensor-parallel GPUs, and the gathering of what they dispatched."""
    dispatch: float
    """Tokens to their experts on other GPUs, one vector per expert."""
    combine: float
    """Results back, likewise."""
    stages: float
    """Hidden vectors between pipeline stages."""
    once_per_gpu: float
    """`dispatch` + `combine` where a token crosses once per GPU that has any of its experts."""

    @property
    def all_to_all(self) -> float:
        """Return the bytes of dispatch and combine together."""
        return self.dispatch + self.combine

    @property
    def total(self) -> float:
        """Return all bytes sent per token."""
        return self.sums + self.all_to_all + self.stages


def exchange(arch: Architecture, over: Parallelism, dispatch_bytes: float = 2, combine_bytes: float = 2) -> Exchange:
    """Return the bytes that GPUs exchange per decoded token.

    Parameters
    ----------
    arch : Architecture
        The model; of an encoder-decoder its decoder.
    over : Parallelism
        The layout.
    dispatch_bytes, combine_bytes : float
        Bytes of a value on its way to an expert and back: 2 in 16 bits, 1 in 8.
    """
    layers = arch.layers()
    moe = [block for block in layers if block.ffn and arch.ffns[block.ffn].kind == "moe"]
    vector, ring = 2 * arch.hidden, 2 * (over.attention - 1)
    mixers, ffns = sum(bool(block.mixer) for block in layers), sum(bool(block.ffn) for block in layers)
    spread = over.data > 1
    summed = mixers + (ffns - len(moe) if spread else ffns)
    gathered = (over.attention - 1) * len(moe) if spread else 0
    there = back = once = 0.0
    if spread and arch.moe:
        width, top_k = arch.moe.latent or arch.hidden, arch.moe.top_k
        remote = 1 - 1 / over.expert
        there = len(moe) * top_k * width * dispatch_bytes * remote
        back = len(moe) * top_k * width * combine_bytes * remote
        reached = remote_gpus(arch.moe.experts, top_k, over.expert)
        once = len(moe) * reached * width * (dispatch_bytes + combine_bytes)
    return Exchange(
        sums=float((ring * summed + gathered) * vector),
        dispatch=there,
        combine=back,
        stages=float((over.pipeline - 1) * vector),
        once_per_gpu=once,
    )


def remote_gpus(experts: int, top_k: int, gpus: int) -> float:
    """Return how many GPUs beside its own a token reaches in the mean, if it chooses k of E experts at random.

    Experts lie on GPUs in blocks of ceil(E / n); tokens start on all GPUs alike.
    """
    each = -(-experts // gpus)
    held = [max(0, min(each, experts - gpu * each)) for gpu in range(gpus)]
    all_choices = math.comb(experts, top_k)
    reached = sum(1 - math.comb(experts - count, top_k) / all_choices for count in held)
    return (1 - 1 / gpus) * reached

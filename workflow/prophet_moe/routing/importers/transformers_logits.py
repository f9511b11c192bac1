"""Router logits of a forward pass of Hugging Face Transformers (output_router_logits=True), saved as one .npz file.

`router_logits` (L, batch, seq, E), or one array `router_logits_<i>` per MoE layer, i counting from 0 or being the
layer's id. Layers are (batch, seq, E), or (batch x seq, E) with the number `batch` beside them. `attention_mask`
(batch, seq), if there, marks padding with 0; padding is dropped.

The experts are the k largest logits of a token, which is what Mixtral, Qwen-MoE, OLMoE and gpt-oss choose; routers
that choose by group or by a corrected score (DeepSeek-V3) choose otherwise, and their logits do not tell. Among equal
logits the lower id comes first; torch.topk promises no order there.

docs/samples/transformers_logits.npz (model made-up) is written by

    import numpy as np
    np.savez(
        "transformers_logits.npz",
        router_logits=np.random.default_rng(0).normal(size=(2, 1, 3, 4)),  # layers x batch x tokens x experts
        attention_mask=np.array([[0, 1, 1]]),  # padding is 0
    )
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prophet_moe.routing.importers.reading import NEXT_STEP, fault, read_named_arrays, scalar
from prophet_moe.routing.trace import PREFILL, Origin, Router, Trace, check


def read(source: Path, router: Router, origin: Origin) -> Trace:
    """Read one .npz file; every row of the batch is a sequence."""
    arrays = read_named_arrays(source)
    layers = _layers(arrays, router, source)
    if any(layer.shape != layers[0].shape for layer in layers):
        raise fault(source, f"layers have shapes {', '.join(str(s) for s in sorted({x.shape for x in layers}))}")
    batch, tokens = layers[0].shape[:2]
    mask = arrays.get("attention_mask", np.ones((batch, tokens))) != 0
    if mask.shape != (batch, tokens):
        raise fault(source, f"attention_mask has shape {mask.shape}, expected {(batch, tokens)} (batch, seq)")
    experts = np.stack([_largest(layer[mask], router.top_k) for layer in layers], axis=1)
    trace = Trace(
        router,
        np.nonzero(mask)[0].astype(np.int32),
        (np.cumsum(mask, axis=1) - 1)[mask].astype(np.int32),
        np.full(len(experts), PREFILL, np.uint8),
        experts,
        True,
        origin,
    )
    return check(trace, source, NEXT_STEP)


def _layers(arrays: dict[str, NDArray], router: Router, source: Path) -> list[NDArray[np.floating]]:
    numbered = {int(m[1]): name for name in arrays if (m := re.fullmatch(r"router_logits_([0-9]+)", name))}
    if "router_logits" in arrays:
        layers = list(np.atleast_1d(arrays["router_logits"]))
    elif sorted(numbered) in (list(range(len(router.layers))), list(router.layers)):
        layers = [arrays[numbered[number]] for number in sorted(numbered)]
    else:
        found = ", ".join(arrays) or "nothing"
        raise fault(source, f"holds {found}, expected router_logits or {len(router.layers)} arrays router_logits_<i>")
    if len(layers) != len(router.layers):
        raise fault(source, f"router_logits has {len(layers)} layers, expected {len(router.layers)}")
    return [_batched(layer, arrays, router, source) for layer in layers]


def _batched(logits: NDArray, arrays: dict[str, NDArray], router: Router, source: Path) -> NDArray[np.floating]:
    if logits.dtype.kind != "f" or logits.ndim not in (2, 3) or logits.shape[-1] != router.experts:
        expected = f"numbers of shape (batch, seq, {router.experts}) or (batch x seq, {router.experts})"
        raise fault(source, f"router logits of a layer are {logits.dtype} of shape {logits.shape}, expected {expected}")
    if np.isnan(logits).any():
        raise fault(source, "router logits hold NaN")
    if logits.ndim == 3:
        return logits
    if "batch" not in arrays:
        raise fault(source, f"router logits have shape {logits.shape}, expected the number batch beside them")
    batch = scalar(arrays, "batch", source)
    if batch == 0 or len(logits) % batch:
        raise fault(source, f"router logits have {len(logits)} rows, expected a multiple of batch, {batch}")
    return logits.reshape(batch, -1, router.experts)


def _largest(logits: NDArray[np.floating], top_k: int) -> NDArray[np.uint16]:
    """(T, k): ids of the k largest logits of (T, E), largest first."""
    return np.argsort(-logits, axis=-1, kind="stable")[:, :top_k].astype(np.uint16)

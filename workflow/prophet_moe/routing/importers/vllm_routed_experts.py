"""What vLLM returns with enable_return_routed_experts=True, saved as one .npz file per request.

`routed_experts` (T, hidden layers, k) is that of the CompletionOutput; `prompt_routed_experts`, if there, that of the
RequestOutput; `prompt_len`, if there, the number of prompt tokens, and `generated_len` that of generated ones. Dense
layers hold zeros and are left out by the model's list of MoE layers. vLLM does not always sort the experts. To save a
request:

    np.savez(path, routed_experts=output.outputs[0].routed_experts, prompt_len=len(output.prompt_token_ids),
             generated_len=len(output.outputs[0].token_ids))

vLLM may omit the tokens of a prefix that it had cached: `generated_len` shows it, or a `prompt_routed_experts` that is
shorter than `prompt_len`. The others then keep their positions, and the note `remarks` says so. Slots beyond k that
hold one id everywhere are of fused shared experts and left out; among k they are refused.

docs/samples/vllm_routed_experts.npz (model made-up) is written by

    import numpy as np
    np.savez(
        "vllm_routed_experts.npz",
        routed_experts=np.array([[[0, 1], [2, 3]], [[1, 3], [0, 2]], [[0, 2], [1, 3]]], np.int32),  # tokens, layers, k
        prompt_len=2, generated_len=2,
    )
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prophet_moe.routing.importers.reading import (
    Sequence,
    fault,
    files_of,
    first_position,
    member,
    missing_told,
    moe_layers,
    read_named_arrays,
    scalar,
    trace_of,
    whole_sequence,
    with_notes,
    with_remarks,
    without_shared_slots,
)
from prophet_moe.routing.trace import Origin, Router, Trace


def read(source: Path, router: Router, origin: Origin) -> Trace:
    """Read one .npz file or a folder of them; the files' names are kept in the notes, under "sequences"."""
    files = files_of(source, ".npz")
    parsed = [_sequence(path, router) for path in files]
    origin = with_notes(origin, sequences=[{"file": path.name} for path in files])
    origin = with_remarks(origin, missing_told(missing for _, missing in parsed))
    return trace_of([sequence for sequence, _ in parsed], router, origin, source, ranked=False)


def _sequence(path: Path, router: Router) -> tuple[Sequence, str]:
    """Return one request's tokens, and which are missing; how many of them are generated is never assumed."""
    arrays = read_named_arrays(path)
    ids = _routed(arrays, "routed_experts", router, path)
    prompt_length = scalar(arrays, "prompt_len", path) if "prompt_len" in arrays else None
    generated = scalar(arrays, "generated_len", path) if "generated_len" in arrays else None
    if "prompt_routed_experts" in arrays:
        prompt_ids = _routed(arrays, "prompt_routed_experts", router, path)
        prompt = len(prompt_ids) if prompt_length is None else prompt_length
        if prompt < len(prompt_ids):
            raise fault(path, f"prompt_len is {prompt}, prompt_routed_experts has {len(prompt_ids)}")
        if not np.array_equal(ids[: len(prompt_ids)], prompt_ids):
            ids = np.concatenate([prompt_ids, ids])
        first = prompt - len(prompt_ids)
        return whole_sequence(ids, prompt, first), "first" if first else ""
    if prompt_length is None:
        raise fault(path, "does not tell prompt from generated tokens, expected prompt_len or prompt_routed_experts")
    if generated is None and prompt_length > len(ids):
        raise fault(
            path, f"prompt_len is {prompt_length}, routed_experts has only {len(ids)} tokens, and no generated_len"
        )
    first, missing = first_position(len(ids), prompt_length, generated, None, path)
    return whole_sequence(ids, prompt_length, first), missing


def _routed(arrays: dict[str, NDArray], name: str, router: Router, path: Path) -> NDArray[np.uint16]:
    """(T, L, k): the MoE layers of one of the arrays, without slots of shared experts."""
    where = f"{path}: {name}"
    ids = member(arrays, name, path, (None, None, None))
    wide = ids.shape[1] > max(router.layers) and ids.shape[2] >= router.top_k
    return moe_layers(without_shared_slots(ids, router, where) if wide else ids, router, where)

"""What vLLM returns with enable_return_routed_experts=True, saved as one .npz file per request.

`routed_experts` (T, hidden layers, k) is that of the CompletionOutput; `prompt_routed_experts`, if there, that of the
RequestOutput; `prompt_len`, if there, the number of prompt tokens. Dense layers hold zeros and are left out by the
model's list of MoE layers. vLLM does not always sort the experts. To save a request:

    np.savez(path, routed_experts=output.outputs[0].routed_experts, prompt_len=len(output.prompt_token_ids))
"""

from pathlib import Path

import numpy as np

from prophet_moe.routing.importers.reading import (
    Sequence,
    fault,
    files_of,
    member,
    moe_layers,
    read_named_arrays,
    scalar,
    trace_of,
    whole_sequence,
    with_notes,
)
from prophet_moe.routing.trace import Origin, Router, Trace


def read(source: Path, router: Router, origin: Origin) -> Trace:
    """Read one .npz file or a folder of them; the files' names are kept in the notes, under "sequences"."""
    files = files_of(source, ".npz")
    origin = with_notes(origin, sequences=[{"file": path.name} for path in files])
    return trace_of([_sequence(path, router) for path in files], router, origin, source, ranked=False)


def _sequence(path: Path, router: Router) -> Sequence:
    """One request's tokens; how many of them are generated is never assumed."""
    arrays = read_named_arrays(path)
    ids = moe_layers(member(arrays, "routed_experts", path, (None, None, None)), router, path)
    if "prompt_routed_experts" in arrays:
        recorded = member(arrays, "prompt_routed_experts", path, (None, None, None))
        prompt_ids = moe_layers(recorded, router, f"{path}: prompt_routed_experts")
        prompt = len(prompt_ids)
        if "prompt_len" in arrays and scalar(arrays, "prompt_len", path) != prompt:
            raise fault(path, f"prompt_len is {scalar(arrays, 'prompt_len', path)}, prompt_routed_experts has {prompt}")
        if not np.array_equal(ids[:prompt], prompt_ids):
            ids = np.concatenate([prompt_ids, ids])
    elif "prompt_len" in arrays:
        prompt = scalar(arrays, "prompt_len", path)
        if prompt > len(ids):
            raise fault(path, f"prompt_len is {prompt}, routed_experts has only {len(ids)} tokens")
    else:
        raise fault(path, "does not tell prompt from generated tokens, expected prompt_len or prompt_routed_experts")
    return whole_sequence(ids, prompt)

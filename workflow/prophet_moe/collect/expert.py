"""The feed-forward network of an expert, as every measurement here computes it."""

import torch
import torch.nn.functional as F


def expert_ffn(
    tokens: torch.Tensor, up: torch.Tensor, down: torch.Tensor, *, gated: bool, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what one expert makes of `tokens` (n, hidden), as (n, hidden), in `out` if given: relu or gated silu.

    `up` is (hidden, inner), of a gated expert (hidden, 2 * inner): first what silu is applied to, then what that is
    multiplied with; `down` is (inner, hidden).
    """
    raised = tokens @ up
    if gated:
        gate, value = raised.chunk(2, -1)
        raised = F.silu(gate).mul_(value)
    else:
        raised = raised.relu_()
    return torch.mm(raised, down, out=out)

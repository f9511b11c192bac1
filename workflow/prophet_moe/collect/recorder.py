"""Record what the experts of every MoE layer are handed, without waiting for the device in between.

A hook before the experts of each layer keeps a reference to the chosen ids. After a forward pass they are gathered by
one kernel and one copy into a ring of pinned buffers; the host reads a buffer when its turn comes round again.
"""

import re
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from prophet_moe.errors import UserError
from prophet_moe.routing.trace import Router

RING = 8
"""Passes in flight between the device and the host."""

PROBE_TOKENS = 64


@dataclass(frozen=True)
class MoeLayer:
    """One MoE layer of a model: its number, its experts, and the weight of its router (E, hidden)."""

    number: int
    experts: torch.nn.Module
    router_weight: torch.Tensor


def moe_layers(model: torch.nn.Module) -> list[MoeLayer]:
    """Return the MoE layers that decode: of an encoder-decoder model, the decoder's.

    In every Transformers MoE class the block holds `experts` beside a `gate` or `router`.
    """
    stack = model.get_decoder() if model.config.is_encoder_decoder else model
    layers = []
    for name, block in stack.named_modules():
        router = getattr(block, "gate", None) or getattr(block, "router", None)
        if isinstance(router, torch.nn.Module) and isinstance(getattr(block, "experts", None), torch.nn.Module):
            number = int(re.search(r"\.(\d+)\.", f".{name}.")[1])
            # Switch drops what exceeds an expert's capacity; without the limit every token has its expert.
            if hasattr(router, "expert_capacity"):
                router.expert_capacity = sys.maxsize
            layers.append(MoeLayer(number, block.experts, next(w for w in router.parameters() if w.ndim == 2)))
    if not layers:
        raise UserError(type(model).__name__, "has no MoE layer", "Name a mixture-of-experts model.")
    return sorted(layers, key=lambda layer: layer.number)


class Recorder:
    """Collects the choices of every pass and hands them to `sink(ids, label)`, in order.

    `ids` is int16 (tokens, L, k) on the host, `label` what `end_pass` was given.
    """

    def __init__(self, model: torch.nn.Module, layers: list[MoeLayer], sink: Callable[[np.ndarray, Any], None]) -> None:
        """Hook the experts of `layers` until `close` is called."""
        self.device = next(model.parameters()).device
        self.chosen: list[torch.Tensor] = []
        self.inputs: list[torch.Tensor] = []
        self.keep_inputs = False
        self._layers = layers
        self._sink = sink
        self._free: list[torch.Tensor] = []
        self._flying: deque[tuple[torch.Tensor, _Landing | None, Any]] = deque()
        self._hooks = [layer.experts.register_forward_pre_hook(self._before_experts) for layer in layers]

    def _before_experts(self, _module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        hidden, chosen = arguments[0], arguments[1]
        self.chosen.append(chosen)
        if self.keep_inputs:
            self.inputs.append(hidden.reshape(chosen.shape[0], -1))

    def end_pass(self, tokens: int, rows: torch.Tensor | None, label: Any) -> None:
        """Send the choices of a pass over `tokens` on their way to the host: those of `rows`, or of all.

        `rows` are numbers on the device: a mask there would make the host wait for their count.
        """
        chosen, self.chosen = self.chosen, []
        if len(chosen) != len(self._layers) or any(len(ids) != tokens for ids in chosen):
            seen = f"{len(chosen)} layers of {sorted({len(ids) for ids in chosen})} tokens"
            raise UserError("trace", f"{seen} were routed, expected {len(self._layers)} of {tokens}", "")
        ids = torch.stack([_numbers(part) for part in chosen], dim=1)
        ids = (ids if rows is None else ids.index_select(0, rows)).to(torch.int16)
        self._flying.append((*self._to_host(ids), label))
        if len(self._flying) >= RING:
            self._land()

    def take_inputs(self, rows: torch.Tensor) -> torch.Tensor:
        """Return router inputs of the pass (rows, L, hidden) in bf16, on the host; forgets the others."""
        inputs, self.inputs = self.inputs, []
        return torch.stack([part[rows] for part in inputs], dim=1).to("cpu", torch.bfloat16)

    def flush(self) -> None:
        """Hand every choice that is still on the device to the sink."""
        while self._flying:
            self._land()

    def close(self) -> None:
        """Remove the hooks from the experts of the model."""
        for hook in self._hooks:
            hook.remove()

    def _to_host(self, ids: torch.Tensor) -> "tuple[torch.Tensor, _Landing | None]":
        if self.device.type != "cuda":
            return ids, None
        buffer = next((b for b in self._free if b.numel() >= ids.numel()), None)
        if buffer is None:
            buffer = torch.empty(ids.numel(), dtype=torch.int16, pin_memory=True)
        else:
            self._free.remove(buffer)
        host = buffer[: ids.numel()].view(ids.shape)
        host.copy_(ids, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return host, _Landing(event, buffer)

    def _land(self) -> None:
        host, landing, label = self._flying.popleft()
        if landing is None:
            self._sink(host.numpy(), label)
            return
        landing.event.synchronize()
        self._sink(host.numpy().copy(), label)
        self._free.append(landing.buffer)


@dataclass(frozen=True)
class _Landing:
    """A copy on its way: done when `event` is, into `buffer`."""

    event: torch.cuda.Event
    buffer: torch.Tensor


def _numbers(chosen: torch.Tensor) -> torch.Tensor:
    """Expert numbers (tokens, k) of what a block hands to its experts; Switch hands a one-hot mask (tokens, 1, E)."""
    return chosen.argmax(-1) if chosen.ndim == 3 else chosen


def probe(model: torch.nn.Module, layers: list[MoeLayer], name: str) -> tuple[Router, bool]:
    """Return E, k and layer numbers of a model, and whether its choices are ranked, from tokens that go through it."""
    widths, ranked = [], []

    def look(_module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        _, chosen, weights = arguments
        widths.append(_numbers(chosen).shape[1])
        ranked.append(bool((weights.diff(dim=-1) <= 0).all()))

    hooks = [layer.experts.register_forward_pre_hook(look) for layer in layers]
    device = next(model.parameters()).device
    tokens = torch.arange(PROBE_TOKENS, device=device)[None] % model.config.get_text_config().vocab_size
    decoder = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        model(input_ids=tokens, **decoder)
    for hook in hooks:
        hook.remove()
    if len(set(widths)) != 1 or len(widths) != len(layers):
        raise UserError(name, f"layers choose {widths} experts, expected one number in all {len(layers)}", "")
    experts = layers[0].router_weight.shape[0]
    return Router(name, experts, widths[0], tuple(layer.number for layer in layers)), all(ranked)

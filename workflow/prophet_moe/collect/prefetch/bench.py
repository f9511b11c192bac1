"""The weights and slots of one workload, and the loop that carries decisions out on them."""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from prophet_moe.collect import machine
from prophet_moe.collect.expert import expert_ffn
from prophet_moe.collect.prefetch.marks import Marks, layer_times, step_times
from prophet_moe.collect.prefetch.queues import COMPUTE, DEMAND, PREFETCH, CudaQueues, HostQueues
from prophet_moe.errors import UserError
from prophet_moe.offload.decode_loop.decisions import PREFETCHED, Copy, LayerWork, Step
from prophet_moe.offload.decode_loop.plan import KIND, Plan

HEAD_START = 2.0
"""Times the host's median time for a step that the device is held back: a slow step of the host must fit, too."""
MOST_HEAD_START_SECONDS = 0.02
"""A host that takes longer was waiting for room in the queue, or the device for copies: it is ahead anyway."""


@dataclass(frozen=True)
class Batch:
    """T steps of B tokens, each layer's B * k choices in the order of their experts."""

    inputs: torch.Tensor
    """(T, B, hidden)"""
    tokens: torch.Tensor
    """(T, L, B * k) which token a choice is of."""
    back: torch.Tensor
    """(T, L, B * k) where the choices of token 0, token 1, ... are."""
    spans: list[list[dict[int, tuple[int, int]]]]
    """Per step and layer: which choices an expert has."""


@dataclass(frozen=True)
class Replayed:
    """The times and outputs of one replay of S measured steps."""

    layers: dict[str, NDArray[np.float64]]
    """Times and counts by name, each (S, L)."""
    steps: dict[str, NDArray[np.float64]]
    """Times by name, each (S,)."""
    outputs: torch.Tensor
    """(S, B, hidden)"""


class Bench:
    """The weights and slots of one workload, and the loop over them."""

    def __init__(self, plan: Plan, name: str, experts: int, layers: int) -> None:
        """Draw all weights; the device holds E slots per layer, of which a replay uses the first C."""
        self.plan, self.name, self.workload = plan, name, plan.workloads[name]
        self.experts, self.layers = experts, layers
        self.device, self.dtype = machine.device(), getattr(torch, self.workload.dtype)
        self.queues = CudaQueues(miss_priority=plan.miss_priority) if machine.on_gpu() else HostQueues()
        self._generator = torch.Generator(self.device).manual_seed(plan.seed)
        self.host = self._drawn_on_host(min(self.workload.copies, layers * experts))
        slots = torch.empty(layers, experts, self.workload.expert_values, dtype=self.dtype, device=self.device)
        self._slots = [list(layer.unbind(0)) for layer in slots.unbind(0)]
        self._matrices = [[self.matrices(weights) for weights in layer] for layer in self._slots]
        self._held = [[-1] * experts for _ in range(layers)]
        hidden, head = self.workload.hidden, self.workload.head_dim
        self._qkv = [self._drawn(self.workload.qkv_width, hidden) for _ in range(layers)]
        self._out = [self._drawn(hidden, hidden) for _ in range(layers)]
        cache = (max(plan.batches), self.workload.kv_heads, plan.context, head)
        self._keys, self._values = ([self._drawn(*cache) for _ in range(layers)] for _ in range(2))
        self._read: dict[tuple[int, int], Any] = {}
        self._arrived: dict[tuple[int, int], Any] = {}

    def matrices(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the views (hidden, inner), twice as wide if gated, and (inner, hidden) of an expert's weights."""
        hidden, inner = self.workload.hidden, self.workload.inner
        up = weights[: -hidden * inner].view(-1, hidden)
        return up.T, weights[-hidden * inner :].view(hidden, inner).T

    def host_weights(self, layer: int, expert: int) -> torch.Tensor:
        """Return the weights of one expert in host memory as a flat tensor."""
        return self.host[(layer * self.experts + expert) % len(self.host)]

    def batch(self, choices: NDArray[np.integer]) -> Batch:
        """Return what a replay of `choices` (T, B, L, k) needs on the device."""
        steps, batch, layers, top_k = choices.shape
        flat = np.moveaxis(choices, 2, 1).reshape(steps, layers, batch * top_k).astype(np.int64)
        order = np.argsort(flat, axis=-1, kind="stable")
        spans = [[_spans(np.sort(layer)) for layer in step] for step in flat]
        generator = torch.Generator(self.device).manual_seed(self.plan.seed)
        shape = (steps, batch, self.workload.hidden)
        inputs = torch.empty(shape, dtype=self.dtype, device=self.device).normal_(generator=generator)
        tokens, back = (torch.from_numpy(ids).to(self.device) for ids in (order // top_k, np.argsort(order, axis=-1)))
        self._warm({end - begin for step in spans for layer in step for begin, end in layer.values()})
        return Batch(inputs, tokens, back, spans)

    @torch.no_grad()
    def replay(self, batch: Batch, steps: list[Step], start: list[list[int]], warmup: int) -> Replayed:
        """Carry out `steps` from `start`, the expert in every slot of every layer; the first `warmup` unmeasured."""
        self._load(start)
        host_seconds, outputs, layers, whole, head_start = [], [], [], [], 0.0
        for number, step in enumerate(steps):
            begun = time.perf_counter()
            marks, output = self._step(step, batch, number, head_start)
            host_seconds.append(time.perf_counter() - begun)
            marks.end = self.queues.end()
            if number >= warmup:
                outputs.append(output)
                layers.append(layer_times(self.queues, marks))
                whole.append(step_times(self.queues, marks, host_seconds[-1]))
            elif number == warmup - 1:
                head_start = min(HEAD_START * statistics.median(host_seconds), MOST_HEAD_START_SECONDS)
        return Replayed(_stacked(layers), _stacked(whole), torch.stack(outputs))

    @torch.no_grad()
    def _warm(self, sizes: set[int]) -> None:
        """Run an expert once for every number of tokens: what CUDA loads at the first use must not be measured."""
        for size in sizes:
            tokens = torch.zeros(size, self.workload.hidden, dtype=self.dtype, device=self.device)
            self._apply(0, 0, tokens, torch.empty_like(tokens))

    def _load(self, start: list[list[int]]) -> None:
        for layer, experts in enumerate(start):
            for slot, expert in enumerate(experts):
                if self._held[layer][slot] != expert:
                    self._slots[layer][slot].copy_(self.host_weights(layer, expert), non_blocking=True)
                    self._held[layer][slot] = expert
        self.queues.end()

    def _step(self, step: Step, batch: Batch, number: int, head_start: float) -> tuple[Marks, torch.Tensor]:
        """Queue one step: its marks so far, and its output (B, hidden)."""
        queues = self.queues
        self._read, self._arrived = {}, {}
        marks = Marks(queues.start(head_start))
        state = batch.inputs[number]
        for layer, work in enumerate(step):
            started = queues.mark(COMPUTE)
            marks.started.append(started)
            state = F.rms_norm(state, state.shape[-1:])
            state = state + self._attention(layer, state)
            marks.asked.append(queues.mark(COMPUTE))
            state = state + self._routed(layer, work, state, batch, number, marks)
            marks.layers_host_late += queues.reached(started)
        marks.computed = queues.mark(COMPUTE)
        return marks, state

    def _attention(self, layer: int, state: torch.Tensor) -> torch.Tensor:
        """Return stand-in for what is no expert: one token of every sequence attends to a recorded context."""
        keys, values = self._keys[layer][: len(state)], self._values[layer][: len(state)]
        queries = F.linear(state, self._qkv[layer])[:, : state.shape[-1]]
        grouped = queries.reshape(len(state), keys.shape[1], -1, keys.shape[-1])
        return F.linear(F.scaled_dot_product_attention(grouped, keys, values).reshape(state.shape), self._out[layer])

    def _routed(
        self, layer: int, work: LayerWork, state: torch.Tensor, batch: Batch, number: int, marks: Marks
    ) -> torch.Tensor:
        """(B, hidden) mean of what a token's k experts make of it; all copies are issued on the way."""
        asked, queues = marks.asked[layer], self.queues
        missing = [use.copy for use in work.uses if use.copy]
        in_waves = any(copy.recycled for copy in missing)
        demanded = [copy for copy in missing if not copy.recycled]
        self._copy(DEMAND, demanded, asked, marks)
        # The last of them ends last: they are on one stream.
        last = self._arrived[demanded[-1].layer, demanded[-1].slot] if demanded else asked
        self._copy(PREFETCH, work.prefetches, last, marks)
        routed = state.index_select(0, batch.tokens[number, layer])
        results = torch.empty_like(routed)
        for use in work.uses:
            place = (layer, use.slot)
            if use.copy and use.copy.recycled:
                self._copy(DEMAND, [use.copy], asked, marks)
            if place in self._arrived:
                before = queues.mark(COMPUTE)
                queues.wait(COMPUTE, self._arrived[place])
                marks.waits.append((layer, before, queues.mark(COMPUTE)))
                if use.source == PREFETCHED:
                    marks.awaited.append((layer, self._arrived[place]))
            begin, end = batch.spans[number][layer][use.expert]
            self._apply(layer, use.slot, routed[begin:end], results[begin:end])
            # Steps end synchronised, so a slot's last use matters only to copies of the same step.
            if in_waves:
                self._read[place] = queues.mark(COMPUTE)
        return results.index_select(0, batch.back[number, layer]).view(len(state), -1, state.shape[-1]).mean(1)

    def _apply(self, layer: int, slot: int, tokens: torch.Tensor, results: torch.Tensor) -> None:
        """Write what the expert in a slot makes of `tokens` (n, hidden) to `results`."""
        up, down = self._matrices[layer][slot]
        expert_ffn(tokens, up, down, gated=self.workload.gated, out=results)

    def _copy(self, stream: str, copies: list[Copy], after: Any, marks: Marks) -> None:
        """Queue copies from host memory on `stream`, after a mark and after what else touches their slots."""
        if not copies:
            return
        queues = self.queues
        queues.wait(stream, after)
        with queues.on(stream):
            for copy in copies:
                place = (copy.layer, copy.slot)
                for earlier in (self._read.get(place), self._arrived.get(place)):
                    if earlier is not None:
                        queues.wait(stream, earlier)
                begin = queues.mark(stream)
                self._fill(copy)
                self._arrived[place] = queues.mark(stream)
                marks.copies.append((stream, copy.layer, begin, self._arrived[place]))

    def _fill(self, copy: Copy) -> None:
        weights = self.host_weights(copy.layer, copy.expert)
        self._slots[copy.layer][copy.slot].copy_(weights, non_blocking=True)
        self._held[copy.layer][copy.slot] = copy.expert

    def _drawn(self, *shape: int) -> torch.Tensor:
        """Return random weights that keep the size of what they are applied to."""
        drawn = torch.empty(shape, dtype=self.dtype, device=self.device)
        return drawn.normal_(0, self.workload.hidden**-0.5, generator=self._generator)

    def _drawn_on_host(self, count: int) -> list[torch.Tensor]:
        """The experts in host memory, each flat; one block, as the allocator rounds every one up to a power of two."""
        size = self.workload.expert_values
        try:
            block = torch.empty(count, size, dtype=self.dtype, pin_memory=machine.on_gpu())
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            found = f"could not pin {count} experts of {self.workload.expert_bytes:,} bytes: {reason}"
            raise UserError(f"{KIND} plan", f"workloads.{self.name}.copies: {found}", "Lower it.") from None
        for expert in block:
            expert.copy_(self._drawn(size))
        return list(block.unbind(0))


def _spans(experts: NDArray[np.int64]) -> dict[int, tuple[int, int]]:
    """Return where each expert stands in an ascending list of them."""
    numbers, begins = np.unique(experts, return_index=True)
    return dict(
        zip(numbers.tolist(), zip(begins.tolist(), [*begins[1:].tolist(), len(experts)], strict=True), strict=True)
    )


def _stacked(records: list[dict[str, Any]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([record[name] for record in records], np.float64) for name in records[0]}

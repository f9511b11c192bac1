"""Train Prophet's predictor on the first half of a trace's sequences; one network a lookahead, all layers at once."""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from tqdm import tqdm

from prophet_moe.collect import machine
from prophet_moe.collect.resume import refuse_complete, start_or_resume
from prophet_moe.collect.scoring import WEIGHTS, score
from prophet_moe.files import atomic_write, canonical_hash, write_json
from prophet_moe.predict.context import LOOKAHEADS, SOURCES, Context, context_of, split
from prophet_moe.routing.sequences import divisible, fingerprint, without_repetition
from prophet_moe.routing.store import read_trace, seal

PARTS, JOB = "parts", "job.json"


@dataclass(frozen=True)
class Plan:
    """How a predictor is trained: its width, epochs, batches, schedule and dropout."""

    hidden: int
    """Hidden units of each layer's network."""
    epochs: int
    batch_tokens: int
    learning_rate: float
    """Peak of a one-cycle schedule (arXiv 1708.07120)."""
    weight_decay: float
    input_dropout: float
    """Share of the ids seen that are hidden in training."""
    seed: int


class Networks(torch.nn.Module):
    """The networks of one lookahead: L layers, E experts, H hidden units."""

    def __init__(self, layers: int, experts: int, hidden: int, share: float) -> None:
        """Start from small random weights, and from the probability `share` = k / E for every expert."""
        super().__init__()
        # Row 0 stands for nothing: embedding_bag leaves it out.
        self.embedding = torch.nn.Parameter(torch.randn(1 + layers * SOURCES * experts, hidden) * 0.05)
        self.hidden_bias = torch.nn.Parameter(torch.zeros(layers, hidden))
        self.output = torch.nn.Parameter(torch.randn(layers, hidden, experts) * 0.05)
        self.output_bias = torch.nn.Parameter(torch.full((layers, experts), float(np.log(share / (1 - share)))))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(n, L, E) scores of ids (n, L, SOURCES k), rows of the embedding."""
        return score(ids, self.embedding, self.hidden_bias, self.output, self.output_bias, nothing=0)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights by name, in bf16, the embedding as (L, SOURCES E, H)."""
        layers, hidden = self.hidden_bias.shape
        named = {"embedding": self.embedding[1:].reshape(layers, -1, hidden), "hidden_bias": self.hidden_bias}
        named |= {"output": self.output, "output_bias": self.output_bias}
        return {name: part.detach().to("cpu", torch.bfloat16) for name, part in named.items()}


def train(folder: Path, plan: Plan, out: Path) -> None:
    """Train on the trace in `folder`; called again after an interruption, it goes on with the next lookahead."""
    refuse_complete(out, "predictor")
    trace = read_trace(folder)
    half = split(divisible(without_repetition(trace), folder))[0]
    fingerprints = {"trained_on": fingerprint(trace), "learned_from": fingerprint(half)}
    job = {**fingerprints, "plan": canonical_hash(asdict(plan))}
    start_or_resume(out / JOB, job, "a predictor of another trace or plan")
    learned = context_of(half)
    begun = time.perf_counter()
    losses = {}
    for lookahead in LOOKAHEADS:
        part = out / PARTS / f"{lookahead}.safetensors"
        if not part.exists():
            networks, loss = _train(learned, plan, lookahead)
            write_json(part.with_suffix(".json"), {"loss": loss})
            with atomic_write(part) as partial:
                save_file(networks.weights(), partial)
        losses[lookahead] = json.loads(part.with_suffix(".json").read_text())["loss"]
    parts = [load_file(out / PARTS / f"{lookahead}.safetensors") for lookahead in LOOKAHEADS]
    with atomic_write(out / WEIGHTS) as partial:
        save_file({name: torch.stack([part[name] for part in parts]) for name in parts[0]}, partial)
    metadata = {
        "kind": "predictor",
        "model": trace.router.model,
        "experts": trace.router.experts,
        "top_k": trace.router.top_k,
        "layers": list(trace.router.layers),
        **fingerprints,
        "trace_source": trace.origin.source,
        "trace_licence": trace.origin.licence,
        "plan": asdict(plan),
        "tokens": len(learned.choices),
        "training_loss": losses,
        "seconds": round(time.perf_counter() - begun, 1),
        "machine": machine.described(),
        "collector": machine.collector(),
    }
    seal(out, metadata, WEIGHTS)
    shutil.rmtree(out / PARTS)
    (out / JOB).unlink()


def _train(learned: Context, plan: Plan, lookahead: int) -> tuple[Networks, float]:
    """Return the networks of one lookahead, and the mean loss of the last epoch, nats per layer and token."""
    torch.manual_seed(plan.seed)
    device = machine.device()
    ids, chosen = (tensor.to(device) for tensor in _tensors(learned, lookahead))
    tokens, layers, top_k = chosen.shape
    networks = Networks(layers, learned.experts, plan.hidden, top_k / learned.experts).to(device)
    optimiser = torch.optim.AdamW(networks.parameters(), weight_decay=plan.weight_decay)
    steps = plan.epochs * -(-tokens // plan.batch_tokens)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.learning_rate, total_steps=steps)
    loss_of_epoch = 0.0
    with tqdm(total=steps, desc=f"lookahead {lookahead}", unit="step", mininterval=1) as progress:
        for _ in range(plan.epochs):
            loss_of_epoch = 0.0
            for rows in torch.randperm(tokens, device=device).split(plan.batch_tokens):
                seen = ids[rows].long()
                seen = seen.masked_fill(torch.rand(seen.shape, device=device) < plan.input_dropout, 0)
                scores = networks(seen)
                wanted = torch.zeros_like(scores).scatter_(2, chosen[rows].long(), 1.0)
                loss = functional.binary_cross_entropy_with_logits(scores, wanted, reduction="sum") / len(rows)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                loss_of_epoch += loss.item() * len(rows) / (tokens * layers)
                progress.update()
    return networks, loss_of_epoch


def _tensors(learned: Context, lookahead: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, L, SOURCES k) rows of the embedding, 0 for nothing; (n, L, k) ids chosen."""
    layers = learned.choices.shape[1]
    inputs = [learned.inputs(layer, lookahead) for layer in range(layers)]
    rows = [np.where(ids < learned.absent, 1 + layer * learned.absent + ids, 0) for layer, ids in enumerate(inputs)]
    return torch.from_numpy(np.stack(rows, 1).astype(np.int32)), torch.from_numpy(learned.choices.astype(np.int16))

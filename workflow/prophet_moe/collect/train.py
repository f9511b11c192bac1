"""Train a small MoE language model on the corpus, from a Transformers class, resumable at any time."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

from prophet_moe.collect import machine, tokens
from prophet_moe.collect.corpus import read_texts
from prophet_moe.collect.plan import ModelPlan, Plan, TrainingPlan
from prophet_moe.errors import UserError
from prophet_moe.files import atomic_write, canonical_hash, write_json

CHECKPOINT = "checkpoint.pt"
TRAINING = "training.json"
SECONDS_BETWEEN_CHECKPOINTS = 60
VALIDATION_SEQUENCES_PER_DOMAIN = 32


@dataclass(frozen=True)
class EncodedCorpus:
    """Token ids of each domain, int64, one after another: to train on, and the held-out pieces, one array each."""

    train: dict[str, np.ndarray]
    held_out: dict[str, list[np.ndarray]]
    vocabulary: int


def prepared_corpus(plan: Plan, work: Path) -> EncodedCorpus:
    """Return the corpus under `work`, encoded by the tokenizer trained on it; both are kept there for the next call."""
    path = work / "corpus" / "tokenizer.json"
    texts = read_texts(plan.corpus, work / "corpus")
    if path.exists():
        tokenizer = tokens.load_tokenizer(path)
    else:
        tokenizer = tokens.train_tokenizer((piece for text in texts.values() for piece in text.train), plan.vocabulary)
        with atomic_write(path) as partial:
            tokenizer.save(str(partial))
    return EncodedCorpus(
        {name: np.concatenate(tokens.encode(tokenizer, text.train)) for name, text in texts.items()},
        {name: tokens.encode(tokenizer, text.held_out) for name, text in texts.items()},
        tokenizer.get_vocab_size(),
    )


def new_model(plan: ModelPlan, vocabulary: int) -> torch.nn.Module:
    """Return a model of the planned class with random weights of a seed.

    The class's own load-balancing loss is off: it pools all layers, and so lets each layer use few of its experts.
    """
    if not hasattr(transformers, plan.architecture):
        raise UserError("architecture", f"Transformers has no class {plan.architecture!r}", "Correct the plan.")
    config = getattr(transformers, plan.architecture)(
        vocab_size=vocabulary,
        max_position_embeddings=max(plan.training.tokens, plan.trace.prompt_tokens + plan.trace.decode_tokens),
        output_router_logits=True,
        router_aux_loss_coef=0.0,
        **plan.config,
    )
    torch.manual_seed(plan.training.seed)
    return transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="sdpa", experts_implementation="grouped_mm"
    )


def load_imbalance(router_logits: tuple[torch.Tensor, ...], top_k: int) -> torch.Tensor:
    """(L,): E sum_i f_i P_i of every layer, 1 where experts share the load equally (Switch, 2101.03961, equation 4).

    f_i is expert i's share of the choices, P_i its mean router probability; `router_logits` has (tokens, E) per layer.
    """
    losses = []
    for logits in router_logits:
        probabilities = logits.float().softmax(-1)
        chosen = probabilities.topk(top_k).indices.flatten()
        experts = logits.shape[-1]
        share = torch.bincount(chosen, minlength=experts) / len(chosen)
        losses.append(experts * (share * probabilities.mean(0)).sum())
    return torch.stack(losses)


def fingerprint(plan: Plan, name: str) -> str:
    """Return a hash of everything that the trained model depends on."""
    model = asdict(plan.models[name])
    del model["trace"]
    return canonical_hash({"corpus": asdict(plan.corpus), "vocabulary": plan.vocabulary, "model": model})


def train(plan: ModelPlan, corpus: EncodedCorpus, folder: Path, name: str, made_from: str) -> None:
    """Train the model in `folder` up to its last step, from the last checkpoint there if it is `made_from` the same.

    The model and training.json are written to `folder` when it is complete. Interrupted at any time, a second call
    goes on.
    """
    device = machine.device()
    # The optimiser's averages of idle experts fade into denormal numbers, which a CPU computes slowly.
    torch.set_flush_denormal(True)
    model = new_model(plan, corpus.vocabulary).to(device)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=plan.training.learning_rate, weight_decay=plan.training.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_then_cosine(plan.training))
    state = _resume(folder, made_from, device)
    if state:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
    step, seconds, losses = (state[key] for key in ("step", "seconds", "losses")) if state else (0, 0.0, [])

    progress = tqdm(total=plan.training.steps, initial=step, desc=name, unit="step", dynamic_ncols=True, mininterval=2)
    begun = saved = time.perf_counter()
    model.train()
    while step < plan.training.steps:
        batch = torch.from_numpy(_batch(corpus.train, plan.training, step)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            output = model(input_ids=batch, labels=batch, use_cache=False)
        imbalance = load_imbalance(output.router_logits, model.config.num_experts_per_tok)
        optimiser.zero_grad()
        (output.loss + plan.training.balance_coefficient * imbalance.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        step += 1
        if step % 10 == 0 or step == plan.training.steps:
            language, balance = output.loss.item(), imbalance.mean().item()
            losses.append({"step": step, "loss": round(language, 4), "imbalance": round(balance, 4)})
            per_second = plan.training.sequences * plan.training.tokens * step
            elapsed = seconds + time.perf_counter() - begun
            progress.set_postfix_str(f"loss {language:.3f}, {per_second / elapsed:,.0f} tokens/s")
        progress.update()
        if time.perf_counter() - saved > SECONDS_BETWEEN_CHECKPOINTS and step < plan.training.steps:
            elapsed = seconds + time.perf_counter() - begun
            states = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            }
            _save(folder, states | {"step": step, "seconds": elapsed, "losses": losses, "made_from": made_from})
            saved = time.perf_counter()
    progress.close()
    seconds += time.perf_counter() - begun

    result = _measured(model, plan, corpus, device) | {"seconds": round(seconds, 1), "curve": losses}
    model.config.output_router_logits = False
    model.save_pretrained(folder)
    write_json(folder / TRAINING, {"made_from": made_from} | result | {"machine": machine.described()})
    (folder / CHECKPOINT).unlink(missing_ok=True)


def is_trained(folder: Path, made_from: str) -> bool:
    """Return whether `folder` holds a complete model, made from exactly this."""
    path = folder / TRAINING
    return path.exists() and json.loads(path.read_text())["made_from"] == made_from


def _batch(train: dict[str, np.ndarray], plan: TrainingPlan, step: int) -> np.ndarray:
    """Return random windows of the corpus, int64 (sequences, tokens); a domain's share grows with the root of its size.

    The windows depend on seed and step alone, so that a resumed training sees what an uninterrupted one sees.
    """
    random = np.random.default_rng((plan.seed, step))
    names = list(train)
    weights = np.sqrt([len(train[name]) for name in names])
    rows = []
    for choice in random.choice(len(names), plan.sequences, p=weights / weights.sum()):
        ids = train[names[choice]]
        start = random.integers(len(ids) - plan.tokens)
        rows.append(ids[start : start + plan.tokens])
    return np.stack(rows)


def _warm_then_cosine(plan: TrainingPlan):
    def factor(step: int) -> float:
        if step < plan.warmup_steps:
            return (step + 1) / plan.warmup_steps
        done = (step - plan.warmup_steps) / max(1, plan.steps - plan.warmup_steps)
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    return factor


@torch.no_grad()
def _measured(model: torch.nn.Module, plan: ModelPlan, corpus: EncodedCorpus, device: torch.device) -> dict[str, Any]:
    """Held-out loss of every domain beside the entropies that a model without context, or with one token of it, has."""
    model.eval()
    train = np.concatenate(list(corpus.train.values()))
    domains = {}
    for name, pieces in corpus.held_out.items():
        held_out = np.concatenate(pieces)
        windows = list(_windows(held_out, plan.training.tokens))[:VALIDATION_SEQUENCES_PER_DOMAIN]
        losses = []
        for window in windows:
            batch = torch.from_numpy(window[None]).to(device)
            output = model(input_ids=batch, labels=batch, use_cache=False)
            losses.append(output.loss.item())
        scored = np.concatenate(windows)
        domains[name] = {
            "loss": round(float(np.mean(losses)), 4),
            "unigram_entropy": round(tokens.unigram_entropy(train, scored, corpus.vocabulary), 4),
            "bigram_entropy": round(tokens.bigram_entropy(train, scored, corpus.vocabulary), 4),
        }
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_tokens": plan.training.steps * plan.training.sequences * plan.training.tokens,
        "nats_per_held_out_token": domains,
    }


def _windows(ids: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(ids) - size + 1, size):
        yield ids[start : start + size]


def _resume(folder: Path, made_from: str, device: torch.device) -> dict[str, Any] | None:
    """Return the last checkpoint of exactly this plan, if there is one."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    state = torch.load(path, map_location=device, weights_only=True)
    return state if state["made_from"] == made_from else None


def _save(folder: Path, state: dict[str, Any]) -> None:
    with atomic_write(folder / CHECKPOINT) as partial:
        torch.save(state, partial)

"""Collect a routing trace: prefill and autoregressive decode with a KV cache, batch by batch, resumable after a kill.

Every finished batch is a file of its own under <folder>/parts/; at the end the trace is put together, counted, sealed.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from prophet_moe.collect import machine
from prophet_moe.collect.decoding import Decoding, Pass, Prompt, passes
from prophet_moe.collect.recorder import MoeLayer, Recorder, moe_layers, probe
from prophet_moe.collect.resume import refuse_complete, start_or_resume
from prophet_moe.errors import UserError
from prophet_moe.files import atomic_write, canonical_hash
from prophet_moe.routing import store
from prophet_moe.routing.trace import Origin, Router, Trace, check

PARTS, JOB, ROUTER_INPUTS = "parts", "job.json", "router_inputs.safetensors"

Inputs = dict[str, torch.Tensor]
"""Router inputs of some tokens: `sequence` and `position` (n,), `inputs` (n, L, hidden)."""


@dataclass(frozen=True)
class Job:
    """What to collect: prompts in batches, how they go on, and of how many tokens router inputs are kept."""

    prompts: Sequence[Prompt]
    decoding: Decoding
    batch: int
    hidden_tokens: int = 0


def collect(model: torch.nn.Module, name: str, job: Job, origin: Origin, folder: Path) -> None:
    """Collect a routing trace; called again after an interruption, it goes on.

    Parameters
    ----------
    model : torch.nn.Module
        A Transformers model, ready for inference on its device.
    name : str
        What the trace calls the model.
    job : Job
        Prompts, batch size and how they are continued.
    origin : Origin
        Source and licence to record.
    folder : Path
        Where the trace goes; finished batches are kept under parts/.

    Raises
    ------
    UserError
        Where the folder is of another job or complete, the disk is full, or the device runs out of memory.
    """
    layers = moe_layers(model)
    router, ranked = probe(model, layers, name)
    described = {"model": name, "job": canonical_hash(asdict(replace(job, prompts=[asdict(p) for p in job.prompts])))}
    refuse_complete(folder, "trace")
    start_or_resume(folder / JOB, described, "another job")
    batches = [job.prompts[start : start + job.batch] for start in range(0, len(job.prompts), job.batch)]
    parts = [folder / PARTS / f"{number:05d}.parquet" for number in range(len(batches))]
    wanted = _tokens_with_inputs(job)

    sizes = [sum(len(p.tokens) + job.decoding.length(p) for p in batch) for batch in batches]
    done = sum(size for size, part in zip(sizes, parts, strict=True) if part.exists())
    with tqdm(total=sum(sizes), initial=done, desc=name, unit="token", unit_scale=True, mininterval=1) as progress:
        for number, (batch, part) in enumerate(zip(batches, parts, strict=True)):
            if not part.exists():
                recorded, inputs = _collect_batch(model, layers, batch, job, number, wanted, progress)
                with atomic_write(part.with_suffix(".safetensors")) as partial:
                    save_file(inputs, partial)
                # Written last: its name marks the batch as finished.
                store.write_part(part, check(_trace_of(recorded, router, ranked, origin), part))
    _put_together(folder, parts, layers, job)


def load_model(source: str, dtype: str) -> torch.nn.Module:
    """Return a Transformers model from a folder or a hub id, on this machine's device, ready for inference."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    try:
        config = AutoConfig.from_pretrained(source)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = kind.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        advice = "Check the folder." if Path(source).exists() else "Without a network, name a folder with the model."
        raise UserError(source, f"could not be loaded: {reason}", advice) from None
    try:
        return model.eval().to(machine.device())
    except torch.OutOfMemoryError:
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        free = torch.cuda.mem_get_info()[0]
        problem = f"its weights take {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free on the GPU"
        raise UserError(source, problem, "Use a larger GPU.") from None


def _tokens_with_inputs(job: Job) -> set[tuple[int, int]]:
    """Return the (sequence, position) pairs whose router inputs are kept: a seeded draw from all that are planned."""
    lengths = np.array([len(p.tokens) + job.decoding.length(p) for p in job.prompts])
    ends = np.cumsum(lengths)
    random = np.random.default_rng(job.decoding.seed)
    chosen = random.choice(ends[-1], min(job.hidden_tokens, int(ends[-1])), replace=False)
    rows = np.searchsorted(ends, chosen, side="right")
    positions = chosen - (ends - lengths)[rows]
    return {(job.prompts[row].number, int(position)) for row, position in zip(rows, positions, strict=True)}


@torch.no_grad()
def _collect_batch(
    model: torch.nn.Module,
    layers: list[MoeLayer],
    batch: Sequence[Prompt],
    job: Job,
    number: int,
    wanted: set[tuple[int, int]],
    progress: tqdm,
) -> tuple[list[tuple[np.ndarray, Pass]], Inputs]:
    """Return the choices of every pass over one batch, and the router inputs of its wanted tokens."""
    recorded: list[tuple[np.ndarray, Pass]] = []
    kept: list[tuple[int, int, torch.Tensor]] = []
    recorder = Recorder(model, layers, lambda ids, of: recorded.append((ids, of)))
    try:
        for now, run in passes(model, batch, job.decoding, seed=job.decoding.seed + number):
            slots = list(zip(now.sequence.tolist(), now.position.tolist(), strict=True))
            picked = [row for row, slot in enumerate(slots) if slot in wanted]
            recorder.keep_inputs = bool(picked)
            run()
            if picked:
                rows = torch.tensor(picked, device=recorder.device)
                taken = recorder.take_inputs(rows if now.rows is None else now.rows[rows])
                kept += [(*slots[row], values) for row, values in zip(picked, taken, strict=True)]
            recorder.end_pass(now.tokens, now.rows, now)
            progress.update(len(slots))
        recorder.flush()
    except torch.OutOfMemoryError:
        raise _out_of_memory(model, batch, job.decoding) from None
    finally:
        recorder.close()
    return recorded, _inputs_of(kept)


def _trace_of(recorded: list[tuple[np.ndarray, Pass]], router: Router, ranked: bool, origin: Origin) -> Trace:
    alive = np.concatenate([now.alive.cpu().numpy() for _, now in recorded])
    sequence = np.concatenate([now.sequence for _, now in recorded])[alive]
    position = np.concatenate([now.position for _, now in recorded])[alive]
    order = np.lexsort((position, sequence))

    def gathered(parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts)[alive][order]

    return Trace(
        router,
        sequence[order],
        position[order],
        gathered([np.full(len(now.sequence), now.phase, np.uint8) for _, now in recorded]),
        gathered([ids for ids, _ in recorded]).astype(np.uint16),
        ranked,
        origin,
        gathered([now.token.cpu().numpy().astype(np.int32) for _, now in recorded]),
    )


def _inputs_of(kept: list[tuple[int, int, torch.Tensor]]) -> Inputs:
    return {
        "sequence": torch.tensor([sequence for sequence, _, _ in kept], dtype=torch.int32),
        "position": torch.tensor([position for _, position, _ in kept], dtype=torch.int32),
        "inputs": torch.stack([values for _, _, values in kept]) if kept else torch.empty(0),
    }


def _out_of_memory(model: torch.nn.Module, batch: Sequence[Prompt], decoding: Decoding) -> UserError:
    """Find by trying which part of the batch fits: its prompt and one decoded token, halved until it does."""
    size = len(batch)
    short = replace(decoding, tokens=1)
    while size > 1:
        size //= 2
        torch.cuda.empty_cache()
        try:
            for _, run in passes(model, batch[:size], short, decoding.seed):
                run()
        except torch.OutOfMemoryError:
            continue
        return UserError(
            "GPU memory", f"a batch of {len(batch)} does not fit", f"A batch of {size} does: --batch {size}"
        )
    return UserError("GPU memory", "a batch of one sequence does not fit", "Use shorter prompts, or a larger GPU.")


def _put_together(folder: Path, parts: list[Path], layers: list[MoeLayer], job: Job) -> None:
    """Join the parts into the trace, count its tokens, seal the folder and drop the parts."""
    metadata = store.join_parts(folder, parts)
    decoded = metadata["tokens_by_phase"]["decode"]
    planned = sum(job.decoding.length(prompt) for prompt in job.prompts)
    if decoded > planned or (job.decoding.mode == "text" and decoded != planned):
        raise UserError(str(folder), f"has {decoded} decoded tokens, expected {planned}", "Collect it again.")
    names = [store.TRACE]
    if job.hidden_tokens:
        _join_inputs(folder / ROUTER_INPUTS, [part.with_suffix(".safetensors") for part in parts], layers)
        names.append(ROUTER_INPUTS)
    store.seal(folder, metadata, *names)
    shutil.rmtree(folder / PARTS)
    (folder / JOB).unlink()


def _join_inputs(path: Path, parts: list[Path], layers: list[MoeLayer]) -> None:
    """Write the router inputs of all parts, and the routers' weights (L, E, hidden), in bf16."""
    inputs = [part for part in map(load_file, parts) if len(part["sequence"])]
    joined = {key: torch.cat([part[key] for part in inputs]) for key in ("sequence", "position", "inputs")}
    joined["router_weights"] = torch.stack([layer.router_weight.detach().to("cpu", torch.bfloat16) for layer in layers])
    with atomic_write(path) as partial:
        save_file(joined, partial)

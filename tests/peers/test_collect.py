"""The collector: what it records is what Transformers routes, for every class; and nothing is lost on the way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import CONFIGS, VOCABULARY, small_model
from tests.waiting import wait_until

from prophet_moe.collect import overhead, trace
from prophet_moe.collect.decoding import Decoding, Prompt
from prophet_moe.collect.plan import TracePlan
from prophet_moe.collect.prompts import piece_name, read_prompts, write_held_out
from prophet_moe.collect.recorder import Recorder, moe_layers
from prophet_moe.errors import UserError
from prophet_moe.routing import store
from prophet_moe.routing.trace import DECODE, PREFILL, Origin

ROOT = Path(__file__).parents[2]
ORIGIN = Origin("a test", "none")
DECODED = 9


def prompts(count=5) -> list[Prompt]:
    """Prompts of different lengths, so that batches are padded."""
    random = np.random.default_rng(3)
    return [
        Prompt(
            number,
            random.integers(2, VOCABULARY, 5 + number).tolist(),
            random.integers(2, VOCABULARY, DECODED).tolist(),
        )
        for number in range(count)
    ]


def job(mode="text", batch=2, hidden=0, count=5) -> trace.Job:
    return trace.Job(prompts(count), Decoding(mode, DECODED, 0), batch, hidden)


@torch.no_grad()
def routed_in_one_pass(model, prompt: Prompt) -> torch.Tensor:
    """(tokens, L, k): what the routers themselves say in one pass over the whole text, no cache, no padding."""
    seen = []

    def look(module, _arguments, output):
        if isinstance(output, tuple) and not output[-1].is_floating_point():
            seen.append(output[-1])  # Router classes return (logits, weights, indices).
        elif isinstance(output, tuple):
            seen.append(output[0].argmax(-1).reshape(-1, 1))  # Switch: (one-hot, probability, logits).
        else:
            seen.append(output.topk(model.config.ffn_config.moe_top_k).indices)  # DBRX: logits.

    stack = model.get_decoder() if model.config.is_encoder_decoder else model
    routers = [
        m for name, m in stack.named_modules() if name.endswith((".gate", ".router")) and name.count("expert") == 0
    ]
    hooks = [router.register_forward_hook(look) for router in routers]
    if model.config.is_encoder_decoder:
        start = [model.config.decoder_start_token_id]
        model(
            input_ids=torch.tensor([prompt.tokens]),
            decoder_input_ids=torch.tensor([start + prompt.continuation[: DECODED - 1]]),
        )
    else:
        model(input_ids=torch.tensor([prompt.tokens + prompt.continuation]))
    for hook in hooks:
        hook.remove()
    return torch.stack([ids.reshape(-1, ids.shape[-1]) for ids in seen], 1)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_trace_is_what_the_routers_say(tmp_path, name):
    """Prefill in padded batches and decode with the cache, against one plain pass over each whole text."""
    model = small_model(name)
    trace.collect(model, name, job(), ORIGIN, tmp_path)
    recorded = store.read_trace(tmp_path, name)
    for prompt in prompts():
        mine = recorded.select(recorded.sequence == prompt.number)
        expected = routed_in_one_pass(model, prompt)
        assert mine.position.tolist() == list(range(len(expected)))
        np.testing.assert_array_equal(np.sort(mine.experts, -1), np.sort(expected, -1))
        prefilled = 0 if model.config.is_encoder_decoder else len(prompt.tokens)
        assert mine.phase.tolist() == [PREFILL] * prefilled + [DECODE] * DECODED
        if prefilled:
            assert mine.token.tolist() == prompt.tokens + prompt.continuation


def test_ranked_is_what_the_class_does(tmp_path):
    for name, ranked in (("Mixtral", True), ("DeepSeek-V3", False)):
        trace.collect(small_model(name), name, job(), ORIGIN, tmp_path / name)
        assert store.read_trace(tmp_path / name).ranked is ranked


@pytest.mark.parametrize("mode", ["sample", "greedy"])
def test_decoding_follows_the_model_and_ends_where_it_ends(tmp_path, mode):
    model = small_model("Qwen3-MoE")
    trace.collect(model, "m", job(mode), ORIGIN, tmp_path)
    recorded = store.read_trace(tmp_path)
    for prompt in prompts():
        mine = recorded.select(recorded.sequence == prompt.number)
        text = mine.token.tolist()
        assert text[: len(prompt.tokens)] == prompt.tokens
        assert 1 not in text[len(prompt.tokens) : -1], "decoding went on after the end token"
        if mode == "greedy":
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([text])).logits[0]
            assert text[len(prompt.tokens) :] == logits.argmax(-1).tolist()[len(prompt.tokens) - 1 : -1]


def test_batches_do_not_change_what_is_recorded(tmp_path):
    model = small_model("Mixtral")
    for batch in (1, 3, 5):
        trace.collect(model, "m", job(batch=batch), ORIGIN, tmp_path / str(batch))
    one, *others = (store.read_trace(tmp_path / str(batch)) for batch in (1, 3, 5))
    for other in others:
        np.testing.assert_array_equal(np.sort(one.experts, -1), np.sort(other.experts, -1))


def test_router_inputs_explain_the_choices(tmp_path):
    """Scores computed from the kept inputs and router weights rank the recorded experts on top."""
    trace.collect(small_model("Qwen3-MoE", torch.bfloat16), "m", job(hidden=20), ORIGIN, tmp_path)
    recorded = store.read_trace(tmp_path)
    kept = load_file(tmp_path / trace.ROUTER_INPUTS)
    assert kept["inputs"].shape == (20, 3, 32)
    scores = torch.einsum("nlh,leh->nle", kept["inputs"].float(), kept["router_weights"].float())
    for row, (sequence, position) in enumerate(zip(kept["sequence"], kept["position"], strict=True)):
        where = (recorded.sequence == sequence.item()) & (recorded.position == position.item())
        chosen = torch.from_numpy(recorded.experts[where][0].astype(np.int64))
        worst_chosen = scores[row].gather(-1, chosen).amin(-1)
        kth = scores[row].topk(2).values[:, -1]
        assert (worst_chosen >= kth - 0.05 * kth.abs()).all()


def interrupt_after(monkeypatch, parts: int, error: BaseException):
    """Let `parts` batches be written, then fail."""
    write = store.write_part
    done = []

    def failing(path, part):
        if len(done) == parts:
            raise error
        done.append(path)
        write(path, part)

    monkeypatch.setattr(store, "write_part", failing)


def test_an_interrupted_collection_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    model = small_model("OLMoE")
    trace.collect(model, "m", job("sample", hidden=10), ORIGIN, tmp_path / "whole")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            trace.collect(model, "m", job("sample", hidden=10), ORIGIN, tmp_path / "resumed")
    with pytest.raises(UserError, match=r"holds no metadata\.json"):
        store.read_trace(tmp_path / "resumed")
    trace.collect(model, "m", job("sample", hidden=10), ORIGIN, tmp_path / "resumed")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == ["SHA256SUMS", "metadata.json", "router_inputs.safetensors", "trace.parquet"]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()


def test_a_full_disk_is_told_and_finished_batches_stay_readable(tmp_path):
    """A real file system of 48 KiB; with more room the collection goes on."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        model, many = small_model("OLMoE"), job(count=40)
        with pytest.raises(UserError, match=r"parquet: could not be written: the disk is full"):
            trace.collect(model, "m", many, ORIGIN, tmp_path / "out")
        finished = [store.read_part(path) for path in sorted((tmp_path / "out" / trace.PARTS).glob("*.parquet"))]
        assert finished
        assert [sorted(set(part.sequence.tolist())) for part in finished] == [
            [2 * number, 2 * number + 1] for number in range(len(finished))
        ]
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path)], check=True)
        trace.collect(model, "m", many, ORIGIN, tmp_path / "out")
        assert len(np.unique(store.read_trace(tmp_path / "out").sequence)) == 40
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_another_job_does_not_mix_with_what_lies_there(tmp_path, monkeypatch):
    model = small_model("OLMoE")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 1, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            trace.collect(model, "m", job(), ORIGIN, tmp_path)
    with pytest.raises(UserError, match="holds parts of another job"):
        trace.collect(model, "m", job("greedy"), ORIGIN, tmp_path)
    trace.collect(model, "m", job(), ORIGIN, tmp_path)
    with pytest.raises(UserError, match="holds a complete trace"):
        trace.collect(model, "m", job(), ORIGIN, tmp_path)


def test_a_layer_that_was_not_routed_is_noticed():
    """Without the count, a missing layer would shift all others."""
    model = small_model("Mixtral")
    layers = moe_layers(model)
    recorder = Recorder(model, layers, lambda ids, label: None)
    with torch.no_grad():
        model(input_ids=torch.tensor([[2, 3, 4]]))
    recorder.chosen.pop()
    with pytest.raises(UserError, match=r"2 layers of \[3\] tokens were routed, expected 3 of 3"):
        recorder.end_pass(3, None, None)
    recorder.close()


def test_out_of_memory_names_a_batch_that_fits(tmp_path):
    """The device is the one thing that is not real here: a forward pass over more than two sequences fails."""
    model = small_model("Mixtral")

    def small_device(_module, _arguments, keywords):
        if keywords["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError

    model.register_forward_pre_hook(small_device, with_kwargs=True)
    with pytest.raises(UserError, match=r"a batch of 5 does not fit\. A batch of 2 does: --batch 2"):
        trace.collect(model, "m", job(batch=5), ORIGIN, tmp_path)


def test_a_model_without_experts_is_refused(tmp_path):
    import transformers

    config = transformers.LlamaConfig(vocab_size=16, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    model = transformers.LlamaForCausalLM(config)
    with pytest.raises(UserError, match="has no MoE layer"):
        trace.collect(model, "m", job(), ORIGIN, tmp_path)


def test_the_overhead_is_a_ratio_of_interleaved_runs():
    (measured,) = overhead.measure(small_model("Mixtral"), (2,), rounds=3, steps=4)
    assert measured["batch"] == 2
    low, high = measured["ratio_quartiles"]
    assert 0 < low <= measured["ratio"] <= high


def collect_command(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "prophet_moe.collect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, **options)


def only_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.stderr
    return line


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A saved model beside prompts that replay text."""
    folder = tmp_path_factory.mktemp("model")
    small_model("Qwen3-MoE").save_pretrained(folder)
    noted = {"label": "a", "piece": "b"}
    lines = [json.dumps({"tokens": p.tokens, "continuation": p.continuation} | noted) for p in prompts(40)]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    return folder


def test_a_killed_collection_goes_on(saved, tmp_path):
    """SIGKILL in the middle of the real command; the second run ends with the bytes of an undisturbed one."""
    options = ["--prompts", saved / "prompts.jsonl", "--decode", "text", "--batch", "1", "--dtype", "float32"]
    assert collect_command("trace", saved, *options, "--out", tmp_path / "whole").returncode == 0
    command = [sys.executable, "-m", "prophet_moe.collect", "trace", saved, *options, "--out", tmp_path / "killed"]
    running = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.DEVNULL)
    parts = tmp_path / "killed" / trace.PARTS
    wait_until(lambda: len(list(parts.glob("*.parquet"))) >= 3, running)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert 3 <= len(list(parts.glob("*.parquet"))) < 40
    assert collect_command("trace", saved, *options, "--out", tmp_path / "killed").returncode == 0
    for name in (store.TRACE, store.METADATA):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    notes = json.loads((tmp_path / "whole" / store.METADATA).read_text())["notes"]
    assert notes["machine"]["torch"] == torch.__version__
    assert notes["sequences"] == [{"label": "a", "piece": "b"}] * 40


def test_held_out_prompts_say_which_piece_they_are_of(tmp_path):
    """Windows of one piece share a name, which depends on its tokens; a prompt without one stays without."""
    path, pieces = tmp_path / "p", {"code": [np.arange(20), np.arange(1, 25)], "dialogue": [np.arange(30)]}
    write_held_out(path, pieces, TracePlan(3, prompt_tokens=2, decode_tokens=6, batch=1, hidden_tokens=0))
    found, notes = read_prompts(path, list, most_tokens=9, limit=None)
    assert [prompt.tokens for prompt in found] == [[0, 1], [8, 9], [9, 10], [0, 1], [8, 9], [16, 17]]
    code, other, dialogue = piece_name("code", np.arange(20)), piece_name("code", np.arange(1, 25)), notes[3]["piece"]
    assert [note["piece"] for note in notes] == [code, code, other, dialogue, dialogue, dialogue]
    assert len({code, other, dialogue}) == 3
    path.write_text('{"tokens": [1]}')
    assert read_prompts(path, list, most_tokens=9, limit=None)[1] == [{"label": ""}]


def test_mistakes_are_one_line(saved, tmp_path):
    prompt_file = tmp_path / "prompts.jsonl"
    prompt_file.write_text('{"tokens": [1, 2]}\nnot json\n')
    good = ["--prompts", saved / "prompts.jsonl", "--out", tmp_path / "out"]
    offline = os.environ | {"HF_HUB_OFFLINE": "1"}
    line = only_line(collect_command("trace", "nobody/nothing", *good, env=offline))
    assert "nobody/nothing: could not be loaded" in line
    assert "Without a network, name a folder with the model." in line
    line = only_line(collect_command("trace", saved, "--prompts", prompt_file, "--out", tmp_path / "out"))
    assert f"{prompt_file}: line 2: got 'not json'" in line
    line = only_line(collect_command("trace", saved, "--prompts", tmp_path / "none.jsonl", "--out", tmp_path / "out"))
    assert "none.jsonl: could not be used" in line
    line = only_line(collect_command("train", "unknown-model"))
    assert "no model 'unknown-model', expected one of small-12x128-top1" in line
    assert not (tmp_path / "out").exists()

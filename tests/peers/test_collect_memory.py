"""What `collect memory` measures: exact bytes of tiny models, and real architectures that the catalogue agrees with."""

import csv
import dataclasses
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from importing import component_of
from transformers_models import ABSENT, CATALOGUE, PEERS

from prophet_moe.catalog.architecture import letters
from prophet_moe.collect import measurement, memory
from prophet_moe.collect.allocation import within_memory
from prophet_moe.collect.memory.caches import cache_bytes, cached_tensors, caches_by_kind
from prophet_moe.collect.memory.context import cache_fits, largest
from prophet_moe.collect.memory.peaks import LiveTensors
from prophet_moe.collect.memory.plan import Lengths, Step
from prophet_moe.collect.memory.subject import PROBE_TOKENS, Subject, build, parameter_sizes
from prophet_moe.collect.plan import read_as
from prophet_moe.errors import UserError
from prophet_moe.params import parameter_counts

ROOT = Path(__file__).parents[2]
PLANS = ROOT / "config" / "measurements"
FULL = read_as(memory.Plan, PLANS / "memory.yaml")
QUICK = read_as(memory.Plan, PLANS / "memory_quick.yaml")
PUBLISHED_B = {"DeepSeek-V2-Lite": 15.7, "gpt-oss-20b": 20.91}
"""Parameters in 1e9 of the models that the catalogue has not: their model cards."""
ON_GPU = torch.cuda.is_available()

KV_AND_STATE = {
    "OLMoE": [(384, 0), (384, 0)],
    "Switch": [(512, 0), (512, 0)],
    "Qwen2-MoE": [(192, 0), (192, 0)],
    "DeepSeek-V2": [(96, 0), (96, 0)],
    "gpt-oss": [(256, 0), (128, 2 * 15 * 64)],
    "Mixtral": [(192, 0), (192, 0)],
    "DBRX": [(192, 0), (192, 0)],
    "Jamba": [(64, 4 * 64 * (4 * 2 + 8 * 4))] * 2,
    "DeepSeek-V3": [(96, 0), (96, 0)],
}
"""Bytes per token and per sequence of each tiny model, below and above the window of gpt-oss: 2 layers keep 15 tokens.

K and V of BF16 (MLA: latent and rotary key) of every attention layer; Jamba's 4 Mamba layers: 4 BF16 and 8 FP32 values
for each of 64 channels.
"""


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "memory.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def select(rows: list[dict[str, str]], **where: object) -> list[dict[str, str]]:
    return [row for row in rows if all(row[key] == str(value) for key, value in where.items())]


def quick(*names: str, **changes) -> memory.Plan:
    return dataclasses.replace(QUICK, models={name: QUICK.models[name] for name in names}, **changes)


def subject(name: str) -> Subject:
    torch.manual_seed(0)
    made = Subject(name, QUICK.models[name])
    made.first_passes()
    return made


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> Path:
    """The whole quick plan, interrupted after its first model, and the second call."""
    folder = tmp_path_factory.mktemp("memory") / "out"
    first = folder / "parts" / "OLMoE.json"

    def interrupted(*arguments) -> list:
        if first.exists():
            raise KeyboardInterrupt
        return within_memory(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measurement, "within_memory", interrupted)
        with pytest.raises(KeyboardInterrupt):
            memory.collect(QUICK, folder)
    first.write_text(json.dumps(json.loads(first.read_text()) | {"state": {"marked": True}}))
    memory.collect(QUICK, folder)
    return folder


@pytest.fixture(scope="module")
def measured(resumed) -> list[dict[str, str]]:
    return read_rows(resumed)


@pytest.mark.parametrize("name", FULL.models)
def test_the_plan_has_the_architectures_of_the_catalogue(name):
    """Every parameter of the real models, on the meta device; `layers` is all that may differ from the catalogue."""
    plan = FULL.models[name]
    model = build(name, plan, torch.device("meta"))
    sizes = parameter_sizes(model)
    routers = [parameter for path, parameter in model.named_parameters() if path.endswith(".mlp.gate.weight")]
    of_fp32 = sum(router.numel() for router in routers if router.dtype == torch.float32)
    assert sizes["parameter_bytes"] == 2 * (sizes["parameters"] + of_fp32) < 70e9
    if not plan.catalogue:
        assert sizes["parameters"] / 1e9 == pytest.approx(PUBLISHED_B[name], rel=1e-3)
        return
    whole = CATALOGUE[plan.catalogue]
    first = list(letters(whole.pattern))[: model.config.num_hidden_layers]
    arch = whole.model_copy(update={"pattern": ["".join(first)]})
    absent = sum(
        parameter.numel()
        for path, parameter in model.named_parameters()
        if component_of(path, PEERS[plan.catalogue].components) == ABSENT
    )
    counts = parameter_counts(arch)
    assert sizes["parameters"] - absent == counts.total
    assert sizes["expert_parameters"] == counts.routed_experts


def test_the_quick_plan_tries_every_class_of_the_full_one():
    classes = [{model.architecture for model in plan.models.values()} for plan in (FULL, QUICK)]
    assert classes[0] == classes[1]


@pytest.mark.parametrize("name", QUICK.models)
def test_cache_bytes_are_exact(measured, name):
    for lengths, (per_token, state) in zip(QUICK.cache_lengths, KV_AND_STATE[name], strict=True):
        found = select(
            measured, model=name, method=f"tensors from {lengths.short} tokens", batch=1, tokens=lengths.long
        )
        values = {row["measurement"]: float(row["value"]) for row in found}
        assert (values["kv_bytes_per_token"], values["state_bytes_per_sequence"]) == (per_token, state)
        assert ("cross_kv_bytes_per_token" in values) is (name == "Switch")
        assert values.get("cross_kv_bytes_per_token", 512) == 512


def test_a_window_keeps_the_storage_of_a_whole_prompt(measured):
    """Transformers slices the prompt's K and V down to the window, so that their storage stays as large."""
    (row,) = select(
        measured, model="gpt-oss", measurement="kv_bytes_per_token", method="storages from 32 tokens", tokens=48
    )
    assert float(row["value"]) == 256


@pytest.mark.parametrize("name", QUICK.models)
def test_parameter_bytes(measured, name):
    """Two bytes each, but for routers in FP32: DeepSeek's from the start, Switch's from the first pass on."""
    of_model = select(measured, model=name)
    values = {(row["measurement"], row["phase"]): int(row["value"]) for row in of_model if row["method"] == "tensors"}
    of_fp32 = 2 * 32 * 8 if name.startswith("DeepSeek") else 0
    assert values["parameter_bytes", "loading"] == 2 * (values["parameters", "loading"] + of_fp32)
    assert values["expert_parameter_bytes", "loading"] == 2 * values["expert_parameters", "loading"]
    router_bytes = 2 * 4 * 32 * 8 if name == "Switch" else 0
    assert values["parameter_bytes", "first_passes"] == values["parameter_bytes", "loading"] + router_bytes
    assert {(row["layers"], row["attention"]) for row in of_model} == {
        (of_model[0]["layers"], "eager" if name in ("Switch", "gpt-oss") else "sdpa")
    }


@pytest.mark.parametrize("name", QUICK.models)
def test_peaks_grow_with_the_tokens_in_flight(measured, name):
    live = select(measured, model=name, measurement="activation_peak_bytes", method="live_tensors")
    peaks = {(row["phase"], int(row["batch"]), int(row["tokens"])): int(row["value"]) for row in live}
    assert len(peaks) == len(QUICK.prefill_tokens) + len(QUICK.decode)
    assert 0 < 1.5 * peaks["prefill", 1, 32] < peaks["prefill", 1, 64]
    assert 0 < 3 * peaks["decode", 1, 16] < peaks["decode", 4, 16] < 5 * peaks["decode", 1, 16]
    assert not select(measured, measurement="failed")
    assert not select(measured, measurement="does_not_fit")


@pytest.mark.skipif(ON_GPU, reason="a GPU has these rows")
def test_what_has_no_meaning_on_a_cpu_is_left_out(measured):
    assert {row["method"].split()[0] for row in measured} == {"tensors", "storages", "live_tensors"}


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_a_gpu_adds_its_allocator_and_the_longest_contexts(measured):
    for name in QUICK.models:
        contexts = {row["measurement"]: int(row["value"]) for row in select(measured, model=name, batch=2)}
        assert 0 < contexts["max_context_tokens"] < contexts["refused_context_tokens"]
        for row in select(measured, model=name, measurement="activation_peak_bytes", method="allocator"):
            assert int(row["value"]) >= int(row["value_low"]) > 0
    assert all(int(row["value"]) > 0 for row in select(measured, measurement="context_overhead_bytes"))


def test_live_tensors_counts_storages_once_and_until_they_die():
    given = torch.zeros(100)
    with LiveTensors(given.device) as live:
        assert (live.now, live.peak) == (0, 0)
        view = given[10:].view(9, 10)
        view.add_(1)
        assert live.now == 0, "views and changes in place of what was there are no new storage"
        first = given + 1
        part = first[:10]
        assert live.now == 400
        del first
        assert live.now == 400, "a view keeps its storage alive"
        second = torch.cat([part, given])
        assert live.now == 400 + 440
        del part, second
        assert live.now == 0
        (given + 1).sum()
        assert (live.now, live.peak) == (0, 840)


@pytest.mark.parametrize("name", QUICK.models)
def test_all_that_lives_after_a_pass_is_its_cache(name):
    """So that a peak less what lives afterwards is activations alone."""
    model = subject(name)
    with LiveTensors(model.device) as live:
        cache = model.run(model.reading(2, 20))
        kept = sum(cache_bytes(part)["storages"] for part in caches_by_kind(cache).values())
        assert live.now == kept < live.peak
        del cache
        assert live.now == 0


@pytest.mark.parametrize("name", QUICK.models)
def test_a_stretched_cache_is_one_that_the_model_would_have_made(name):
    """The same shapes as after reading as many tokens, below and above the window, and a step goes on from it."""
    model = subject(name)
    template = {kind: part.get_seq_length() for kind, part in caches_by_kind(model.template).items()}
    for tokens in (PROBE_TOKENS, 30):
        if model.encodes:
            real = model.run(model.reading(3, PROBE_TOKENS, target=tokens))
        else:
            real = model.run(model.reading(3, tokens))
        inputs = model.stepping(3, tokens)
        for kind, part in caches_by_kind(inputs["past_key_values"]).items():
            shapes, expected = (
                [(tensor.shape, tensor.dtype) for tensor in cached_tensors(cache)]
                for cache in (part, caches_by_kind(real)[kind])
            )
            assert shapes == expected
        cache = model.run(inputs)
        assert cache.get_seq_length() == tokens + 1
    assert {kind: part.get_seq_length() for kind, part in caches_by_kind(model.template).items()} == template


def test_bisection_finds_the_limit_and_counts_its_trials():
    asked = []

    def fits(number: int) -> bool:
        asked.append(number)
        return number <= 70_001

    low, high = largest(fits, 100_000, 0.005, 40)
    assert low <= 70_001 < high
    assert high - low <= 0.005 * low
    assert len(asked) <= 9
    assert largest(fits, 100_000, 0, 40) == (70_001, 70_002)
    asked.clear()
    largest(fits, 100_000, 0, 4)
    assert len(asked) == 4


@contextmanager
def address_space(more: int) -> Iterator[None]:
    """Let this process take `more` bytes of addresses than it has now."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(ON_GPU, reason="limits the memory of the CPU")
def test_the_longest_context_fills_the_memory_there_is():
    """The cache of a token takes 192 bytes in each of 4 sequences; memory that was freed before may be used again."""
    model, room = subject("Mixtral"), 2**28
    with address_space(room):
        low, high = largest(partial(cache_fits, model, 4, 32), 2 * room // (4 * 192), 0.02, 12)
    assert 0.5 * room < 4 * 192 * low < 1.5 * room
    assert high - low <= 0.02 * low


def test_what_does_not_fit_is_a_row_and_the_rest_is_measured(tmp_path):
    """A model and a context of more bytes than any address space has."""
    huge = QUICK.models["Mixtral"]
    huge = dataclasses.replace(huge, config=huge.config | {"vocab_size": 10**13})
    plan = quick("Mixtral", decode=[Step(1, 10**13), Step(1, 16)])
    plan = dataclasses.replace(plan, models={"huge": huge} | plan.models)
    memory.collect(plan, tmp_path)
    rows = read_rows(tmp_path)
    (row,) = [row for row in select(rows, model="huge") if row["phase"] == "loading"]
    assert (row["measurement"], row["phase"]) == ("does_not_fit", "loading")
    assert int(row["value"]) > 2 * 2 * 32 * 10**13
    refused, taken = (select(rows, model="Mixtral", phase="decode", batch=1, tokens=n)[-1] for n in (10**13, 16))
    assert (refused["measurement"], taken["measurement"]) == ("does_not_fit", "activation_peak_bytes")


def test_interrupted_measurement_resumes_and_repeats_nothing(resumed, measured):
    metadata = json.loads((resumed / "metadata.json").read_text())
    assert metadata["state_after_part"]["OLMoE"] == {"marked": True}
    assert list(dict.fromkeys(row["model"] for row in measured if row["model"])) == list(QUICK.models)
    with pytest.raises(UserError, match="holds a complete measurement"):
        memory.collect(QUICK, resumed)


def test_mistakes_are_told_before_anything_is_measured(tmp_path):
    mixtral = QUICK.models["Mixtral"]
    for change, told in (
        ({"repeats": 0}, "repeats: got 0, expected at least 1"),
        ({"decode": []}, "decode: is empty, expected at least one entry"),
        ({"prefill_tokens": [32, 64, 32]}, "prefill_tokens: holds 32 twice"),
        ({"cache_lengths": [Lengths(8, 8)]}, r"cache_lengths\[0\]\.short: got 8, expected less than `long` \(8\)"),
    ):
        with pytest.raises(UserError, match=f"memory plan: {told}"):
            memory.collect(dataclasses.replace(QUICK, **change), tmp_path / "out")
    for change, told in (
        ({"architecture": "MixtralKonfig"}, r"models\.m\.architecture: Transformers has no configuration class"),
        ({"architecture": "MixtralForCausalLM"}, r"models\.m\.architecture: Transformers has no configuration class"),
        ({"dtype": "bf16"}, r"models\.m\.dtype: PyTorch has no type 'bf16'"),
    ):
        plan = dataclasses.replace(QUICK, models={"m": dataclasses.replace(mixtral, **change)})
        with pytest.raises(UserError, match=f"memory plan: {told}"):
            memory.collect(plan, tmp_path / "out")
    misspelt = tmp_path / "plan.yaml"
    misspelt.write_text((PLANS / "memory_quick.yaml").read_text().replace("tokens: 256", "token: 256"))
    with pytest.raises(UserError, match=r"decode\[2\]\.token: unknown key; did you mean 'tokens'"):
        read_as(memory.Plan, misspelt)
    assert not (tmp_path / "out").exists()

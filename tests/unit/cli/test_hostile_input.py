"""Hostile input of every kind: it ends in what can be, or in one line, and soon."""

import contextlib
import io
import json
import math
import shutil
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from prophet_moe.catalog import load_gpus, load_models, model_names
from prophet_moe.cli.main import main
from prophet_moe.cli.model import list_models
from prophet_moe.cli.values import between, whole
from prophet_moe.errors import UserError
from prophet_moe.offload.strategies import strategies
from prophet_moe.precision import FORMATS, KV_FORMATS
from prophet_moe.routing import store
from prophet_moe.routing.importers import import_source
from prophet_moe.routing.trace import Origin, Router, Trace
from prophet_moe.settings.experiment import resolve
from prophet_moe.study import load_studies
from prophet_moe.validation import merged, read_yaml
from tests.conftest import ROOT
from tests.fuzzing import VALUES, assert_sound, changed, fuzz

ROUTER, ORIGIN = Router("Tiny", 8, 2, (1, 2, 4)), Origin("a test", "CC0-1.0")
HIDDEN = 5
RNG = np.random.default_rng(5)
IDS = RNG.random((4, HIDDEN, 8)).argsort(axis=2)[:, :, :2]
"""(tokens, hidden layers, k)."""
SLOTS = np.where(np.isin(np.arange(HIDDEN), ROUTER.layers)[:, None, None], IDS.transpose(1, 0, 2), -1)
COUNTS = np.where(np.isin(np.arange(HIDDEN), ROUTER.layers)[:, None], RNG.integers(5, 9, (HIDDEN, 8)), 0)
MAP = np.tile(np.arange(8), (HIDDEN, 1)).tolist()
PASSES = [
    {
        "forward_pass_id": number,
        "forward_mode": 1 + (number > 0),
        "input_ids": [7] * tokens,
        "positions": list(range(first, first + tokens)),
        "extend_seq_lens": [tokens],
        "topk_ids_of_layer": SLOTS[:, first : first + tokens].tolist(),
    }
    for number, (first, tokens) in enumerate([(0, 3), (3, 1)])
]
DOCUMENTS = {
    "prompt_json": [
        {
            "row_index": 0,
            "router_data": [
                {
                    f"token_{position}": {
                        f"layer_{layer}": {
                            "selected_experts": IDS[position, layer].tolist(),
                            "selected_probs": [0.7, 0.3],
                        }
                        for layer in ROUTER.layers
                    }
                }
                for position in range(2)
            ],
        }
    ],
    "sglang_recorder, stat": {"logical_count": [COUNTS.tolist()]},
    "sglang_recorder, per_token": {"records": PASSES, "last_physical_to_logical_map": MAP},
    "sglang_recorder, per_pass": {
        "records": [{"forward_pass_id": number, "global_physical_count": COUNTS.tolist()} for number in range(2)],
        "last_physical_to_logical_map": MAP,
    },
    "counts": {"counts": COUNTS[list(ROUTER.layers)].tolist()},
    "lines": [
        {"pos": position, "layer": layer, "ids": IDS[position, layer].tolist(), "phase": "decode"}
        for position in range(2)
        for layer in ROUTER.layers
    ],
}
ARRAYS = {
    "arrays": {
        "expert_ids": IDS[:, list(ROUTER.layers)],
        "seq_len": np.array([1, 3]),
        "prompt_len": np.array([5, 6]),
        "layer_ids": np.array(ROUTER.layers),
    },
    "vllm_routed_experts": {"routed_experts": IDS, "prompt_len": np.array(3), "generated_len": np.array(2)},
    "transformers_logits": {
        "router_logits": RNG.normal(size=(3, 2, 2, 8)),
        "attention_mask": np.ones((2, 2), np.int64),
    },
    "counts": {"counts": COUNTS[None, list(ROUTER.layers)]},
}


def is_sound_or_one_line(name: str, path: Path, **options: Any) -> None:
    try:
        found = import_source(name, path, ROUTER, ORIGIN, **options)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert_sound(found)


def written(folder: Path, name: str, document: Any) -> Path:
    """Lines of JSON for `lines`, else one document."""
    path = folder / "a.json"
    as_lines = name == "lines" and isinstance(document, list)
    path.write_text("\n".join(map(json.dumps, document)) if as_lines else json.dumps(document))
    return path


@pytest.mark.parametrize("name", DOCUMENTS)
def test_unchanged_documents_are_read(name, tmp_path):
    path = written(tmp_path, name, DOCUMENTS[name])
    assert_sound(import_source(name.partition(",")[0], path, ROUTER, ORIGIN))


@pytest.mark.parametrize("name", DOCUMENTS)
@fuzz(60)
@given(data=st.data())
def test_changed_documents_are_sound_or_one_line(fresh_folder, name, data):
    path = written(fresh_folder(), name, data.draw(changed(DOCUMENTS[name])))
    is_sound_or_one_line(name.partition(",")[0], path)


@st.composite
def arrays(draw: st.DrawFn, likely: np.ndarray) -> np.ndarray:
    """An array like the `likely` one: another type, shape or number; or nothing like it."""
    change = draw(st.sampled_from(["type", "axis", "cut", "numbers", "numbers", "other"]))
    if change == "type":
        kinds = ["u1", "i1", "u2", "i4", "u8", "f4", "f2", "c8", "?", "S3", "U2", ">i4", "M8[s]"]
        with np.errstate(invalid="ignore"):
            return likely.astype(draw(st.sampled_from(kinds)))
    if change == "axis":
        return draw(
            st.sampled_from([likely[None], likely.ravel(), likely.T, likely[..., None], likely.reshape(-1)[:1]])
        )
    if change == "cut" and likely.ndim:
        axis = draw(st.integers(0, likely.ndim - 1))
        return np.take(likely, range(draw(st.integers(0, likely.shape[axis]))), axis=axis)
    if change == "numbers" and likely.size:
        wide = np.array(likely, copy=True)
        number = draw(st.integers(-2, 9) | st.sampled_from([2**31, 2**53, 2**63 - 1, -(2**63)]) | st.floats())
        with np.errstate(invalid="ignore"), contextlib.suppress(ValueError, OverflowError):
            wide.flat[draw(st.integers(0, wide.size - 1))] = number
        return wide
    return np.array(draw(st.integers(-(2**63), 2**63 - 1) | st.floats() | st.lists(st.integers(-9, 9)) | st.text()))


@pytest.mark.parametrize("name", ARRAYS)
def test_unchanged_arrays_are_read(name, tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS[name])
    assert_sound(import_source(name, tmp_path / "a.npz", ROUTER, ORIGIN))


@pytest.mark.parametrize("name", ARRAYS)
@fuzz(60)
@given(data=st.data())
def test_changed_arrays_are_sound_or_one_line(fresh_folder, name, data):
    held = dict(ARRAYS[name])
    for member in data.draw(st.lists(st.sampled_from(list(held)), min_size=1, max_size=2, unique=True)):
        likely = held.pop(member)
        if data.draw(st.integers(0, 5)):
            held[member] = data.draw(arrays(likely))
    path = fresh_folder() / "a.npz"
    np.savez(path, **held)
    is_sound_or_one_line(name, path)


@fuzz(60)
@given(
    layers=st.integers(-(10**20), 10**20) | st.integers(-2, 12),
    routed=st.sampled_from(["", "AAAA", "AAAAAAEAAAACAAAAAwAAAAEAAAADAAAAAAAAAAIAAAA="]),
    tokens=st.integers(0, 9),
)
def test_any_number_of_hidden_layers_is_one_line(fresh_folder, layers, routed, tokens):
    meta = {"prompt_tokens": tokens, "completion_tokens": 1, "routed_experts": routed}
    path = written(fresh_folder(), "sglang_routed_experts", {"meta_info": meta})
    is_sound_or_one_line("sglang_routed_experts", path, hidden_layers=layers)


STUDIES = {name: study.settings for name, study in load_studies(ROOT / "workflow/studies").items()}
MODELS, GPUS = model_names(ROOT / "config/models"), load_gpus(ROOT / "config/gpus.yaml")
BASE = read_yaml(ROOT / "config/experiment.yaml")
NAMES = st.lists(st.sampled_from([*MODELS[:4], "none", "", "a/b"]), max_size=3)
KEYS = {
    "name": st.sampled_from(["talk", "", ".", "..", "a/b", "-x", "x" * 64, "Ä", "a b"]) | st.text(max_size=5),
    "scenario": st.sampled_from(["calibrated", "reported", "mine", ""]),
    "build_scenarios": st.just("all") | st.lists(st.sampled_from(["calibrated", "reported", "mine"]), max_size=3),
    "scenarios": st.dictionaries(
        st.sampled_from(["calibrated", "mine", "data", "a/b", "..", "A"]),
        st.fixed_dictionaries({}, optional={"title": st.text(max_size=3), "routing": VALUES, "precision": VALUES}),
        max_size=2,
    ),
    "studies": st.fixed_dictionaries(
        {},
        optional={
            "kv_extension": st.dictionaries(st.sampled_from(["figure1_models", "figure9_models"]), NAMES, max_size=2),
            "comparison": st.fixed_dictionaries({}, optional={"sequences": VALUES, "tokens": VALUES}),
            "none": VALUES,
        },
    ),
    "models": st.just("all") | NAMES,
    "gpus": st.lists(st.sampled_from([*GPUS, "none"]), max_size=3),
    "counts": st.lists(st.sampled_from(["esft", "mine", "none"]), max_size=3),
    "traces": st.lists(st.sampled_from(["small-6x8-top2", "esft", "none"]), max_size=3),
    "batch_sizes": st.lists(st.integers(-1, 99) | st.integers(), max_size=4),
    "reference": st.fixed_dictionaries({}, optional={"gpu": st.sampled_from([*GPUS, "none"]), "batch_size": VALUES}),
    "replay": st.fixed_dictionaries({}, optional={"copy_chunk_mb": VALUES, "timed_as": VALUES}),
    "style": st.fixed_dictionaries({}, optional={"png_dpi": VALUES, "traces": VALUES, "heatmap": VALUES}),
}
OVERLAYS = st.fixed_dictionaries({}, optional={key: likely | VALUES for key, likely in KEYS.items()})


@fuzz(60)
@given(overlay=OVERLAYS, other=st.none() | st.tuples(st.text(max_size=4), VALUES))
def test_overlays_are_resolved_or_one_line(fresh_folder, overlay, other):
    """Names that fit each other, numbers within bounds, and what is built among what is defined."""
    path = fresh_folder() / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay | ({other[0]: other[1]} if other else {})), encoding="utf-8")
    try:
        read = read_yaml(path)
        config = merged(BASE, read)
        found = resolve(
            config, [path], MODELS, GPUS, STUDIES, lambda _: ["small-6x8-top2"], ["esft", "mine"]
        ).experiment
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert found.name == "" or (found.name[0].isalnum() and "/" not in found.name and "." not in found.name)
    assert found.scenario in found.built_scenarios() and set(found.built_scenarios()) <= set(found.scenarios)
    assert set(found.counts) <= {"esft", "mine"} and set(found.traces) <= {"small-6x8-top2"}
    assert set(found.selected_models() or ()) <= set(MODELS) and set(found.gpus) <= set(GPUS)
    assert all(0 < batch <= 10**6 for batch in found.batch_sizes)
    assert set(found.studies.kv_extension.figure1_models) <= set(MODELS)
    assert found.studies.comparison.sequences * found.studies.comparison.tokens <= 10**6


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NUMBERS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "1_0", "٣", " 4", "+4", "0x4", "1e400", "9" * 5000, "nan", "-inf", "1,2"]),
    WORDS,
)


@fuzz(200)
@given(text=NUMBERS)
def test_numbers_of_options_lie_within_their_bounds(text):
    for read, least, most in ((whole("--n", 1, 9), 1, 9), (between("--x", "MB", 0.5, 1e7), 0.5, 1e7)):
        try:
            assert least <= read(text) <= most
        except UserError as error:
            assert len(str(error).splitlines()) == 1


def ended(*arguments: str) -> str:
    """What the command printed; nothing where it ended in an error, which must be one line of the user's."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.setattr(sys, "argv", ["prophet-moe", *arguments])
        patch.chdir(ROOT)
        try:
            main()
        except SystemExit as stopped:
            line = str(stopped.code or "")
            assert line == "" or (line.startswith("error: ") and len(line.splitlines()) == 1), line
            assert "mistake in prophet-moe" not in line
            return ""
    return shown.getvalue()


def small_trace(router: Router, sequences: int = 8, tokens: int = 6) -> Trace:
    """Routing at random; the first two tokens of a sequence are its prompt."""
    count = sequences * tokens
    ids = np.random.default_rng(0).random((count, len(router.layers), router.experts)).argsort(axis=2)
    return Trace(
        router,
        np.repeat(np.arange(sequences, dtype=np.int32), tokens),
        np.tile(np.arange(tokens, dtype=np.int32), sequences),
        np.tile((np.arange(tokens) >= 2).astype(np.uint8), sequences),
        ids[..., : router.top_k].astype(np.uint16),
        True,
        ORIGIN,
    )


@pytest.fixture(scope="session")
def trace_folder(tmp_path_factory) -> Path:
    """A small trace of Mixtral's routers."""
    folder = tmp_path_factory.mktemp("small trace")
    store.write_trace(folder, small_trace(Router("Mixtral-8x7B", 8, 2, (0, 1))))
    return folder


SIM = {
    "--capacity": st.lists(st.integers(0, 17), min_size=1, max_size=3).map(lambda rooms: ",".join(map(str, rooms))),
    "--iso-cache": st.floats(0.001, 1e7).map(str),
    "--expert-mb": st.floats(0.001, 1e7).map(str),
    "--batch": st.integers(-1, 6).map(str),
    "--strategy": st.sampled_from([name for name in strategies() if name != "prophet"]),
    "--order": st.sampled_from(["mixed", "one_tenant_at_a_time"]),
    "--gpu": st.sampled_from(["A100-80GB", "H100-80GB"]),
    "--model": st.sampled_from(["Mixtral-8x7B", "OLMoE-1B-7B", "Switch-Base-128"]),
    "--predictor": st.sampled_from(["none", "resources/predictors/small-6x8-top2"]),
}
FLAGS = ["--item-by-item", "--deduplicated", "--global", "--inclusive", "--waves"]


def typed(options: dict[str, st.SearchStrategy]) -> st.SearchStrategy[list[str]]:
    """Options with likely values, one in ten with any."""
    one = st.sampled_from(list(options)).flatmap(
        lambda option: st.tuples(st.just(option), st.one_of(*[options[option]] * 9, NUMBERS.filter("\0".__ne__)))
    )
    return st.lists(one, max_size=4).map(lambda pairs: [part for pair in pairs for part in pair])


@fuzz(40)
@given(
    sized=st.sampled_from(["--capacity", "--iso-cache"]),
    options=typed(SIM),
    flags=st.lists(st.sampled_from(FLAGS), max_size=3),
    data=st.data(),
)
def test_sim_run_of_anything_is_an_outcome_or_one_line(trace_folder, sized, options, flags, data):
    given = ["--trace", str(trace_folder), "--strategy", "on_demand", sized, data.draw(SIM[sized]), "--json"]
    shown = ended("sim", "run", *given, *options, *flags)
    if shown.startswith("{"):
        found = json.loads(shown)
        assert found["tokens"] > 0 and 1 <= found["batch"] <= 4
        assert all(1 <= room <= 16 for room in found["capacity"])
        assert 0 <= found["hit_rate"] <= 1 and 0 < found["step_ms_mean"] < math.inf
        assert 1 - 1e-9 <= found["slowdown"] < math.inf


@pytest.fixture(scope="session")
def metadata(trace_folder) -> dict[str, Any]:
    return json.loads((trace_folder / store.METADATA).read_text())


@fuzz(40)
@given(data=st.data(), sealed=st.booleans())
def test_damaged_traces_are_read_or_one_line(fresh_folder, trace_folder, metadata, data, sealed):
    """Whatever its metadata or bytes become, whether or not its checksums were made to fit."""
    folder = fresh_folder()
    for name in (store.TRACE, store.METADATA, store.SUMS):
        shutil.copy(trace_folder / name, folder / name)
    if data.draw(st.booleans()):
        (folder / store.METADATA).write_text(json.dumps(data.draw(changed(metadata))))
    else:
        path = folder / data.draw(st.sampled_from([store.TRACE, store.METADATA, store.SUMS]))
        content = bytearray(path.read_bytes())
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
            content[place] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    if sealed:
        store.write_sums(folder, [store.TRACE, store.METADATA])
    try:
        assert_sound(store.read_trace(folder))
        for block in store.check_trace(store.read_blocks(folder, store.read_metadata(folder)), folder, metadata):
            assert_sound(block)
    except UserError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": []}, "kind is [], expected str"),
        ({"layers": None}, "layers is None, expected list"),
        ({"layers": [0, "1"]}, "layers is [0, '1'], expected whole numbers"),
        ({"layers": [1, 0]}, "layers [1, 0], expected ids from 0 on, ascending"),
        ({"layers": []}, "layers [], expected ids from 0 on, ascending"),
        ({"top_k": True}, "top_k is True, expected int"),
        ({"top_k": 0}, "k = 0 of 8 experts, expected 1 <= k <= E <= 4096"),
        ({"experts": 10**9}, "k = 2 of 1000000000 experts, expected 1 <= k <= E <= 4096"),
        ({"tokens_by_phase": {"decode": 3}}, "tokens_by_phase is {'decode': 3}, expected whole numbers of prefill and"),
        ({"notes": {"sequences": [3]}}, "notes.sequences is no list of objects"),
    ],
    ids=str,
)
def test_metadata_that_cannot_be_are_one_line(trace_folder, metadata, tmp_path, change, problem):
    """They ended in tracebacks, and a billion experts filled the memory."""
    shutil.copy(trace_folder / store.TRACE, tmp_path / store.TRACE)
    store.seal(tmp_path, metadata | change, store.TRACE)
    with pytest.raises(UserError) as raised:
        store.read_trace(tmp_path)
    assert problem in str(raised.value)


def test_metadata_without_a_key_are_one_line(trace_folder, metadata, tmp_path):
    for key in set(metadata) - {"unrepeated"}:
        (tmp_path / store.METADATA).write_text(json.dumps({name: metadata[name] for name in metadata if name != key}))
        with pytest.raises(UserError, match=f"metadata.json: has no {key}"):
            store.read_metadata(tmp_path)


def test_an_endless_cache_is_one_line(trace_folder):
    """Experts of a tier without end were an OverflowError."""
    size = ["--iso-cache", "1e308", "--expert-mb", "1e-300"]
    assert ended("sim", "run", "--trace", str(trace_folder), "--strategy", "on_demand", *size) == ""


def test_counts_in_half_precision_are_read_without_a_warning(tmp_path):
    np.save(tmp_path / "a.npy", COUNTS.astype(np.float16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_sound(import_source("counts", tmp_path / "a.npy", ROUTER, ORIGIN))


@fuzz(4)
@given(data=st.data())
def test_described_traces_are_told_or_one_line(fresh_folder, metadata, trace_folder, data):
    folder = fresh_folder()
    shutil.copy(trace_folder / store.TRACE, folder / store.TRACE)
    (folder / store.METADATA).write_text(json.dumps(data.draw(changed(metadata))))
    store.write_sums(folder, [store.TRACE, store.METADATA])
    ended("trace", "describe", str(folder))


MODEL = load_models(ROOT / "config/models", ["DeepSeek-V2-236B"])["DeepSeek-V2-236B"].model_dump(mode="json")


@fuzz(40)
@given(document=changed(MODEL))
def test_changed_models_are_listed_or_one_line(fresh_folder, document):
    path = fresh_folder() / "DeepSeek-V2-236B.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            list_models(Namespace(files=[str(path)], json=False))
        except UserError as error:
            assert len(str(error).splitlines()) == 1


CAPACITY = {
    "routing": st.fixed_dictionaries(
        {},
        optional={
            "law": st.sampled_from(["dirichlet_occupancy", "uniform_occupancy", "power_law"]),
            "variation": st.floats(0, 1000) | st.just("published") | VALUES,
            "text": st.sampled_from(["any", "web", "prompts"]) | VALUES,
            "exponent": st.floats(0, 1),
        },
    ),
    "resident": st.sampled_from(["mean", "fractional", "never_overflows"])
    | st.fixed_dictionaries({"quantile": st.floats(0, 1)}),
    "precision": st.sampled_from(["shipped", *FORMATS, "int3"]) | st.fixed_dictionaries({"default": VALUES}),
    "kv_format": st.sampled_from([*KV_FORMATS, "fp4"]),
    "usable_memory_share": st.floats(0, 1),
    "workspace_mib": st.floats(0, 2e6),
    "runtime_reserve_mib": st.floats(0, 2e6),
    "predictor_mb": st.just("own") | st.floats(0, 2e6),
    "lookahead_layers": st.integers(-1, 1001),
    "mla_cache": st.sampled_from(["latent", "expanded", "none"]),
}


@fuzz(20)
@given(
    changes=st.fixed_dictionaries({}, optional=CAPACITY),
    model=st.sampled_from(MODELS),
    gpus=st.lists(st.sampled_from([*GPUS, *GPUS, "none", ""]), min_size=1, max_size=3),
    batch=st.integers(1, 10**6),
)
def test_capacity_of_any_scenario_is_told_or_one_line(fresh_folder, changes, model, gpus, batch):
    path = fresh_folder() / "mine.yaml"
    path.write_text(yaml.safe_dump({"scenarios": {"calibrated": changes}}), encoding="utf-8")
    given = ["--model", model, "--gpu", *gpus, "--batch", str(batch), "--configfile", str(path), "--json"]
    shown = ended("capacity", *given)
    if shown:
        for entry in json.loads(shown):
            numbers = entry["numbers"]
            assert all(value is None or value == value for value in numbers.values())
            assert numbers["unique_experts"] > 0 and numbers["resident_experts"] > 0
            assert min(numbers["baseline_max_context"], numbers["prophet_max_context"]) >= 0


IMPORT = {
    "--hidden-layers": st.integers(-1, 10**20).map(str),
    "--columns": st.sampled_from(["token=pos,layer=layer,experts=e0..e1", "experts=e0..e999999999", "token=9"]),
    "--experts": st.integers(-1, 10**20).map(str),
    "--top-k": st.integers(-1, 9).map(str),
    "--prompt-tokens": st.integers(-1, 10**20).map(str),
    "--model": st.sampled_from(["Mixtral-8x7B", "new", "", "../x"]),
    "--licence": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
}


@fuzz(20)
@given(
    options=typed(IMPORT),
    form=st.sampled_from([*(name.partition(",")[0] for name in DOCUMENTS), *ARRAYS, "sglang_routed_experts"]),
)
def test_import_with_any_options_is_a_trace_or_one_line(fresh_folder, options, form):
    folder = fresh_folder()
    (folder / "a.csv").write_text("pos,layer,e0,e1\n0,0,3,5\n0,1,1,6\n1,0,0,7\n1,1,0,7\n")
    out = folder / "out"
    ended("trace", "import", form, str(folder / "a.csv"), "--model", "new", "--out", str(out), *options)
    if (out / store.SUMS).exists():
        assert_sound(store.read_trace(out))
    else:
        assert not out.exists()

"""Profiles of engines: strict files, a source for every term, the profile of a version."""

import pytest
import yaml

from prophet_moe.catalog.engine import EngineSpec, find_engine, load_engine, load_engines, profile_of, version_in
from prophet_moe.errors import UserError
from prophet_moe.observed.schema import MEMORY, read_observations
from prophet_moe.present.engine_page import engines_page
from tests.conftest import ROOT

FOLDER = ROOT / "config/engines"
ENGINES = load_engines(FOLDER)
MINIMAL = {
    "name": "mine",
    "engine": "vllm",
    "title": "mine",
    "runtime": {"context_gib": 0.5},
    "evidence": {"runtime.context_gib": {"source": "a log"}},
}


def written(folder, **changes):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return path


def test_profiles_of_the_issue_are_all_there():
    expected = {"vllm-0.7", "vllm-0.10", "vllm", "sglang", "llama.cpp", "freetoken", "transformers", "ideal"}
    assert expected <= set(ENGINES)
    assert not [name for name in ENGINES if " " in name]


@pytest.mark.parametrize("name", ENGINES)
def test_rows_of_evidence_are_observations(name):
    known = set(read_observations(ROOT / "resources/observations/memory.csv", MEMORY)["id"])
    named = {row for evidence in ENGINES[name].evidence.values() for row in evidence.rows}
    assert named <= known


@pytest.mark.parametrize("name", ENGINES)
def test_page_has_every_term_of_a_profile(name):
    page = engines_page(ENGINES)
    for term in ENGINES[name].given_terms():
        assert f"| `{term}` |" in page


def test_minimal_profile_is_read(tmp_path):
    assert load_engine(written(tmp_path)).runtime.context_gib == 0.5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"runtime": {"context_gb": 0.5}}, "runtime.context_gb: unknown key; did you mean 'context_gib'"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"evidence": {}}, "evidence.runtime.context_gib: missing"),
        ({"runtime": {"context_gib": 0.5, "non_torch_gib": 1}}, "evidence.runtime.non_torch_gib: missing"),
        ({"evidence": {**MINIMAL["evidence"], "cache.block_tokens": {"source": "x"}}}, "explains no term"),
        ({"evidence": {"runtime.context_gib": {"source": ""}}}, "source"),
        ({"evidence": {"runtime.context_gib": {"rows": ["m001"]}}}, "source: missing"),
        ({"runtime": {"context_gib": -1}}, "context_gib"),
        ({"runtime": {"context_gib": float("nan")}}, "context_gib"),
        ({"engine": "exllama"}, "engine"),
        ({"since": "new"}, "since"),
        ({"name": "yours"}, "expected the file's name 'mine'"),
    ],
)  # fmt: skip
def test_profile_with_a_mistake_is_refused_by_its_key(changes, told, tmp_path):
    with pytest.raises(UserError) as refused:
        load_engine(written(tmp_path, **changes))
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unknown_engine_lists_the_known_ones():
    with pytest.raises(UserError, match=r"unknown engine 'vlm'.*vllm-0\.10"):
        find_engine("vlm", FOLDER)


@pytest.mark.parametrize(
    ("engine", "version", "profile"),
    [
        ("vllm", "~0.4.1 (V0)", "vllm-0.6"),
        ("vllm", "0.7.2", "vllm-0.7"),
        ("vllm", "0.8.3 (V0)", "vllm-0.8-v0"),
        ("vllm", "0.8.3 (V1)", "vllm-0.10"),
        ("vllm", "0.9", "vllm-0.10"),
        ("vllm", "~0.10.2/0.11 (V1)", "vllm-0.10"),
        ("vllm", "0.26.0", "vllm"),
        ("vllm", "", "vllm"),
        ("sglang", "0.4.6", "sglang-0.4"),
        ("sglang", "0.5.9", "sglang"),
        ("ik_llama.cpp", "", "llama.cpp"),
    ],
)
def test_version_has_the_profile_that_describes_it(engine, version, profile):
    assert profile_of(engine, version, ENGINES).name == profile


def test_engine_without_a_profile_has_none():
    assert profile_of("exllama", "1.0", ENGINES) is None


@pytest.mark.parametrize(("text", "number"), [("~0.10.2 (V1)", (0, 10, 2)), ("v0.26", (0, 26)), ("custom image", None)])
def test_version_is_found_in_a_text(text, number):
    assert version_in(text) == number


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp"])
def test_profiles_of_an_engine_do_not_overlap(engine):
    ours = [spec for spec in ENGINES.values() if spec.engine == engine]
    for version in ((0, 1), (0, 6, 6), (0, 7), (0, 8), (0, 12), (0, 20), (1, 0)):
        generations = [spec.generation for spec in ours if spec.describes(version)]
        assert None in generations and len(set(generations)) == len(generations)


def test_every_field_of_a_profile_is_explained():
    for section in EngineSpec.model_fields.values():
        assert section.description

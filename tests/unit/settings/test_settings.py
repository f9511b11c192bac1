"""Settings, catalogue files and generated documents: one source, and every mistake in one clear line."""

import copy
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import matplotlib
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.font_manager import get_font
from snakemake.utils import update_config

from prophet_moe.catalog import load_gpus, load_models, model_names
from prophet_moe.catalog.model import ModelSpec
from prophet_moe.errors import UserError
from prophet_moe.present.documentation import documents
from prophet_moe.present.style import MARKERS, series_look
from prophet_moe.settings.experiment import Experiment, resolve, with_studies
from prophet_moe.settings.moved import MOVED, MOVED_OF_SCENARIOS
from prophet_moe.settings.scenario import Scenario
from prophet_moe.settings.style import OKABE_ITO, Colours, Style, StyleFile
from prophet_moe.study import load_studies, shown
from prophet_moe.validation import StrictModel, merged, read_json, read_yaml, validate
from tests.conftest import ROOT
from tests.fuzzing import fuzz

STUDIES = {name: study.settings for name, study in load_studies(ROOT / "workflow/studies").items()}
FIGURES = [figure.name for study in load_studies(ROOT / "workflow/studies").values() for figure in study.figures]
WHOLE = with_studies(STUDIES)
DOCUMENTS = documents()
"""Every generated file by its path, made once: ARTIFACT.md reads the committed tables."""


class Settings(StrictModel):
    """All that `snakemake --configfile` may change."""

    experiment: WHOLE = WHOLE()
    style: Style = Style()


MODELS, GPUS = model_names(ROOT / "config/models"), load_gpus(ROOT / "config/gpus.yaml")
EXPERIMENT, STYLE = ROOT / "config/experiment.yaml", ROOT / "config/style.yaml"
DEFAULTS = {"experiment": read_yaml(EXPERIMENT), **read_yaml(STYLE)}


def test_the_files_hold_the_defaults():
    assert (
        resolve(read_yaml(EXPERIMENT), [EXPERIMENT], MODELS, GPUS, STUDIES).experiment.model_dump()
        == WHOLE().model_dump()
    )
    assert resolve(read_yaml(STYLE), [STYLE], MODELS, GPUS, STUDIES, figures=FIGURES).style == Style()


@pytest.mark.parametrize("path", DOCUMENTS, ids=str)
def test_generated_documents_are_current(path):
    assert (ROOT / path).read_text(encoding="utf-8") == DOCUMENTS[path], "run: prophet-moe config write"


def test_every_key_is_documented():
    for line in DOCUMENTS[Path("docs/configuration.md")].splitlines():
        if line.startswith("| `"):
            assert not line.endswith("|  |"), f"no meaning given: {line}"


@pytest.mark.parametrize("overlay", sorted((ROOT / "config/overlays").glob("*.yaml")), ids=lambda p: p.stem)
def test_overlays_are_valid(overlay):
    resolve(
        merged(read_yaml(EXPERIMENT), read_yaml(overlay)), [EXPERIMENT, overlay], MODELS, GPUS, STUDIES, figures=FIGURES
    )


NESTED = st.recursive(
    st.integers(0, 3) | st.lists(st.integers(), max_size=2) | st.none(),
    lambda inside: st.dictionaries(st.sampled_from("abc"), inside, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), NESTED, max_size=3)


@settings(max_examples=200)
@given(MAPPINGS, MAPPINGS)
def test_overlays_are_merged_as_snakemake_merges_them(base, overlay):
    expected = copy.deepcopy(base)
    update_config(expected, overlay)
    before = copy.deepcopy(base)
    assert merged(base, overlay) == expected
    assert base == before


BAD_SETTINGS = {
    "unknown key": ({"batch_size": [1]}, "batch_size: unknown key; did you mean 'batch_sizes'"),
    "unknown nested key": (
        {"scenarios": {"calibrated": {"title": "x", "precisions": "int8"}}},
        "scenarios.calibrated.precisions: unknown key; did you mean 'precision'",
    ),
    "wrong type": ({"batch_sizes": ["many"]}, "batch_sizes[0]: got 'many', expected a valid integer"),
    "not a list": ({"batch_sizes": 16}, "batch_sizes: got 16, expected a valid list"),
    "negative batch": ({"batch_sizes": [1, -4]}, "batch_sizes[1]: got -4, expected greater than 0"),
    "zero batch": ({"batch_sizes": [0]}, "batch_sizes[0]: got 0, expected greater than 0"),
    "an endless batch": (
        {"batch_sizes": [1, 16, 100000000000]},
        "batch_sizes[2]: got 100000000000, expected less than or equal to 1000000",
    ),
    "a batch twice": ({"batch_sizes": [16, 16]}, "batch_sizes: got [16, 16], expected every value once"),
    "unknown scenario": ({"scenario": "measured"}, "scenario: got 'measured', expected one of calibrated, reported"),
    "reference outside": (
        {"reference": {"batch_size": 5}},
        "reference.batch_size: got 5, expected one of 1, 4, 8, 16, 32, 64",
    ),
    "bad scenario name": (
        {"scenarios": {"calibrated": {"title": "x"}, "data": {"title": "y"}}},
        "scenarios.data: this name cannot be a folder",
    ),
    "unknown model": (
        {"models": ["Mixtral-8x7b"]},
        "models[0]: unknown name 'Mixtral-8x7b'; did you mean 'Mixtral-8x7B'",
    ),
    "unknown GPU": (
        {"gpus": ["A100-80GB", "T4"]},
        "gpus[1]: unknown name 'T4'; expected one of V100-32GB, A100-40GB, A100-80GB, H100-80GB, H200-141GB, ",
    ),
    "GPU of a study that is none": (
        {"studies": {"current_models": {"gpus": ["A100-80GB", "H200-141GBB"]}}},
        "studies.current_models.gpus[1]: unknown name 'H200-141GBB'; did you mean 'H200-141GB'",
    ),
    "figure of a model that is none": (
        {"studies": {"kv_extension": {"figure1_models": ["DBRX-132B", "Grok-1-315B"]}}},
        "studies.kv_extension.figure1_models[1]: unknown name 'Grok-1-315B'; did you mean 'Grok-1-314B'",
    ),
    "unknown scenario to build": (
        {"build_scenarios": ["calibrated", "calibratd"]},
        "build_scenarios[1]: unknown name 'calibratd'; did you mean 'calibrated'",
    ),
    "default scenario not built": (
        {"build_scenarios": ["reported"]},
        "build_scenarios: got reported, expected the default scenario, calibrated, among them",
    ),
    "a name that is a path": ({"name": "../talk"}, "name: got '../talk', expected text of the form"),
    "a word or a list": ({"models": None}, "models: got None, expected 'all' or a valid list"),
    "a word or a number": (
        {"scenarios": {"calibrated": {"predictor_mb": -1}}},
        "scenarios.calibrated.predictor_mb: got -1, expected 'own' or greater than or equal to 0",
    ),
    "no scenario": ({"scenarios": {"reported": None}}, "scenarios.reported: got None, expected a mapping of keys"),
    "no style": ({"style": None}, "style: got None, expected a mapping of keys"),
    "no GPU": ({"gpus": []}, "gpus: got [], expected a list of at least 1"),
    "no truth value": ({"collect": {"afresh": 1}}, "collect.afresh: got 1, expected true or false"),
    "GPUs without the reference": (
        {"gpus": ["H100-80GB"]},
        "reference.gpu: got 'A100-80GB', expected one of H100-80GB",
    ),
    "scenarios without the default": ({"scenario": "mine"}, "scenario: got 'mine', expected one of"),
    "fewer sequences than a batch": (
        {"studies": {"comparison": {"sweep_batch_sizes": [128]}}},
        "studies.comparison.sequences: got 64, expected at least the largest batch, 128",
    ),
    "unknown model to time a trace with": (
        {"replay": {"timed_as": {"small-6x8-top2": "Mixtral-8x7b"}}},
        "replay.timed_as.small-6x8-top2: unknown name 'Mixtral-8x7b'; did you mean 'Mixtral-8x7B'",
    ),
    "neither of two words": (
        {"scenarios": {"calibrated": {"title": "x", "resident": "whole"}}},
        "scenarios.calibrated.resident: got 'whole', expected 'mean', 'fractional' or 'never_overflows'",
    ),
    "quantile above 1": (
        {"scenarios": {"calibrated": {"title": "x", "resident": {"quantile": 99}}}},
        "scenarios.calibrated.resident.quantile: got 99, expected less than 1",
    ),
    "quantile of a law without distribution": (
        {"scenarios": {"calibrated": {"routing": {"law": "power_law"}}}},
        "scenarios.calibrated.routing.law: got power_law, which gives no quantile (0.99) of distinct experts",
    ),
    "bad colour": (
        {"style": {"colours": {"baseline": "rd"}}},
        "style.colours.baseline: got 'rd', expected a colour that Matplotlib knows",
    ),
    "bad colour of a series": (
        {"style": {"colours": {"series": ["red", "#12"]}}},
        "style.colours.series[1]: got '#12'",
    ),
    "no colour of a series": ({"style": {"colours": {"series": []}}}, "style.colours.series: got [], expected a list"),
    "unknown font": (
        {"style": {"font": "Comic Sans"}},
        "style.font: got 'Comic Sans', expected 'DejaVu Sans', 'DejaVu Sans Mono', 'DejaVu Serif' or 'STIXGeneral'",
    ),
    "a key with dots": (
        {"studies.comparison.seeds": [1]},
        "studies.comparison.seeds: unknown key; keys with dots are written studies: {comparison: {seeds: ...}}",
    ),
    "unknown study": ({"studies": {"frontir": {}}}, "studies.frontir: unknown key; did you mean 'frontier'"),
    "unknown key of a study": (
        {"studies": {"frontier": {"share": [0.5]}}},
        "studies.frontier.share: unknown key; did you mean 'shares'",
    ),
    "size of a figure that is none": (
        {"style": {"figures": {"frontir": {"width_in": 7, "height_in": 3}}}},
        "style.figures.frontir: unknown name 'frontir'; did you mean 'frontier'",
    ),
    "unknown colour map": ({"style": {"heatmap": "RdYlGrn"}}, "style.heatmap: got 'RdYlGrn'; did you mean 'RdYlGn'"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_bad_settings_are_one_line(case, tmp_path):
    content, problem = BAD_SETTINGS[case]
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(content))
    config = merged(merged(read_yaml(EXPERIMENT), read_yaml(STYLE)), content)
    with pytest.raises(UserError) as raised:
        resolve(config, [EXPERIMENT, STYLE, overlay], MODELS, GPUS, STUDIES, figures=FIGURES)
    line = str(raised.value)
    assert problem in line
    assert "\n" not in line
    assert line.startswith(str(overlay)), "the line names the file that holds the key"
    assert line.endswith("docs/configuration.md.")


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_moved_key_tells_its_new_place(old, new, tmp_path):
    keys = old.split(".")
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({keys[0]: {keys[1]: 1} if keys[1:] else 1}))
    config = merged(merged(read_yaml(EXPERIMENT), read_yaml(STYLE)), read_yaml(overlay))
    with pytest.raises(UserError) as raised:
        resolve(config, [EXPERIMENT, STYLE, overlay], MODELS, GPUS, STUDIES, figures=FIGURES)
    assert (
        str(raised.value)
        == f"{overlay}: {old}: this key is now {new}. Every key is explained in docs/configuration.md."
    )
    assert re.search(rf"^\| `{re.escape(new)}[`.]", DOCUMENTS[Path("docs/configuration.md")], re.MULTILINE)


@pytest.mark.parametrize("scenario", ("calibrated", "mine"))
@pytest.mark.parametrize(("old", "new"), MOVED_OF_SCENARIOS.items())
def test_a_moved_key_of_a_scenario_tells_its_new_place(old, new, scenario, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"scenarios": {scenario: {"title": "mine", old: 8}}}))
    config = merged(read_yaml(EXPERIMENT), read_yaml(overlay))
    with pytest.raises(UserError) as raised:
        resolve(config, [EXPERIMENT, overlay], MODELS, GPUS, STUDIES, figures=FIGURES)
    key, example = new
    place = f"scenarios.{scenario}.{key}, the name of a format, such as {example} (docs/precision.md)"
    assert (
        str(raised.value) == f"{overlay}: scenarios.{scenario}.{old}: this key is now {place}. "
        "Every key is explained in docs/configuration.md."
    )
    assert Scenario.model_validate({"title": "mine", key: example})


def test_a_wrong_value_of_the_command_line_names_it():
    config = merged(read_yaml(EXPERIMENT), {"batch_sizes": ["one"]})
    with pytest.raises(UserError, match=r"^--config: batch_sizes\[0\]: got 'one'"):
        resolve(config, [EXPERIMENT], MODELS, GPUS, STUDIES, figures=FIGURES)


def test_an_unknown_nested_key_of_the_command_line_names_it():
    """Other keys of the study are in the file."""
    config = merged(read_yaml(EXPERIMENT), {"studies": {"comparison": {"seed": [3]}}})
    with pytest.raises(UserError, match=r"^--config: studies\.comparison\.seed: unknown key; did you mean 'seeds'"):
        resolve(config, [EXPERIMENT], MODELS, GPUS, STUDIES, figures=FIGURES)


def test_the_last_overlay_of_two_is_named(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("batch_sizes: [16, -1]\n")
    second.write_text("studies: {comparison: {seeds: 0}}\n")
    for files in ([first, second], [second, first]):
        config = read_yaml(EXPERIMENT)
        for file in files:
            config = merged(config, read_yaml(file))
        with pytest.raises(UserError, match=f"^{first}: batch_sizes"):
            resolve(config, [EXPERIMENT, *files], MODELS, GPUS, STUDIES, figures=FIGURES)


def test_a_figure_draws_those_of_its_models_that_are_there():
    default = ["Switch-Base-128", "OLMoE-1B-7B"]
    assert shown(["DBRX-132B", "Mixtral-8x7B"], default, ["Mixtral-8x7B", "Grok-1-314B"]) == ["Mixtral-8x7B"]
    assert shown(["DBRX-132B"], default, ["Grok-1-314B", "OLMoE-1B-7B"]) == ["OLMoE-1B-7B"]
    assert shown(["DBRX-132B"], default, ["Grok-1-314B"]) == ["Grok-1-314B"]
    assert shown(default, default, MODELS) == default


def test_built_scenarios_are_all_or_those_chosen():
    assert list(Experiment().built_scenarios()) == ["calibrated", "reported"]
    assert list(Experiment(build_scenarios=["calibrated"]).built_scenarios()) == ["calibrated"]


def test_colours_are_those_of_matplotlib():
    given = {"baseline": "blue", "prophet": "#0072B2", "does_not_fit": "tab:orange", "text": "0.5", "grid": "#00000080"}
    colours = Colours(**given, series=["k", "w"])
    assert colours.model_dump() == {
        **{"baseline": "#0000ff", "prophet": "#0072b2", "does_not_fit": "#ff7f0e", "text": "#808080"},
        **{"grid": "#00000080", "series": ["#000000", "#ffffff"]},
    }


def test_fonts_are_those_that_matplotlib_ships():
    shipped = Path(matplotlib.get_data_path(), "fonts/ttf").glob("*.ttf")
    assert set(get_args(Style.model_fields["font"].annotation)) <= {get_font(str(path)).family_name for path in shipped}


def test_one_colour_does_for_several_series():
    style = Style(colours=OKABE_ITO.model_copy(update={"series": ["#000000"]}))
    looks = [series_look(style, number) for number in range(len(MARKERS))]
    assert len({look["marker"] for look in looks}) == len(MARKERS)


BAD_MODELS = {
    "top_k above experts": (
        "architecture.ffns.moe",
        {"top_k": 99},
        "architecture.ffns.moe.top_k: got 99, expected at most experts, 16",
    ),
    "negative size": ("architecture", {"hidden": -1}, "architecture.hidden: got -1, expected greater than 0"),
    "endless layers": ("architecture", {"pattern": ["99999 x M"]}, "architecture.pattern: got 99,999 blocks, expected"),
    "wrong type": (
        "architecture.mixers.attention",
        {"heads": "many"},
        "architecture.mixers.attention.heads: got 'many', expected a valid integer",
    ),
    "unknown key": (
        "architecture.mixers.attention",
        {"n_heads": 4},
        "architecture.mixers.attention.n_heads: unknown key; did you mean 'heads'",
    ),
    "kv heads": (
        "architecture.mixers.attention",
        {"kv_heads": 99},
        "architecture.mixers.attention.kv_heads: got 99, expected a divisor of heads, 48",
    ),
    "kv heads that share no whole number of heads": (
        "architecture.mixers.attention",
        {"kv_heads": 7},
        "architecture.mixers.attention.kv_heads: got 7, expected a divisor of heads, 48",
    ),
    "parameters that are not counted in 10^9": (
        "",
        {"published_total_b": 132_000_000_000.0},
        "published_total_b: got 132000000000.0, expected less than or equal to 100000",
    ),
    "unknown letter": ("architecture", {"pattern": ["39 x M", "D"]}, "architecture.pattern: got the letter 'D'"),
    "no pattern": ("architecture", {"pattern": ["40 M"]}, "architecture.pattern[0]: got '40 M', expected letters"),
    "shared without width": (
        "architecture.ffns.moe",
        {"shared_experts": 2},
        "architecture.ffns.moe.shared_ffn: got 0",
    ),
    "value without status": ("reported.layers", {"value": None}, "reported.layers.status: got exact without a value"),
    "constants of another model": ("", {"name": "DBRX-2"}, "reported.model: got 'DBRX-132B', expected 'DBRX-2'"),
    "missing section": ("", {"architecture": None}, "architecture: got None"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models_are_one_line(case):
    place, change, problem = BAD_MODELS[case]
    content = read_yaml(ROOT / "config/models/DBRX-132B.yaml")
    section = content
    for key in filter(None, place.split(".")):
        section = section[key]
    section.update(change)
    with pytest.raises(UserError) as raised:
        validate(ModelSpec, content, "config/models/DBRX-132B.yaml", "Mend that key.")
    assert str(raised.value).startswith("config/models/DBRX-132B.yaml: ")
    assert problem in str(raised.value)


BAD_GPUS = {
    "misspelt key": ({"hbm_gbps": 2039}, "A100-80GB.hbm_gbps: unknown key; did you mean 'hbm_gb_per_s'"),
    "bytes a second": ({"hbm_gb_per_s": 2.039e12}, "A100-80GB.hbm_gb_per_s: got 2039000000000.0, expected less than"),
    "link in bytes": ({"link_gb_per_s": 31.5e9}, "A100-80GB.link_gb_per_s: got 31500000000.0, expected less than"),
    "operations a second": ({"peak_tflops": 3.12e14}, "A100-80GB.peak_tflops: got 312000000000000.0, expected less"),
    "TB a second": ({"link_gb_per_s": 0.0315}, "A100-80GB.link_gb_per_s: got 0.0315, expected greater than or equal"),
    "memory in MiB": ({"memory_visible_gib": 81152.0}, "A100-80GB.memory_visible_gib: got 81152.0, expected about"),
}


@pytest.mark.parametrize("case", BAD_GPUS)
def test_bad_gpus_are_one_line(case, tmp_path):
    change, problem = BAD_GPUS[case]
    path = tmp_path / "gpus.yaml"
    content = read_yaml(ROOT / "config/gpus.yaml")
    content["A100-80GB"].update(change)
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as raised:
        load_gpus(path)
    assert str(raised.value).startswith(f"{path}: {problem}")
    assert "\n" not in str(raised.value)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match=r"unknown model 'Mixtral-8x7b'; did you mean 'Mixtral-8x7B'"):
        load_models(ROOT / "config/models", ["Mixtral-8x7b"])
    with pytest.raises(UserError, match=r"unknown GPU 'B200', .*gpus.yaml has V100-32GB"):
        load_gpus(ROOT / "config/gpus.yaml", ["B200"])


def test_a_model_file_must_bear_the_models_name(tmp_path):
    (tmp_path / "Other.yaml").write_bytes((ROOT / "config/models/DBRX-132B.yaml").read_bytes())
    with pytest.raises(UserError, match="name: got 'DBRX-132B', expected the file's name 'Other'"):
        load_models(tmp_path)


BROKEN_FILES = {
    "malformed YAML": (read_yaml, "a: [1, 2\nb: 3\n", "malformed YAML"),
    "a key twice": (read_yaml, "a: 1\na: 2\n", "key 'a' is given twice"),
    "a list as a key": (read_yaml, "? [1]\n: 2\n", "a list or mapping cannot be a key"),
    "not a mapping": (read_yaml, "- 1\n- 2\n", "holds list, expected a mapping"),
    "malformed JSON": (read_json, '{"a": 1,}', "malformed JSON"),
    "binary": (read_yaml, b"\xff\xfe\x00", "not a text file"),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_files_are_one_line(case, tmp_path):
    read, content, problem = BROKEN_FILES[case]
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as raised:
        read(path)
    assert str(raised.value).startswith(str(path))
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    (tmp_path / "experiment.yaml").write_text("a: 1\n")
    with pytest.raises(UserError, match=r"no such file. Did you mean .*experiment.yaml"):
        read_yaml(tmp_path / "experimnt.yaml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**13) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=2),
    max_leaves=4,
)


@fuzz(150)
@example(choices=[0], value=None, key="Mamba")
@given(choices=st.lists(st.integers(0, 99), min_size=1, max_size=5), value=VALUES, key=st.none() | st.text(max_size=6))
def test_any_value_anywhere_is_taken_or_one_line(choices, value, key):
    """Whatever stands at a key, or at a key that is none: settings, or a line without pydantic's own words."""
    content = copy.deepcopy(DEFAULTS)
    place, name = content, "experiment"
    for number in choices:
        name = list(place)[number % len(place)]
        if not isinstance(place[name], dict) or not place[name]:
            break
        place, name = place[name], next(iter(place[name]))
    place[key if key is not None else name] = value
    try:
        validate(WHOLE, content["experiment"], "overlay.yaml", "Mend that key.")
        validate(StyleFile, {"style": content["style"]}, "overlay.yaml", "Mend that key.")
    except UserError as error:
        line = str(error)
        assert line.startswith("overlay.yaml: ")
        assert len(line.splitlines()) == 1
        for words in ("Input should", "literal[", "list[", "instance of", "constrained", "validation error"):
            assert words not in line.replace(repr(value), "")


def numbers(model: type, path: tuple = ()) -> Iterator[tuple]:
    """The key paths of all numbers of a settings class, lists of numbers included; scenarios are one of them."""
    for name, field in model.model_fields.items():
        for kind in kinds_of(field.annotation):
            if isinstance(kind, type) and issubclass(kind, StrictModel):
                inside = (*path, name, "calibrated") if name == "scenarios" else (*path, name)
                yield from numbers(kind, inside)
            elif kind in (int, float):
                yield (*path, name), get_origin(field.annotation) is list


def kinds_of(annotation: Any) -> list:
    """The plain types inside an annotation, but those of published numbers by name."""
    if get_origin(annotation) is dict:
        return [
            inside for inside in get_args(annotation) if isinstance(inside, type) and issubclass(inside, StrictModel)
        ]
    return [kind for inside in get_args(annotation) for kind in kinds_of(inside)] or [annotation]


@pytest.mark.parametrize(("place", "is_list"), dict(numbers(Settings)).items(), ids=str)
def test_every_number_of_settings_has_an_upper_bound(place, is_list):
    """What nobody means is refused, before it fills the memory or runs for days."""
    content = copy.deepcopy(DEFAULTS)
    *above, last = place
    holder = content
    for key in above:
        holder = holder.setdefault(key, {})
    for value in (10**12, 1e300, math.inf, math.nan):
        holder[last] = [value] if is_list else value
        assert "expected" in refused(content)


def refused(content: dict) -> str:
    with pytest.raises(UserError) as raised:
        validate(Settings, content, "overlay.yaml", "Mend that key.")
    return str(raised.value)


@pytest.mark.parametrize(
    ("study", "changes", "problem"),
    [
        (
            "comparison",
            {"sequences": 10_000, "tokens": 10_000},
            "got 10,000 sequences of 10,000 tokens, expected at most",
        ),
        ("frontier", {"tokens": 10_000, "largest_batch": 1024}, "got 1,024 sequences of 10,000 tokens"),
    ],
)
def test_samples_together_are_bounded(study, changes, problem):
    assert problem in refused({"experiment": {"studies": {study: changes}}})

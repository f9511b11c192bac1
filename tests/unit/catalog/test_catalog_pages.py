"""The pages about model files, GPUs and formats: every key is explained, and their examples are valid and exact."""

import typing

import pytest
import yaml

from prophet_moe import params
from prophet_moe.catalog.architecture import Architecture, Block, Draft, Encoder, Ffn, Indexer, Mixer
from prophet_moe.catalog.gpu import GpuFile, GpuSpec
from prophet_moe.catalog.hugging_face.families import FAMILIES, REFUSED
from prophet_moe.catalog.model import Constant, ModelSpec, Reported
from prophet_moe.cli.main import command_line
from prophet_moe.precision import FORMATS, KV_FORMATS, Precision
from prophet_moe.present.catalog_pages import (
    CONFIG_JSON,
    EXAMPLE_GPU,
    EXAMPLE_SCENARIO,
    FFNS,
    MIXERS,
    bits_per_weight,
    example_spec,
    models_page,
    precision_page,
)
from prophet_moe.settings.fields import WeightFormats
from prophet_moe.settings.scenario import Scenario
from prophet_moe.validation import validate
from tests.conftest import ROOT

IN_MODELS = (ModelSpec, Architecture, *MIXERS, *FFNS, Indexer, Block, Encoder, Draft, Reported, Constant)
PAGES = {GpuSpec: "gpus", WeightFormats: "precision", **dict.fromkeys(IN_MODELS, "models")}


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model.__name__)
def test_keys_of_catalogue_files_have_a_row_each(model):
    page = (ROOT / f"docs/{PAGES[model]}.md").read_text()
    for name, field in model.model_fields.items():
        if name != "kind":
            assert len(field.description.split()) >= 2, f"{model.__name__}.{name} is not explained"
            assert f"| `{name}` |" in page


def test_kinds_of_mixers_and_ffns_have_a_section_each():
    for union, kinds in ((Mixer, MIXERS), (Ffn, FFNS)):
        assert typing.get_args(typing.get_args(union)[0]) == kinds
        for kind in kinds:
            (name,) = typing.get_args(kind.model_fields["kind"].annotation)
            assert f"\n### `{name}`\n" in models_page()


@pytest.mark.parametrize("model", CONFIG_JSON, ids=lambda model: model.__name__)
def test_keys_of_config_json_are_those_of_a_class(model):
    assert set(CONFIG_JSON[model]) <= set(model.model_fields) - {"kind"}


def test_families_of_the_import_are_all_listed():
    assert not [name for name in (*FAMILIES, *REFUSED) if f"`{name}`" not in models_page()]


def test_example_model_has_the_counts_of_its_class():
    """The numbers are those of Qwen3NextForCausalLM on PyTorch's meta device, and of its cache."""
    spec = example_spec()
    assert params.parameter_counts(spec.architecture).total == 79_674_391_296
    assert params.active_parameters(spec.architecture) == 3_874_929_408
    assert params.growing_bytes_per_token(params.caches(spec.architecture)) == 24_576
    assert params.state_bytes_per_sequence(spec.architecture) == 77_856_768
    assert params.deviation_from_published(spec) == 0


def test_import_of_the_example_prints_what_the_page_shows(capsys):
    """The config.json has the fields of Qwen3NextConfig in Transformers."""
    spec = example_spec()
    config = str(ROOT / "docs/examples/qwen3_next/config.json")
    arguments = command_line().parse_args(["model", "import", config, "--name", spec.name])
    arguments.run(arguments)
    printed = capsys.readouterr()
    assert printed.err in models_page()
    found = validate(ModelSpec, yaml.safe_load(printed.out), "what is printed", "Mend it.").architecture
    assert params.parameter_counts(found) == params.parameter_counts(spec.architecture)
    assert params.caches(found) == params.caches(spec.architecture)
    assert params.states(found) == params.states(spec.architecture)


def test_example_gpu_is_valid():
    assert validate(GpuFile, yaml.safe_load(EXAMPLE_GPU), "docs/gpus.md", "Mend the example.").root


def test_example_scenario_has_the_formats_it_names():
    (scenario,) = yaml.safe_load(EXAMPLE_SCENARIO)["scenarios"].values()
    found = validate(Scenario, scenario, "docs/precision.md", "Mend the example.").precision_of(WeightFormats())
    assert found == Precision(components={"routed_experts": "mxfp4"}, kv="fp8")


def test_formats_have_a_row_each_with_exact_bits():
    for name in (*FORMATS, *KV_FORMATS):
        assert f"\n| `{name}` |" in precision_page()
    exact = {"mxfp4": "4.25", "nvfp4": "4.5", "q6_k": "6.5625", "int4_group128_zero": "4.15625", "fp32": "32"}
    assert {name: bits_per_weight(FORMATS[name]) for name in exact} == exact

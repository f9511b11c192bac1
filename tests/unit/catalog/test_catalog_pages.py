"""The pages about model files and GPUs: every key is explained, and their examples are valid."""

import pytest
import yaml

from prophet_moe.catalog.gpu import GpuFile, GpuSpec
from prophet_moe.catalog.model import Architecture, Attention, Constant, Mamba, ModelSpec, Moe, Placement, Reported
from prophet_moe.params import deviation_from_published
from prophet_moe.present.documentation import CONFIG_JSON, EXAMPLE_GPU, EXAMPLE_MODEL
from prophet_moe.validation import validate
from tests.conftest import ROOT

IN_MODELS = (ModelSpec, Architecture, Moe, Attention, Mamba, Placement, Reported, Constant)


@pytest.mark.parametrize("model", (*IN_MODELS, GpuSpec), ids=lambda model: model.__name__)
def test_keys_of_catalogue_files_have_a_row_each(model):
    page = (ROOT / f"docs/{'gpus' if model is GpuSpec else 'models'}.md").read_text()
    for name, field in model.model_fields.items():
        assert len(field.description.split()) >= 4 or model is GpuSpec, f"{model.__name__}.{name} is not explained"
        assert f"| `{name}` |" in page


@pytest.mark.parametrize("model", CONFIG_JSON, ids=lambda model: model.__name__)
def test_keys_of_config_json_are_given_for_every_field(model):
    assert list(CONFIG_JSON[model]) == list(model.model_fields)


def test_example_model_is_valid_and_counts_as_stated():
    spec = validate(ModelSpec, yaml.safe_load(EXAMPLE_MODEL), "docs/models.md", "Mend the example.")
    assert abs(deviation_from_published(spec)) < 0.01


def test_example_gpu_is_valid():
    assert validate(GpuFile, yaml.safe_load(EXAMPLE_GPU), "docs/gpus.md", "Mend the example.").root


def test_negative_number_of_norms_is_refused():
    found = yaml.safe_load(EXAMPLE_MODEL)
    found["architecture"]["norms_per_layer"] = -1
    with pytest.raises(Exception, match="norms_per_layer"):
        validate(ModelSpec, found, "a model", "Mend it.")

"""Parameter counts equal those of the classes of Hugging Face Transformers, component by component."""

from dataclasses import asdict

import pytest
from transformers_models import CATALOGUE, PEERS, count_parameters

from prophet_moe.params import parameter_counts


def test_every_catalogue_model_has_a_peer():
    """A new model needs a peer, and a removed one leaves none behind."""
    assert sorted(PEERS) == sorted(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_counts_equal_transformers(name):
    """Every component is exact; one that the model lacks is 0 here and absent there."""
    arch = CATALOGUE[name]
    ours = {component: count for component, count in asdict(parameter_counts(arch)).items() if count}
    assert ours == count_parameters(name, arch)

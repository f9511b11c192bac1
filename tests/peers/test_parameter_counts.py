"""Parameter counts equal those of the classes of Hugging Face Transformers, component by component."""

import json
from dataclasses import asdict

import pytest
from transformers_models import CATALOGUE, PEERS, count_parameters

from prophet_moe.catalog.hugging_face import import_config
from prophet_moe.params import caches, parameter_counts, states

CONFIGS = {name: peer.config(CATALOGUE[name]) for name, peer in PEERS.items() if not peer.surrogate}
"""Configurations of the models of which Transformers has a class, by name; the others have a surrogate."""


def test_every_catalogue_model_has_a_peer():
    """A new model needs a peer, and a removed one leaves none behind."""
    assert sorted(PEERS) == sorted(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_counts_equal_transformers(name):
    """Every component is exact; one that the model lacks is 0 here and absent there."""
    arch = CATALOGUE[name]
    ours = {component: count for component, count in asdict(parameter_counts(arch)).items() if count}
    assert ours == count_parameters(name, arch)


@pytest.mark.parametrize("name", CONFIGS)
def test_imported_config_is_the_model_of_the_catalogue(name):
    """What the class's configuration writes to a config.json gives the counts of the file that people wrote."""
    fields = json.loads(CONFIGS[name].to_json_string(use_diff=False))
    arch, expected = import_config(fields, "config.json").architecture, CATALOGUE[name]
    assert parameter_counts(arch) == parameter_counts(expected)
    assert arch.moe_layers == expected.moe_layers
    assert set(caches(arch)) == set(caches(expected))
    assert set(states(arch)) == set(states(expected))

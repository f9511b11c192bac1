"""What is imported from the fields of a config.json of which a test changes some."""

import pytest

from prophet_moe.catalog import Architecture
from prophet_moe.catalog.hugging_face import import_config
from prophet_moe.errors import UserError

ABSENT = object()
"""Takes a field away; None stands for a null in the file."""


def imported(fields: dict, **changed: object):
    """Import a config.json of these fields, some of them changed or absent."""
    given = {name: value for name, value in (fields | changed).items() if value is not ABSENT}
    return import_config(given, "config.json")


def architecture(fields: dict, **changed: object) -> Architecture:
    """Return the architecture that is imported from such fields."""
    return imported(fields, **changed).architecture


def refusal(fields: dict, **changed: object) -> str:
    """The message about fields that must be refused."""
    with pytest.raises(UserError) as refused:
        imported(fields, **changed)
    return str(refused.value)

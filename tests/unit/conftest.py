"""Loads the profile of Hypothesis for the tests of this folder."""

import tests.examples  # noqa: F401

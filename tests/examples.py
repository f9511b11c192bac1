"""How Hypothesis runs examples; imported by the folders of tests that use it."""

from hypothesis import settings

# Machines are shared and noisy: how long an example takes says nothing of it.
settings.register_profile("noisy machines", deadline=None)
settings.load_profile("noisy machines")

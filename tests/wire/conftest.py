"""Hypothesis in the wire tests: the same examples in every run, unless asked for more.

`HYPOTHESIS_PROFILE=search pytest tests/wire` tries many new random examples instead.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline: how long an example takes says something about the machine, not about the codec.
settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "search", settings.get_profile("fixed"), derandomize=False, max_examples=20_000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

"""Each piece of the hot path takes as many instructions as were recorded for it."""

from __future__ import annotations

import os
import shutil

import pytest
from speed import instructions

TOLERANCE = 0.15
"""Compilers and patch releases of Python differ by less; what fails is worth a look."""

without_counts = pytest.mark.skipif(
    shutil.which("valgrind") is None,
    reason="callgrind counts, and valgrind is not installed",
)
other_build = pytest.mark.skipif(
    "FASTPUMP_TEST_BUILD" in os.environ,
    reason="the counts of optimised builds are expected",
)
unrecorded = pytest.mark.skipif(
    instructions.expected() is None,
    reason=f"no counts were recorded for Python {instructions.PYTHON}: "
    "python tests/speed/instructions.py",
)


@without_counts
@other_build
@unrecorded
def test_counts_are_those_recorded() -> None:
    expected = instructions.expected()
    assert expected is not None
    counted = instructions.counted()
    assert counted.keys() == expected.keys(), "record them: python tests/speed/instructions.py"
    changed = {
        name: f"{counted[name]} instead of {expected[name]}"
        for name in expected
        if abs(counted[name] / expected[name] - 1) > TOLERANCE
    }
    assert not changed, "if that is wanted, record it: python tests/speed/instructions.py"

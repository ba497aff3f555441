"""Suites for authors of plugins: the promises of a contract, one test each."""

import pytest

# Without this a failing assert in an installed suite says only "AssertionError".
pytest.register_assert_rewrite(f"{__name__}.content", f"{__name__}.snapshots")

"""A shim's parts, for tests without a daemon and without runc."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from shim_runc.fake_runtime import Parts, parts


@pytest.fixture
def parted() -> Iterator[Parts]:
    """A shim's parts."""
    with parts() as made:
        yield made

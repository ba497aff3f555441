"""The zygote that runs fake shims."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from runtime_v2.harness import ProcessZygote


@pytest.fixture
def zygote() -> Iterator[ProcessZygote]:
    """A zygote whose children are gone afterwards."""
    zygote = ProcessZygote()
    yield zygote
    zygote.end()

"""A shim that changes its worker as often as it can, so that whatever one forgets to leave is missed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from windlass_shim_runc import entry, keeper


def serve(arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Be a shim."""
    keeper.QUIET = keeper.LONG_QUIET = 0.0
    own = os.environ.get("WINDLASS_TEST_RUNTIME", "") == "windlass-oci"
    return (entry.serve_own if own else entry.serve)(arguments, descriptors)

"""NRI that its own configuration switches off keeps no pod from running; NRI that failed does."""

from __future__ import annotations

import pytest

from windlass.errors import FailedPrecondition, NotFound
from windlass.plugin import SkipPlugin
from windlass_nri_plugins.plugin import init_hooks


class Context:
    """As much of a `windlass.plugin.InitContext` as this asks: where NRI itself is not to be had."""

    def __init__(self, error: Exception, cause: Exception | None = None) -> None:
        self._error, self._cause = error, cause

    def by_id(self, kind: object, id: str) -> object:
        """Raise the error."""
        raise self._error from self._cause


def test_the_hooks_are_skipped_with_nri() -> None:
    for context in (
        Context(NotFound("plugin io.containerd.nri.v1.nri has not started")),
        Context(FailedPrecondition("it did not start"), SkipPlugin("disable = true in its configuration")),
    ):
        with pytest.raises(SkipPlugin):
            init_hooks(context)  # type: ignore[arg-type] # as far as it is one


def test_the_hooks_fail_with_nri() -> None:
    with pytest.raises(FailedPrecondition):
        init_hooks(Context(FailedPrecondition("it did not start"), OSError("no space")))  # type: ignore[arg-type] # too

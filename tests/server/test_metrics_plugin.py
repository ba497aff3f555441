"""When there is a metrics listener, and what the operator reads when there is none."""

from __future__ import annotations

import importlib.util

import pytest

from windlass.plugin import SkipPlugin
from windlass_server.plugin import MetricsConfig, init_metrics


class Context:
    """As much of an `InitContext` as is used before the plugin is skipped."""

    def __init__(self, address: str) -> None:
        self._address = address

    def config(self, kind: type[MetricsConfig]) -> MetricsConfig:
        return kind(self._address)


def test_nobody_listens_without_an_address() -> None:
    """The default."""
    with pytest.raises(SkipPlugin, match="set address"):
        init_metrics(Context(""))  # type: ignore[arg-type] # as much as it uses


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SkipPlugin, match=r"pip install 'windlass-server\[metrics\]'"):
        init_metrics(Context("127.0.0.1:0"))  # type: ignore[arg-type] # as much as it uses

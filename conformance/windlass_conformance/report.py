"""The report: every case of a suite with its promise and outcome, as JSON."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import pytest

PEER_CASES = "windlass_conformance/test_"
"""Where the cases are that reach a peer through a socket."""


class Report:
    """Collects the outcomes of one session; one object for each case, the worst of its phases."""

    def __init__(self, path: Path, config: pytest.Config) -> None:
        """Write to ``path`` when the session ends."""
        self._path = path
        self._config = config
        self._cases: dict[str, dict[str, object]] = {}
        self._started = time.time()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item):  # type: ignore[no-untyped-def]  # noqa: ANN201 - pluggy's generators have no type
        """Note a phase of a case."""
        outcome = yield
        report: pytest.TestReport = outcome.get_result()
        suite = getattr(getattr(item, "cls", None), "certifies", "")
        if not suite or (report.when != "call" and report.passed):
            return
        known = self._cases.get(item.nodeid)
        if known is not None and known["outcome"] == "failed":
            return
        self._cases[item.nodeid] = {
            "suite": suite,
            "level": level_of(item),
            "name": item.name,
            "promise": _promise(item),
            "outcome": report.outcome,
            "seconds": round(report.duration, 3),
            "reason": _reason(report),
        }

    def _peer(self, address: str | None) -> dict[str, str]:
        """Return a daemon's versions; a plugin's socket has none."""
        if address is None:
            return {}
        from windlass_conformance.peers import version_of

        return version_of(address)

    def pytest_sessionfinish(self) -> None:
        """Write the report."""
        cases = list(self._cases.values())
        address: str | None = self._config.getoption("--address")
        outcomes = [case["outcome"] for case in cases]
        found = {
            "windlass-conformance": version("windlass-conformance"),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "address": address or "",
            "peer": self._peer(address),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
            "summary": {each: outcomes.count(each) for each in ("passed", "failed", "skipped")},
            "cases": cases,
        }
        self._path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def level_of(item: pytest.Item) -> str:
    """Return how an item reaches what it certifies: object, socket or daemon."""
    if PEER_CASES not in item.path.as_posix():
        return "object"
    return "daemon" if item.config.getoption("--address") else "socket"


def _promise(item: pytest.Item) -> str:
    """Return the first paragraph of a case's docstring, on one line."""
    text = getattr(getattr(item, "function", None), "__doc__", None) or ""
    return " ".join(text.split("\n\n")[0].split())


def _reason(report: pytest.TestReport) -> str:
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr).splitlines()[0]

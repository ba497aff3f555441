"""Which runc is one to warn of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from windlass_shim_runc import check
from windlass_shim_runc.versions import ADVISORIES, release, warning, weaknesses

OF_NOVEMBER_2025 = {"CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"}
DEBIAN = "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\ngo: go1.19.8\nlibseccomp: 2.5.4\n"
UPSTREAM = "runc version 1.1.15\ncommit: v1.1.15-0-gbc20cb44\nspec: 1.0.2-dev\ngo: go1.22.3\n"


def names(text: str) -> set[str]:
    return {each.name for each in weaknesses(release(text))}


@pytest.mark.parametrize("version", ["1.2.8", "1.2.9", "1.3.3", "1.4.0-rc.3", "1.4.0", "1.5.1", "2.0.0"])
def test_fixed_ones_of_every_line_are_told_apart(version: str) -> None:
    """Each line of releases that got the fixes has its own first version with them."""
    assert not names(version) & OF_NOVEMBER_2025


@pytest.mark.parametrize("version", ["1.0.3", "1.1.5", "1.1.15", "1.2.0-rc.1", "1.2.7", "1.3.2", "1.4.0-rc.2"])
def test_those_before_the_fixes_are_known(version: str) -> None:
    """A line that got none stays as it is, however high its number."""
    assert names(version) >= OF_NOVEMBER_2025


def test_older_ones_have_more() -> None:
    """The newest have nothing that is known."""
    assert names("1.0.0-rc6") == {each.name for each in ADVISORIES}
    assert "CVE-2024-21626" in names("1.1.11") - names("1.1.12")
    assert names("1.3.5") == {"CVE-2026-41579"}
    assert not names("1.3.6") and not names("1.5.0")


def test_a_distributions_own_package_may_have_fixes() -> None:
    """It is named, since its number alone does not tell."""
    told = warning(DEBIAN)
    assert "package 1.1.5+ds1-1+deb12u1 may have some of them" in told and "CVE-2025-31133" in told
    assert "package 1.1.12-0ubuntu2~22.04.1 may" in warning("runc version 1.1.12-0ubuntu2~22.04.1\nspec: 1.0.2-dev\n")
    assert "package" not in warning(UPSTREAM)
    assert warning(UPSTREAM).startswith("runc 1.1.15 lets containers or images reach the host (CVE-2025-31133, ")


@pytest.mark.parametrize("output", ["", "crun version 1.14\n", "runc version unknown\n", "runc version 1.5.1\n"])
def test_others_are_none_of_our_business(output: str) -> None:
    """Newer ones, and programs that only take runc's place."""
    assert warning(output) == ""


@pytest.mark.parametrize(("program", "logged"), [("head -c 100 /dev/urandom", 0), ("exit 3", 0), ("exec sleep 100", 1)])
def test_a_program_that_is_no_runc_is_no_trouble(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    logged: int,
) -> None:
    """It may print any bytes, fail, or hang."""
    runc = tmp_path / "runc"
    runc.write_text(f"#!/bin/sh\n{program}\n")
    runc.chmod(0o755)
    monkeypatch.setattr(check, "TIMEOUT", 0.2)
    with caplog.at_level("INFO"):
        check.warn_of_weaknesses(str(runc))
    assert len(caplog.records) == logged


def test_the_manual_names_each() -> None:
    """With the version that has its fix."""
    manual = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    assert not [each.name for each in ADVISORIES if each.name not in manual]
    for text in ("1.0.0-rc95", "1.1.12", "1.1.14", "1.2.8", "1.3.3", "1.3.6", "1.4.3"):
        assert re.search(rf"\b{re.escape(text)}\b", manual)

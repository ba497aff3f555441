"""`windlassd adopt` as a command: what it prints and refuses, in one line each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from adopt.containerds import Containerd

from windlass.process import cli

WINDLASSD = "import sys; from windlass.process.cli import main; sys.exit(main())"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root adopts")


def adopt(containerd: Containerd, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    places = containerd.places
    command = [sys.executable, "-c", WINDLASSD, "--root", str(places.root), "--state", str(places.state)]
    command += ["--address", places.address, "adopt", "--from", str(places.source), "--state", str(places.source_state)]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=110, check=False)


def test_a_plan_an_adoption_and_its_return(tmp_path: Path) -> None:
    """A second time there is nothing to do, and that is not an error."""
    containerd = Containerd(tmp_path)
    before = containerd.listing()
    plan = adopt(containerd, "--dry-run")
    assert (plan.returncode, "containers           3" in plan.stdout, containerd.listing() == before) == (0, True, True)
    first = adopt(containerd)
    assert (first.returncode, first.stdout.split(" in ")[0]) == (0, "adopted"), first.stderr
    assert "0 bytes copied" in first.stdout
    already = f"what was in {containerd.source} is adopted already"
    assert adopt(containerd).stdout == f"{already}; start windlassd\n"
    assert adopt(containerd, "--dry-run").stdout == f"{already}\n"
    back = adopt(containerd, "--back")
    assert (back.returncode, back.stdout) == (0, f"{containerd.source} is containerd's again; start it\n"), back.stderr
    assert containerd.listing() == before


def test_a_root_that_is_no_containerds_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("version = 4\n")
    own = ["--config", str(config), "--root", str(tmp_path / "w"), "--state", str(tmp_path / "s")]
    assert cli.main([*own, "adopt", "--from", str(tmp_path), "--state", str(tmp_path)]) == 1
    place = f"{tmp_path}/io.containerd.metadata.v1.bolt/meta.db"
    expected = f"windlassd: {place} does not exist; --from must be the root directory of a containerd\n"
    assert capsys.readouterr().err == expected

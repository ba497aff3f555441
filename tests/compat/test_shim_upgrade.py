"""A shim that lives while another version of its package is installed runs the code that it was forked with."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shim_runc.harness import ALWAYS_RESTING, Shim, shims

import windlass_shim_runc
from windlass import errors
from windlass_conformance.boxes import BUSYBOX
from windlass_shim_runc import messages
from windlass_shim_runc.messages import Message

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="a static busybox is missing: apt install busybox-static"),
]

LATER = "raise RuntimeError('this is a module of a later version')\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a package of its own, from which shims are forked."""
    package = tmp_path / "site" / "windlass_shim_runc"
    shutil.copytree(Path(windlass_shim_runc.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(package.parent)
    return package


@pytest.fixture
def shim(installed: Path, tmp_path: Path) -> Iterator[Shim]:
    """A shim with a container that runs; its package has been upgraded since."""
    state = tmp_path / "state"
    state.mkdir()
    with shims(state, ALWAYS_RESTING) as make:
        shim: Shim = make()
        shim.create(["/bin/sleep", "1000"])
        shim.start()
        shim.rest()
        for module in installed.glob("*.py"):
            module.write_text(LATER)
        shutil.rmtree(installed / "__pycache__", ignore_errors=True)
        yield shim


def test_its_container_is_served_to_the_end(shim: Shim) -> None:
    """Execs, pauses, rests and the delete, by workers that are forked after the upgrade."""
    shim.exec("one", ["/bin/sh", "-c", "exit 3"])
    shim.start("one")
    assert shim.wait("one") == 3
    shim.rest()
    assert shim.delete("one").exit_status == 3
    shim.call(Message, "Pause", messages.TaskRequest(id=shim.id))
    shim.call(Message, "Resume", messages.TaskRequest(id=shim.id))
    shim.rest()
    shim.kill(9)
    assert shim.wait() == 137
    shim.delete()
    assert shim.shutdown()


def test_what_is_seldom_needed_is_there_too(shim: Shim, tmp_path: Path) -> None:
    """Checkpoints, options as TOML, a shim cgroup, and the removal of what a failed create has left."""
    with pytest.raises(errors.InvalidArgument, match="checkpoint 'here' is not an absolute path"):
        shim.call(Message, "Checkpoint", messages.CheckpointTaskRequest(id=shim.id, path="here"))
    bundle = tmp_path / "second"
    bundle.mkdir()
    for options, words in (
        (messages.AnyMessage(type_url="runtimeoptions.v1.Options", value=b"\x1a\x03x=1"), "'*x"),
        (messages.pack(messages.Options(shim_cgroup="/no/such/group")), "/no/such/group of option ShimCgroup"),
        (messages.pack(messages.Options(binary_name="/bin/false")), "OCI runtime create failed"),
    ):
        (bundle / "config.json").write_text("{}")
        request = messages.CreateTaskRequest(id="second", bundle=str(bundle), options=options)
        with pytest.raises(errors.Error, match=words):
            shim.call(Message, "Create", request)
    assert shim.status().status == 2

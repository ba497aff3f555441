"""The suites through a socket: whatever serves a contract there is certified, in whatever language it is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from compat.test_conformance import certify, failures
from proxy.test_proxies import NATIVE, served

CONTENT = "io.containerd.content.v1.content"


@pytest.mark.parametrize(
    ("uri", "kind"),
    [(NATIVE, "snapshotter"), ("io.containerd.content.v1.content", "content")],
    ids=["native", "content"],
)
def test_our_own_pass(uri: str, kind: str, tmp_path: Path) -> None:
    with served(tmp_path, uri):
        cases = certify(tmp_path, f"--{kind}", f"unix://{tmp_path}/p.sock")
    assert {(case["suite"], case["level"]) for case in cases} == {(kind, "socket")}
    assert not failures(cases)
    assert sum(case["outcome"] == "passed" for case in cases) > 40


def test_one_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    """Whoever mistakes the socket loses nothing."""
    from windlass_remote.peer import Peer
    from windlass_remote.snapshots import RemoteSnapshotter

    with served(tmp_path), Peer(str(tmp_path / "p.sock")) as peer:
        remote = RemoteSnapshotter(peer, "native")
        remote.prepare("precious")
        cases = certify(tmp_path, "--snapshotter", f"unix://{tmp_path}/p.sock", "-k", "test_basic")
        assert "has 1 objects, such as 'precious'; all it has would be removed" in failures(cases)["test_basic"]
        assert remote.stat("precious").name == "precious"

"""What `--cap-add`, `--cap-drop` and `--security-opt` change in what a container's processes may do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from windlass.errors import InvalidArgument
from windlass_client import security
from windlass_oci import defaults, seccomp
from windlass_oci.runtime_spec import Spec

DEFAULT = defaults.CAPABILITIES


def restricted(*options: str, add: Sequence[str] = (), drop: Sequence[str] = ()) -> Spec:
    document = defaults.default_spec("ns", "c")
    security.restrict(document, add, drop, options)
    return document


def test_a_container_is_confined_unless_asked_otherwise() -> None:
    """The profile is that of the capabilities; privileges cannot be gained; the score for the OOM killer is our own."""
    document = restricted(drop=["ALL"], add=["SYS_CHROOT"])

    assert document["process"]["capabilities"] == {
        kind: ["CAP_SYS_CHROOT"] for kind in ("bounding", "effective", "permitted")
    }
    assert document["linux"]["seccomp"] == seccomp.profile(["CAP_SYS_CHROOT"])
    assert document["process"]["noNewPrivileges"] is True
    assert document["process"]["oomScoreAdj"] == 0


def test_security_options(tmp_path: Path) -> None:
    """Each does what it does for docker; the last of two wins."""
    path = tmp_path / "profile.json"
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')

    assert "seccomp" not in restricted("seccomp=unconfined")["linux"]
    assert restricted("seccomp=unconfined", "seccomp=builtin")["linux"]["seccomp"] == seccomp.profile(DEFAULT)
    assert restricted(f"seccomp={path}")["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ALLOW"}
    assert restricted("no-new-privileges=false")["process"]["noNewPrivileges"] is False
    assert restricted("no-new-privileges")["process"]["noNewPrivileges"] is True
    assert restricted("apparmor=mine")["process"]["apparmorProfile"] == "mine"
    assert restricted("systempaths=unconfined")["linux"]["maskedPaths"] == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("seccomp", "is not known; known are seccomp=FILE"),
        ("seccomp=", "is not known"),
        ("label=disable", "is not known"),
        ("no-new-privileges=maybe", "neither true nor false"),
        ("systempaths=all", "can only be unconfined"),
        ("seccomp=/nonexistent.json", "cannot be read: No such file"),
    ],
)
def test_wrong_security_options(option: str, message: str) -> None:
    """An option that does nothing would be taken for protection."""
    with pytest.raises(InvalidArgument, match=message):
        restricted(option)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "has no defaultAction"),
        ('{"syscalls": []}', "has no defaultAction"),
        ('{"defaultAction": "SCMP_ACT_ERRNO", "archMap": []}', "docker's own form .archMap"),
        (
            '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["bpf"], "includes": {"caps": ["CAP_BPF"]}}]}',
            "docker's own form .includes",
        ),
        ('{"defaultAction": "' + "x" * (1 << 20) + '"}', "is not JSON of at most"),
    ],
)
def test_a_profile_that_would_not_be_what_it_says(tmp_path: Path, text: str, message: str) -> None:
    """Docker's conditions are not the OCI's: taken for it, a rule for those with CAP_BPF would be one for all."""
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        restricted(f"seccomp={path}")

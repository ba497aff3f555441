"""What a container's processes may do: capabilities, seccomp, and what `--security-opt` changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from windlass.errors import InvalidArgument
from windlass_client import seccomp, security, spec

RECORD = json.loads((Path(__file__).parent / "seccomp_of_containerd.json").read_text())
"""The profile that containerd 2.4 writes into a spec (`ctr containers create --seccomp`), and by `--cap-add` and
`--cap-drop` the rules that it has more or less then; recorded on amd64."""
DEFAULT = spec.CAPABILITIES


def rules(profile: dict[str, Any]) -> set[tuple[str, str, int | None, str]]:
    """Return a profile's rules, one for each call, without their order."""
    return {
        (name, rule["action"], rule.get("errnoRet"), json.dumps(rule.get("args") or [], sort_keys=True))
        for rule in profile["syscalls"]
        for name in rule["names"]
    }


def test_the_default_profile_is_containerds() -> None:
    """Call by call and condition by condition; an AF_ALG socket is in none of them."""
    ours = seccomp.profile(DEFAULT, "amd64")

    assert rules(ours) == rules(RECORD["default"])
    assert {**ours, "syscalls": 0} == {**RECORD["default"], "syscalls": 0}
    assert len(rules(ours)) == 379


@pytest.mark.parametrize("change", RECORD["changes"])
def test_the_profile_follows_the_capabilities_as_containerds_does(change: str) -> None:
    """Who has a capability may make the calls that need it."""
    recorded = RECORD["changes"][change]
    expected = rules(RECORD["default"]) - rules({"syscalls": recorded["less"]}) | rules({"syscalls": recorded["more"]})
    held = {*DEFAULT, change[1:]} if change[0] == "+" else {*DEFAULT} - {change[1:]}

    assert rules(seccomp.profile(held, "amd64")) == expected


@pytest.mark.parametrize("machine", ["amd64", "arm64", "riscv64", "s390x", "ppc64le", "loong64", "mystery"])
def test_every_machine_has_a_profile(machine: str) -> None:
    """No call is allowed twice in two ways, and namespaces cannot be made anywhere."""
    profile = seccomp.profile(DEFAULT, machine)
    plain = [name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]]

    assert len(plain) == len(set(plain))
    [clone] = [rule for rule in profile["syscalls"] if rule["names"] == ["clone"]]
    assert clone["args"][0]["index"] == (machine == "s390x")
    assert not {"mount", "unshare", "setns", "keyctl", "bpf", "io_uring_setup", "userfaultfd", "socket"} & set(plain)


@pytest.mark.parametrize(
    ("add", "drop", "result"),
    [
        ((), (), list(DEFAULT)),
        ((), ("ALL",), []),
        ((), ("net_raw", "CAP_MKNOD"), [each for each in DEFAULT if each not in ("CAP_NET_RAW", "CAP_MKNOD")]),
        (("SYS_TIME",), ("all",), ["CAP_SYS_TIME"]),
        (("cap_sys_time", "CAP_CHOWN"), (), [*DEFAULT, "CAP_SYS_TIME"]),
        (("CHOWN",), ("CHOWN",), [*DEFAULT[1:], "CAP_CHOWN"]),
    ],
)
def test_capabilities(add: Sequence[str], drop: Sequence[str], result: list[str]) -> None:
    """Names with and without prefix, in any case; ALL; what is added wins, as with docker."""
    assert security.capabilities(DEFAULT, add, drop) == result


def test_all_capabilities() -> None:
    """Every one that this Linux has, less what is dropped."""
    everything = security.capabilities(DEFAULT, ["ALL"], ["SYS_ADMIN"])
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())

    assert len(everything) == min(last + 1, 41) - 1
    assert "CAP_SYS_ADMIN" not in everything and everything[0] == "CAP_CHOWN"


@pytest.mark.parametrize("name", ["", "CAP_", "ROOT", "CAP_ALL_OF_THEM", "CHOWN,KILL"])
def test_what_is_no_capability(name: str) -> None:
    """A misspelt capability is an error, not one that is silently kept."""
    with pytest.raises(InvalidArgument, match="not one of Linux"):
        security.capabilities(DEFAULT, (), [name])


def restricted(*options: str, add: Sequence[str] = (), drop: Sequence[str] = ()) -> dict[str, Any]:
    document = spec.default("ns", "c")
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

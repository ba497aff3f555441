"""The default seccomp profile, and the capabilities that it follows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from windlass.errors import InvalidArgument
from windlass_oci import capabilities, seccomp
from windlass_oci.defaults import CAPABILITIES as DEFAULT
from windlass_oci.runtime_spec import Syscall

RECORD = json.loads((Path(__file__).parent / "seccomp_of_containerd.json").read_text())
"""The profile that containerd 2.4 writes into a spec (`ctr containers create --seccomp`), and by `--cap-add` and
`--cap-drop` the rules that it has more or less then; recorded on amd64."""


def rules(syscalls: Iterable[Syscall]) -> set[tuple[str, str, int | None, str]]:
    """Return a profile's rules, one for each call, without their order."""
    return {
        (name, rule["action"], rule.get("errnoRet"), json.dumps(rule.get("args") or [], sort_keys=True))
        for rule in syscalls
        for name in rule["names"]
    }


def test_the_default_profile_is_containerds() -> None:
    """Call by call and condition by condition; an AF_ALG socket is in none of them."""
    ours = seccomp.profile(DEFAULT, "amd64")

    assert rules(ours["syscalls"]) == rules(RECORD["default"]["syscalls"])
    assert {**ours, "syscalls": 0} == {**RECORD["default"], "syscalls": 0}
    assert len(rules(ours["syscalls"])) == 379


@pytest.mark.parametrize("change", RECORD["changes"])
def test_the_profile_follows_the_capabilities_as_containerds_does(change: str) -> None:
    """Who has a capability may make the calls that need it."""
    recorded = RECORD["changes"][change]
    expected = rules(RECORD["default"]["syscalls"]) - rules(recorded["less"]) | rules(recorded["more"])
    held = {*DEFAULT, change[1:]} if change[0] == "+" else {*DEFAULT} - {change[1:]}

    assert rules(seccomp.profile(held, "amd64")["syscalls"]) == expected


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
    assert capabilities.changed(DEFAULT, add, drop) == result


def test_all_capabilities() -> None:
    """Every one that this Linux has, less what is dropped."""
    everything = capabilities.changed(DEFAULT, ["ALL"], ["SYS_ADMIN"])
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())

    assert len(everything) == min(last + 1, 41) - 1
    assert "CAP_SYS_ADMIN" not in everything and everything[0] == "CAP_CHOWN"


@pytest.mark.parametrize("name", ["", "CAP_", "ROOT", "CAP_ALL_OF_THEM", "CHOWN,KILL"])
def test_what_is_no_capability(name: str) -> None:
    """A misspelt capability is an error, not one that is silently kept."""
    with pytest.raises(InvalidArgument, match="not one of Linux"):
        capabilities.changed(DEFAULT, (), [name])

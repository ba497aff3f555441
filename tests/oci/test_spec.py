"""Specs: containerd's defaults, and what each option changes in them."""

from __future__ import annotations

import pytest

from windlass.contracts.values import Platform
from windlass.errors import InvalidArgument
from windlass_images.manifests import ImageConfig
from windlass_oci import defaults, mounts, process, resources
from windlass_oci.users import User

IMAGE = ImageConfig(
    Platform("linux", "amd64"),
    (),
    env=("A=1", "B=2"),
    entrypoint=("/entry",),
    command=("default",),
    working_dir="/srv",
    labels={"a": "b", "containerd.io/restart.loguri": "binary:///x", "io.cri-containerd.kind": "x", "big": "x" * 5000},
)


def test_the_default_spec() -> None:
    """What a container may do when nobody says anything (docs/containerd 6.7, 7.2)."""
    document = defaults.default_spec("ns", "c1")

    assert document["linux"]["cgroupsPath"] == "/ns/c1"
    assert document["process"]["noNewPrivileges"] is True
    assert document["process"]["capabilities"] == {
        kind: list(defaults.CAPABILITIES) for kind in ("bounding", "effective", "permitted")
    }
    assert len(defaults.CAPABILITIES) == 14
    assert [namespace["type"] for namespace in document["linux"]["namespaces"]] == [
        "pid", "ipc", "uts", "mount", "network",
    ]  # fmt: skip
    assert document["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert document["mounts"][3] == {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    }
    assert "/proc/kcore" in document["linux"]["maskedPaths"]
    assert "/proc/sys" in document["linux"]["readonlyPaths"]
    assert document["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]


def test_what_a_container_does_not_see() -> None:
    """Not even who is root inside reads the energy meter, from which keys can be told (GHSA-7ww5-4wqc-m92c)."""
    assert "/sys/devices/virtual/powercap" in defaults.default_spec("ns", "c1")["linux"]["maskedPaths"]


def test_a_process_is_in_its_primary_group() -> None:
    """A process without it could read what is closed to that group (CVE-2023-25173)."""
    document = defaults.default_spec("ns", "c1")
    process.set_user(document["process"], User(33, 34, (44, 34)))
    assert document["process"]["user"] == {"uid": 33, "gid": 34, "additionalGids": [34, 44]}


def test_two_specs_share_nothing() -> None:
    """What one container's options change must not appear in another's (CVE-2021-21334)."""
    first, second = defaults.default_spec("ns", "a"), defaults.default_spec("ns", "b")
    first["process"]["capabilities"]["bounding"].clear()
    mounts.use_host_network(first)

    assert len(second["process"]["capabilities"]["bounding"]) == 14
    assert len(second["linux"]["namespaces"]) == 5
    assert len(defaults.default_spec("ns", "c")["mounts"]) == 7


@pytest.mark.parametrize(
    ("arguments", "entrypoint", "args"),
    [
        ((), None, ["/entry", "default"]),
        (("x", "y"), None, ["/entry", "x", "y"]),
        ((), "/other", ["/other"]),
        (("x",), "/other", ["/other", "x"]),
    ],
)
def test_arguments(arguments: tuple[str, ...], entrypoint: str | None, args: list[str]) -> None:
    """Arguments replace the image's command; another entrypoint drops that command."""
    document = defaults.default_spec("ns", "c1")
    process.apply_image(document["process"], IMAGE, arguments, entrypoint)

    assert document["process"]["args"] == args
    assert document["process"]["cwd"] == "/srv"
    assert document["process"]["env"] == [f"PATH={defaults.PATH}", "A=1", "B=2"]


def test_no_arguments_at_all_is_an_error() -> None:
    """An image without a command needs one."""
    with pytest.raises(InvalidArgument, match="no arguments specified"):
        process.apply_image(
            defaults.default_spec("ns", "c")["process"], ImageConfig(Platform("linux", "amd64"), ()), ()
        )


def test_environments_merge() -> None:
    """The later one wins, in the place of the first; a bare name removes."""
    assert process.merge_env(["A=1", "B=2", "C=3"], ["B=x=y", "A", "D="]) == ["B=x=y", "C=3", "D="]
    with pytest.raises(InvalidArgument, match="no name"):
        process.merge_env([], ["=x"])


def test_labels_of_an_image_that_plugins_act_on_are_dropped() -> None:
    """An image must not tell the daemon what to do (CVE-2026-53488)."""
    assert process.image_labels(IMAGE) == {"a": "b"}


def test_limits() -> None:
    """Processor time becomes a quota of each tenth of a second."""
    document = defaults.default_spec("ns", "c1")
    resources.set_cpus(document, 1.5)
    resources.set_memory(document, 1 << 20)

    assert document["linux"]["resources"]["cpu"] == {"quota": 150_000, "period": 100_000}
    assert document["linux"]["resources"]["memory"] == {"limit": 1 << 20}
    with pytest.raises(InvalidArgument, match="--cpus"):
        resources.set_cpus(document, 0.001)

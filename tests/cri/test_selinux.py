"""Labels of SELinux, with a policy in files: whose level is whose, and what is never relabelled."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from cri.test_container_spec import plan, secured

from windlass.contracts.mounts import Mount
from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import RuntimeConfig
from windlass_cri.spec import mounts as binds
from windlass_cri.spec import selinux
from windlass_cri.spec import spec as specs
from windlass_cri.spec.selinux import Labels, Selinux, labelled, relabel

PROCESS, FILE = "system_u:system_r:container_t", "system_u:object_r:container_file_t"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The files of a host with SELinux."""
    contexts = tmp_path / "etc/selinux/targeted/contexts"
    contexts.mkdir(parents=True)
    (tmp_path / "etc/selinux/config").write_text("# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n")
    (contexts / "lxc_contexts").write_text(f'process = "{PROCESS}:s0"\nfile = "{FILE}:s0"\n')
    (tmp_path / "sys/fs/selinux").mkdir(parents=True)
    (tmp_path / "sys/fs/selinux/enforce").write_text("1")
    return tmp_path


def pod(**options: str) -> cri.LinuxSandboxSecurityContext:
    return cri.LinuxSandboxSecurityContext(selinux_options=cri.SELinuxOption(**options))


def container(privileged: bool = False, **options: str) -> cri.LinuxContainerSecurityContext:
    wanted = cri.SELinuxOption(**options)
    return cri.LinuxContainerSecurityContext(selinux_options=wanted, privileged=privileged)


def test_every_pod_has_a_level_of_its_own(host: Path) -> None:
    labels = Selinux(enabled=True, categories=4, root=host)
    taken: list[str] = []
    for _ in range(6):  # of 4 categories there are 6 pairs
        found = labels.for_pod(pod(), taken)
        assert found.process.startswith(f"{PROCESS}:s0:c") and found.process not in taken
        assert found.mount.removeprefix(FILE) == found.process.removeprefix(PROCESS)
        taken.append(found.process)
    with pytest.raises(Unknown, match="raise selinux_category_range"):
        labels.for_pod(pod(), taken)


def test_containers_have_their_pods_label_unless_they_ask(host: Path) -> None:
    labels, of_pod = Selinux(enabled=True, root=host), f"{PROCESS}:s0:c1,c2"
    assert labels.for_container(container(), of_pod) == Labels(of_pod, f"{FILE}:s0:c1,c2")
    asked = labels.for_container(container(type="spc_t", level="s0:c3"), of_pod)
    assert asked == Labels("system_u:system_r:spc_t:s0:c3", f"{FILE}:s0:c3")
    assert labels.for_container(container(privileged=True), of_pod) == Labels("", f"{FILE}:s0:c1,c2")
    with pytest.raises(Unknown, match='the format of "level"'):
        labels.for_container(container(level="bad"), of_pod)


def test_without_selinux_labels_are_left_out_or_refused(tmp_path: Path) -> None:
    assert Selinux(enabled=False, root=tmp_path).for_pod(pod(type="spc_t"), ()) == Labels()
    absent = Selinux(enabled=True, root=tmp_path)
    assert absent.for_pod(pod(), ()) == Labels()
    with pytest.raises(Unknown, match="this host has no SELinux"):
        absent.for_container(container(type="spc_t"), "")


def test_a_spec_has_the_labels_and_a_range_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relabelled: list[str] = []
    monkeypatch.setattr(selinux, "relabel", lambda path, label: relabelled.append(path))
    own = replace(plan(tmp_path, secured()), labels=Labels("a:b:c:s0", "a:b:d:s0"))
    made = specs.build(own)
    assert (made["process"]["selinuxLabel"], made["linux"]["mountLabel"]) == ("a:b:c:s0", "a:b:d:s0")
    assert {Path(path).name for path in relabelled} == {"hostname", "hosts", "resolv.conf", "shm"}
    with pytest.raises(ValueError, match="selinux_category_range"):
        RuntimeConfig(selinux_category_range=5000)


def test_a_host_path_is_relabelled_only_if_its_client_asks(tmp_path: Path) -> None:
    """CVE-2021-43816: at the place of one of the pod's own files, a client's path got the container's label."""
    relabelled: list[str] = []
    config = cri.ContainerConfig()
    config.mounts.add(container_path="/etc/hosts", host_path=str(tmp_path / "theirs"))
    config.mounts.add(container_path="/asked", host_path=str(tmp_path / "asked"), selinux_relabel=True)
    given = plan(tmp_path, config)
    able = binds.Ability(relabel=relabelled.append)
    binds.set_mounts(specs.start(given), given.pod, given.files, config, (), able)
    assert str(tmp_path / "asked") in relabelled
    assert str(tmp_path / "theirs") not in relabelled


def test_directories_are_relabelled_with_all_below_but_what_links_lead_to(tmp_path: Path) -> None:
    (tmp_path / "volume/inner").mkdir(parents=True)
    (tmp_path / "secret").write_text("host")
    (tmp_path / "volume/inner/file").touch()
    (tmp_path / "volume/link").symlink_to(tmp_path / "secret")
    done: list[str] = []
    relabel(str(tmp_path / "volume"), "l", lambda path, label: done.append(path))
    names = ("", "/inner", "/inner/file", "/link")
    assert sorted(done) == sorted(f"{tmp_path}/volume{name}" for name in names)


@pytest.mark.parametrize("path", ["/", "/etc", "/usr/", "/var/lib", "/tmp", "/etc/shadow", "/etc/../etc"])
def test_the_hosts_own_places_are_never_relabelled(path: str) -> None:
    with pytest.raises(Unknown, match="is not allowed"):
        relabel(path, "l", lambda path, label: pytest.fail("it was"))


def test_a_file_system_without_labels_is_left_as_it_is(tmp_path: Path) -> None:
    def refuse(code: int, path: str, label: bytes) -> None:
        raise OSError(code, "refused")

    relabel(str(tmp_path), "l", lambda path, label: refuse(errno.ENOTSUP, path, label))
    with pytest.raises(Unknown, match="refused"):
        relabel(str(tmp_path), "l", lambda path, label: refuse(errno.EPERM, path, label))


def test_all_files_of_a_root_file_system_have_the_label() -> None:
    overlay, bind = Mount("overlay", "overlay", ("lowerdir=/x",)), Mount("bind", "/x", ("rbind",))
    assert labelled([overlay, bind], "a:b:c:s0:c1,c2") == (
        replace(overlay, options=("lowerdir=/x", 'context="a:b:c:s0:c1,c2"')),
        bind,
    )
    assert labelled([overlay], "") == (overlay,)

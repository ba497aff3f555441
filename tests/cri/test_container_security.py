"""Capabilities, seccomp, AppArmor and SELinux as containerd sets or refuses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.spec import apparmor, security
from windlass_oci import capabilities
from windlass_oci.defaults import CAPABILITIES, default_spec
from windlass_oci.runtime_spec import Spec

Profile = cri.SecurityProfile


def bounding(add: list[str], drop: list[str], privileged: bool = False) -> list[str]:
    wanted = cri.LinuxContainerSecurityContext(privileged=privileged)
    wanted.capabilities.add_capabilities.extend(add)
    wanted.capabilities.drop_capabilities.extend(drop)
    wanted.capabilities.add_ambient_capabilities.append("CHOWN")
    process = default_spec("k8s.io", "id")["process"]
    security.set_capabilities(process, wanted)
    assert "ambient" not in process["capabilities"]
    assert process["capabilities"]["bounding"] == process["capabilities"]["effective"]
    return process["capabilities"]["bounding"]


def test_capabilities_are_added_and_dropped() -> None:
    assert bounding([], []) == list(CAPABILITIES)
    assert "CAP_SYS_TIME" in bounding(["sys_time"], [])
    assert "CAP_CHOWN" not in bounding([], ["CHOWN"])
    assert bounding(["NET_ADMIN"], ["ALL"]) == ["CAP_NET_ADMIN"]
    assert set(bounding(["ALL"], ["CHOWN"])) == set(capabilities.current()) - {"CAP_CHOWN"}
    assert bounding([], ["ALL"], privileged=True) == capabilities.current()


def test_a_name_with_its_prefix_gives_nothing_and_takes_what_it_says() -> None:
    assert bounding(["CAP_SYS_ADMIN"], []) == list(CAPABILITIES)
    assert "CAP_CHOWN" not in bounding([], ["CAP_CHOWN"])
    assert bounding(["NONSENSE"], []) == list(CAPABILITIES)


def filtered(wanted: cri.LinuxContainerSecurityContext, unset: str = "") -> Spec:
    spec = default_spec("k8s.io", "id")
    security.set_seccomp(spec, wanted, unset)
    return spec


def test_seccomp_of_the_runtime() -> None:
    field = cri.LinuxContainerSecurityContext(seccomp=Profile(profile_type=Profile.RuntimeDefault))
    old = cri.LinuxContainerSecurityContext(seccomp_profile_path="runtime/default")
    for spec in (filtered(field), filtered(old), filtered(cri.LinuxContainerSecurityContext(), "runtime/default")):
        assert spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    field.privileged = True
    assert "seccomp" not in filtered(field)["linux"]


def test_seccomp_that_is_not_wanted() -> None:
    unconfined = cri.LinuxContainerSecurityContext(seccomp=Profile(profile_type=Profile.Unconfined))
    assert "seccomp" not in filtered(unconfined, "runtime/default")["linux"]
    assert "seccomp" not in filtered(cri.LinuxContainerSecurityContext(), "unconfined")["linux"]
    assert "seccomp" not in filtered(cri.LinuxContainerSecurityContext())["linux"]


def test_a_seccomp_profile_of_the_host(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    for reference in (str(profile), f"localhost/{profile}"):
        wanted = Profile(profile_type=Profile.Localhost, localhost_ref=reference)
        spec = filtered(cri.LinuxContainerSecurityContext(seccomp=wanted))
        assert spec["linux"]["seccomp"] == {"defaultAction": "SCMP_ACT_ALLOW"}
    for reference in ("rel.json", str(tmp_path / "absent.json")):
        wanted = Profile(profile_type=Profile.Localhost, localhost_ref=reference)
        with pytest.raises(Unknown, match="cannot load seccomp profile"):
            filtered(cri.LinuxContainerSecurityContext(seccomp=wanted))


def test_seccomp_profiles_that_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Profile(profile_type=Profile.RuntimeDefault, localhost_ref="/x")
    with pytest.raises(Unknown, match="invalid LocalhostRef"):
        filtered(cri.LinuxContainerSecurityContext(seccomp=wanted))
    with pytest.raises(Unknown, match='invalid profile "/x"'):
        filtered(cri.LinuxContainerSecurityContext(seccomp_profile_path="/x"))
    monkeypatch.setattr(security, "SECCOMP", tmp_path / "absent")
    with pytest.raises(Unknown, match="seccomp is not supported"):
        filtered(cri.LinuxContainerSecurityContext(seccomp=Profile(profile_type=Profile.RuntimeDefault)))


def test_apparmor_is_an_error_where_the_host_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apparmor, "ENABLED", tmp_path / "absent")
    process = default_spec("k8s.io", "id")["process"]
    security.set_apparmor(process, cri.LinuxContainerSecurityContext())
    unconfined = Profile(profile_type=Profile.Unconfined)
    security.set_apparmor(process, cri.LinuxContainerSecurityContext(apparmor=unconfined))
    assert "apparmorProfile" not in process
    with pytest.raises(Unknown, match="apparmor is not supported"):
        security.set_apparmor(process, cri.LinuxContainerSecurityContext(apparmor=Profile()))
    with pytest.raises(Unknown, match="apparmor is not supported"):
        security.set_apparmor(process, cri.LinuxContainerSecurityContext(apparmor_profile="localhost/x"))


def test_the_default_profile_is_loaded_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled, loaded, parser = tmp_path / "enabled", tmp_path / "profiles", tmp_path / "parser"
    enabled.write_text("Y\n")
    loaded.write_text("other (enforce)\n")
    parser.write_text(f"#!/bin/sh\ncat > {tmp_path}/given && echo 'cri-containerd.apparmor.d (enforce)' >> {loaded}\n")
    parser.chmod(0o755)
    for name, value in (("ENABLED", enabled), ("PROFILES", loaded), ("PARSER", str(parser))):
        monkeypatch.setattr(apparmor, name, value)
    process = default_spec("k8s.io", "id")["process"]
    security.set_apparmor(process, cri.LinuxContainerSecurityContext(privileged=True))
    assert "apparmorProfile" not in process and not (tmp_path / "given").exists()
    security.set_apparmor(process, cri.LinuxContainerSecurityContext())
    assert process["apparmorProfile"] == "cri-containerd.apparmor.d"
    given = (tmp_path / "given").read_text()
    assert "profile cri-containerd.apparmor.d " in given and "deny mount," in given
    (tmp_path / "given").unlink()
    security.set_apparmor(process, cri.LinuxContainerSecurityContext())
    assert not (tmp_path / "given").exists(), "it is loaded once"
    loaded.write_text("")
    parser.write_text("#!/bin/sh\necho 'line 7: syntax error' >&2; exit 1\n")
    with pytest.raises(Unknown, match=r"cannot be loaded: .*line 7: syntax error"):
        security.set_apparmor(process, cri.LinuxContainerSecurityContext())
    monkeypatch.setattr(apparmor, "PARSER", str(tmp_path / "absent"))
    with pytest.raises(Unknown, match="install apparmor, or set disable_apparmor"):
        security.set_apparmor(process, cri.LinuxContainerSecurityContext())
    security.set_apparmor(process, cri.LinuxContainerSecurityContext(), disabled=True)


def test_apparmor_profiles_that_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enabled, loaded = tmp_path / "enabled", tmp_path / "profiles"
    enabled.write_text("Y\n")
    loaded.write_text("mine (enforce)\ncri-containerd.apparmor.d (enforce)\n")
    monkeypatch.setattr(apparmor, "ENABLED", enabled)
    monkeypatch.setattr(apparmor, "PROFILES", loaded)

    def profile(**fields: object) -> str:
        process = default_spec("k8s.io", "id")["process"]
        wanted = cri.LinuxContainerSecurityContext(**fields)  # type: ignore[arg-type] # fields by their names
        security.set_apparmor(process, wanted)
        return process.get("apparmorProfile", "")

    assert profile() == profile(apparmor=Profile()) == "cri-containerd.apparmor.d"
    assert profile(privileged=True) == ""
    local = Profile(profile_type=Profile.Localhost, localhost_ref="localhost/mine")
    assert profile(apparmor=local) == profile(apparmor=local, privileged=True) == "mine"
    absent = Profile(profile_type=Profile.Localhost, localhost_ref="other")
    with pytest.raises(Unknown, match="apparmor profile not found other"):
        profile(apparmor=absent)


def test_a_selinux_level_has_its_form() -> None:
    for level in ("", "s0", "s0:c1,c2", "s0-s0:c1.c3"):
        security.check_selinux(cri.SELinuxOption(level=level))
    with pytest.raises(Unknown, match="is not correct"):
        security.check_selinux(cri.SELinuxOption(level="s0:x"))

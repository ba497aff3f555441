"""CDI: which devices a container gets, what they change, and that nothing but the client's request names them."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from windlass.errors import Unknown
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.config import RuntimeConfig
from windlass_cri.spec import cdi
from windlass_oci import cdidocuments
from windlass_oci.cdi import is_qualified
from windlass_oci.defaults import default_spec
from windlass_oci.runtime_spec import Spec

ONE = {
    "name": "one",
    "containerEdits": {
        "env": ["ONE=1"],
        "deviceNodes": [{"path": "/dev/one", "hostPath": "/dev/null", "permissions": "rw"}],
        "mounts": [{"hostPath": "/lib/one", "containerPath": "/opt/one", "options": ["ro", "bind"]}],
        "hooks": [{"hookName": "createContainer", "path": "/bin/one", "args": ["one", "-x"], "timeout": 3}],
    },
}
TWO = {
    "name": "two",
    "containerEdits": {
        "deviceNodes": [{"path": "/dev/two", "type": "c", "major": 240, "minor": 1, "permissions": "none"}],
        "intelRdt": {"closID": "gold", "schemata": ["L3:0=f"]},
        "netDevices": [{"hostInterfaceName": "eno1", "name": "net0"}],
    },
}


def write(directory: Path, name: str = "a.json", devices: object = (ONE, TWO), **more: object) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    document = {"cdiVersion": "1.1.0", "kind": "vendor.com/gpu", "devices": devices, **more}
    path.write_text(json.dumps(document))
    return path


def injected(tmp_path: Path, *names: str, env: tuple[str, ...] = (), **annotations: str) -> Spec:
    spec = default_spec("k8s.io", "id")
    spec["process"]["env"] = list(env)
    config = cri.ContainerConfig(annotations={f"cdi.k8s.io/{key}": value for key, value in annotations.items()})
    for name in names:
        config.CDI_devices.add(name=name)
    cdi.inject(spec, config, settings(tmp_path))
    return spec


def settings(tmp_path: Path) -> RuntimeConfig:
    return RuntimeConfig(cdi_spec_dirs=(str(tmp_path / "static"), str(tmp_path / "dynamic")))


def test_a_device_changes_all_that_its_spec_says(tmp_path: Path) -> None:
    write(tmp_path / "static", containerEdits={"env": ["ALL=1", "OLD=new"], "additionalGids": [44, 0, 44]})
    spec = injected(tmp_path, "vendor.com/gpu=one", "vendor.com/gpu=two", env=("OLD=a", "OLD=b", "KEPT=1"))
    process, linux = spec["process"], spec["linux"]
    assert process["env"] == ["OLD=a", "OLD=new", "KEPT=1", "ALL=1", "ONE=1"]
    assert process["user"]["additionalGids"] == [44]
    one, two = linux["devices"]
    assert (one["path"], one["type"], one["major"], one["minor"], one["fileMode"]) == ("/dev/one", "c", 1, 3, 0o666)
    assert (two["path"], two["major"], two["minor"]) == ("/dev/two", 240, 1)
    rules = linux["resources"]["devices"][-2:]
    assert [(rule["major"], rule["access"]) for rule in rules] == [(1, "rw"), (240, "")]
    (mount,) = [each for each in spec["mounts"] if each["destination"] == "/opt/one"]
    assert mount == {"destination": "/opt/one", "source": "/lib/one", "options": ["ro", "bind"]}
    assert spec["hooks"] == {"createContainer": [{"path": "/bin/one", "args": ["one", "-x"], "timeout": 3}]}
    assert linux["intelRdt"] == {"closID": "gold", "schemata": ["L3:0=f"]}
    assert linux["netDevices"] == {"eno1": {"name": "net0"}}


def test_fields_come_before_annotations_and_no_device_twice(tmp_path: Path) -> None:
    write(tmp_path / "static")
    both = "vendor.com/gpu=one,vendor.com/gpu=two"
    spec = injected(tmp_path, "vendor.com/gpu=two", "vendor.com/gpu=two", a=both)
    assert [each["path"] for each in spec["linux"]["devices"]] == ["/dev/two", "/dev/one"]
    assert spec["process"]["env"] == ["ONE=1"]


def test_mounts_take_the_place_of_others_and_are_mapped_in_a_user_namespace(tmp_path: Path) -> None:
    edits = {"mounts": [{"hostPath": "/x", "containerPath": "/proc", "options": ["rbind"]}]}
    write(tmp_path / "static", devices=[{"name": "x", "containerEdits": edits}])
    spec = default_spec("k8s.io", "id")
    spec["linux"]["namespaces"].append({"type": "user"})
    config = cri.ContainerConfig()
    config.CDI_devices.add(name="vendor.com/gpu=x")
    spec["process"]["env"] = []
    cdi.inject(spec, config, settings(tmp_path))
    (mount,) = [each for each in spec["mounts"] if each["destination"] == "/proc"]
    assert mount["source"] == "/x" and mount["options"] == ["rbind", "ridmap"]


def test_a_device_belongs_to_the_containers_user(tmp_path: Path) -> None:
    write(tmp_path / "static")
    spec = default_spec("k8s.io", "id")
    spec["process"]["env"] = []
    spec["process"]["user"] = {"uid": 7, "gid": 8}
    config = cri.ContainerConfig()
    config.CDI_devices.add(name="vendor.com/gpu=one")
    cdi.inject(spec, config, settings(tmp_path))
    assert (spec["linux"]["devices"][0]["uid"], spec["linux"]["devices"][0]["gid"]) == (7, 8)


def test_a_later_directory_wins_and_two_of_one_directory_are_nobodys(tmp_path: Path) -> None:
    write(tmp_path / "static")
    other = {"name": "one", "containerEdits": {"env": ["DYNAMIC=1"]}}
    write(tmp_path / "dynamic", devices=[other])
    assert injected(tmp_path, "vendor.com/gpu=one")["process"]["env"] == ["DYNAMIC=1"]
    write(tmp_path / "dynamic", "b.json", devices=[other])
    with pytest.raises(Unknown, match=r"unresolvable CDI devices vendor\.com/gpu=one; not read: conflicting device"):
        injected(tmp_path, "vendor.com/gpu=one")


def test_unknown_devices_are_refused_with_what_could_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(Unknown, match=r"CDI device injection failed: unresolvable CDI devices nope\.com/x=1$"):
        injected(tmp_path, "nope.com/x=1")
    with pytest.raises(Unknown, match="CDI device injection failed"):
        injected(tmp_path, a="nope.com/x=1")
    (write(tmp_path / "static")).write_text("{")
    with pytest.raises(Unknown, match=r"not read: .*/static/a\.json: it is not JSON"):
        injected(tmp_path, "vendor.com/gpu=one")


@pytest.mark.parametrize(
    "name", ["", "one", "vendor.com/gpu", "vendor.com=one", "../../etc/shadow=x", "vendor.com/gpu=../x", "v/c=a b"]
)
def test_an_annotation_that_names_no_device_is_refused(tmp_path: Path, name: str) -> None:
    """Names are looked up among devices, never as paths."""
    write(tmp_path / "static")
    with pytest.raises(Unknown, match="failed to parse CDI device annotations: invalid CDI device name"):
        injected(tmp_path, a=name)
    assert not is_qualified(name)


def test_only_the_containers_own_annotations_count(tmp_path: Path) -> None:
    """Annotations of other keys, and what an image brings, inject nothing (CVE-2026-53492)."""
    write(tmp_path / "static")
    spec = default_spec("k8s.io", "id")
    spec["process"]["env"] = []
    before = json.dumps(spec)
    config = cri.ContainerConfig(
        annotations={"x/cdi.k8s.io/a": "vendor.com/gpu=one", "cdi.k8s.io": "vendor.com/gpu=one"}
    )
    config.labels["cdi.k8s.io/a"] = "vendor.com/gpu=one"
    config.image.annotations["cdi.k8s.io/a"] = "vendor.com/gpu=one"
    cdi.inject(spec, config, settings(tmp_path))
    assert json.dumps(spec) == before


def test_disabled_cdi_refuses_devices_and_acts_on_no_annotation(tmp_path: Path) -> None:
    write(tmp_path / "static")
    off = replace(settings(tmp_path), enable_cdi=False)
    spec = default_spec("k8s.io", "id")
    config = cri.ContainerConfig(annotations={"cdi.k8s.io/a": "vendor.com/gpu=one"})
    cdi.inject(spec, config, off)
    assert "devices" not in spec["linux"]
    config.CDI_devices.add(name="vendor.com/gpu=one")
    with pytest.raises(Unknown, match="CDI support is explicitly disabled"):
        cdi.inject(spec, config, off)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners of files")
def test_a_spec_that_others_can_write_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "static")
    path.chmod(0o666)
    with pytest.raises(ValueError, match="other users can write to it"):
        cdidocuments.read(path)
    path.chmod(0o644)
    os.chown(path, 1000, 1000)
    with pytest.raises(ValueError, match="other users can write to it"):
        cdidocuments.read(path)


def test_a_spec_of_a_special_kind_or_without_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json", 0o600)
    with pytest.raises(ValueError, match="not a regular file"):
        cdidocuments.read(tmp_path / "fifo.json")
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.truncate(cdidocuments.LIMIT + 1)
    with pytest.raises(ValueError, match="larger than"):
        cdidocuments.read(huge)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"cdiVersion": "9.0"}, "invalid version"),
        ({"kind": "gpu"}, "not a vendor and a class"),
        ({"devices": []}, "no devices"),
        ({"devices": [ONE, ONE]}, "there twice"),
        ({"devices": [{"name": "x", "containerEdits": {}}]}, "changes nothing"),
        ({"surprise": 1}, "unknown fields: surprise"),
        ({"containerEdits": {"env": ["=x"]}}, "invalid environment variable"),
        ({"containerEdits": {"hooks": [{"hookName": "never", "path": "/x"}]}}, "unknown hookName"),
        ({"containerEdits": {"hooks": [{"hookName": "prestart", "path": "x"}]}}, "not absolute"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "permissions": "all"}]}}, "invalid permissions"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "major": "1"}]}}, "not a number"),
        ({"containerEdits": {"mounts": [{"hostPath": "/x"}]}}, "has no containerPath"),
        ({"containerEdits": {"intelRdt": {"closID": "../x"}}}, "invalid closID"),
        ({"containerEdits": {"additionalGids": [-1]}}, "what is not a group"),
        ({"containerEdits": {"env": "A=1"}}, "not a list"),
    ],
)
def test_specs_that_are_none(change: dict[str, object], problem: str) -> None:
    document = {"cdiVersion": "0.6.0", "kind": "vendor.com/gpu", "devices": [ONE], **change}
    with pytest.raises(ValueError, match=problem):
        cdidocuments.document(Path("x.json"), document)


def test_yaml_needs_a_package_or_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("cdiVersion: 0.6.0\nkind: vendor.com/gpu\ndevices:\n- name: '0'\n  containerEdits: {env: [A=1]}\n")
    if importlib.util.find_spec("yaml") is None:
        with pytest.raises(ValueError, match="needs the Python package PyYAML"):
            cdidocuments.read(path)
    else:
        assert list(cdidocuments.read(path).devices) == ["vendor.com/gpu=0"]
    path.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "a/b", "devices": [ONE]}))
    assert list(cdidocuments.read(path).devices) == ["a/b=one"], "JSON is YAML"

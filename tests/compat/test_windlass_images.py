"""Names of images, archives, logins and what is removed by `windlass`, on windlassd and on Debian's containerd."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import IMAGE, run_machine
from compat.images import Archive, layer
from compat.machines import Machine
from compat.registries import HTPASSWD, SECRET, USER, needs_registry, registry
from compat.windlass_client import Windlass

pytestmark = pytest.mark.root

NAME = "docker.io/library/small:1"


@pytest.fixture(scope="module", params=["windlass", "containerd"])
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, busy: Archive) -> Iterator[Machine]:
    """A machine for these tests alone: they remove all images that no container uses."""
    yield from run_machine(request.param, tmp_path_factory.mktemp("own"), busy)


@pytest.fixture
def windlass_(own: Machine, tmp_path: Path) -> Iterator[Windlass]:
    """A client of a machine with a small image."""
    machine, windlass = own, Windlass(own, tmp_path)
    archive = Archive(tmp_path / "small.tar", NAME, [layer({"file": b"x" * 5000})])
    machine.ctr("images", "import", str(archive.path))
    yield windlass
    containers = [each["container"] for each in json.loads(windlass("ps", "-a", "--json"))]
    if containers:
        windlass("rm", "-f", *containers)
    names = [each for each in machine.ctr("images", "ls", "-q").split() if each != IMAGE]
    if names:
        windlass("rmi", "-f", *names)


def test_names_ids_and_archives(windlass_: Windlass) -> None:
    """An image is called by its short name, and by the beginning of its ID; an archive brings it back."""
    [row] = [each for each in windlass_("images").splitlines() if each.startswith("small")]
    id = windlass_("images", "-q", "small").strip()
    assert row.split()[:3] == ["small", "1", id] and len(id) == 12
    windlass_("tag", id, "other.org/two:2")
    assert windlass_("images", "--format", "{{.Repository}}:{{.Tag}}", "other.org/*") == "other.org/two:2\n"
    assert windlass_("image", "inspect", "-f", "{{.Id}}", "small:1").startswith(f"sha256:{id}")
    windlass_("save", "-o", "saved.tar", "small:1")
    assert windlass_("rmi", "small:1") == "Untagged: small:1\n"
    assert windlass_("rmi", id).splitlines()[0] == "Untagged: other.org/two:2"
    assert 'image "small:1" does not exist' in windlass_.refused("image", "inspect", "-f", "{{.Id}}", "small:1")
    assert windlass_("load", "-q", "-i", "saved.tar") == "Loaded image: small:1\n"
    assert windlass_("history", "-q", "small:1").split()[0] == id


def test_prunes_remove_what_nothing_needs(windlass_: Windlass) -> None:
    """And say what that was; what runs stays, with its image."""
    windlass_("run", "-d", "--name", "runs", IMAGE, "/bin/sleep", "1000")
    windlass_("run", "--name", "ended", IMAGE, "/bin/true")
    df = json.loads(windlass_("system", "df", "--format", "json").splitlines()[1])
    assert (df["Type"], df["TotalCount"], df["Active"]) == ("Containers", "2", "1")
    info = json.loads(windlass_("info", "-f", "json"))
    assert (info["Containers"], info["ContainersRunning"]) == (2, 1)
    refused = windlass_.try_("container", "prune", data=b"n\n")
    assert refused.returncode == 1 and b"container prune has been cancelled" in refused.stderr
    agreed = windlass_("container", "prune", data=b"y\n").splitlines()
    assert agreed[0].startswith("WARNING! This will remove all stopped containers.") and "ended" in agreed
    removed = windlass_("image", "prune", "-a", "-f").splitlines()
    assert removed[:2] == ["Deleted Images:", "Untagged: small:1"] and len(removed) == 5
    windlass_("volume", "create")
    done = windlass_("system", "prune", "-a", "-f", "--volumes")
    assert "Deleted Volumes:" in done and "Total reclaimed space: " in done
    assert windlass_("container", "ls", "-q").strip() and windlass_("images", "-q").strip()


@needs_registry
def test_login_is_used_by_push_and_pull(windlass_: Windlass, tmp_path: Path) -> None:
    """The registry decides; wrong passwords are not kept."""
    if windlass_.machine.kind == "containerd":
        pytest.skip("containerd 1.6 has no transfer service: the client cannot let it push")
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with registry(tmp_path / "registry", auth=auth) as address:
        name = f"{address}/team/small:1"
        windlass_("tag", "small:1", name)
        wrong = windlass_.refused("login", "-u", USER, "--password-stdin", address, data=b"wrong\n")
        assert "does not accept the user name and password" in wrong
        assert not (tmp_path / ".docker/config.json").exists()
        assert windlass_.try_("push", "--plain-http", name).returncode == 1

        assert (
            windlass_("login", "-u", USER, "--password-stdin", address, data=f"{SECRET}\n".encode())
            == "Login Succeeded\n"
        )
        assert stat.S_IMODE((tmp_path / ".docker/config.json").stat().st_mode) == 0o600
        windlass_("push", "--plain-http", name)
        windlass_("rmi", name)
        windlass_("pull", "--plain-http", name)
        assert windlass_("logout", address) == f"Removing login credentials for {address}\n"
        assert windlass_("logout", address) == f"Not logged in to {address}\n"
        assert windlass_.try_("push", "--plain-http", name).returncode == 1

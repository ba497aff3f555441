"""Files of an installation: put in their places, replaced by the next one, and removed without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from windlass.config import loading
from windlass.errors import StartError
from windlass_install import layout, placing, removing
from windlass_install.layout import LOCAL, PACKAGE, Places
from windlass_install.placing import RECORD, Root, place, recorded, remove
from windlass_install.removing import containers
from windlass_linux import calls

ENVIRONMENT = Path("/opt/windlass")
CONFIG = Path("/etc/windlass/config.toml")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "opt/windlass").mkdir(parents=True)
    return Root(tmp_path)


def files(root: Root) -> set[str]:
    return {str(path.relative_to(root.path)) for path in root.path.rglob("*")}


def record(root: Root) -> list[Path]:
    return recorded(root.at(ENVIRONMENT))


def test_everything_has_its_place(root: Root) -> None:
    """Commands in PATH lead into the environment; units, pages and completions are where programs look."""
    place(ENVIRONMENT, LOCAL, root)
    for name in ("windlassd", "windlass", "containerd-shim-windlass-v1"):
        assert (root.path / "usr/local/bin" / name).readlink() == ENVIRONMENT / "bin" / name
    assert {
        "usr/local/lib/systemd/system/windlass.service",
        "usr/local/lib/systemd/system/windlass.socket",
        "usr/local/lib/tmpfiles.d/windlass.conf",
        "usr/local/share/man/man1/windlass-run.1.gz",
        "usr/local/share/man/man8/windlassd.8.gz",
        "usr/local/share/bash-completion/completions/windlass",
        "usr/local/share/zsh/site-functions/_windlass",
        "usr/local/share/fish/vendor_completions.d/windlass.fish",
        "etc/windlass/config.toml",
    } <= files(root)


def test_removing_leaves_what_was_there_before(root: Root) -> None:
    """Directories that were made for our files go with them; the configuration is not ours to remove."""
    (root.path / "usr/local/share/man").mkdir(parents=True)
    before = files(root)
    place(ENVIRONMENT, LOCAL, root)
    paths = record(root)
    shutil.rmtree(root.at(ENVIRONMENT) / "share")
    remove(paths, root)
    assert files(root) - before == {"etc", "etc/windlass", "etc/windlass/config.toml"}
    assert before <= files(root)


def test_an_upgrade_keeps_the_configuration_and_drops_what_is_gone(root: Root) -> None:
    """A page of a command that the new version does not have is removed; what the administrator wrote stays."""
    place(ENVIRONMENT, LOCAL, root)
    root.at(CONFIG).write_text("# mine\n")
    gone = Path("/usr/local/share/man/man1/windlass-gone.1.gz")
    root.at(gone).write_text("")
    before = files(root)

    place(ENVIRONMENT, LOCAL, root, [*record(root), gone])

    assert before - files(root) == {str(gone)[1:]}
    assert root.at(CONFIG).read_text() == "# mine\n"
    assert gone not in record(root)
    remove(record(root), root)
    assert not root.at(Path("/usr/local/lib")).exists()


def test_a_file_of_somebody_else_is_left_alone(root: Root) -> None:
    """Nothing is written if one of our names is taken."""
    stranger = root.path / "usr/local/bin/windlass"
    stranger.write_text("mine")
    before = files(root)
    with pytest.raises(StartError, match="/usr/local/bin/windlass is in the way"):
        place(ENVIRONMENT, LOCAL, root)
    assert files(root) == before and stranger.read_text() == "mine"
    assert not (root.at(ENVIRONMENT) / RECORD).exists()


def test_what_cannot_be_finished_is_taken_back(root: Root) -> None:
    """On a full disk, or here on a directory in the way: the next attempt does not find files that nobody recorded."""
    (root.path / "usr/local/share/zsh/site-functions/_windlass").mkdir(parents=True)
    before = files(root)
    with pytest.raises(OSError):
        place(ENVIRONMENT, LOCAL, root, [Path("/usr/local/share/zsh/site-functions/_windlass")])
    left = files(root) - before
    assert {path for path in left if not path.startswith(("opt/", "etc"))} == set()


def test_a_killed_installation_knows_its_files(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are recorded before the first is written, so that they can be replaced and removed."""
    seen: list[Path] = []

    def killed(_root: Root, texts: Mapping[Path, bytes], links: Mapping[Path, Path]) -> None:
        seen.extend(sorted({*texts, *links} - set(record(root))))

    monkeypatch.setattr(placing, "_write_all", killed)
    place(ENVIRONMENT, LOCAL, root)
    assert seen == []


def test_the_configuration_that_is_installed_is_valid_and_changes_nothing(tmp_path: Path) -> None:
    """It has comments only, so that defaults of later versions hold."""
    file = tmp_path / "config.toml"
    file.write_bytes(layout.configuration())
    assert tomllib.loads(file.read_text()) == {"version": 4}
    assert not loading.read(file).settle([]).problems


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_what_is_mounted_is_not_removed_with_a_root(tmp_path: Path) -> None:
    """Also below a path with a space, which the table of mounts has as an octal number."""
    place = tmp_path / "my root/mnt"
    place.mkdir(parents=True)
    calls.mount(str(tmp_path), str(place), "", calls.MS_BIND)
    (tmp_path / "precious").touch()
    try:
        with pytest.raises(StartError, match="is mounted there"):
            removing._remove_tree(tmp_path / "my root")
        assert (tmp_path / "precious").exists()
    finally:
        calls.umount2(str(place), calls.MNT_DETACH)


def test_containers_are_found_by_their_bundles(tmp_path: Path) -> None:
    """What keeps an installation from being removed."""
    assert containers(tmp_path) == []
    (tmp_path / "io.containerd.runtime.v2.task/default/web").mkdir(parents=True)
    assert containers(tmp_path) == ["default/web"]


def test_the_service_starts_its_socket() -> None:
    """`systemctl start windlass` is enough."""
    unit = layout.contents(LOCAL)[LOCAL.units / "windlass.service"].decode().splitlines()
    assert "Wants=windlass.socket" in unit and any("windlass.socket" in line for line in unit if line[:6] == "After=")


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed; apt install systemd"
)
@pytest.mark.parametrize("places", [LOCAL, PACKAGE], ids=["local", "package"])
def test_systemd_finds_nothing_wrong_with_the_units(places: Places, tmp_path: Path) -> None:
    """As they are installed, with the programs that they name."""
    for path, text in layout.contents(places).items():
        if path.parent == places.units:
            file = tmp_path / "usr/lib/systemd/system" / path.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
    for program in (places.commands / "windlassd", Path("/bin/kill"), Path("/sbin/modprobe")):
        (tmp_path / program.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", tmp_path / program.relative_to("/"))
    for name in ("multi-user", "sockets", "network", "local-fs", "sysinit", "basic", "shutdown"):
        (tmp_path / f"usr/lib/systemd/system/{name}.target").write_text("[Unit]\nDescription=x\n")
    for unit in layout.UNITS:
        command = ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", unit]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")

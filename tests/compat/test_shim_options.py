"""Options of a task: each reaches the OCI runtime or the process it is for; and crun in place of runc."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import groups
import pytest
from shim_runc.harness import Shim, shims

from windlass import errors
from windlass_shim_runc import messages

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="containers need root on Linux"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: apt install runc"),
]

Make = Callable[..., Shim]
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A maker of shims, whose containers are gone afterwards."""
    with shims(tmp_path) as maker:
        yield maker


def options(**values: object) -> messages.AnyMessage:
    """Return runc's options."""
    return messages.pack(messages.Options(**values))


def recorder(directory: Path) -> Path:
    """Return a runc that writes down how it is called, and drops what only systemd could do."""
    program = directory / "recorder" / "runc"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$PATH" "$@" >>{directory}/calls\n'
        f"stat -L -c '%u:%g %F' /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2 | cat >>{directory}/owners\n"
        'for word; do shift; [ "$word" = --systemd-cgroup ] || set -- "$@" "$word"; done\nexec runc "$@"\n'
    )
    program.chmod(0o755)
    return program


def test_flags_of_the_runtime(make: Make, tmp_path: Path) -> None:
    """NoPivotRoot, NoNewKeyring, SystemdCgroup, Root, BinaryName and CriuPath."""
    (tmp_path / "tools").mkdir()
    program = recorder(tmp_path)
    chosen = options(
        binary_name=str(program),
        root=str(tmp_path / "elsewhere"),
        no_pivot_root=True,
        no_new_keyring=True,
        systemd_cgroup=True,
        criu_path=str(tmp_path / "tools" / "criu"),
    )
    shim = make()
    shim.create(["/bin/true"], options=chosen)
    shim.start()
    shim.wait()
    shim.delete()

    create, *_, delete = (tmp_path / "calls").read_text().splitlines()
    path, *words = create.split()
    assert path.startswith(f"{tmp_path}/tools:")
    assert words[:3] == ["--root", f"{tmp_path}/elsewhere/test", "--systemd-cgroup"]
    assert {"--no-pivot", "--no-new-keyring"} <= set(words)
    assert words[-1] == "one"
    assert delete.endswith("delete one")
    assert not list((tmp_path / "elsewhere" / "test").iterdir())


@pytest.mark.parametrize("kind", ["init", "exec"])
def test_the_pipes_belong_to_the_user_of_the_options(make: Make, tmp_path: Path, kind: str) -> None:
    """IoUid and IoGid own all three, of init and of an exec, when the runtime gets them."""
    shim = make()
    # Any: fields of the request
    streams: dict[str, Any] = {name: shim.fifo(name) for name in ("stdin", "stdout", "stderr")}
    chosen = options(io_uid=1001, io_gid=1002, binary_name=str(recorder(tmp_path)))
    owners = tmp_path / "owners"
    if kind == "init":
        shim.create(["/bin/true"], options=chosen, **streams)
    else:
        shim.create(["/bin/sleep", "1000"], options=chosen)
        shim.start()
        shim.exec("e", ["/bin/true"], **streams)
        owners.unlink()
        shim.start("e")

    assert owners.read_text() == "1001:1002 fifo\n" * 3


def test_the_shim_joins_the_cgroup_of_the_options(tmp_path: Path) -> None:
    """ShimCgroup, which must exist; the container does not join it."""
    top = next(p for p in map(Path, ("/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")) if p.is_dir())
    group = top / f"windlass-shim-{os.getpid()}"
    group.mkdir()
    try:
        with shims(tmp_path) as make:
            shim = make()
            with pytest.raises(errors.FailedPrecondition, match="cgroup /no/such of option ShimCgroup does not exist"):
                shim.create(["/bin/true"], options=options(shim_cgroup="/no/such"))
            with pytest.raises(errors.InvalidArgument, match="leads out of the cgroup file system"):
                shim.create(["/bin/true"], options=options(shim_cgroup="/../x"))

            pid = shim.create(["/bin/sleep", "1000"], options=options(shim_cgroup=f"/{group.name}"))

            assert f":/{group.name}\n" in Path(f"/proc/{shim.child.pid}/cgroup").read_text()
            assert f":/{group.name}\n" not in Path(f"/proc/{pid}/cgroup").read_text()
    finally:
        deadline = time.monotonic() + 5
        while group.exists():
            try:
                group.rmdir()
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)


def test_options_as_toml(make: Make, tmp_path: Path) -> None:
    """runtimeoptions.v1.Options, as clients send them that do not know the runtime's name."""
    from windlass_shim_runc.generic import GenericOptions

    def toml(**values: object) -> messages.AnyMessage:
        return messages.AnyMessage(type_url="runtimeoptions.v1.Options", value=GenericOptions(**values).encode())

    program = recorder(tmp_path)
    config = tmp_path / "options.toml"
    config.write_text(f'BinaryName = "{program}"\nNoNewKeyring = true\n')
    shim = make()
    for bad in (b"IoUid = true", b"Nothing = 1", b"= ="):
        with pytest.raises(errors.InvalidArgument, match="runtime option"):
            shim.create(["/bin/true"], options=toml(config_body=bad))

    shim.create(["/bin/true"], options=toml(config_path=str(config)))

    assert "--no-new-keyring" in (tmp_path / "calls").read_text()


CRUN = """
import json, sys
from pathlib import Path
from shim_runc.harness import messages, shims
with shims(Path(sys.argv[1])) as make:
    shim = make()
    shim.make_bundle(["/bin/sleep", "1000"])
    path = shim.bundle / "config.json"
    spec = json.loads(path.read_text())
    spec["linux"]["cgroupsPath"] = sys.argv[2]
    path.write_text(json.dumps(spec))
    options = messages.pack(messages.Options(binary_name="crun"))
    request = messages.CreateTaskRequest(id=shim.id, bundle=str(shim.bundle), options=options)
    try:
        shim.call(messages.PidResponse, "Create", request)
        shim.start()
        shim.exec("e", ["/bin/sh", "-c", "exit 6"])
        shim.start("e")
        first = shim.wait("e")
        shim.kill(9)
        print("status", first, shim.wait())
        shim.delete()
        print("left", len(list((shim.state / "runc" / "test").iterdir())))
    except Exception as error:
        print("refused", error)
"""


@pytest.mark.skipif(shutil.which("crun") is None, reason="crun is not installed: apt install crun")
def test_crun_runs_containers_or_its_own_words_reach_the_client(tmp_path: Path) -> None:
    """BinaryName crun, which refuses a hybrid of both cgroup versions: it gets a mount namespace without the newer."""

    def run(prefix: str, name: str) -> str:
        state = tmp_path / name
        state.mkdir()
        script = f'{prefix} exec "$0" -c "$1" "$2" "$3"'
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        arguments = [sys.executable, CRUN, str(state), groups.path_of(f"crun-{name}")]
        # crun kills whatever is in a container's cgroup: only what is in this pid namespace can be meant.
        command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout

    hybrid = Path("/sys/fs/cgroup/unified/cgroup.procs").exists()
    if hybrid:
        refusal = run("", "hybrid")
        assert "refused OCI runtime create failed: cgroups in hybrid mode not supported" in refusal
    assert run("umount -l /sys/fs/cgroup/unified;" if hybrid else "", "one") == "status 6 137\nleft 0\n"

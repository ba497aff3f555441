"""`windlass image pull` and `push`, and archives over streams: a daemon, a real registry, the client between them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from compat.images import Archive, layer
from compat.machines import Machine
from compat.registries import hosts
from registry.fake import running

WINDLASS = "import sys; from windlass_client.cli import main; sys.exit(main())"
USER, PASSWORD = "tester", "s3cret"
HASH = "$2b$04$GnQ/xVbNQqUqNrbfXx9LQePliRAa3Gm0o9dsmxg.3Wslf30OBBCU6"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        shutil.which("docker-registry") is None, reason="docker-registry is not installed; apt install docker-registry"
    ),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on loopback that wants a user and a password; its name and port."""
    directory = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "htpasswd").write_text(f"{USER}:{HASH}\n")
    config = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}},
    }
    (directory / "config.yml").write_text(json.dumps(config))
    with (directory / "log").open("wb") as log:
        command = ["docker-registry", "serve", str(directory / "config.yml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            assert process.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def image(windlass: Machine, tmp_path: Path) -> Iterator[Archive]:
    """An image in the daemon that nobody has seen; afterwards only the machine's own are there."""
    layers = [layer({"one": os.urandom(1_500_000)}), layer({"two": os.urandom(64)})]
    made = Archive(tmp_path / "thing.tar", "example.org/thing:1", layers)
    windlass.ctr("images", "import", str(made.path))
    yield made
    names = [name for name in windlass.ctr("images", "ls", "-q").split() if "busy" not in name]
    if names:
        windlass.ctr("images", "rm", "--sync", *names)


class Run(Protocol):
    """Runs `windlass image`, which ends with the given exit code."""

    def __call__(self, *arguments: str, code: int = 0, data: str = "") -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run(windlass: Machine, tmp_path: Path) -> Run:
    """Run `windlass image …` with a docker configuration of the test's own."""

    def run(*arguments: str, code: int = 0, data: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WINDLASS, "--address", windlass.address, "--namespace", windlass.namespace]
        environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
        done = subprocess.run(
            [*command, "image", *arguments], input=data, capture_output=True, text=True, timeout=60, env=environment
        )
        assert done.returncode == code, (arguments, done.stderr)
        return done

    return run


def log_in(tmp_path: Path, registry: str, password: str = PASSWORD) -> None:
    """Write what `docker login` leaves."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))


def test_pushed_and_pulled(windlass: Machine, image: Archive, registry: str, run: Run, tmp_path: Path) -> None:
    """The digest stays, layers are unpacked, progress is told per layer, and credentials come from docker's file."""
    log_in(tmp_path, registry)
    name = f"{registry}/pushed/thing:2"

    pushed = run("push", name, "example.org/thing:1")
    windlass.ctr("images", "rm", "--sync", "example.org/thing:1")
    assert not windlass.blob(image.layers[0]).exists()
    pulled = run("pull", name)
    [check] = json.loads(run("check", "--json", f"name=={name}").stdout)
    again = json.loads(run("pull", "--json", name).stdout)

    assert pushed.stdout == f"pushed {name} {image.digest}\n"
    assert pulled.stdout == f"pulled {name} {image.digest}\n"
    assert (check["status"], check["unpacked"]) == ("complete", True)
    assert again == {"name": name, "digest": image.digest, "type": "application/vnd.oci.image.manifest.v1+json"}
    for digest in image.layers:
        assert any(digest in line for line in pushed.stderr.splitlines()), pushed.stderr
        assert any(digest in line for line in pulled.stderr.splitlines()), pulled.stderr
    assert windlass.ctr("leases", "ls", "-q") == ""


def test_ways_to_log_in(windlass: Machine, image: Archive, registry: str, run: Run, tmp_path: Path) -> None:
    """By a pipe, on the command line as ctr has it; wrong ones and none are one line that has no secret in it."""
    name = f"{registry}/login:1"
    secret = "wr0ng-s3cret"
    run("push", "--user", USER, "--password-stdin", name, "example.org/thing:1", data=f"{PASSWORD}\n")

    run("pull", "--no-unpack", "--user", f"{USER}:{PASSWORD}", name)
    wrong = run("pull", "--user", f"{USER}:{secret}", name, code=1)
    log_in(tmp_path, registry)
    anonymous = run("pull", "--anonymous", name, code=1)

    for failed in (wrong, anonymous):
        last = failed.stderr.splitlines()[-1]
        assert last.startswith("windlass: ") and registry in last
        assert secret not in failed.stderr and PASSWORD not in failed.stderr
    assert windlass.ctr("leases", "ls", "-q") == ""


def test_requests_are_shown(image: Archive, registry: str, run: Run, tmp_path: Path) -> None:
    """--http-trace has each request, and no credentials."""
    log_in(tmp_path, registry)
    run("push", f"{registry}/traced:1", "example.org/thing:1")

    traced = run("pull", "--http-trace", f"{registry}/traced:1")

    assert "/v2/traced/manifests/" in traced.stderr
    assert PASSWORD not in traced.stderr
    assert base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode() not in traced.stderr


def test_what_is_not_there(image: Archive, registry: str, run: Run, tmp_path: Path) -> None:
    """One line that names the image; nothing is left."""
    log_in(tmp_path, registry)
    missing = run("pull", f"{registry}/nope:1", code=1)
    bare = run("pull", "busybox", code=1)

    assert f"{registry}/nope tag 1" in missing.stderr.splitlines()[-1]
    assert "busybox" in bare.stderr.splitlines()[-1]


def test_a_daemon_without_transfers(containerd: Machine) -> None:
    """containerd 1.6 has no such service: that is said."""
    command = [sys.executable, "-c", WINDLASS, "--address", containerd.address, "image", "pull", "example.org/x:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "windlass: unknown service containerd.services.streaming.v1.Streaming\n"


def drive(machine: Machine, what: str, *arguments: str) -> object:
    """Have a client of its own process do something, and return what came of it."""
    command = [sys.executable, "-m", "compat.transferring", machine.address, machine.namespace, what, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_archive_goes_through_the_daemon_and_back(windlass: Machine, image: Archive) -> None:
    """What it exports it imports, and by a transfer's rules; nothing of its streams and leases stays."""
    done = drive(windlass, "round-trip")

    assert isinstance(done, dict)
    # `add_digest` names the image and, as in containerd 2.4, the archive's index.
    assert {"example.org/thing:1", f"example.org/thing@{image.digest}"} < set(done["names"])
    assert len(done["names"]) == 3
    assert done["events"][0] == "Exporting" and done["events"][-1] == "Completed export"
    assert done["blobs"] == len(image.blobs) + 1
    assert windlass.ctr("leases", "ls", "-q") == ""


@pytest.mark.parametrize("how", ["give-up", "leave"])
def test_an_import_that_is_given_up(windlass: Machine, image: Archive, how: str) -> None:
    """Whether its client cancels it or goes away, nothing stays, and the daemon goes on."""
    assert drive(windlass, how, str(image.path)) == []


def test_an_archive_that_is_none(windlass: Machine) -> None:
    """The daemon's error arrives as it is."""
    answer = drive(windlass, "nonsense")
    assert str(answer).startswith("InvalidArgument: archive stream is damaged or no tar file")


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_a_mirror_that_wants_a_password_is_not_given_the_registry_s(
    windlass: Machine, image: Archive, registry: str, run: Run, tmp_path: Path, scheme: str
) -> None:
    """`--user` is for the registry in the image's name; a mirror has what docker's configuration has for it."""
    name = f"{registry}/mirrored:1"
    run("push", "--user", f"{USER}:{PASSWORD}", name, "example.org/thing:1")
    with running() as mirror:
        challenge = f'{scheme} realm="http://{mirror.authority}/token"'
        mirror.misbehaviours.append(lambda asked: asked.answered(401, b"{}", {"WWW-Authenticate": challenge}))
        hosts(tmp_path / "hosts", registry, f'server = "http://{registry}"\n[host."http://{mirror.authority}"]\n')

        run("pull", "--user", f"{USER}:{PASSWORD}", "--hosts-dir", str(tmp_path / "hosts"), name)
        assert mirror.requests
        basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        assert PASSWORD not in repr(mirror.bodies) and basic not in repr(mirror.requests)

        log_in(tmp_path, mirror.authority, "of-the-mirror")
        run("pull", "--user", f"{USER}:{PASSWORD}", "--hosts-dir", str(tmp_path / "hosts"), name)
        own = base64.b64encode(f"{USER}:of-the-mirror".encode()).decode()
        assert "of-the-mirror" in repr(mirror.bodies) or own in repr(mirror.requests)
        assert PASSWORD not in repr(mirror.bodies) and basic not in repr(mirror.requests)

"""Pods of the sandboxer `podsandbox`: a pause container holds each, as in containerd (docs/containerd 5.5)."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import groups
import grpc
import pytest
from compat.cri_daemon import CriDaemon, running_cri
from compat.images import Archive, busybox_layer
from compat.scratch_daemon import wait_until
from compat.test_cri_network import assert_nothing_left

# The promises of every pod, here held by pause containers.
from compat.test_cri_pods import (  # noqa: F401 - pytest runs them with this file's daemon
    linux,
    refused,
    test_a_hostname_on_the_hosts_network_is_refused_and_nothing_is_left,
    test_a_pod_and_a_container_run_and_are_gone_when_removed,
    test_a_pod_in_the_hosts_namespaces,
    test_a_shared_pid_namespace_is_the_pods,
    test_a_stopped_pod_is_not_ready_and_has_no_address,
    test_a_sysctl_of_the_host_fails_the_pod_and_leaves_nothing,
    test_a_verbose_status_has_containerds_keys,
    test_changed_resources_of_a_pod_are_kept,
    test_containers_of_a_pod_share_its_namespaces,
    test_events_of_a_pods_life_reach_also_a_late_subscriber,
    test_files_of_a_pod_are_its_own,
    test_stop_and_remove_may_be_repeated_and_meet,
    test_sysctls_are_set_and_pods_may_use_low_ports_and_ping,
    test_the_death_of_the_init_makes_a_pod_not_ready,
)
from compat.test_cri_recovery import (  # noqa: F401 - as above
    info_of,
    test_a_pod_is_after_a_crash_as_it_was,
    test_a_pod_of_the_hosts_network_is_found_again,
    test_a_pod_whose_init_died_meanwhile_is_not_ready,
    test_a_stopped_pod_stays_stopped,
    test_containers_can_be_made_in_a_pod_of_before_the_crash,
)

from windlass_api.containerd.services.containers.v1 import containers_pb2, containers_pb2_grpc
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_linux import netns

pytestmark = pytest.mark.root

PAUSE = "pause.test/pause:3"
NAMESPACE = (("containerd-namespace", "k8s.io"),)
HANDLERS = """[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
sandboxer = "podsandbox"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "pause.test/pause:3"
[plugins."io.containerd.cri.v1.images".registry]
"""


def archive(directory: Path) -> Archive:
    """Return an image that does nothing, whose labels pretend to be CRI's."""
    labels = {"version": "3", "io.cri-containerd.kind": "container"}
    command = ["/bin/sleep", "100000"]
    image = directory / "pause.tar"
    return Archive(image, PAUSE, [busybox_layer()], Cmd=[], Entrypoint=command, User="65535:65535", Labels=labels)


def registry(image: Archive, host: Path) -> ThreadingHTTPServer:
    """Serve one image on 127.0.0.1 of a network namespace."""
    served = {**image.blobs, "3": image.blobs[image.digest]}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data = served.get(self.path.partition("?")[0].rpartition("/")[2], b"{}")
            self.send_response(200)
            manifest = "/manifests/" in self.path
            self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json" if manifest else "x/y")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    return netns.within(host, partial(ThreadingHTTPServer, ("127.0.0.1", 0), Handler))


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that says where the image comes from."""
    path = tmp_path_factory.mktemp("certs") / "pause.test/hosts.toml"
    path.parent.mkdir()
    return path


@pytest.fixture(scope="module")
def cri_daemon(tmp_path_factory: pytest.TempPathFactory, rules: Path) -> Iterator[CriDaemon]:
    """A daemon whose pods have pause containers; the first one pulls their image."""
    certs = rules.parent.parent
    with running_cri(tmp_path_factory.mktemp("cri"), more=f'{HANDLERS}config_path = "{certs}"\n') as daemon:
        server = registry(archive(certs), daemon.host)
        rules.write_text(f'server = "http://127.0.0.1:{server.server_address[1]}"\n')
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield daemon
        finally:
            server.shutdown()
            server.server_close()


@pytest.fixture(autouse=True)
def clean(cri_daemon: CriDaemon) -> Iterator[None]:
    yield
    for pod in cri_daemon.pods():
        cri_daemon.remove_pod(pod.id)
    assert_nothing_left(cri_daemon)


def record_of(daemon: CriDaemon, id: str) -> containers_pb2.Container:
    stub = containers_pb2_grpc.ContainersStub(daemon.connection)
    return stub.Get(containers_pb2.GetContainerRequest(id=id), metadata=NAMESPACE, timeout=20).container


def spec_of(daemon: CriDaemon, pod: str) -> dict[str, object]:
    found = json.loads(record_of(daemon, pod).spec.value)
    assert isinstance(found, dict) and found == info_of(daemon, pod)["runtimeSpec"]
    return found


def test_the_sandbox_image_is_pulled_when_it_is_missing(cri_daemon: CriDaemon) -> None:
    image = cri.ImageSpec(image=PAUSE)
    cri_daemon.images.RemoveImage(cri.RemoveImageRequest(image=image), timeout=60)
    with cri_daemon.pod():
        found = cri_daemon.images.ImageStatus(cri.ImageStatusRequest(image=image), timeout=20).image
        assert found.pinned and found.repo_tags == [PAUSE]


def test_a_pause_container_is_of_the_image_and_of_the_pod(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod(cri_daemon.pod_config(labels={"app": "web"})) as pod:
        row = record_of(cri_daemon, pod)
        assert (row.image, row.snapshot_key) == (PAUSE, pod)
        assert dict(row.labels) == {"app": "web", "version": "3", "io.cri-containerd.kind": "sandbox"}
        assert not list(cri_daemon.runtime.ListContainers(cri.ListContainersRequest(), timeout=20).containers)
        info = info_of(cri_daemon, pod)
        assert (info["image"], info["snapshotKey"], info["snapshotter"]) == (PAUSE, pod, "overlayfs")


def test_the_spec_of_a_pause_container_is_containerds(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config("spec", hostname="web")
    config.linux.resources.cpu_shares = 7
    config.linux.sysctls["net.ipv4.ip_unprivileged_port_start"] = "80"
    with cri_daemon.pod(config) as pod:
        spec = spec_of(cri_daemon, pod)
        process, options = spec["process"], spec["linux"]
        assert isinstance(process, dict) and isinstance(options, dict)
        assert process["args"] == ["/bin/sleep", "100000"] and process["env"] == ["PATH=/bin"]
        assert process["user"] == {"uid": 65535, "gid": 65535, "additionalGids": [65535]}
        assert process["noNewPrivileges"] is True and "rlimits" not in process
        assert process["oomScoreAdj"] == max(-998, int(Path("/proc/self/oom_score_adj").read_text()))
        assert spec["root"] == {"path": "rootfs", "readonly": True} and spec["hostname"] == "web"
        assert options["resources"]["cpu"] == {"shares": 2}
        assert options["cgroupsPath"] == groups.path_of(pod)
        assert options["sysctl"] == {
            "net.ipv4.ip_unprivileged_port_start": "80",
            "net.ipv4.ping_group_range": "0 2147483647",
        }
        assert options["maskedPaths"] and options["readonlyPaths"] and "seccomp" not in options
        mounts = {each["destination"]: each for each in spec["mounts"]}  # type: ignore[attr-defined] # JSON
        assert "/run" not in mounts
        for place in ("/dev/shm", "/etc/resolv.conf"):
            assert mounts[place]["options"] == ["rbind", "ro", "nosuid", "nodev", "noexec"]
        prefix = "io.kubernetes.cri."
        annotations = {key.removeprefix(prefix): value for key, value in spec["annotations"].items()}  # type: ignore[attr-defined] # JSON
        assert annotations == {
            "container-type": "sandbox", "sandbox-id": pod, "sandbox-name": "spec", "sandbox-namespace": "default",
            "sandbox-uid": "uid-spec", "sandbox-log-directory": config.log_directory,
            "podsandbox.image-name": PAUSE, "sandbox-cpu-period": "0", "sandbox-cpu-quota": "0",
            "sandbox-cpu-shares": "7", "sandbox-memory": "0",
        }  # fmt: skip


def test_containers_are_in_the_namespaces_of_the_pause_container(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        config = cri_daemon.container_config()
        config.linux.security_context.namespace_options.pid = cri.POD
        container = cri_daemon.run_container(pod, config)
        pid = int(str(info_of(cri_daemon, pod)["pid"]))
        for kind in ("net", "ipc", "uts", "pid"):
            link = cri_daemon.exec(container, "/bin/readlink", f"/proc/self/ns/{kind}").strip()
            assert link == os.readlink(f"/proc/{pid}/ns/{kind}")
        assert "sleep" in cri_daemon.exec(container, "/bin/cat", "/proc/1/cmdline")


def test_the_end_of_a_pause_container_ends_the_containers_of_its_pid_namespace(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        config = cri_daemon.container_config()
        config.linux.security_context.namespace_options.pid = cri.POD
        inside, own = cri_daemon.run_container(pod, config), cri_daemon.run_container(pod)
        os.kill(int(str(info_of(cri_daemon, pod)["pid"])), signal.SIGKILL)
        assert wait_until(lambda: cri_daemon.pod_status(pod).status.state == cri.SANDBOX_NOTREADY)
        assert wait_until(lambda: cri_daemon.container_status(inside).state == cri.CONTAINER_EXITED)
        assert cri_daemon.container_status(inside).exit_code == 137
        assert cri_daemon.container_status(own).state == cri.CONTAINER_RUNNING
        assert info_of(cri_daemon, pod)["processStatus"] == "deleted"


def test_the_death_of_its_shim_makes_a_pod_not_ready(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        pause = int(str(info_of(cri_daemon, pod)["pid"]))
        (shim,) = [line.split()[1] for line in Path(f"/proc/{pause}/status").read_text().splitlines() if "PPid" in line]
        os.kill(int(shim), signal.SIGKILL)
        assert wait_until(lambda: cri_daemon.pod_status(pod).status.state == cri.SANDBOX_NOTREADY)
        assert wait_until(lambda: not Path(f"/proc/{pause}").exists())
    assert not list(cri_daemon.state.glob(f"**/{pod}"))


def test_a_pod_without_its_image_says_so_and_leaves_nothing(cri_daemon: CriDaemon, rules: Path) -> None:
    cri_daemon.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=PAUSE)), timeout=60)
    before = rules.read_text()
    rules.write_text('server = "http://127.0.0.1:1"\n')
    try:
        config = cri_daemon.pod_config("imageless")
        with refused(grpc.StatusCode.UNAVAILABLE, "imageless_default_uid-imageless_0: sandbox image: failed to pull"):
            cri_daemon.run_pod(config)
        assert_nothing_left(cri_daemon)
    finally:
        rules.write_text(before)
    with cri_daemon.pod(config):
        pass


def test_a_pause_container_that_cannot_be_created_is_taken_apart(cri_daemon: CriDaemon) -> None:
    config = cri_daemon.pod_config("profile")
    config.linux.security_context.seccomp.profile_type = cri.SecurityProfile.Localhost
    config.linux.security_context.seccomp.localhost_ref = "/nowhere/profile.json"
    with refused(grpc.StatusCode.UNKNOWN, "pod profile_default_uid-profile_0: sandbox: cannot load seccomp profile"):
        cri_daemon.run_pod(config)
    assert not list(cri_daemon.state.glob("io.containerd.runtime.v2.task/k8s.io/*"))
    rows = containers_pb2_grpc.ContainersStub(cri_daemon.connection).List(
        containers_pb2.ListContainersRequest(), metadata=NAMESPACE, timeout=20
    )
    assert not rows.containers

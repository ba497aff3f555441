"""Compares the specs that two CRI runtimes make of the same random requests, such as Windlass and containerd.

python scripts/compare_cri_specs.py OURS.sock THEIRS.sock IMAGE [COUNT] [SEED]

Both daemons have the image, and the same runtimes, CNI networks and CDI directories. Containers are created and never
started. What is known to differ, and why, is taken out before the comparison: see `explained`.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_api.runtime.v1 import api_pb2_grpc
from windlass_oci.defaults import default_spec

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
KINDS = ("plain", "shared", "node", "privileged", "user", "usernode", "slice")
HOST_NAMESPACES = {"node": ("network", "uts"), "usernode": ("network", "uts")}
BASE, LENGTH = 700_000, 65536
PLACES = ("/data", "/data/sub", "/etc/hosts", "/dev", "/dev/pts", "/sys/fs/cgroup", "data/rel", "/a//b/", "/etc/../x")
DEVICES = ("/dev/null", "/dev/zero", "/dev/stdin", "/dev/net", "/dev/nope", "/etc/hostname")
ADDED = ("SYS_TIME", "NET_ADMIN", "ALL", "CHOWN", "all", "kill", "MKNOD", "NOPE")


class Peer:
    """One daemon."""

    def __init__(self, address: str) -> None:
        self.runtime = api_pb2_grpc.RuntimeServiceStub(grpc.insecure_channel(f"unix:{address}"))

    def run(self, config: cri.PodSandboxConfig) -> str:
        """Run a pod."""
        return self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=60).pod_sandbox_id

    def spec(self, pod: str, in_pod: cri.PodSandboxConfig, config: cri.ContainerConfig) -> tuple[dict[str, Json], str]:
        """Return the spec of a container, or why there is none."""
        request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=in_pod)
        try:
            id = self.runtime.CreateContainer(request, timeout=60).container_id
        except grpc.RpcError as error:
            return {}, f"{error.code().name}: {error.details()}"
        try:
            asked = cri.ContainerStatusRequest(container_id=id, verbose=True)
            text = self.runtime.ContainerStatus(asked, timeout=20).info["info"]
            spec = json.dumps(json.loads(text)["runtimeSpec"]).replace(id, "CONTAINER").replace(pod, "POD")
            return json.loads(spec), ""
        finally:
            self.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=id), timeout=60)


def user_namespace(options: cri.NamespaceOption) -> None:
    """Ask for a user namespace."""
    options.userns_options.mode = cri.POD
    for ids in (options.userns_options.uids, options.userns_options.gids):
        ids.add(container_id=0, host_id=BASE, length=LENGTH)


def pod_of(kind: str) -> cri.PodSandboxConfig:
    """Return a pod's configuration."""
    config = cri.PodSandboxConfig(metadata=cri.PodSandboxMetadata(name=f"specs-{kind}", namespace="n", uid=kind))
    config.linux.cgroup_parent = "/a.slice/a-b.slice" if kind == "slice" else "/specs"
    config.linux.security_context.privileged = kind == "privileged"
    options = config.linux.security_context.namespace_options
    options.pid = cri.POD if kind == "shared" else cri.CONTAINER
    if kind.endswith("node"):
        options.network = cri.NODE
    if kind.startswith("user"):
        user_namespace(options)
    return config


@dataclass
class Requests:
    """Random requests."""

    random: random.Random
    image: str
    directory: Path

    def maybe(self, chance: float) -> bool:
        """Return True in some cases."""
        return self.random.random() < chance

    def some(self, *choices: str) -> list[str]:
        """Return some of the choices."""
        return [self.random.choice(choices) for _ in range(self.random.randint(0, 3))]

    def container(self, number: int, kind: str) -> cri.ContainerConfig:
        """Return a container's configuration."""
        config = cri.ContainerConfig(metadata=cri.ContainerMetadata(name=f"c{number}"))
        config.image.image = self.image
        config.command.extend(self.some("/bin/sh", "-c"))
        config.args.extend(self.some("a", "b c", ""))
        config.working_dir = self.random.choice(("", "/bin", "/nope"))
        config.tty = self.maybe(0.2)
        for name in self.some("FOO", "PATH", "HOSTNAME", "TERM", "X"):
            config.envs.add(key=name, value=self.random.choice((b"", b"v", b"a=b")))
        for place in self.some(*PLACES)[:2]:
            self.mount(config, place, kind)
        for path in self.some(*DEVICES)[:1]:
            config.devices.add(host_path=path, container_path=self.random.choice(("", "/dev/mine")), permissions="rw")
        self.secure(config.linux.security_context, kind)
        self.limit(config.linux.resources)
        return config

    def mount(self, config: cri.ContainerConfig, place: str, kind: str) -> None:
        """Add a mount."""
        source = self.random.choice((str(self.directory), str(self.directory / "new"), "/etc/hostname", "/dev/null"))
        made = config.mounts.add(container_path=place, host_path=source, readonly=self.maybe(0.5))
        made.recursive_read_only = made.readonly and self.maybe(0.2)
        if kind.startswith("user") and self.maybe(0.5):
            for ids in (made.uidMappings, made.gidMappings):
                ids.add(container_id=0, host_id=BASE, length=LENGTH)

    def secure(self, security: cri.LinuxContainerSecurityContext, kind: str) -> None:
        """Set who the process is and what it may do."""
        options = security.namespace_options
        options.pid = self.random.choice((cri.POD, cri.CONTAINER)) if kind == "shared" else cri.CONTAINER
        if kind.endswith("node"):
            options.network = cri.NODE
        if kind.startswith("user"):
            user_namespace(options)
        security.privileged = self.maybe(0.4 if kind == "privileged" else 0.02)
        security.capabilities.add_capabilities.extend(self.some(*ADDED))
        security.capabilities.drop_capabilities.extend(self.some("ALL", "CHOWN", "kill", "NOPE"))
        if self.maybe(0.3):
            security.run_as_user.value = self.random.choice((0, 33, 1000, 5555))
            security.supplemental_groups.extend(map(int, self.some("0", "5", "70000")))
        if self.maybe(0.2):
            security.run_as_group.value = 7
        security.supplemental_groups_policy = self.random.choice(cri.SupplementalGroupsPolicy.values())
        security.readonly_rootfs, security.no_new_privs = self.maybe(0.2), self.maybe(0.3)
        security.masked_paths.extend(self.some("/proc/kcore", "/a"))
        if self.maybe(0.4):
            security.seccomp.profile_type = self.random.choice(
                (cri.SecurityProfile.RuntimeDefault, cri.SecurityProfile.Unconfined)
            )

    def limit(self, resources: cri.LinuxContainerResources) -> None:
        """Set limits."""
        resources.cpu_period = self.random.choice((0, 50_000))
        resources.cpu_quota = self.random.choice((0, -1, 20_000))
        resources.cpu_shares = self.random.choice((0, 2, 1024))
        resources.memory_limit_in_bytes = self.random.choice((0, 64 << 20))
        resources.memory_swap_limit_in_bytes = self.random.choice((0, 0, 128 << 20))
        resources.oom_score_adj = self.random.choice((-997, 0, 1000))
        if self.maybe(0.2):
            resources.hugepage_limits.add(page_size="2MB", limit=4 << 20)
            resources.unified["memory.min"] = "1"


def explained(text: dict[str, Json], kind: str) -> Json:
    """Return a spec without what may differ: paths, orders without a meaning, and what is different on purpose."""
    words = json.dumps(text)
    words = re.sub(r'"[^"]*/sandboxes/POD/', '"SANDBOX/', words)
    words = re.sub(r'"[^"]*/containers/CONTAINER/volumes/[0-9a-f]+', '"VOLUME', words)
    spec = json.loads(words)
    process, linux = spec["process"], spec["linux"]
    spec.pop("ociVersion")
    for names in (process.get("capabilities") or {}).values():
        # runc takes no notice of names that no capability has.
        names[:] = sorted(name for name in names if not name.startswith("CAP_CAP_") and name != "CAP_NOPE")
    # Devices that every OCI runtime allows; Windlass writes them out.
    allowed = json.loads(json.dumps(default_spec("", "")["linux"]["resources"].get("devices")))[1:]
    linux["resources"]["devices"] = [rule for rule in linux["resources"]["devices"] if rule not in allowed]
    # Where the pod has the host's namespaces, containerd's containers join those of its pause container.
    left_out = HOST_NAMESPACES.get(kind, ())
    linux["namespaces"] = sorted(
        (each["type"], bool(each.get("path"))) for each in linux["namespaces"] if each["type"] not in left_out
    )
    # containerd mounts the host's /sys last, and so over the control groups.
    first = [each for each in spec["mounts"] if each["destination"] == "/sys" and "rro" in each["options"]]
    spec["mounts"] = first + [each for each in spec["mounts"] if each not in first]
    if rules := (linux.get("seccomp") or {}).get("syscalls"):
        linux["seccomp"]["syscalls"] = sorted(
            (name, rule["action"], json.dumps(rule.get("args") or [])) for rule in rules for name in rule["names"]
        )
        linux["seccomp"]["architectures"].sort()
    return without_nothing(json.loads(json.dumps(spec)))


def without_nothing(value: Json) -> Json:
    """Return a document without empty fields: Go leaves them out, or writes null."""
    if isinstance(value, dict):
        kept = {key: without_nothing(each) for key, each in value.items()}
        return {key: each for key, each in kept.items() if each not in (None, "", [], {}, False)}
    return [without_nothing(each) for each in value] if isinstance(value, list) else value


def differences(ours: Json, theirs: Json, path: str = "") -> Iterator[str]:
    """Yield where two documents differ, and how."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from differences(ours.get(key), theirs.get(key), f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif ours != theirs:
        yield f"{path}\n  ours   {json.dumps(ours)[:300]}\n  theirs {json.dumps(theirs)[:300]}"


@contextlib.contextmanager
def pods(peers: tuple[Peer, Peer]) -> Iterator[dict[str, tuple[str, str]]]:
    """Yield a pod of each kind in each daemon."""
    made: list[tuple[Peer, str]] = []
    try:
        found = {}
        for kind in KINDS:
            both = [peer.run(pod_of(kind)) for peer in peers]
            made += zip(peers, both, strict=True)
            found[kind] = (both[0], both[1])
        yield found
    finally:
        for peer, pod in made:
            peer.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=60)


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


def main(ours: str, theirs: str, image: str, count: str = "300", seed: str = "1") -> int:
    """Compare; return 1 when a spec differs."""
    peers, outcomes = (Peer(ours), Peer(theirs)), Counter[str]()
    with tempfile.TemporaryDirectory() as directory, pods(peers) as running:
        requests = Requests(random.Random(int(seed)), image, Path(directory))
        for number in range(int(count)):
            kind = requests.random.choice(KINDS)
            config = requests.container(number, kind)
            answers = [peer.spec(pod, pod_of(kind), config) for peer, pod in zip(peers, running[kind], strict=True)]
            if all(refusal for _, refusal in answers):
                outcomes["both refuse"] += 1
            elif any(refusal for _, refusal in answers):
                outcomes["one refuses"] += 1
                say(f"#{number} {kind}: {[refusal for _, refusal in answers]}")
            else:
                found = list(differences(explained(answers[0][0], kind), explained(answers[1][0], kind)))
                outcomes["different" if found else "same"] += 1
                for each in found:
                    say(f"#{number} {kind} {each}")
    say(str(dict(outcomes)))
    return 1 if outcomes["different"] or outcomes["one refuses"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

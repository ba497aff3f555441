"""A daemon whose host is a network namespace of the test's own, with a namespace outside that reaches it by a cable."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.images import Archive
from compat.machines import CALL_TIMEOUT, Machine, eventually

from windlass_linux import netns

PLUGINS = Path("/usr/lib/cni")
LAST = ("last_reserved_ip.0", "last_reserved_ip.1")
TOOLS = ("nsenter", "iptables", "ip6tables", "ip", "curl")
INSIDE, OUTSIDE = "198.51.100.1", "198.51.100.2"
INSIDE6, OUTSIDE6 = "2001:db8::1", "2001:db8::2"
RUN = Path("/run/windlass-client/netns")
IMAGE = "docker.io/library/busy:1"
WINDLASS = Path(sys.executable).with_name("windlass")

Result = subprocess.CompletedProcess[str]


class Place:
    """A network namespace in which commands run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        netns.create(path)

    def run(self, *command: str, check: bool = True, timeout: float = CALL_TIMEOUT) -> Result:
        """Run a command to its end."""
        inside = ["nsenter", f"--net={self.path}", *command]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done

    def output(self, *command: str) -> str:
        """Return what a command prints."""
        return self.run(*command).stdout

    def close(self) -> None:
        """Remove the namespace."""
        netns.remove(self.path)


class NetworkMachine(Machine):
    """A daemon in a namespace that stands for the host, and `windlass` that speaks to it there."""

    def __init__(self, kind: str, directory: Path) -> None:
        super().__init__(kind, directory)
        self.data = directory / "data"
        self.conf = directory / "net.d"
        self.bin = directory / "bin"
        self.bin.mkdir()
        for plugin in PLUGINS.iterdir():
            (self.bin / plugin.name).symlink_to(plugin)
        self.daemon = self._command
        self.places = directory.with_name(f"{directory.name}-places")
        self.places.mkdir()
        self.new_host()

    def new_host(self) -> None:
        """Make the host's namespace, as after a boot: no bridge, no rule."""
        name = uuid.uuid4().hex[:8]
        self.host, self.outside = Place(self.places / f"host-{name}"), Place(self.places / f"out-{name}")
        self._command = ["nsenter", f"--net={self.host.path}", *self.daemon]
        end = f"wn{name[:6]}"
        self.host.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", end)
        with subprocess.Popen(["nsenter", f"--net={self.outside.path}", "sleep", "60"]) as holder:
            # The namespace's own process tells `ip` where to put the other end.
            eventually(lambda: Path(f"/proc/{holder.pid}/ns/net").stat().st_ino == self.outside.path.stat().st_ino)
            self.host.run("ip", "link", "set", end, "netns", str(holder.pid))
            holder.kill()
        for place, device, four, six in (
            (self.host, "up0", INSIDE, INSIDE6),
            (self.outside, end, OUTSIDE, OUTSIDE6),
        ):
            place.run("ip", "address", "add", f"{four}/24", "dev", device)
            place.run("ip", "-6", "address", "add", f"{six}/64", "dev", device, "nodad")
            place.run("ip", "link", "set", device, "up")
        self.host.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    def windlass(self, *arguments: str, **environment: str) -> Result:
        """Run `windlass` on the host to its end."""
        env = {key: value for key, value in os.environ.items() if key != "WINDLASS_NETWORK"}
        env |= {"WINDLASS_CLIENT_DATA": str(self.data), "NETCONFPATH": str(self.conf), "CNI_PATH": str(self.bin)}
        command = [str(WINDLASS), "--address", self.address, "--namespace", self.namespace, *arguments]
        return subprocess.run(
            ["nsenter", f"--net={self.host.path}", *command],
            env={**env, **environment},
            capture_output=True,
            text=True,
            timeout=CALL_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )

    def ok(self, *arguments: str) -> str:
        """Run `windlass`, which must succeed, and return what it prints."""
        done = self.windlass(*arguments)
        assert done.returncode == 0, f"windlass {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, code: int = 125, **environment: str) -> str:
        """Run `windlass`, which must fail, and return its one line."""
        done = self.windlass(*arguments, **environment)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        (line,) = [each for each in done.stderr.splitlines() if each.startswith("windlass: ")]
        return line

    def serve(self, name: str, *options: str) -> None:
        """Start a container that answers HTTP on port 80 with its name."""
        script = f"echo {name} > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp"
        self.ok("run", "-d", "--name", name, *options, IMAGE, "sh", "-c", script)

    def fetch(self, url: str, place: Place | None = None) -> str:
        """Return what a server answers, empty if none does."""
        return (place or self.outside).run("curl", "-gsm3", url, check=False).stdout.strip()

    def inside(self, container: str, *command: str) -> Result:
        """Run a command in a container; by `ctr`, which starts faster than `windlass`."""
        return self.try_ctr("tasks", "exec", "--exec-id", f"x-{uuid.uuid4().hex[:12]}", container, *command)

    def hosts(self, container: str) -> str:
        """Return a container's `/etc/hosts`."""
        return self.inside(container, "cat", "/etc/hosts").stdout

    def fetch_inside(self, container: str, url: str) -> str:
        """Return what a server answers to a container, empty if none does."""
        return self.inside(container, "busybox", "timeout", "3", "busybox", "wget", "-qO-", url).stdout.strip()

    def reaches(self, container: str, url: str, answer: str) -> None:
        """Return when a server gives ``answer`` to a container; fail if it does not in time."""
        eventually(lambda: self.fetch_inside(container, url) == answer, 20)

    def document(self, network: str) -> dict[str, object]:
        """Return a network as `inspect` shows it."""
        (found,) = json.loads(self.ok("network", "inspect", network))
        return dict(found)

    def ip_of(self, container: str, network: str = "bridge") -> str:
        """Return a container's IPv4 address in a network, empty if it is not attached."""
        containers = self.document(network)["Containers"]
        assert isinstance(containers, dict)
        found = containers.get(container, {"IPv4Address": ""})["IPv4Address"]
        return str(found).partition("/")[0]

    def restarting(self) -> None:
        """Have the daemon look for containers that are to be restarted each second."""
        kind = "internal.v1" if self.kind == "containerd" else "monitor.container.v1"
        self.configure(f'[plugins."io.containerd.{kind}.restart"]\ninterval = "1s"')

    @property
    def key(self) -> str:
        """What all names of this machine's network namespaces begin with."""
        (directory,) = list(self.data.glob("*/*/containers")) or [self.data / "none"]
        return hashlib.sha256(str(directory.parent).encode()).hexdigest()[:8]

    def left(self) -> list[str]:
        """Return what is left of networks of containers: interfaces, rules, leases, results, names of namespaces."""
        links = [line for line in self.host.output("ip", "-o", "link").splitlines() if "veth" in line]
        rules = self.host.output("iptables-save") + self.host.output("ip6tables-save")
        own = [rule for rule in rules.splitlines() if "-j DNAT" in rule or "-d 10." in rule or "-s 10." in rule]
        shared = self.data / "networks"
        files = [each for each in shared.rglob("*") if each.is_file() and each.name not in ("lock", *LAST)]
        files += self.data.glob("*/*/containers/*")
        names = RUN.glob(f"{self.key}-*")
        return [*links, *own, *map(str, files), *map(str, names)]

    def clean(self) -> None:
        """Remove all containers and networks as a user would."""
        if ids := self.ctr("containers", "ls", "-q").split():
            self.windlass("rm", "-f", *ids)
        if any(each.stem != "bridge" for each in self.conf.glob("windlass/*.conflist")):
            self.ok("network", "prune", "-f")

    def close(self) -> None:
        """Remove containers as a user would, then all that `Machine.close` does, and the namespaces."""
        try:
            if self.ended() is None:
                self.clean()
            super().close()
        finally:
            for name in RUN.glob(f"{self.key}-*"):
                netns.remove(name)
            self.host.close()
            self.outside.close()


def running_network(kind: str, busy: Archive, directory: Path) -> Iterator[NetworkMachine]:
    """Yield a machine whose daemon runs and has an image; all of it is gone afterwards."""
    require_foreign_tools()
    if not (PLUGINS / "bridge").exists():
        pytest.skip("CNI plugins are not installed; apt install containernetworking-plugins")
    for tool in TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; apt install curl iproute2 iptables util-linux")
    machine = NetworkMachine(kind, directory)
    try:
        machine.restarting()
        machine.start()
        machine.ctr("images", "import", str(busy.path))
        yield machine
    finally:
        machine.close()

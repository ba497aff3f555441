"""The files that a pod's containers share: hostname, hosts, resolv.conf, and /dev/shm (docs/containerd 5.5)."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_linux import calls as linux
from windlass_linux.mounting import detach_all

SHM_OPTIONS = "mode=1777,size=65536k"
MODE = 0o644


class PodFiles:
    """The directory of one pod."""

    def __init__(self, directory: Path) -> None:
        """Have it made by `make`."""
        self.directory = directory
        self.hostname = directory / "hostname"
        self.hosts = directory / "hosts"
        self.resolv_conf = directory / "resolv.conf"
        self.shm = directory / "shm"

    def make(self, config: cri.PodSandboxConfig) -> None:
        """Write the files. Blocks; raises OSError."""
        self.directory.mkdir(mode=0o755, parents=True)
        self._write(self.hostname, (config.hostname or socket.gethostname()) + "\n")
        self._write(self.hosts, _host_file("/etc/hosts"))
        text = resolv_conf(config.dns_config) if config.HasField("dns_config") else _host_file("/etc/resolv.conf")
        self._write(self.resolv_conf, text)
        if config.linux.security_context.namespace_options.ipc != cri.NODE:
            self.shm.mkdir(mode=0o700)
            flags = linux.MS_NOEXEC | linux.MS_NOSUID | linux.MS_NODEV
            linux.mount("shm", self.shm, "tmpfs", flags, SHM_OPTIONS)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(MODE)

    def unmount(self) -> None:
        """Take /dev/shm away."""
        detach_all(self.shm)

    def remove(self) -> None:
        """Remove everything."""
        self.unmount()
        shutil.rmtree(self.directory, ignore_errors=True)


def resolv_conf(dns: cri.DNSConfig) -> str:
    """Return a resolv.conf, in containerd's order (docs/containerd/cri-facts, 21)."""
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "".join(f"{line}\n" for line in lines)


def _host_file(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except FileNotFoundError:
        return ""

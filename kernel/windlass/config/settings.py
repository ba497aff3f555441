"""The keys of config.toml that are not a plugin's, as classes to validate against.

Comments that begin with ``#:`` appear in `windlassd config default`.
"""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from windlass.contracts.diff import StreamProcessor
from windlass.records import dataclass


@dataclass(frozen=True)
class Grpc:
    """Section ``grpc`` of versions before 4, which became plugins' blocks."""

    address: str = ""
    tcp_address: str = ""
    tcp_tls_ca: str = ""
    tcp_tls_cert: str = ""
    tcp_tls_key: str = ""
    tcp_tls_common_name: str = ""
    uid: int = 0
    gid: int = 0
    max_recv_message_size: int = 0
    max_send_message_size: int = 0


@dataclass(frozen=True)
class Ttrpc:
    """Section ``ttrpc`` of versions before 4."""

    address: str = ""
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Debug:
    """Section ``debug``: the log; the address moved to a plugin's block in version 4."""

    #: Least severe level that is logged: trace, debug, info, warn, error, fatal or panic; empty is info.
    level: Literal["", "trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"] = ""
    #: Form of log lines: text or json; empty is text.
    format: Literal["", "text", "json"] = ""
    #: Give lines about a client's request the ID of its trace also on levels above debug.
    log_trace_id: bool = False
    address: str = ""
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Metrics:
    """Section ``metrics`` of versions before 4."""

    address: str = ""
    grpc_histogram: bool = False


@dataclass(frozen=True)
class Cgroup:
    """Section ``cgroup``."""

    #: Control group that the daemon joins, made if it is not there; empty to stay where it was started.
    path: str = ""


@dataclass(frozen=True)
class ProxyPlugin:
    """A plugin behind a socket."""

    #: snapshot (also snapshotter), content, sandbox or diff.
    type: Literal["snapshot", "snapshotter", "content", "sandbox", "diff"]
    #: Path of its socket.
    address: str
    #: The platform it works for; empty is the host's.
    platform: str = ""
    exports: dict[str, str] = field(default_factory=dict)
    capabilities: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TopLevel:
    """Every key that a file may have outside of sections, and the sections."""

    #: Version of the format of this file.
    version: int = 0
    #: Directory for what must survive a reboot.
    root: str = ""
    #: Directory for what is lost at a reboot.
    state: str = ""
    #: Directory for temporary files; empty is $TMPDIR or /tmp.
    temp: str = ""
    #: Files, or patterns with *, whose settings are laid over those of this one.
    imports: list[str] = field(default_factory=list)
    #: URIs of plugins that are not to be started.
    disabled_plugins: list[str] = field(default_factory=list)
    #: URIs of plugins without which the daemon does not start.
    required_plugins: list[str] = field(default_factory=list)
    #: The daemon's oom_score_adj, -1000 to 1000; 0 leaves it as it is.
    oom_score: int = 0
    plugin_dir: str = ""
    cgroup: Cgroup = field(default_factory=Cgroup)
    debug: Debug = field(default_factory=Debug)
    grpc: Grpc = field(default_factory=Grpc)
    ttrpc: Ttrpc = field(default_factory=Ttrpc)
    metrics: Metrics = field(default_factory=Metrics)
    #: How long to wait for what: "5s", "1m30s".
    timeouts: dict[str, str] = field(default_factory=dict)
    proxy_plugins: dict[str, ProxyPlugin] = field(default_factory=dict)
    stream_processors: dict[str, StreamProcessor] = field(default_factory=dict)
    plugins: dict[str, dict[str, object]] = field(default_factory=dict)


LEGACY = ("grpc", "ttrpc", "metrics", "plugin_dir")
"""Keys that version 4 does not have."""

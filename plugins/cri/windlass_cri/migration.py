"""CRI's settings of before version 3, one block for everything, in the three blocks of today (docs/containerd 5.3).

Files of version 3 that still have the old keys work in containerd, so each step looks for them.
"""

from __future__ import annotations

from typing import Any

OLD = "io.containerd.grpc.v1.cri"
IMAGES = "io.containerd.cri.v1.images"
RUNTIME = "io.containerd.cri.v1.runtime"

# Any: TOML tables as parsed.
Block = dict[str, Any]

_SERVER = frozenset(
    {
        "disable_tcp_service",
        "stream_server_address",
        "stream_server_port",
        "stream_idle_timeout",
        "enable_tls_streaming",
        "x509_key_pair_streaming",
    }
)
_OF_IMAGES = frozenset(
    {
        "registry",
        "image_decryption",
        "max_concurrent_downloads",
        "image_pull_progress_timeout",
        "image_pull_with_sync_fs",
        "stats_collect_period",
    }
)
_OF_SNAPSHOTS = frozenset({"snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"})
_GONE = frozenset({"systemd_cgroup", "disable_cgroup"})
_NAMED = {"default_runtime": "default", "untrusted_workload_runtime": "untrusted"}
"""Tables of one runtime, before there was a table of runtimes, and the handlers that they stand for."""


def migrate(plugins: Block) -> None:
    """Move what is not the streaming server's to the blocks of images and of the runtime; what they have stays."""
    old = plugins.get(OLD, {})
    moved = [key for key in old if key not in _SERVER]
    if not moved:
        return
    values = {key: old.pop(key) for key in moved}
    containerd = dict(values.pop("containerd", {}))
    images: Block = {key: values.pop(key) for key in moved if key in _OF_IMAGES}
    images |= {key: containerd.pop(key) for key in list(containerd) if key in _OF_SNAPSHOTS}
    if sandbox := values.pop("sandbox_image", ""):
        images["pinned_images"] = {"sandbox": sandbox}
    runtime = {key: value for key, value in values.items() if key not in _GONE or value}
    if "cni" in runtime:
        runtime["cni"] = _cni(runtime["cni"])
    if containerd:
        runtime["containerd"] = _containerd(containerd)
    for uri, found in ((IMAGES, images), (RUNTIME, runtime)):
        if found:
            _fill(plugins.setdefault(uri, {}), found)


def _cni(old: Block) -> Block:
    new = dict(old)
    directory = new.pop("bin_dir", "")
    return {"bin_dirs": [directory], **new} if directory else new


def _containerd(old: Block) -> Block:
    new = {key: value for key, value in old.items() if key not in _NAMED and (key != "no_pivot" or value)}
    runtimes = {name: _runtime(each) for name, each in new.get("runtimes", {}).items()}
    for key, name in _NAMED.items():
        if old.get(key, {}).get("runtime_type"):
            runtimes.setdefault(name, _runtime(old[key]))
            if name == "default":
                new["default_runtime_name"] = name
    if runtimes:
        new["runtimes"] = runtimes
    return new


def _runtime(old: Block) -> Block:
    """Return a handler without what was removed and is not set, as generated files have it."""
    new = {key: value for key, value in old.items() if value or key not in ("runtime_engine", "runtime_root")}
    mode = new.pop("sandbox_mode", "")
    return {"sandboxer": mode, **new} if mode else new


def _fill(block: Block, found: Block) -> None:
    """Put what a block does not have; tables are filled in turn."""
    for key, value in found.items():
        if isinstance(value, dict) and isinstance(block.get(key), dict):
            _fill(block[key], value)
        else:
            block.setdefault(key, value)

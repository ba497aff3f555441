"""What containerd's configuration knows beyond ours: plugins' keys, and names of before version 2.

A key listed here is never an error; where no installed plugin has it, the
daemon warns that it has no effect (docs/containerd 1.3, 2.1 to 2.5, 5.1 to 5.3, and
`containerd config default` of 1.6, 1.7 and 2.x).
"""

from __future__ import annotations

GRPC_SERVER = "io.containerd.server.v1.grpc"
TCP_SERVER = "io.containerd.server.v1.grpc-tcp"
TTRPC_SERVER = "io.containerd.server.v1.ttrpc"
DEBUG_SERVER = "io.containerd.server.v1.debug"
METRICS_SERVER = "io.containerd.server.v1.metrics"
PROMETHEUS = "io.containerd.metrics.v1.grpc-prometheus"

_TCP = "address tls_ca tls_cert tls_key tls_common_name max_recv_message_size max_send_message_size"
_IMAGES = (
    "snapshotter disable_snapshot_annotations discard_unpacked_layers pinned_images runtime_platforms runtime_platform "
    "registry image_decryption max_concurrent_downloads concurrent_layer_fetch_buffer image_pull_progress_timeout "
    "image_pull_with_sync_fs stats_collect_period use_local_image_pull"
)
_RUNTIME = (
    "containerd cni enable_selinux selinux_category_range disable_apparmor restrict_oom_score_adj disable_proc_mount "
    "unset_seccomp_profile max_container_log_line_size tolerate_missing_hugetlb_controller disable_hugetlb_controller "
    "device_ownership_from_security_context ignore_image_defined_volumes netns_mounts_under_state_dir "
    "enable_unprivileged_ports enable_unprivileged_icmp enable_cdi cdi_spec_dirs drain_exec_sync_io_timeout "
    "ignore_deprecation_warnings stats_collect_period stats_retention_period enable_criu"
)
_CRI = (
    "disable_tcp_service stream_server_address stream_server_port stream_idle_timeout enable_tls_streaming "
    "x509_key_pair_streaming sandbox_image systemd_cgroup disable_cgroup image_pull_progress_timeout"
)

_KEYS = {
    "io.containerd.internal.v1.opt": "path",
    "io.containerd.internal.v1.tracing": "service_name sampling_ratio",
    "io.containerd.internal.v1.restart": "interval",
    "io.containerd.tracing.processor.v1.otlp": "endpoint protocol insecure",
    GRPC_SERVER: "address uid gid max_recv_message_size max_send_message_size",
    TCP_SERVER: _TCP,
    TTRPC_SERVER: "address uid gid",
    DEBUG_SERVER: "address uid gid",
    METRICS_SERVER: "address",
    PROMETHEUS: "grpc_histogram",
    "io.containerd.metadata.v1.bolt": "content_sharing_policy no_sync",
    "io.containerd.gc.v1.scheduler": (
        "pause_threshold deletion_threshold mutation_threshold schedule_delay startup_delay"
    ),
    "io.containerd.image-verifier.v1.bindir": "bin_dir max_verifiers per_verifier_timeout",
    "io.containerd.snapshotter.v1.aufs": "root_path",
    "io.containerd.snapshotter.v1.zfs": "root_path",
    "io.containerd.snapshotter.v1.native": "root_path",
    "io.containerd.snapshotter.v1.btrfs": "root_path",
    "io.containerd.snapshotter.v1.overlayfs": (
        "root_path upperdir_label sync_remove slow_chown mount_options async_remove"
    ),
    "io.containerd.snapshotter.v1.devmapper": (
        "root_path pool_name base_image_size async_remove discard_blocks fs_type fs_options"
    ),
    "io.containerd.snapshotter.v1.blockfile": "root_path scratch_file fs_type mount_options recreate_scratch",
    "io.containerd.snapshotter.v1.erofs": (
        "root_path ovl_mount_options enable_fsverity set_immutable default_size dmverity_mode layer_content_caches"
    ),
    "io.containerd.differ.v1.erofs": "mkfs_options enable_tar_index enable_dmverity",
    "io.containerd.shim.v1.manager": "env socket_dir",
    "io.containerd.runtime.v1.linux": "shim runtime runtime_root no_shim shim_debug",
    "io.containerd.runtime.v2.task": "platforms sched_core",
    "io.containerd.runtime.v2.shim": "env sched_core",
    "io.containerd.monitor.v1.cgroups": "no_prometheus",
    "io.containerd.monitor.task.v1.cgroups": "no_prometheus",
    "io.containerd.monitor.container.v1.restart": "interval",
    "io.containerd.nri.v1.nri": (
        "disable socket_path plugin_path plugin_config_path plugin_registration_timeout plugin_request_timeout "
        "disable_connections default_validator config_file"
    ),
    "io.containerd.transfer.v1.local": (
        "max_concurrent_downloads concurrent_layer_fetch_buffer max_concurrent_uploaded_layers max_concurrent_unpacks "
        "check_platform_supported config_path unpack_config"
    ),
    "io.containerd.service.v1.diff-service": "default sync_fs",
    "io.containerd.service.v1.tasks-service": "blockio_config_file rdt_config_file",
    "io.containerd.cri.v1.images": _IMAGES,
    "io.containerd.cri.v1.runtime": _RUNTIME,
    "io.containerd.grpc.v1.cri": f"{_CRI} {_IMAGES} {_RUNTIME}",
}

TIMEOUTS = {
    "io.containerd.timeout.shim.load": 5.0,
    "io.containerd.timeout.shim.cleanup": 5.0,
    "io.containerd.timeout.shim.shutdown": 3.0,
    "io.containerd.timeout.task.state": 2.0,
    "io.containerd.timeout.bolt.open": 0.0,
    "io.containerd.timeout.metrics.shimstats": 2.0,
    "io.containerd.timeout.cri.defercleanup": 60.0,
}
"""Seconds; 0 is for as long as it takes."""


NOT_BUILT = (
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.aufs",
)
"""Plugins that containerd has or had and Windlass does not have: no installation brings them."""


def is_containerds(uri: str) -> bool:
    """Return whether containerd has a plugin of that URI which takes a block."""
    return uri in _KEYS


def containerd_knows(uri: str, key: str) -> bool:
    """Return whether a plugin's block may have ``key`` on its first level in containerd."""
    return key in _KEYS.get(uri, "").split()


_SHORT = {
    "cri": "io.containerd.grpc.v1",
    "cgroups": "io.containerd.monitor.v1",
    "linux": "io.containerd.runtime.v1",
    "scheduler": "io.containerd.gc.v1",
    "bolt": "io.containerd.metadata.v1",
    "task": "io.containerd.runtime.v2",
    "opt": "io.containerd.internal.v1",
    "restart": "io.containerd.internal.v1",
    "tracing": "io.containerd.internal.v1",
    "otlp": "io.containerd.tracing.processor.v1",
    **dict.fromkeys(
        ("aufs", "blockfile", "btrfs", "devmapper", "native", "overlayfs", "windows", "windows-lcow", "zfs"),
        "io.containerd.snapshotter.v1",
    ),
}


def uri_of(name: str) -> str:
    """Return the URI for a plugin's name of before version 2; a name with a dot is one already."""
    if "." in name:
        return name
    other = "io.containerd.service.v1" if name.endswith("-service") else "io.containerd.grpc.v1"
    return f"{_SHORT.get(name, other)}.{name}"

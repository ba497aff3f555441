"""The configuration of CRI, with containerd's keys (docs/containerd 5.1 to 5.3)."""

from __future__ import annotations

from dataclasses import field

from windlass.config import durations
from windlass.config.effects import only, without_effect
from windlass.records import dataclass

BIN_DIRS = ("/opt/cni/bin",)


@dataclass(frozen=True)
class Runtime:
    """One of ``containerd.runtimes``: what a runtime handler of Kubernetes stands for."""

    #: The runtime, as for a container.
    runtime_type: str = "io.containerd.runc.v2"
    #: Absolute path of the shim's binary, in place of looking it up.
    runtime_path: str = ""
    #: Options of the runtime, such as BinaryName.
    options: dict[str, object] = field(default_factory=dict)
    #: Patterns of a pod's annotations that its containers' specs get.
    pod_annotations: tuple[str, ...] = ()
    #: Patterns of a container's annotations that its spec gets.
    container_annotations: tuple[str, ...] = ()
    #: Whether privileged containers get no devices of the host.
    privileged_without_host_devices: bool = False
    #: Whether such containers may use all devices nevertheless, once they have made files for them.
    privileged_without_host_devices_all_devices_allowed: bool = False
    #: Whether containers that are not privileged may write to their control groups; cgroup v2 only.
    cgroup_writable: bool = False
    #: JSON file of an OCI spec that containers' specs are made from, instead of from the defaults.
    base_runtime_spec: str = ""
    #: Directory of network configurations of its own; empty for that of all.
    cni_conf_dir: str = ""
    #: How many of its networks a pod gets, 0 for all.
    cni_max_conf_num: int = 0
    #: The snapshotter of its containers; empty for that of all.
    snapshotter: str = ""
    #: ID of the sandbox controller that makes its pods.
    sandboxer: str = "windlass"
    #: Sandbox controllers pull images themselves.
    disable_pause_image_pull: bool = without_effect(False)
    #: Streams are FIFOs.
    io_type: str = without_effect("", "fifo")

    def __post_init__(self) -> None:
        """Refuse what would have no effect."""
        if self.privileged_without_host_devices_all_devices_allowed and not self.privileged_without_host_devices:
            raise ValueError(
                "privileged_without_host_devices_all_devices_allowed needs privileged_without_host_devices = true"
            )


@dataclass(frozen=True)
class Containerd:
    """Table ``containerd``: the runtimes."""

    #: The handler of pods that name none.
    default_runtime_name: str = "runc"
    #: Handlers by name; runc is there without being named.
    runtimes: dict[str, Runtime] = field(default_factory=lambda: {"runc": Runtime()})
    #: Leave out the block I/O classes that annotations name, instead of refusing their containers.
    ignore_blockio_not_enabled_errors: bool = False
    #: Leave out the RDT classes that annotations name, instead of refusing their containers.
    ignore_rdt_not_enabled_errors: bool = False

    def __post_init__(self) -> None:
        """Refuse a default that is not configured."""
        if self.default_runtime_name not in {"runc", *self.runtimes}:
            there = ", ".join(sorted({"runc", *self.runtimes}))
            raise ValueError(f'default_runtime_name is "{self.default_runtime_name}", runtimes has {there}')


@dataclass(frozen=True)
class Cni:
    """Table ``cni``: the network."""

    #: Directories of CNI plugins.
    bin_dirs: tuple[str, ...] = BIN_DIRS
    #: The only directory of CNI plugins; older than bin_dirs.
    bin_dir: str = ""
    #: Directory of network configurations.
    conf_dir: str = "/etc/cni/net.d"
    #: How many of its networks a pod gets, 0 for all.
    max_conf_num: int = 1
    #: Attach to several networks one after the other.
    setup_serially: bool = False
    #: Which of a pod's addresses is its main one: ipv4, ipv6, or cni for the first.
    ip_pref: str = ""
    #: File that a network configuration is made of once the kubelet knows the pods' addresses; empty for none.
    conf_template: str = ""
    #: Set the loopback interface up without the CNI plugin loopback, as is always done here.
    use_internal_loopback: bool = False

    def __post_init__(self) -> None:
        """Refuse two places of plugins, and a family that is none."""
        if self.bin_dir and self.bin_dirs not in ((), BIN_DIRS):
            raise ValueError("bin_dir and bin_dirs are both set; leave out bin_dir")
        if self.ip_pref not in ("", "ipv4", "ipv6", "cni"):
            raise ValueError(f'ip_pref is "{self.ip_pref}"; it has to be ipv4, ipv6, cni or empty')

    @property
    def programs(self) -> tuple[str, ...]:
        """The directories of CNI plugins."""
        return (self.bin_dir,) if self.bin_dir else self.bin_dirs


@dataclass(frozen=True)
class RuntimeConfig:
    """Configuration of ``io.containerd.cri.v1.runtime``."""

    containerd: Containerd = field(default_factory=Containerd)
    cni: Cni = field(default_factory=Cni)
    #: Give containers labels of SELinux, where the host has it.
    enable_selinux: bool = False
    #: How many categories a container's own SELinux level is chosen from.
    selinux_category_range: int = 1024
    #: Confine no container by AppArmor.
    disable_apparmor: bool = False
    #: Never ask Linux for a lower oom_score_adj than the daemon's own.
    restrict_oom_score_adj: bool = False
    #: Mask and protect the default paths of every container in place of those that the kubelet sends.
    disable_proc_mount: bool = False
    #: Seccomp profile of containers that ask for none: empty and unconfined are none, runtime/default, localhost/PATH.
    unset_seccomp_profile: str = ""
    #: Take limits for huge pages for unset where Linux has no hugetlb controller.
    tolerate_missing_hugetlb_controller: bool = True
    #: Take limits for huge pages for unset.
    disable_hugetlb_controller: bool = True
    #: Devices in a container belong to the user and the group that the client has it run as.
    device_ownership_from_security_context: bool = False
    #: Pods with a network of their own may use ports below 1024 without a capability.
    enable_unprivileged_ports: bool = True
    #: Pods with a network of their own may ping without a capability.
    enable_unprivileged_icmp: bool = True
    #: Give containers the devices of the Container Device Interface that clients name.
    enable_cdi: bool = True
    #: Directories of CDI specs; a later one wins.
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    #: Name pods' network namespaces below the daemon's state directory, not in /var/run/netns.
    netns_mounts_under_state_dir: bool = False
    #: How long ExecSync waits for streams that are open after the end of its process.
    drain_exec_sync_io_timeout: str = without_effect("0s", "", "0")
    #: Deprecations that the kubelet is not to learn of; there are none.
    ignore_deprecation_warnings: tuple[str, ...] = ()
    #: Make no volumes for the VOLUMEs of images.
    ignore_image_defined_volumes: bool = False
    #: Bytes after which a line of a log is split; 0 or less is never.
    max_container_log_line_size: int = 16384
    #: Directory of the files that CNI plugins' results are cached in.
    cni_cache_dir: str = "/var/lib/cni/results"
    #: How often processor time is sampled while clients ask for usage; empty is 1s.
    stats_collect_period: str = ""
    #: How long after the last such question samples are taken and kept; empty is 2m.
    stats_retention_period: str = ""
    #: Whether containers and pods can be checkpointed, where criu is installed.
    enable_criu: bool = True

    def __post_init__(self) -> None:
        """Refuse times that are none, and a number of categories that SELinux has not."""
        for text in (self.stats_collect_period, self.stats_retention_period):
            if text and durations.seconds(text) <= 0:
                raise ValueError("stats_collect_period and stats_retention_period have to be more than 0")
        if self.selinux_category_range not in (0, *range(2, 1025)):
            raise ValueError("selinux_category_range has to be from 2 to 1024, or 0 for all")


@dataclass(frozen=True)
class RegistryConfig:
    """Table ``registry``: where images are pulled from."""

    #: Directories with hosts.toml files, separated by colons; empty for those of io.containerd.transfer.v1.local.
    config_path: str = ""
    #: Before hosts.toml files: use config_path.
    mirrors: dict[str, object] = field(default_factory=dict, metadata=only({}))
    #: Before hosts.toml files: use config_path.
    configs: dict[str, object] = field(default_factory=dict, metadata=only({}))
    #: The kubelet sends credentials.
    auths: dict[str, object] = field(default_factory=dict, metadata=only({}))
    #: Headers of requests to registries: hosts.toml files have them.
    headers: dict[str, object] = field(default_factory=dict, metadata=only({}))


@dataclass(frozen=True)
class ImageDecryption:
    """Table ``image_decryption``."""

    #: Where keys are; stream_processors names the program that has them.
    key_model: str = without_effect("node", "")


@dataclass(frozen=True)
class RuntimePlatform:
    """One of ``runtime_platforms``, by runtime handler."""

    #: The snapshotter that images are unpacked into for the handler's pods.
    snapshotter: str = ""
    #: The platform of its images; it is the machine's.
    platform: str = without_effect("")


@dataclass(frozen=True)
class ImagesConfig:
    """Configuration of ``io.containerd.cri.v1.images``."""

    #: The snapshotter of images and containers.
    snapshotter: str = "overlayfs"
    #: Images that the kubelet must not collect, by what they are for.
    pinned_images: dict[str, str] = field(default_factory=lambda: {"sandbox": "registry.k8s.io/pause:3.10.2"})
    #: What runtime handlers have of their own.
    runtime_platforms: dict[str, RuntimePlatform] = field(default_factory=dict)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    #: How long a registry may bring less than 16 KiB while it is asked; "0s" for ever.
    image_pull_progress_timeout: str = "5m0s"
    #: Seconds for which a measurement of the snapshots' sizes is good.
    stats_collect_period: int = 10
    #: Snapshotters get no annotations of layers; io.containerd.transfer.v1.local has unpack_config for them.
    disable_snapshot_annotations: bool = without_effect(True)
    #: Compressed layers are kept.
    discard_unpacked_layers: bool = without_effect(False)
    #: io.containerd.transfer.v1.local has it.
    max_concurrent_downloads: int = without_effect(3)
    #: io.containerd.transfer.v1.local has it.
    concurrent_layer_fetch_buffer: int = without_effect(0)
    #: Layers are not synchronised one by one.
    image_pull_with_sync_fs: bool = without_effect(False)
    #: Images are always pulled by the transfer service.
    use_local_image_pull: bool = without_effect(False)
    image_decryption: ImageDecryption = field(default_factory=ImageDecryption)

    def __post_init__(self) -> None:
        """Refuse a time that is not one."""
        if durations.seconds(self.image_pull_progress_timeout) < 0 or self.stats_collect_period < 0:
            raise ValueError("image_pull_progress_timeout and stats_collect_period have to be 0 or more")


@dataclass(frozen=True)
class KeyPair:
    """Table ``x509_key_pair_streaming``: PEM files."""

    tls_cert_file: str = ""
    tls_key_file: str = ""


@dataclass(frozen=True)
class ServerConfig:
    """Configuration of ``io.containerd.grpc.v1.cri``: the streaming server."""

    #: Address that it listens on; it gives URLs to the kubelet alone.
    stream_server_address: str = "127.0.0.1"
    #: Its port, "0" for any.
    stream_server_port: str = "0"
    #: How long a connection may be without traffic.
    stream_idle_timeout: str = "4h0m0s"
    #: The socket serves CRI, and no port does.
    disable_tcp_service: bool = without_effect(True)
    #: Serve by HTTPS, with x509_key_pair_streaming or else with a certificate that the daemon signs itself.
    enable_tls_streaming: bool = False
    #: Certificate and key of the streaming server.
    x509_key_pair_streaming: KeyPair = field(default_factory=KeyPair)

    def __post_init__(self) -> None:
        """Refuse half of a key pair, and one without TLS."""
        pair = self.x509_key_pair_streaming
        if bool(pair.tls_cert_file) != bool(pair.tls_key_file):
            raise ValueError("x509_key_pair_streaming needs both tls_cert_file and tls_key_file")
        if pair.tls_cert_file and not self.enable_tls_streaming:
            raise ValueError("x509_key_pair_streaming has no effect; set enable_tls_streaming = true")

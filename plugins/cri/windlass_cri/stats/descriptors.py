"""The metrics of containers and pods by name, with containerd's labels in its order (docs/containerd 5.11)."""

from __future__ import annotations

from windlass.records import dataclass

BASE = ("pod", "namespace", "container", "id", "image")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One metric; ``more`` are its labels beyond those of all."""

    name: str
    help: str
    more: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels."""
        return (*BASE, *self.more)


_CPU = (
    Descriptor("container_cpu_user_seconds_total", "Seconds of processor time in user mode."),
    Descriptor("container_cpu_system_seconds_total", "Seconds of processor time in Linux itself."),
    Descriptor("container_cpu_usage_seconds_total", "Seconds of processor time."),
    Descriptor("container_cpu_cfs_periods_total", "Periods of the processor quota that have passed."),
    Descriptor("container_cpu_cfs_throttled_periods_total", "Periods in which the quota ran out."),
    Descriptor("container_cpu_cfs_throttled_seconds_total", "Seconds of waiting for the next period of the quota."),
)
_MEMORY = (
    Descriptor("container_memory_cache", "Bytes of the page cache."),
    Descriptor("container_memory_rss", "Bytes of anonymous memory, with swap that is cached."),
    Descriptor("container_memory_kernel_usage", "Bytes that Linux itself uses for the container."),
    Descriptor("container_memory_mapped_file", "Bytes of files that are mapped."),
    Descriptor("container_memory_swap", "Bytes of swap."),
    Descriptor("container_memory_failcnt", "How often usage hit the limit; always 0 with cgroup version 2."),
    Descriptor("container_memory_usage_bytes", "Bytes of memory, the page cache included."),
    Descriptor("container_memory_max_usage_bytes", "The most bytes of memory that were used at once."),
    Descriptor("container_memory_working_set_bytes", "Bytes of memory but for files not used lately."),
    Descriptor("container_memory_total_active_file_bytes", "Bytes of the page cache used lately."),
    Descriptor("container_memory_total_inactive_file_bytes", "Bytes of the page cache not used lately."),
    Descriptor("container_memory_failures_total", "Page faults by type.", ("failure_type", "scope")),
    Descriptor("container_oom_events_total", "Processes that Linux killed because memory was short."),
)
_NETWORK = tuple(
    Descriptor(f"container_network_{way}_{what}_total", f"{words} {direction}.", ("interface",))
    for way, direction in (("receive", "in"), ("transmit", "out"))
    for what, words in (
        ("bytes", "Bytes"),
        ("packets", "Packets"),
        ("packets_dropped", "Packets that were dropped on their way"),
        ("errors", "Errors on the way"),
    )
)
_DISK = (
    Descriptor("container_fs_inodes_free", "Inodes that are free on the file system.", ("device",)),
    Descriptor("container_fs_inodes_total", "Inodes that the container's files take.", ("device",)),
    Descriptor("container_fs_limit_bytes", "Size of the file system in bytes.", ("device",)),
    Descriptor("container_fs_usage_bytes", "Bytes that the container's files take.", ("device",)),
)
_DISK_IO = (
    Descriptor("container_fs_reads_bytes_total", "Bytes read.", ("device",)),
    Descriptor("container_fs_reads_total", "Reads.", ("device",)),
    Descriptor("container_fs_writes_bytes_total", "Bytes written.", ("device",)),
    Descriptor("container_fs_writes_total", "Writes.", ("device",)),
    Descriptor("container_blkio_device_usage_total", "Bytes by operation.", ("device", "major", "minor", "operation")),
)
_PROCESSES = (
    Descriptor("container_processes", "Processes and threads."),
    Descriptor("container_file_descriptors", "Open file descriptors."),
    Descriptor("container_sockets", "Open sockets."),
    Descriptor("container_threads_max", "The most threads that there may be; 0 is any number."),
    Descriptor("container_threads", "Threads."),
    Descriptor("container_ulimits_soft", "Soft resource limits of the first process.", ("ulimit",)),
)
_OTHERS = (
    Descriptor("container_last_seen", "When the container was seen last, in seconds since the epoch."),
    Descriptor("container_start_time_seconds", "When it was started, in seconds since the epoch."),
    Descriptor("container_spec_cpu_period", "Period of its processor quota in microseconds."),
    Descriptor("container_spec_cpu_shares", "Its shares of the processors."),
    Descriptor("container_spec_memory_limit_bytes", "Its limit of memory."),
    Descriptor("container_spec_memory_reservation_limit_bytes", "Its soft limit of memory."),
    Descriptor("container_spec_memory_swap_limit_bytes", "Its limit of memory and swap."),
)
ALL = (*_CPU, *_MEMORY, *_NETWORK, *_DISK, *_DISK_IO, *_PROCESSES, *_OTHERS)


def is_counter(name: str) -> bool:
    """Return whether a metric only grows; the others are gauges."""
    return name == "container_memory_failcnt" or (name.endswith("_total") and name != "container_fs_inodes_total")

"""What the metrics of a cgroup are called, and where in the task API's messages their values are.

A row of a table is the name without ``container_``, the unit that ends it, and
the path of the field. Containerd gives memory's event counters the unit bytes
too, and dashboards know them by that.

Source: docs/containerd 4.12.
"""

from __future__ import annotations

Row = tuple[str, str, str]

_V2_MEMORY = (
    "usage usage_limit swap_usage swap_limit file_mapped file_dirty file_writeback pgactivate pgdeactivate pgfault "
    "pgmajfault pglazyfree pgrefill pglazyfreed pgscan pgsteal inactive_anon active_anon inactive_file active_file "
    "unevictable anon file kernel_stack slab sock shmem anon_thp slab_reclaimable slab_unreclaimable "
    "workingset_refault workingset_activate workingset_nodereclaim thp_fault_alloc thp_collapse_alloc"
)
_V1_MEMORY = (
    "cache rss rss_huge mapped_file dirty writeback pg_pg_in pg_pg_out pg_fault pg_maj_fault "
    "inactive_anon active_anon inactive_file active_file unevictable"
)
_V1_COUNTED = {"usage": "usage", "swap": "swap", "kernel": "kernel", "kernel_tcp": "kerneltcp"}


def _plain(field: str) -> str:
    """Return the name of a cgroup v1 field: ``pg_maj_fault`` is ``pgmajfault``."""
    return field.replace("pg_pg_", "pgpg").replace("pg_maj_fault", "pgmajfault").replace("pg_fault", "pgfault")


V2: tuple[Row, ...] = (
    *((f"cpu_{name}", "microseconds", f"cpu.{name}") for name in ("usage_usec", "user_usec", "system_usec")),
    *((f"cpu_{name}", "total", f"cpu.{name}") for name in ("nr_periods", "nr_throttled")),
    ("cpu_throttled_usec", "microseconds", "cpu.throttled_usec"),
    *((f"memory_{name}", "bytes", f"memory.{name}") for name in _V2_MEMORY.split()),
    ("memory_oom", "total", "memory_events.oom"),
    ("pids", "current", "pids.current"),
    ("pids", "limit", "pids.limit"),
)

V1: tuple[Row, ...] = (
    *((f"cpu_{name}", "nanoseconds", f"cpu.usage.{name}") for name in ("total", "kernel", "user")),
    ("cpu_throttle_periods", "total", "cpu.throttling.periods"),
    ("cpu_throttled_periods", "total", "cpu.throttling.throttled_periods"),
    ("cpu_throttled_time", "nanoseconds", "cpu.throttling.throttled_time"),
    *(
        (f"memory_{total}{_plain(name)}", "bytes", f"memory.{total}{name}")
        for total in ("", "total_")
        for name in _V1_MEMORY.split()
    ),
    ("memory_hierarchical_memory_limit", "bytes", "memory.hierarchical_memory_limit"),
    ("memory_hierarchical_memsw_limit", "bytes", "memory.hierarchical_swap_limit"),
    *(
        (f"memory_{name}_{part}", "total" if part == "failcnt" else "bytes", f"memory.{field}.{part}")
        for field, name in _V1_COUNTED.items()
        for part in ("failcnt", "limit", "max", "usage")
    ),
    ("memory_oom", "total", "memory_oom_control.oom_kill"),
    ("pids", "current", "pids.current"),
    ("pids", "limit", "pids.limit"),
)

V2_IO = {"rbytes": "bytes", "wbytes": "bytes", "rios": "total", "wios": "total"}

V1_BLKIO = {
    "io_merged_recursive": "total",
    "io_queued_recursive": "total",
    "io_service_bytes_recursive": "bytes",
    "io_service_time_recursive": "total",
    "io_serviced_recursive": "total",
    "io_time_recursive": "total",
    "sectors_recursive": "total",
}

V1_HUGETLB = {"usage": "bytes", "failcnt": "total", "max": "bytes"}

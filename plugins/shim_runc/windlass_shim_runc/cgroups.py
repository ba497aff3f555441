"""Reads a container's cgroup: its processes and its metrics, in the wire's messages for version 1 and 2."""

# ruff: noqa: PTH112, PTH118, PTH123, PTH208
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os

from windlass.errors import NotFound
from windlass_api.ttrpc.framing import BYTES, number, prefixed, string, tag
from windlass_shim_runc.messages import AnyMessage, repeated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

UNLIMITED = (1 << 64) - 1


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text; a table of keys reads best as one."""
    return tuple(text.split())


MEMORY_V1 = words(
    "cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault pgmajfault inactive_anon active_anon "
    "inactive_file active_file unevictable hierarchical_memory_limit hierarchical_memsw_limit total_cache total_rss "
    "total_rss_huge total_mapped_file total_dirty total_writeback total_pgpgin total_pgpgout total_pgfault "
    "total_pgmajfault total_inactive_anon total_active_anon total_inactive_file total_active_file total_unevictable"
)
"""Keys of memory.stat in the order of MemoryStat's fields, from 1."""

MEMORY_V1_FILES = ("memory", "memory.memsw", "memory.kmem", "memory.kmem.tcp")
BLKIO_V1 = words(
    "blkio.throttle.io_service_bytes_recursive blkio.throttle.io_serviced_recursive blkio.io_queued_recursive "
    "blkio.io_service_time_recursive blkio.io_wait_time_recursive blkio.io_merged_recursive blkio.time_recursive "
    "blkio.sectors_recursive"
)
MEMORY_V2 = words(
    "anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp inactive_anon active_anon "
    "inactive_file active_file unevictable slab_reclaimable slab_unreclaimable pgfault pgmajfault "
    "workingset_refault_anon workingset_activate_anon workingset_nodereclaim pgrefill pgscan pgsteal pgactivate "
    "pgdeactivate pglazyfree pglazyfreed thp_fault_alloc thp_collapse_alloc"
)
CPU_V2 = words("usage_usec user_usec system_usec nr_periods nr_throttled throttled_usec psi nr_bursts burst_usec")
"""Keys of cpu.stat by CPUStat's fields; pressure, field 7, is not in that file."""

MEMORY_EVENTS_V2 = words("low high max oom oom_kill oom_group_kill")
IO_V2 = words("rbytes wbytes rios wios")


def mount_points() -> tuple[str, dict[str, str]]:
    """Return where cgroup v2 is mounted, empty if nowhere, and where each controller of v1 is."""
    unified = ""
    controllers: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
        for line in table:
            if " - cgroup" not in line:
                continue  # a node has thousands of other mounts
            left, _, right = line.partition(" - ")
            kind, _, options = right.split()[:3]
            place = left.split()[4]
            if kind == "cgroup2":
                unified = unified or place
            elif kind == "cgroup":
                for option in options.split(","):
                    controllers.setdefault(option, place)
    return unified, controllers


def directories(pid: int) -> tuple[str, dict[str, str]]:
    """Return a process's directory in cgroup v2, and by controller in v1; raises NotFound when it is gone."""
    unified, controllers = mount_points()
    found: dict[str, str] = {}
    mine = ""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as table:
            for line in table:
                _, names, path = line.rstrip("\n").split(":", 2)
                if not names:
                    mine = unified + path if unified else ""
                for name in names.split(","):
                    if name in controllers:
                        found[name] = controllers[name] + path
    except OSError as error:
        raise NotFound(f"cgroup of process {pid} is gone: {error.strerror}") from error
    # In a hybrid layout v2 is there for systemd only and has no controllers.
    return ("", found) if "memory" in found or "pids" in found or "devices" in found else (mine, {})


def pids(pid: int) -> list[int]:
    """Return every process in the cgroup of ``pid`` and below it."""
    unified, controllers = directories(pid)
    top = unified or controllers.get("devices") or next(iter(controllers.values()), "")
    found: list[int] = []
    pending = [top] if top else []
    while pending:
        directory = pending.pop()
        found += [int(line) for line in read(directory, "cgroup.procs").split()]
        try:
            with os.scandir(directory) as entries:
                pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
    return sorted(found)


def metrics(pid: int) -> AnyMessage:
    """Measure the cgroup of a process."""
    unified, controllers = directories(pid)
    if unified:
        return AnyMessage(type_url="io.containerd.cgroups.v2.Metrics", value=metrics_v2(unified))
    return AnyMessage(type_url="io.containerd.cgroups.v1.Metrics", value=metrics_v1(controllers))


def metrics_v1(controllers: dict[str, str]) -> bytes:
    """Return an encoded io.containerd.cgroups.v1.Metrics."""
    out = b""
    if "hugetlb" in controllers:
        out += repeated(1, [hugetlb_v1(controllers["hugetlb"], size) for size in page_sizes(controllers["hugetlb"])])
    if "pids" in controllers:
        # "max" is 0 here, as containerd has it.
        limit = read(controllers["pids"], "pids.max").strip()
        current = integer(controllers["pids"], "pids.current")
        out += part(2, numbers([current, int(limit) if limit.isdigit() else 0]))
    if "cpuacct" in controllers:
        out += part(3, cpu_v1(controllers["cpuacct"], controllers.get("cpu", "")))
    if "memory" in controllers:
        out += part(4, memory_v1(controllers["memory"]))
    if "blkio" in controllers:
        out += part(5, b"".join(blkio_v1(at, controllers["blkio"], name) for at, name in enumerate(BLKIO_V1, 1)))
    if "memory" in controllers:
        oom = table(controllers["memory"], "memory.oom_control")
        out += part(9, named(("oom_kill_disable", "under_oom", "oom_kill"), oom))
    return out


def cpu_v1(accounting: str, scheduler: str) -> bytes:
    """Return an encoded CPUStat; times are nanoseconds."""
    ticks = table(accounting, "cpuacct.stat")
    nanoseconds = 10**9 // os.sysconf("SC_CLK_TCK")
    per_cpu = b"".join(b"\x20" + number_always(int(n)) for n in read(accounting, "cpuacct.usage_percpu").split())
    usage = numbers(
        [
            integer(accounting, "cpuacct.usage"),
            ticks.get("system", 0) * nanoseconds,
            ticks.get("user", 0) * nanoseconds,
        ]
    )
    throttling = named(("nr_periods", "nr_throttled", "throttled_time"), table(scheduler, "cpu.stat"))
    return part(1, usage + per_cpu) + part(2, throttling)


def memory_v1(directory: str) -> bytes:
    """Return an encoded MemoryStat."""
    out = named(MEMORY_V1, table(directory, "memory.stat"))
    for at, prefix in enumerate(MEMORY_V1_FILES, len(MEMORY_V1) + 1):
        parts = ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
        out += part(at, numbers([integer(directory, f"{prefix}.{part}") for part in parts]))
    return out


def blkio_v1(at: int, directory: str, name: str) -> bytes:
    """Return encoded BlkIOEntry elements of field ``at``."""
    entries = []
    for line in read(directory, name).splitlines():
        words = line.split()
        if len(words) != 3:
            continue
        major, _, minor = words[0].partition(":")
        if major.isdigit() and minor.isdigit() and words[2].isdigit():
            entries.append(
                string(1, words[1]) + number(3, int(major)) + number(4, int(minor)) + number(5, int(words[2]))
            )
    return repeated(at, entries)


def hugetlb_v1(directory: str, size: str) -> bytes:
    """Return an encoded HugetlbStat."""
    parts = ("usage_in_bytes", "max_usage_in_bytes", "failcnt")
    return numbers([integer(directory, f"hugetlb.{size}.{part}") for part in parts]) + string(4, size)


def page_sizes(directory: str) -> list[str]:
    """Return the huge page sizes of a hugetlb cgroup, by its files."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted({name.split(".")[1] for name in names if name.endswith((".usage_in_bytes", ".current"))})


def metrics_v2(directory: str) -> bytes:
    """Return an encoded io.containerd.cgroups.v2.Metrics."""
    memory = named(MEMORY_V2, table(directory, "memory.stat"))
    # 32 to 37 follow the 31 keys of memory.stat.
    files = (
        "memory.current",
        "memory.max",
        "memory.swap.current",
        "memory.swap.max",
        "memory.peak",
        "memory.swap.peak",
    )
    memory += b"".join(number(at, integer(directory, name)) for at, name in enumerate(files, 32))
    out = part(1, numbers([integer(directory, "pids.current"), integer(directory, "pids.max")]))
    out += part(2, named(CPU_V2, table(directory, "cpu.stat")))
    out += part(4, memory)
    out += part(6, io_v2(directory))
    out += repeated(7, [hugetlb_v2(directory, size) for size in page_sizes(directory) if size.endswith("B")])
    return out + part(8, named(MEMORY_EVENTS_V2, table(directory, "memory.events")))


def io_v2(directory: str) -> bytes:
    """Return an encoded IOStat."""
    entries = []
    for line in read(directory, "io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        values = dict(pair.partition("=")[::2] for pair in pairs)
        if major.isdigit() and minor.isdigit():
            entry = number(1, int(major)) + number(2, int(minor))
            entries.append(entry + b"".join(number(at, int(values.get(key, "0"))) for at, key in enumerate(IO_V2, 3)))
    return repeated(1, entries)


def hugetlb_v2(directory: str, size: str) -> bytes:
    """Return an encoded HugeTlbStat."""
    current, limit = (integer(directory, f"hugetlb.{size}.{part}") for part in ("current", "max"))
    failures = table(directory, f"hugetlb.{size}.events").get("max", 0)
    return numbers([current, limit]) + string(3, size) + number(4, failures)


def numbers(values: Sequence[int]) -> bytes:
    """Encode integers as fields 1, 2, 3 and so on."""
    return b"".join(number(at, value) for at, value in enumerate(values, 1))


def named(keys: Sequence[str], values: dict[str, int]) -> bytes:
    """Encode the values of ``keys`` as fields 1, 2, 3 and so on."""
    return numbers([values.get(key, 0) for key in keys])


def part(at: int, value: bytes) -> bytes:
    """Encode a message as a field, also when all in it is zero: dockerd takes for granted that it is there."""
    return tag(at, BYTES) + prefixed(value)


def number_always(value: int) -> bytes:
    """Encode an integer of a repeated field, whose zeros count."""
    return number(1, value)[1:] or b"\0"


def read(directory: str, name: str) -> str:
    """Return a cgroup file's text, empty where this machine has none."""
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def integer(directory: str, name: str) -> int:
    """Return a cgroup file's number; "max" is the largest."""
    text = read(directory, name).strip()
    return int(text) if text.isdigit() else UNLIMITED if text == "max" else 0


def table(directory: str, name: str) -> dict[str, int]:
    """Return a cgroup file of lines "key number"."""
    found = {}
    for line in read(directory, name).splitlines():
        key, _, value = line.partition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found

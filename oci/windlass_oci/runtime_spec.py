"""The OCI's runtime spec, `config.json`, as types: the fields that Windlass and CRI set on Linux.

Names are the specification's. A spec that comes from a client may have further fields, and keeps them.
"""

from __future__ import annotations

from typing import Literal, Required, TypedDict


class IDMapping(TypedDict):
    """A range of IDs in the container, and where it begins on the host."""

    containerID: int
    hostID: int
    size: int


class User(TypedDict, total=False):
    """Who the process is."""

    uid: Required[int]
    gid: Required[int]
    umask: int
    additionalGids: list[int]


class Capabilities(TypedDict, total=False):
    """The capability sets of the process; a set that is absent is empty."""

    bounding: list[str]
    effective: list[str]
    permitted: list[str]
    inheritable: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    """A limit, as of setrlimit(2)."""

    type: str
    hard: int
    soft: int


IOPriority = TypedDict("IOPriority", {"class": str, "priority": int})
"""The priority of the process's I/O, as of ioprio_set(2); its class is one such as ``IOPRIO_CLASS_BE``."""


class Scheduler(TypedDict, total=False):
    """How the process is scheduled, as of sched_setattr(2); the policy is one such as ``SCHED_BATCH``."""

    policy: Required[str]
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


class Process(TypedDict, total=False):
    """What runs in the container."""

    terminal: bool
    user: User
    args: list[str]
    env: list[str]
    cwd: str
    capabilities: Capabilities
    rlimits: list[Rlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    selinuxLabel: str
    oomScoreAdj: int
    ioPriority: IOPriority
    scheduler: Scheduler


class Root(TypedDict, total=False):
    """The root file system, by its path in the bundle."""

    path: Required[str]
    readonly: bool


class Mount(TypedDict, total=False):
    """A mount in the container. Propagation is an option (``rslave``); an ID-mapped mount has both mappings."""

    destination: Required[str]
    type: str
    source: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class Namespace(TypedDict, total=False):
    """A Linux namespace: a new one, or the one that ``path`` names."""

    type: Required[Literal["pid", "network", "ipc", "uts", "mount", "user", "cgroup", "time"]]
    path: str


class Device(TypedDict, total=False):
    """A device file in the container."""

    path: Required[str]
    type: Required[str]
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class DeviceRule(TypedDict, total=False):
    """Whether the container may use a device; a number that is absent means any."""

    allow: Required[bool]
    type: str
    major: int
    minor: int
    access: str


class Memory(TypedDict, total=False):
    """Limits of memory, in bytes."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool


class CPU(TypedDict, total=False):
    """Shares and limits of processor time; times in microseconds."""

    shares: int
    quota: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str


class Pids(TypedDict):
    """How many processes and threads there may be."""

    limit: int


class HugepageLimit(TypedDict):
    """A limit for huge pages of one size, such as ``2MB``."""

    pageSize: str
    limit: int


class Resources(TypedDict, total=False):
    """Control group limits; ``unified`` names files of cgroup v2."""

    devices: list[DeviceRule]
    memory: Memory
    cpu: CPU
    pids: Pids
    hugepageLimits: list[HugepageLimit]
    unified: dict[str, str]


class SyscallArgument(TypedDict, total=False):
    """A condition on one argument of a system call."""

    index: Required[int]
    value: Required[int]
    valueTwo: int
    op: Required[str]


class Syscall(TypedDict, total=False):
    """What happens to system calls of some names."""

    names: Required[list[str]]
    action: Required[str]
    errnoRet: int
    args: list[SyscallArgument]


class Seccomp(TypedDict, total=False):
    """A filter of system calls."""

    defaultAction: Required[str]
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    syscalls: list[Syscall]
    listenerPath: str
    listenerMetadata: str


class IntelRdt(TypedDict, total=False):
    """The class of service for caches and memory bandwidth."""

    closID: str
    l3CacheSchema: str
    memBwSchema: str
    schemata: list[str]
    enableMonitoring: bool


class NetDevice(TypedDict, total=False):
    """A network device of the host that moves into the container, and its name there."""

    name: str


class MemoryPolicy(TypedDict, total=False):
    """From which nodes memory comes, as of set_mempolicy(2)."""

    mode: Required[str]
    nodes: str
    flags: list[str]


class Linux(TypedDict, total=False):
    """What only Linux has."""

    namespaces: list[Namespace]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    devices: list[Device]
    cgroupsPath: str
    resources: Resources
    sysctl: dict[str, str]
    seccomp: Seccomp
    rootfsPropagation: str
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: IntelRdt
    netDevices: dict[str, NetDevice]
    memoryPolicy: MemoryPolicy


class Hook(TypedDict, total=False):
    """A program that the runtime executes at a point of the container's life."""

    path: Required[str]
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    """Programs by the points at which they are executed."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


class Spec(TypedDict, total=False):
    """A container's `config.json`."""

    ociVersion: Required[str]
    process: Required[Process]
    root: Required[Root]
    hostname: str
    domainname: str
    mounts: Required[list[Mount]]
    hooks: Hooks
    linux: Required[Linux]
    annotations: dict[str, str]

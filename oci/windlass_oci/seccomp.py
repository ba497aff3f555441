"""The system calls that a container may make when its user does not say otherwise: seccomp's default profile.

It allows what containerd 2.4 allows. A call that needs a capability is allowed to a container that has the capability:
Linux refuses it to all others anyway, but old kernels had holes there.
"""

from __future__ import annotations

import errno
import json
import platform
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from windlass.errors import InvalidArgument

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Seccomp, Syscall

ALWAYS = """
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list
    get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32
    getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
    getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set
    ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link
    linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lsm_get_self_attr
    lsm_list_modules lsm_set_self_attr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap
    mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat
    open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll
    ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
    process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat
    rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area
    set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer
    setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32
    setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown
    sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs
    statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64
    ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice
    wait4 waitid waitpid write writev
"""

# Calls that only some processors have.
OF_MACHINE = {
    "amd64": ("arch_prctl", "modify_ldt"),
    "arm64": (
        "arm_fadvise64_64",
        "arm_sync_file_range",
        "breakpoint",
        "cacheflush",
        "set_tls",
        "sync_file_range2",
    ),
    "ppc64le": ("swapcontext", "sync_file_range2"),
    "riscv64": ("riscv_flush_icache", "riscv_hwprobe"),
    "s390x": ("s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"),
}
"""By containerd's names of machines."""

OF_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}
"""Calls that are allowed with a capability in the bounding set."""

ABIS = {
    "amd64": ("X86_64", "X86", "X32"),
    "arm64": ("ARM", "AARCH64"),
    "loong64": ("LOONGARCH64",),
    "riscv64": ("RISCV64",),
    "s390x": ("S390", "S390X"),
}
"""The sets of system calls that a process of a machine can switch between; others have one."""

MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "loongarch64": "loong64"}

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""personality(2): Linux, PER_LINUX32, both with UNAME26, and the question which one it is."""

NEW_NAMESPACES = 0x7E020000
"""clone(2): CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""

AF_ALG, AF_VSOCK = 38, 40

PROFILE_LIMIT = 1 << 20
DOCKERS = {"archMap", "defaultErrno"}
DOCKERS_OF_A_RULE = {"includes", "excludes", "name"}


def profile(capabilities: Collection[str], machine: str = "") -> Seccomp:
    """Return the profile of a container with a bounding set of capabilities, for this machine if none is named."""
    machine = machine or MACHINES.get(platform.machine(), platform.machine())
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [f"SCMP_ARCH_{abi}" for abi in ABIS.get(machine, ())],
        "syscalls": list(_rules(capabilities, machine)),
    }


def _rules(capabilities: Collection[str], machine: str) -> Iterator[Syscall]:
    yield _allow([*ALWAYS.split(), *OF_MACHINE.get(machine, ())])
    for capability, calls in OF_CAPABILITY.items():
        if capability in capabilities:
            yield _allow(calls.split())
    # socket(2) of every family but AF_ALG and AF_VSOCK. libseccomp joins the rules of one call by OR, so each range
    # between the two has a rule of its own. By socketcall(2) of 32-bit x86 they can be had all the same.
    yield _allow(["socket"], (0, "LT", AF_ALG))
    for family in range(AF_ALG + 1, AF_VSOCK):
        yield _allow(["socket"], (0, "EQ", family))
    yield _allow(["socket"], (0, "GT", AF_VSOCK))
    for value in PERSONALITIES:
        yield _allow(["personality"], (0, "EQ", value))
    if "CAP_SYS_ADMIN" not in capabilities:
        # On s390 the flags are the second argument, clone(2).
        yield _allow(["clone"], (1 if machine == "s390x" else 0, "MASKED_EQ", NEW_NAMESPACES))
        # Its flags are in memory, where no filter looks; with this answer libraries fall back to clone.
        yield {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}


def _allow(names: Sequence[str], condition: tuple[int, str, int] | None = None) -> Syscall:
    rule: Syscall = {"names": list(names), "action": "SCMP_ACT_ALLOW"}
    if condition:
        index, operator, value = condition
        rule["args"] = [{"index": index, "value": value, "op": f"SCMP_CMP_{operator}"}]
    return rule


def read_profile(path: Path) -> Seccomp:
    """Read a profile in the OCI's form. Raises InvalidArgument for any other file."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(PROFILE_LIMIT))
    except OSError as error:
        raise InvalidArgument(f"seccomp profile {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InvalidArgument(f"seccomp profile {path} is not JSON of at most {PROFILE_LIMIT} bytes") from None
    if not isinstance(document, dict) or "defaultAction" not in document:
        raise InvalidArgument(f"seccomp profile {path} has no defaultAction; it is linux.seccomp of an OCI spec")
    rules = document.get("syscalls") or []
    keys = {key for rule in rules if isinstance(rule, dict) for key in rule} if isinstance(rules, list) else set()
    # Its rules hold on conditions, such as a capability; taken without them they would allow too much.
    if found := sorted((DOCKERS & set(document)) | (DOCKERS_OF_A_RULE & keys)):
        raise InvalidArgument(f"seccomp profile {path} is in docker's own form ({', '.join(found)}), not in the OCI's")
    # A document of the user's: the OCI runtime judges the rest of it.
    return cast("Seccomp", document)

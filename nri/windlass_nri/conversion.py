"""NRI's messages as parts of an OCI spec."""

from __future__ import annotations

from windlass.errors import InvalidArgument
from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_oci.runtime_spec import (
    Hook,
    IOPriority,
    MemoryPolicy,
    Scheduler,
    Seccomp,
    Syscall,
    SyscallArgument,
)


def hook(wanted: nri.Hook) -> Hook:
    """Return an OCI hook."""
    made: Hook = {"path": wanted.path}
    if wanted.args:
        made["args"] = list(wanted.args)
    if wanted.env:
        made["env"] = list(wanted.env)
    if wanted.HasField("timeout"):
        made["timeout"] = wanted.timeout.value
    return made


def io_priority(wanted: nri.LinuxIOPriority) -> IOPriority | None:
    """Return an I/O priority, None for the class that says nothing; raises InvalidArgument for an unknown one."""
    number = getattr(wanted, "class")
    if number not in nri.IOPrioClass.values():
        raise InvalidArgument(f"I/O priority class {number} is not known")
    name = nri.IOPrioClass.Name(number)
    return None if number == nri.IOPRIO_CLASS_NONE else {"class": name, "priority": wanted.priority}


def scheduler(wanted: nri.LinuxScheduler) -> Scheduler | None:
    """Return how to schedule, None for the policy that says nothing; raises InvalidArgument for an unknown one."""
    if wanted.policy not in nri.LinuxSchedulerPolicy.values():
        raise InvalidArgument(f"scheduler policy {wanted.policy} is not known")
    if wanted.policy == nri.SCHED_NONE:
        return None
    made: Scheduler = {"policy": nri.LinuxSchedulerPolicy.Name(wanted.policy)}
    if wanted.nice:
        made["nice"] = wanted.nice
    if wanted.priority:
        made["priority"] = wanted.priority
    if wanted.flags:
        unknown = [flag for flag in wanted.flags if flag not in nri.LinuxSchedulerFlag.values()]
        if unknown:
            raise InvalidArgument(f"scheduler flag {unknown[0]} is not known")
        made["flags"] = [nri.LinuxSchedulerFlag.Name(flag) for flag in wanted.flags]
    if wanted.runtime:
        made["runtime"] = wanted.runtime
    if wanted.deadline:
        made["deadline"] = wanted.deadline
    if wanted.period:
        made["period"] = wanted.period
    return made


def memory_policy(wanted: nri.LinuxMemoryPolicy) -> MemoryPolicy:
    """Return a memory policy; raises InvalidArgument for an unknown one."""
    if wanted.mode not in nri.MpolMode.values():
        raise InvalidArgument(f"memory policy {wanted.mode} is not known")
    made: MemoryPolicy = {"mode": nri.MpolMode.Name(wanted.mode)}
    if wanted.nodes:
        made["nodes"] = wanted.nodes
    if wanted.flags:
        unknown = [flag for flag in wanted.flags if flag not in nri.MpolFlag.values()]
        if unknown:
            raise InvalidArgument(f"memory policy flag {unknown[0]} is not known")
        made["flags"] = [nri.MpolFlag.Name(flag) for flag in wanted.flags]
    return made


def seccomp(wanted: nri.LinuxSeccomp) -> Seccomp:
    """Return a filter of system calls."""
    made: Seccomp = {"defaultAction": wanted.default_action}
    if wanted.HasField("default_errno"):
        made["defaultErrnoRet"] = wanted.default_errno.value
    if wanted.architectures:
        made["architectures"] = list(wanted.architectures)
    if wanted.flags:
        made["flags"] = list(wanted.flags)
    if wanted.listener_path:
        made["listenerPath"] = wanted.listener_path
    if wanted.listener_metadata:
        made["listenerMetadata"] = wanted.listener_metadata
    if wanted.syscalls:
        made["syscalls"] = [_syscall(each) for each in wanted.syscalls]
    return made


def _syscall(wanted: nri.LinuxSyscall) -> Syscall:
    made: Syscall = {"names": list(wanted.names), "action": wanted.action}
    if wanted.HasField("errno_ret"):
        made["errnoRet"] = wanted.errno_ret.value
    if wanted.args:
        made["args"] = [_argument(each) for each in wanted.args]
    return made


def _argument(wanted: nri.LinuxSeccompArg) -> SyscallArgument:
    made: SyscallArgument = {"index": wanted.index, "value": wanted.value, "op": wanted.op}
    if wanted.value_two:
        made["valueTwo"] = wanted.value_two
    return made

"""Filters of system calls: a profile of the specification becomes a program of Linux's, by libseccomp.

Compiling takes milliseconds, so programs are kept on disk by the hash of what they were made of.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
from _sha256 import sha256  # type: ignore[import-not-found] # typeshed leaves it out; hashlib loads OpenSSL

from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_linux import calls as linux
from windlass_oci_runtime.newer_calls import prefix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeVar

    from windlass_oci_runtime.json_types import Json

    V = TypeVar("V")

LIBRARY = "libseccomp.so.2"

ALLOW, LOG, NOTIFY, ERRNO, TRACE = 0x7FFF0000, 0x7FFC0000, 0x7FC00000, 0x00050000, 0x7FF00000
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_NOTIFY": NOTIFY,
}

COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

ARCHITECTURES = {
    "SCMP_ARCH_X86": b"x86",
    "SCMP_ARCH_X86_64": b"x86_64",
    "SCMP_ARCH_X32": b"x32",
    "SCMP_ARCH_ARM": b"arm",
    "SCMP_ARCH_AARCH64": b"aarch64",
    "SCMP_ARCH_MIPS": b"mips",
    "SCMP_ARCH_MIPS64": b"mips64",
    "SCMP_ARCH_MIPS64N32": b"mips64n32",
    "SCMP_ARCH_MIPSEL": b"mipsel",
    "SCMP_ARCH_MIPSEL64": b"mipsel64",
    "SCMP_ARCH_MIPSEL64N32": b"mipsel64n32",
    "SCMP_ARCH_PPC": b"ppc",
    "SCMP_ARCH_PPC64": b"ppc64",
    "SCMP_ARCH_PPC64LE": b"ppc64le",
    "SCMP_ARCH_RISCV64": b"riscv64",
    "SCMP_ARCH_S390": b"s390",
    "SCMP_ARCH_S390X": b"s390x",
    "SCMP_ARCH_PARISC": b"parisc",
    "SCMP_ARCH_PARISC64": b"parisc64",
}

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
TSYNC, SPEC_ALLOW = 1, 4
NEW_LISTENER, TSYNC_ESRCH = 8, 16

_NR_SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "armv7l": 383, "ppc64le": 358, "s390x": 348}
SET_MODE_FILTER = 1
NO_SUCH_CALL = -1
INSTRUCTION = 8
"""Bytes of struct sock_filter."""
FORMAT = 2
"""Of what this module makes of a profile."""
DENYING = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP")
ATTRIBUTE_NO_NEW_PRIVILEGES = 3


class Filter:
    """A compiled profile."""

    __slots__ = ("flags", "listener", "metadata", "program")

    def __init__(self, profile: Json, cache: str) -> None:
        """Compile a profile, or take it from ``cache``. Raises InvalidArgument, FailedPrecondition."""
        wanted = profile.get("flags")
        # runc's default, so that a filter does not slow every container down by itself.
        self.flags = SPEC_ALLOW if wanted is None else sum({_named(FLAGS, each, "flags") for each in wanted})
        self.listener = _listener(profile)
        self.metadata: str = profile.get("listenerMetadata", "")
        if self.listener:
            # Two meanings of one result otherwise, seccomp(2).
            self.flags |= NEW_LISTENER | (TSYNC_ESRCH if self.flags & TSYNC else 0)
        self.program = _cached(profile, cache)

    def install(self) -> int:
        """Put it on this process; return the descriptor of its listener, -1 without one. Raises OSError."""
        count = len(self.program) // INSTRUCTION
        code = ctypes.create_string_buffer(self.program, len(self.program))
        program = struct.pack("@HxxxxxxP", count, ctypes.addressof(code))
        number = _NR_SECCOMP[os.uname().machine]
        words = (ctypes.c_long(number), ctypes.c_long(SET_MODE_FILTER), ctypes.c_long(self.flags), program)
        result = linux.checked(linux.libc().syscall(*words), "seccomp")
        return result if self.listener else -1


def _listener(profile: Json) -> str:
    """Return the path of who answers the calls that a profile has answered, "" for a profile without any."""
    if profile.get("defaultAction") == "SCMP_ACT_NOTIFY":
        raise InvalidArgument("linux.seccomp.defaultAction cannot be SCMP_ACT_NOTIFY: init itself would wait for ever")
    asking = [rule for rule in profile.get("syscalls") or () if rule.get("action") == "SCMP_ACT_NOTIFY"]
    path: str = profile.get("listenerPath") or ""
    for rule in asking:
        if "write" in (rule.get("names") or ()):
            raise InvalidArgument(
                "linux.seccomp: SCMP_ACT_NOTIFY cannot be for write, with which init offers its listener"
            )
        if not path.startswith("/"):
            raise InvalidArgument(f"linux.seccomp.listenerPath {path[:80]!r} is not an absolute path; rules need it")
    return path if asking else ""


def _cached(profile: Json, cache: str) -> bytes:
    text = json.dumps([profile.get(each) for each in ("defaultAction", "defaultErrnoRet", "architectures", "syscalls")])
    path = f"{cache}/{sha256(f'{FORMAT} {LIBRARY} {os.uname().release} {text}'.encode()).hexdigest()}"
    try:
        with open(path, "rb") as file:
            program = file.read()
        if program and not len(program) % INSTRUCTION:
            return program
    except FileNotFoundError:
        pass
    program = compiled(profile)
    os.makedirs(cache, 0o700, exist_ok=True)
    beside = f"{path}.{os.getpid()}"
    with open(beside, "wb") as file:
        file.write(program)
    os.rename(beside, path)
    return program


def compiled(profile: Json) -> bytes:
    """Return the program of a profile. Raises InvalidArgument with the field, FailedPrecondition."""
    library = _library()
    default = _action(profile.get("defaultAction", ""), profile.get("defaultErrnoRet"))
    context = library.seccomp_init(default)
    if not context:
        raise InvalidArgument(f"linux.seccomp.defaultAction {profile.get('defaultAction')!r} is not known here")
    try:
        # no_new_privs is the process's own, and set where the specification says so.
        library.seccomp_attr_set(context, ATTRIBUTE_NO_NEW_PRIVILEGES, 0)
        for name in profile.get("architectures") or ():
            token = library.seccomp_arch_resolve_name(_named(ARCHITECTURES, name, "architectures"))
            _check(library.seccomp_arch_add(context, token), f"architecture {name}", errno.EEXIST)
        for rule in profile.get("syscalls") or ():
            _add(library, context, rule, default)
        return _newer(library, profile, default) + _exported(library, context)
    finally:
        library.seccomp_release(context)


def _newer(library: ctypes.CDLL, profile: Json, default: int) -> bytes:
    if profile.get("defaultAction") not in DENYING or default == ERRNO | errno.ENOSYS:
        return b""
    names = [name.encode() for rule in profile.get("syscalls") or () for name in rule.get("names") or ()]
    wanted = [each for each in profile.get("architectures") or () if each != "SCMP_ARCH_X32"]
    tokens = {
        library.seccomp_arch_native(),
        *(library.seccomp_arch_resolve_name(ARCHITECTURES[each]) for each in wanted),
    }
    newest = {
        token: max((library.seccomp_syscall_resolve_name_arch(token, name) for name in names), default=-1)
        for token in tokens
    }
    return prefix([(token, number) for token, number in sorted(newest.items()) if number >= 0])


def _add(library: ctypes.CDLL, context: int, rule: Json, default: int) -> None:
    action = _action(rule.get("action", ""), rule.get("errnoRet"))
    if action == default:
        return
    arguments = rule.get("args") or ()
    for name in rule.get("names") or ():
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == NO_SUCH_CALL:
            continue  # of a later Linux, or of another architecture
        for group in _groups(arguments):
            array = (_Comparison * len(group))(*map(_comparison, group))
            _check(library.seccomp_rule_add_array(context, action, number, len(group), array), f"rule for {name}")


def _groups(arguments: Iterable[Json]) -> list[list[Json]]:
    """Return conditions that all have to hold; with two for one argument each is a rule of its own, as in runc."""
    found = list(arguments)
    indexes = [each.get("index") for each in found]
    return [[each] for each in found] if len(set(indexes)) < len(indexes) else [found]


class _Comparison(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def _comparison(argument: Json) -> _Comparison:
    index, operator = argument.get("index", 0), argument.get("op", "")
    if not 0 <= index < 6:
        raise InvalidArgument(f"linux.seccomp: argument {index} of a system call does not exist")
    first, second = argument.get("value", 0), argument.get("valueTwo", 0)
    return _Comparison(index, _named(COMPARISONS, operator, "syscalls.args.op"), first, second)


def _action(name: str, value: int | None) -> int:
    action = _named(ACTIONS, name, "action")
    if action not in (ERRNO, TRACE):
        if value:
            raise InvalidArgument(f"linux.seccomp: errnoRet is not for action {name}")
        return action
    number = errno.EPERM if value is None else value
    return action | (number & 0xFFFF)


def _named(table: Mapping[str, V], name: str, where: str) -> V:
    try:
        return table[name]
    except KeyError:
        raise InvalidArgument(f"linux.seccomp.{where}: {name[:60]!r} is not known") from None


def _check(result: int, what: str, *allowed: int) -> None:
    if result < 0 and -result not in allowed:
        raise InvalidArgument(f"linux.seccomp: {what}: {os.strerror(-result).lower()}")


def _exported(library: ctypes.CDLL, context: int) -> bytes:
    descriptor = os.memfd_create("seccomp")
    try:
        _check(library.seccomp_export_bpf(context, descriptor), "program")
        os.lseek(descriptor, 0, os.SEEK_SET)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


_loaded: ctypes.CDLL | None = None


def _library() -> ctypes.CDLL:
    global _loaded
    if _loaded is None:
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError:
            raise FailedPrecondition(
                f"seccomp needs {LIBRARY}, which is not installed: apt install libseccomp2"
            ) from None
        library.seccomp_init.restype = ctypes.c_void_p
        library.seccomp_init.argtypes = (ctypes.c_uint32,)
        library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
        library.seccomp_arch_native.restype = ctypes.c_uint32
        library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
        library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
        library.seccomp_rule_add_array.argtypes = (
            ctypes.c_void_p,
            ctypes.c_uint32,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_void_p,
        )
        library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
        library.seccomp_release.argtypes = (ctypes.c_void_p,)
        _loaded = library
    return _loaded

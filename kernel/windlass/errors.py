"""The closed set of error classes, each with the gRPC status it travels as.

A plugin raises one of these for anything its caller should know; any other
exception is a defect of the plugin and travels as UNKNOWN. Messages name the
object, its state and, where there is one, the remedy: ``snapshot layer-1 does
not exist``.
"""

from __future__ import annotations

import errno


class Code:
    """gRPC status codes by their numbers, so that nothing here imports grpc.

    Plain numbers: what `enum` imports would be half a megabyte more for shims to share and to smear.
    """

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Error(Exception):
    """Something the caller should know; the class says which kind."""

    code = Code.UNKNOWN


class Unknown(Error):
    """What went wrong has no code of its own; the message says it."""

    code = Code.UNKNOWN


class InvalidArgument(Error):
    """The request can never succeed as it is written."""

    code = Code.INVALID_ARGUMENT


class NotFound(Error):
    """The named object does not exist in this namespace."""

    code = Code.NOT_FOUND


class AlreadyExists(Error):
    """An object of that name is there already."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(Error):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(Error):
    """A limit was reached: disk space, a message size, a queue."""

    code = Code.RESOURCE_EXHAUSTED


class NoSpace(ResourceExhausted):
    """There is no space left on a disk, or under its quota."""


class FailedPrecondition(Error):
    """The object is in a state that does not allow the call."""

    code = Code.FAILED_PRECONDITION


class Aborted(Error):
    """The operation lost a race and may be tried again from its start."""

    code = Code.ABORTED


class OutOfRange(Error):
    """An offset lies beyond the end."""

    code = Code.OUT_OF_RANGE


class Unimplemented(Error):
    """No installed plugin can do this."""

    code = Code.UNIMPLEMENTED


class Internal(Error):
    """An invariant of ours does not hold."""

    code = Code.INTERNAL


class Unavailable(Error):
    """Not now; the same call may succeed later."""

    code = Code.UNAVAILABLE


class DataLoss(Error):
    """What was stored cannot be read back as it was written."""

    code = Code.DATA_LOSS


class Unauthenticated(Error):
    """The caller has not shown who it is."""

    code = Code.UNAUTHENTICATED


class Cancelled(Error):
    """The caller gave up."""

    code = Code.CANCELLED


class DeadlineExceeded(Error):
    """The call took longer than it was given; the message names the step."""

    code = Code.DEADLINE_EXCEEDED


# A peer's UNKNOWN is an Error as such: it is what a defect travels as, and not a choice, as our own Unknown is.
BY_CODE: dict[int, type[Error]] = {kind.code: kind for kind in Error.__subclasses__() if kind is not Unknown}


def from_code(code: int, message: str) -> Error:
    """Return the error that a peer sent as ``code`` and ``message``."""
    return BY_CODE.get(code, Error)(message)


def name_of(code: int) -> str:
    """Return what a status is called in logs, such as NotFound."""
    return BY_CODE.get(code, Unknown).__name__


class StartError(Exception):
    """The daemon cannot start; one line that the operator can act on."""


class _Foreign(RuntimeError):
    """Stands for what its ``__cause__`` is, and no Exception."""


def as_exception(error: BaseException, what: str = "the plugin") -> Exception:
    """Return an error of a plugin as one that every caller can handle.

    `sys.exit` and KeyboardInterrupt would leave the loop, and the daemon with it; StopIteration no future can carry
    (PEP 479); others, such as a panic of an extension in Rust, would pass by the code that answers the client.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = _Foreign(f"{what} raised {with_class(error)}")
    wrapped.__cause__ = error
    return wrapped


def with_class(error: BaseException) -> str:
    """Return what an error says; the class of one that is not ours comes first, as in ``KeyError: 'x'``."""
    if isinstance(error, Error):
        return str(error)
    shown = error.__cause__ if isinstance(error, _Foreign) else error
    return f"{type(shown).__name__}: {shown}".removesuffix(": ")


def in_words(error: OSError) -> str:
    """Return what the system says and of which file, without the number in front."""
    name = f": {error.filename}" if isinstance(error.filename, str) else ""
    return f"{error.strerror}{name}" if error.strerror else str(error)


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: BaseException) -> bool:
    """Return whether an error says that there was no space, or no more of a quota."""
    return isinstance(error, NoSpace) or (isinstance(error, OSError) and error.errno in FULL)

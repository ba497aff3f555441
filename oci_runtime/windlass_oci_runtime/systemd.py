"""Asks systemd, by D-Bus: a connection for each request, all of which ends by one deadline.

Imported by what speaks to systemd alone: the library is more than a shim should carry.
"""

from __future__ import annotations

import os
import socket
import time

from jeepney import DBusAddress, HeaderFields, Message, MessageType, Parser, new_method_call
from jeepney.auth import BEGIN, AuthenticationError, Authenticator
from jeepney.bus import get_bus

from windlass.errors import AlreadyExists, DeadlineExceeded, Error, FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from windlass_oci_runtime.scope_properties import Property

BOOTED = "/run/systemd/system"
PRIVATE = "/run/systemd/private"
"""systemd's own socket, on which only root is heard; no bus needs to run for it."""
DEADLINE = 20.0
"""Seconds for a request, less than what the shim waits for a step."""
PIECE = 4096

MANAGER = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
BUS = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
SIGNALS = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'"
NO_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
EXISTS = "org.freedesktop.systemd1.UnitExists"
INSTEAD = "start systemd, or leave systemd cgroups off"


class Refused(Error):
    """systemd's answer is an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


def start(unit: str, properties: Iterable[Property]) -> None:
    """Make a scope that is not there, and wait until it is.

    Raises AlreadyExists, FailedPrecondition, DeadlineExceeded, with the unit.
    """
    wanted = list(properties)
    with _Manager(f"start unit {unit}") as manager:
        try:
            job = manager.call("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", wanted, [])
        except Refused as error:
            if error.name != EXISTS:
                raise FailedPrecondition(f"cannot start unit {unit}: systemd says: {error}") from None
            # One that has failed stays until somebody says that he knows; a living one is another container's.
            manager.reset(unit)
            try:
                job = manager.call("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", wanted, [])
            except Refused as again:
                raise AlreadyExists(f"cannot start unit {unit}: systemd says: {again}; stop it first") from None
        result = manager.wait(job)
        if result != "done":
            manager.reset(unit)
            raise FailedPrecondition(f"cannot start unit {unit}: its job ended as {result}; see journalctl")


def change(unit: str, properties: Iterable[Property]) -> None:
    """Set properties of a unit until the next boot. Raises FailedPrecondition, DeadlineExceeded, with the unit."""
    wanted = list(properties)
    if not wanted:
        return
    with _Manager(f"change unit {unit}") as manager:
        try:
            manager.call("SetUnitProperties", "sba(sv)", unit, True, wanted)
        except Refused as error:
            raise FailedPrecondition(f"cannot change unit {unit}: systemd says: {error}") from None


def stop(unit: str) -> None:
    """Stop a unit, and let systemd forget it; one that is gone is fine. Raises FailedPrecondition, DeadlineExceeded."""
    with _Manager(f"stop unit {unit}") as manager:
        try:
            result = manager.wait(manager.call("StopUnit", "ss", unit, "replace"))
        except Refused as error:
            if error.name != NO_UNIT:
                raise FailedPrecondition(f"cannot stop unit {unit}: systemd says: {error}") from None
            return
        manager.reset(unit)
        if result not in ("done", "skipped"):
            raise FailedPrecondition(f"cannot stop unit {unit}: its job ended as {result}; see journalctl")


class _Manager:
    """One conversation with systemd, which ``what`` is for."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._deadline = time.monotonic() + DEADLINE
        self._parser = Parser()
        self._serial = 0
        self._ended: dict[str, str] = {}
        """Results of jobs by their path: a job may end before its path is known here."""

    def __enter__(self) -> _Manager:
        if not os.path.isdir(BOOTED):
            raise FailedPrecondition(f"cannot {self._what}: systemd does not run on this host; {INSTEAD}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._open()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _open(self) -> None:
        private = os.geteuid() == 0 and os.path.exists(PRIVATE)
        try:
            place = PRIVATE if private else get_bus("SYSTEM")
            self._limit()
            self._socket.connect(place)
            self._authenticate()
        except (OSError, RuntimeError, AuthenticationError) as error:
            raise self._lost(error) from error
        if not private:
            self._ask(BUS, "Hello", "")
            self._ask(BUS, "AddMatch", "s", SIGNALS)
            self.call("Subscribe", "")

    def _authenticate(self) -> None:
        steps = Authenticator()
        # All at once: a request that comes with BEGIN waits in sd-bus until something else comes (systemd 252).
        self._socket.sendall((steps.data_to_send() or b"") + BEGIN)
        self._limit()
        steps.feed(self._more())

    def call(self, method: str, signature: str, *body: object) -> str:
        """Ask systemd, and return the path that it answers with, if any. Raises Refused, FailedPrecondition."""
        return self._ask(MANAGER, method, signature, *body)

    def reset(self, unit: str) -> None:
        """Let systemd forget that a unit has failed; one that has not is fine."""
        try:
            self.call("ResetFailedUnit", "s", unit)
        except Refused:
            return

    def wait(self, job: str) -> str:
        """Return the result of a job when it has ended. Raises DeadlineExceeded, FailedPrecondition."""
        while job not in self._ended:
            self._next()
        return self._ended.pop(job)

    def _ask(self, address: DBusAddress, method: str, signature: str, *body: object) -> str:
        message = new_method_call(address, method, signature or None, body)
        self._serial += 1
        try:
            self._limit()
            self._socket.sendall(message.serialise(serial=self._serial))
        except OSError as error:
            raise self._lost(error) from error
        while True:
            answer = self._next()
            if answer.header.fields.get(HeaderFields.reply_serial) != self._serial:
                continue
            texts = [each for each in answer.body if isinstance(each, str)]
            if answer.header.message_type is MessageType.error:
                raise Refused(str(answer.header.fields.get(HeaderFields.error_name, "")), "".join(texts[:1])[:500])
            return "".join(texts[:1])

    def _next(self) -> Message:
        try:
            while (message := self._parser.get_next_message()) is None:
                self._limit()
                self._parser.add_data(self._more())
        except OSError as error:
            raise self._lost(error) from error
        if message.header.fields.get(HeaderFields.member) == "JobRemoved" and len(message.body) == 4:
            _, job, _, result = message.body
            self._ended[str(job)] = str(result)
        return message

    def _more(self) -> bytes:
        data = self._socket.recv(PIECE)
        if not data:
            raise ConnectionResetError("the connection was closed")
        return data

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)

    def _lost(self, error: Exception) -> Error:
        if isinstance(error, TimeoutError):
            return DeadlineExceeded(f"cannot {self._what}: systemd did not answer in {DEADLINE:.0f} s; try again")
        why = (isinstance(error, OSError) and error.strerror) or str(error)
        return FailedPrecondition(f"cannot {self._what}: systemd's bus is gone: {why}; see systemctl status dbus")

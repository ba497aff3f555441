"""Namespaces of a pod with a user namespace: that namespace owns all others, and IDs in them are mapped.

A thread cannot change its user namespace, so a fork of the zygote goes there, makes and prepares what the pod has,
and stays until it has names. This module's `serve` runs in that fork, so it imports little.
"""

from __future__ import annotations

import json
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import TypedDict

    from windlass.contracts.zygote import Zygote
    from windlass_sandboxer.settings import Settings

    class Order(TypedDict):
        """What a fork is to make: kinds of namespaces, and what is set in them."""

        kinds: list[str]
        hostname: str
        sysctls: list[tuple[str, str, str]]
        """Names, paths and values."""


MODULE = "windlass_sandboxer.owned"
ENTRY = f"{MODULE}:serve"
DONE = b"done"
ANSWER_LIMIT = 4096


def create(zygote: Zygote, names: Mapping[str, Path], settings: Settings, netns: str) -> None:
    """Make a pod's namespaces, of the user namespace that owns ``netns``, or of a new one without. All or none.

    ``names`` has the kinds, ``user`` among them. Blocks; raises OSError.
    """
    from pathlib import Path

    from windlass_linux import namespaces

    kinds = [kind for kind in names if kind != "user"]
    if netns:
        user = namespaces.owner_of(Path(netns))
        with namespaces.files_for([names["user"]]):
            try:
                namespaces.pin(f"/proc/self/fd/{user}", names["user"])
            finally:
                os.close(user)
    else:
        namespaces.create_owned({"user": names["user"]}, settings.uidmap, settings.gidmap)
    try:
        with namespaces.files_for(names[kind] for kind in kinds):
            _prepared(zygote, names, kinds, settings, netns)
    except BaseException:
        namespaces.remove(names["user"])
        raise


def _prepared(zygote: Zygote, names: Mapping[str, Path], kinds: list[str], settings: Settings, netns: str) -> None:
    """Have a fork of the zygote make and prepare the namespaces, and give them their names."""
    from windlass_linux import namespaces
    from windlass_sandboxer.settings import path_of

    order: Order = {
        "kinds": kinds,
        "hostname": settings.hostname if settings.uts else "",
        "sysctls": [
            (name, path_of(name), value)
            for name, value in settings.sysctls.items()
            if netns or not name.startswith("net")
        ],
    }
    ours, theirs = socket.socketpair()
    with ours, theirs:
        paths = [str(names["user"]), *([netns] if netns else [])]
        joined = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
        try:
            child = zygote.spawn(ENTRY, [], [theirs.fileno(), *joined])
        finally:
            for descriptor in joined:
                os.close(descriptor)
        theirs.close()
        try:
            ours.sendall(json.dumps(order).encode() + b"\n")
            answer = ours.recv(ANSWER_LIMIT)
            if answer != DONE:
                raise OSError(
                    answer.decode(errors="replace") or "the namespaces were not made; the daemon's log says why"
                )
            for kind in kinds:
                namespaces.pin(f"/proc/{child.pid}/ns/{kind}", names[kind])
        finally:
            os.close(child.pidfd)  # it ends with our end of the socket


def serve(arguments: list[str], descriptors: list[int]) -> int:
    """Make the namespaces that the first descriptor's peer orders, in those of the other descriptors; wait for it."""
    with socket.socket(fileno=descriptors[0]) as peer:
        order = json.loads(peer.makefile("rb").readline())
        try:
            _make(order, descriptors[1:])
        except OSError as error:
            peer.sendall(str(error).encode()[:ANSWER_LIMIT])
            return 1
        peer.sendall(DONE)
        peer.recv(1)
    return 0


def _make(order: Order, namespaces: list[int]) -> None:
    from windlass_linux import calls as linux

    enter(namespaces)
    flags = {"ipc": linux.CLONE_NEWIPC, "uts": linux.CLONE_NEWUTS}
    linux.unshare(sum(flags[kind] for kind in order["kinds"]))
    if order["hostname"]:
        socket.sethostname(order["hostname"])
    for name, path, value in order["sysctls"]:
        try:
            with open(path, "w") as file:  # noqa: PTH123 - without pathlib
                file.write(value)
        except OSError as error:
            raise OSError(error.errno, f"sysctl {name} cannot be set to {value!r}: {error.strerror}") from None


def enter(namespaces: list[int]) -> None:
    """Enter namespaces, a user namespace first, and be its root."""
    from windlass_linux import calls as linux

    for namespace in namespaces:
        linux.setns(namespace)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)

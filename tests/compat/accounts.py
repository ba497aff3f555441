"""What a machine without containers has: processes, mounts, cgroups, files, descriptors and database rows.

Taken before a test and after it, two accounts tell what has been left behind.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from compat.machines import MARK, RUNC_STATE, Machine

ZYGOTE, WAITING, SHIM, WORKER = "windlass-zygote", "windlass-waits", "windlass-shim", "windlass-serves"


@dataclass(frozen=True)
class Account:
    """What there is of a machine while it has no containers."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    cgroups: tuple[str, ...]
    files: tuple[str, ...]
    descriptors: tuple[str, ...]
    rows: tuple[str, ...]

    def more_than(self, before: Account) -> list[str]:
        """Return what is here and was not there, one line each."""
        found = []
        for name in (each.name for each in fields(self)):
            more = collections.Counter(getattr(self, name))
            more.subtract(getattr(before, name))
            found += [f"left: {name}: {count} × {what}" for what, count in sorted(more.items()) if count > 0]
        return found


def shim_of(name: str, title: str) -> str:
    """Return the ID that a shim and its worker have in their titles, "" for what is neither."""
    words = title.split()
    if words and words[0].endswith(("entry:serve", "entry:serve_own")) and len(words) > 3:
        return words[3]
    # One that was executed: its name, -namespace NAMESPACE -id ID -address ADDRESS; one of ours was forked by its verb.
    executed = "containerd-shim-" in title and "-id" in words
    if executed and (name == SHIM or words[-1] not in ("start", "delete")):
        return words[words.index("-id") + 1]
    return ""


def family(machine: Machine) -> Iterator[tuple[int, str, str]]:
    """Yield pid, name and title of the daemon's zygotes, shims and other processes forked for it, not its own."""
    mark = f"{MARK}={machine.namespace}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != machine.pid:
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                yield int(entry.name), (entry / "comm").read_text().strip(), title


def take_account(machine: Machine) -> Account:
    """Take stock of a machine that should have no containers."""
    named = {pid: (name, title) for pid, name, title in family(machine)}
    for pid in machine.processes():
        if pid != machine.pid:
            named.setdefault(pid, ("?", title_of(pid)))
    zygotes = [pid for pid, (name, _) in named.items() if name == ZYGOTE]
    # One child in reserve for each zygote is no more than there should be, but it may just be on its way.
    spare = len([pid for pid, (name, title) in named.items() if name == WAITING and title == ZYGOTE])
    others = [title or name for name, title in named.values() if title != ZYGOTE]
    extra = [WAITING] * (spare - len(zygotes))
    return Account(
        processes=(*(ZYGOTE for _ in zygotes), *extra, *others),
        mounts=tuple(machine.mounts()),
        cgroups=tuple(map(str, machine.cgroups())),
        files=tuple(files_of(machine)),
        descriptors=tuple(each for pid in (machine.pid, *zygotes) for each in descriptors_of(pid)),
        rows=tuple(rows_of(machine)),
    )


def title_of(pid: int) -> str:
    """Return the command line of a process, "" when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def files_of(machine: Machine) -> Iterator[str]:
    """Yield every path below the daemon's directories: bundles, sockets, FIFOs, snapshots, blobs, runc's state."""
    for base in (machine.root, machine.state):
        for directory, names, files in os.walk(base):
            if Path(directory).name == "fs" and "snapshotter" in directory:
                names.clear()
                continue
            for name in (*names, *files):
                if not name.endswith(("-wal", "-shm", "-journal")):
                    yield str(Path(directory, name).relative_to(machine.directory))
    yield from map(str, (RUNC_STATE / machine.namespace).glob("*"))


def descriptors_of(pid: int) -> Iterator[str]:
    """Yield what the descriptors of a process are open on, without the numbers of sockets and pipes.

    A database is counted once: it keeps a pool of readers, which grows with the load and has a limit.
    """
    who = Path(f"/proc/{pid}/comm").read_text().strip()
    databases = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(entry)
            if target.removesuffix("-wal").removesuffix("-shm").endswith(".db"):
                databases.add(target)
            else:
                yield f"{who}: {re.sub(r':.[0-9]+.$', '', target)}"
    yield from (f"{who}: {target}" for target in databases)


def rows_of(machine: Machine) -> Iterator[str]:
    """Yield the table of every row of the daemon's databases, read from a copy: nobody else may have them open."""
    for path in sorted(machine.root.rglob("*.db")):
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch, "db")
            copy.write_bytes(path.read_bytes())
            log = path.with_name(f"{path.name}-wal")
            if log.exists():
                copy.with_name("db-wal").write_bytes(log.read_bytes())
            with contextlib.closing(sqlite3.connect(copy)) as connection:
                for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    (count,) = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()
                    yield from [f"{path.name} {table}"] * count

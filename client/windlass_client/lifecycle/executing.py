"""Runs further processes in containers that run."""

from __future__ import annotations

import asyncio
import secrets
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from windlass.contracts.containers import Container
from windlass.errors import Error, FailedPrecondition, NotFound
from windlass_client import lookup
from windlass_client.namespace import ClientNamespace, from_message
from windlass_client.session import Detached, Session
from windlass_local import fifos
from windlass_local.fifos import Fifos
from windlass_local.namespace import Tasks
from windlass_oci import capabilities, process, users
from windlass_oci.accounts import read_files
from windlass_oci.defaults import bounded
from windlass_oci.payloads import PROCESS, spec_of, to_payload

if TYPE_CHECKING:
    from windlass_client.client import Client
    from windlass_oci.runtime_spec import Process


@dataclass(frozen=True)
class Wanted:
    """A process to run; what is empty is as the container's own process has it."""

    arguments: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    cwd: str = ""
    terminal: bool = False
    stdin: bool = False
    privileged: bool = False
    fifo_dir: str = ""
    detach_keys: bytes = b""


async def execute(
    client: Client, word: str, wanted: Wanted, exec_id: str = "", detach: bool = False
) -> tuple[int, str]:
    """Run a process in a container; return its exit status, 0 if it runs on, and its ID."""
    exec_id = exec_id or f"exec-{secrets.token_hex(6)}"
    namespace = ClientNamespace(client)
    container = from_message(await lookup.container(client, word))
    made = await _process(client, container, wanted)
    with _streams(exec_id, wanted, detach) as streams:
        try:
            await namespace.tasks.exec(container.id, exec_id, to_payload(PROCESS, made), streams.io)
        except NotFound:
            raise FailedPrecondition(f"container {container.id} is not running; it has no task") from None
        try:
            return await _run(namespace.tasks, container.id, exec_id, streams, wanted, detach), exec_id
        except BaseException:
            await asyncio.shield(_undo(namespace.tasks, container.id, exec_id))
            raise


def _streams(name: str, wanted: Wanted, detach: bool) -> Fifos:
    if detach:
        return Fifos(terminal=wanted.terminal)
    return fifos.make(name, stdin=wanted.stdin, terminal=wanted.terminal, parent=wanted.fifo_dir or fifos.DIRECTORY)


async def _run(tasks: Tasks, id: str, exec_id: str, streams: Fifos, wanted: Wanted, detach: bool) -> int:
    if detach:
        await tasks.start(id, exec_id)
        return 0
    session = Session(tasks, id, exec_id, streams, detach_keys=wanted.detach_keys)
    try:
        return await session.run(lambda: tasks.delete_exec(id, exec_id))
    except Detached:
        sys.stderr.write("read escape sequence\n")
        return 0


async def _undo(tasks: Tasks, id: str, exec_id: str) -> None:
    for step in (tasks.kill(id, 9, exec_id), tasks.delete_exec(id, exec_id)):
        try:
            await step
        except Error:
            pass  # the first failure is the one that the user needs


async def _process(client: Client, container: Container, wanted: Wanted) -> Process:
    """Return the container's own process with other arguments, and what the options change."""
    base = spec_of(container)["process"]
    made: Process = {**base, "args": list(wanted.arguments), "terminal": wanted.terminal}
    made["env"] = process.merge_env(base.get("env") or [], wanted.env)
    if wanted.terminal and not any(entry.startswith("TERM=") for entry in made["env"]):
        made["env"].append("TERM=xterm")
    if wanted.user:
        process.set_user(made, await _user(client, container.id, wanted.user))
    if wanted.cwd:
        process.set_cwd(made, wanted.cwd)
    if wanted.privileged:
        made["capabilities"] = bounded(capabilities.current())
    return made


async def _user(client: Client, id: str, text: str) -> users.User:
    """Return who a user is by the accounts in the container, which may have changed since it was created."""
    if users.is_numeric(text):
        return users.find_user(text, users.Accounts())
    try:
        pid = (await client.tasks.get(id)).pid
        accounts = await asyncio.to_thread(read_files, f"/proc/{pid}/root")
    except (NotFound, OSError):
        raise FailedPrecondition(f"container {id} is not running; it has no task") from None
    return users.find_user(text, accounts)

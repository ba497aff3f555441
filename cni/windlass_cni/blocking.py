"""`networks` for a program that does nothing else meanwhile and has to start fast: no event loop, no asyncio.

What is kept, and in which order, is the same: what one of the two has attached the other can detach.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from windlass.errors import DeadlineExceeded, Error, FailedPrecondition
from windlass_cni.cache import Cache, Cached
from windlass_cni.config import Network, Object
from windlass_cni.protocol import (
    CHECKS_SINCE,
    Attachment,
    answer,
    environment,
    execution_conf,
    find,
    joined,
    result_of,
)
from windlass_cni.result import Result, parse


@dataclass(frozen=True, slots=True)
class BlockingNetworks:
    """Attaches and detaches containers, one call after the other."""

    directories: tuple[Path, ...]
    """Where plugins are."""
    cache: Cache
    timeout: float
    """Seconds that one plugin may take."""

    def add(self, network: Network, attachment: Attachment, capability_args: Object) -> Result:
        """Attach a container; when a plugin fails, what the others had done is taken back. Raises as `run`, OSError."""
        begun = Cached(network, attachment, capability_args, None)
        self.cache.keep(begun)
        try:
            document: Object | None = None
            for plugin in network.plugins:
                conf = execution_conf(network, plugin, capability_args, document)
                document = result_of(plugin.type, "ADD", self.run("ADD", plugin.type, conf, attachment))
            self.cache.keep(replace(begun, result=document))
        except BaseException:
            try:
                self.delete(begun)
            except Error:
                pass  # the record stays, so that a later DEL can try again; the first failure is the one to tell
            raise
        return parse(network.name, attachment.interface, document or {})

    def delete(self, cached: Cached) -> None:
        """Detach, and forget the attachment. Raises the plugins' errors after all were asked; then it is kept."""
        network, attachment = cached.network, cached.attachment
        previous = cached.result if network.at_least(CHECKS_SINCE) else None
        problems: list[Error] = []
        for plugin in reversed(network.plugins):
            conf = execution_conf(network, plugin, cached.capability_args, previous)
            try:
                self.run("DEL", plugin.type, conf, attachment)
            except Error as error:
                problems.append(error)
        if problems:
            raise joined(problems)
        self.cache.drop(network.name, attachment.container, attachment.interface)

    def delete_all(self, container: str, netns: str) -> None:
        """Detach a container from all its networks, the last first; ``netns`` is empty if its namespace is gone.

        Raises the plugins' errors after all were asked.
        """
        problems: list[Error] = []
        for cached in reversed(self.cache.of_container(container)):
            try:
                self.delete(replace(cached, attachment=replace(cached.attachment, netns=netns)))
            except Error as error:
                problems.append(type(error)(f'network "{cached.network.name}": {error}'))
        if problems:
            raise joined(problems)

    def run(self, command: str, name: str, conf: Object, attachment: Attachment | None = None) -> bytes:
        """Execute a plugin and return what it printed. Raises as `windlass_cni.execute.Programs.run`."""
        program = find(self.directories, name)
        try:
            process = subprocess.Popen(
                [program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(self.directories, command, attachment),
                start_new_session=True,
            )
        except OSError as error:
            raise FailedPrecondition(f"CNI plugin {program} cannot be executed: {error.strerror}") from None
        try:
            output, errors = process.communicate(json.dumps(conf).encode(), self.timeout)
        except BaseException as error:
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise DeadlineExceeded(f"CNI plugin {name} did not end {command} within {self.timeout:g} s") from None
            raise
        return answer(name, command, process.returncode, output, errors)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what still runs of the plugin's session, reap the plugin, and close its pipes."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()

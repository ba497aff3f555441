"""A plugin that hangs does not outlive the daemon that executed it by more than the next one's start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from cni.conftest import ATTACHMENT, World

from windlass_cni.orphans import end_orphans

DAEMON = """
import asyncio, sys
from pathlib import Path
from windlass_cni.execute import Attachment, Programs
asyncio.run(Programs((Path(sys.argv[1]),)).run("ADD", "hang", {}, Attachment("c1", "/run/netns/x", "eth0")))
"""
HANG = """#!/bin/sh
echo $$ > "$0.pid"
sleep 100 &
sleep 100
"""


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


async def test_a_plugin_whose_daemon_was_killed_is_ended_and_no_other(world: World) -> None:
    plugin, note = world.bin / "hang", world.bin / "hang.pid"
    plugin.write_text(HANG)
    plugin.chmod(0o755)
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(world.bin)])
    async with asyncio.timeout(60):
        while not note.exists() or not note.read_text().strip():
            await asyncio.sleep(0.05)
    pid = int(note.read_text())
    ours = asyncio.ensure_future(world.networks.add(world.network(onADD="hang"), ATTACHMENT, {}))
    try:
        while "ADD first" not in world.called():
            await asyncio.sleep(0.01)
        end_orphans()
        assert is_there(pid) and not ours.done()
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(20)
        assert is_there(pid)
        end_orphans()
        async with asyncio.timeout(20):
            while is_there(pid):
                await asyncio.sleep(0.05)
        assert not ours.done()
    finally:
        ours.cancel()
        await asyncio.wait({ours})
        daemon.kill()
        if is_there(pid):
            os.killpg(pid, signal.SIGKILL)

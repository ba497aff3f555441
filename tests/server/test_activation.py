"""Sockets that systemd passes are served; the daemon neither makes nor removes their paths."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from windlass_server.activation import inherit

PROGRAM = """
import json, os, socket, sys
from pathlib import Path
from windlass_server import sockets
from windlass_server.activation import inherited
owner = (os.geteuid(), os.getegid())
place = sockets.listen(Path(sys.argv[1]), owner)
peer, _ = place.socket.accept()
peer.sendall(b"served")
left = inherited.close_rest()
place.close()
child = [name for name in os.environ if name.startswith("LISTEN_")]
print(json.dumps({"left": list(map(str, left)), "environment": child}))
"""


def listener(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def start(program: str, path: Path, passed: list[socket.socket]) -> subprocess.Popen[str]:
    """Start a program as systemd would: what is passed has the numbers from 3 on, and its PID is in LISTEN_PID."""
    # copies with numbers that are not among those they are moved to
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in passed]
    moves = " ".join(f"{3 + number}<&{copy}" for number, copy in enumerate(copies))
    script = f'exec {moves}; export LISTEN_PID=$$ LISTEN_FDS={len(passed)}; exec "$@"'
    command = ["bash", "-c", script, "bash", sys.executable, "-c", program, str(path)]
    try:
        return subprocess.Popen(command, pass_fds=copies, stdout=subprocess.PIPE, text=True)
    finally:
        for copy in copies:
            os.close(copy)


def test_a_socket_of_systemd_is_served_and_stays(tmp_path: Path) -> None:
    """A client that came before the daemon is answered; the path is systemd's, and other sockets are not held open."""
    path, other = tmp_path / "w.sock", tmp_path / "other.sock"
    with listener(path) as one, listener(other) as two, socket.socket(socket.AF_UNIX) as early:
        early.connect(str(path))
        inode = path.stat().st_ino
        process = start(PROGRAM, path, [one, two])
        assert early.recv(10) == b"served"
        output, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    said = json.loads(output)
    assert said["left"] == [str(other)]
    assert said["environment"] == []
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("said", [{"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}, {"LISTEN_PID": "x"}])
def test_what_was_passed_to_another_process_is_left_alone(said: dict[str, str]) -> None:
    """A daemon that is started from a shell of a socket-activated service takes none of that service's descriptors."""
    environment = {**said, "HOME": "/"}
    assert inherit(environment) == {}
    assert environment == {"HOME": "/"}


def test_descriptors_that_do_not_listen_are_no_sockets_of_ours(tmp_path: Path) -> None:
    """A connected socket, and one without a path, are not served."""
    program = (
        "import os\nfrom windlass_server.activation import inherit\nprint(sorted(map(str, inherit(os.environ))))\n"
    )
    one, two = socket.socketpair(socket.AF_UNIX)
    with one, two, listener(tmp_path / "w.sock") as three:
        process = start(program, tmp_path, [one, three])
        output, _ = process.communicate(timeout=20)
    assert output == f"['{tmp_path}/w.sock']\n"

"""`windlassd-rootless`: makes the namespaces of a plain user's daemon, and stays their parent (docs/rootless.md).

Its processes, of which each ends when the one above it is killed:

    windlassd-rootless          in the new namespaces itself, as their parent has to be
      slirp4netns               outside of them
      process 1 of the PIDs     `windlass_linux.rootless.inside`
        windlassd, shims, containers
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from windlass import __version__
from windlass.errors import StartError
from windlass_linux import calls as linux
from windlass_linux.rootless import identity, inside
from windlass_linux.rootless.network import KINDS, Network, choose
from windlass_linux.rootless.places import Places

SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")
NAMESPACES = linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where runc and iptables are, which the PATH of a user lacks."""
OKAY = b"1"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        "windlassd-rootless",
        description="Runs windlassd as a plain user, in a user namespace. Further options are windlassd's own.",
        allow_abbrev=False,
    )
    top.add_argument("-v", "--version", action="version", version=f"windlassd-rootless {__version__}")
    top.add_argument("--network", choices=KINDS, help="what carries the network (default: the first that is installed)")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the launcher; return windlassd's exit code, or 1 after a line for what is missing."""
    options, rest = parser().parse_known_args(argv)
    try:
        return launch(options.network or "", rest)
    except StartError as error:
        inside.say(str(error))
        return 1


def launch(network: str, arguments: Sequence[str]) -> int:
    """Make the namespaces, run windlassd in them, and return its exit code. Raises StartError."""
    maps = _maps()
    carrier = choose(network)
    daemon = Path(sys.executable).with_name("windlassd")
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{SBIN}"
    places = Places.of_environment()
    places.make()
    lock = _lock(places.pid_file)
    host = _start_host_side(maps, carrier, places.api)
    first = _start_first(places, carrier, [str(daemon), *arguments])
    os.pwrite(lock, f"{first}\n".encode(), 0)
    try:
        return _supervise(first, host, carrier)
    finally:
        places.pid_file.write_text("")


def _maps() -> tuple[list[str], list[str]]:
    """Return the arguments of newuidmap and newgidmap. Raises StartError for what a host lacks."""
    if os.geteuid() == 0:
        raise StartError("user 0 is root, which needs no user namespace; run windlassd, or be another user")
    for program in ("newuidmap", "newgidmap"):
        if not shutil.which(program):
            raise StartError(f"{program} is not installed; as root: apt-get install uidmap")
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        raise StartError(f"user {uid} is not in /etc/passwd, which newuidmap needs; as root: useradd") from None
    found = []
    for file, own in ((SUBUID, uid), (SUBGID, os.getgid())):
        ranges = identity.subordinate(file, user, uid)
        if warning := identity.shortage(file, ranges):
            inside.say(warning)
        found.append(identity.mapping(own, ranges))
    return found[0], found[1]


def _lock(path: Path) -> int:
    """Lock the file with the PID, so that there is one daemon for a user; it ends with the last process of it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartError(f"a rootless windlassd runs already, its lock is {path}; stop that one first") from None
    os.ftruncate(descriptor, 0)
    return descriptor


def _start_host_side(maps: tuple[list[str], list[str]], network: Network, api: Path) -> int:
    """Enter new namespaces; the process returned stays outside of them, and carries the network if it is own.

    Only a process outside can give this one its IDs.
    """
    entered, tell = os.pipe()
    answer, ready = os.pipe()
    leave, keep = os.pipe()  # ``keep`` stays open here until this process ends
    parent = os.getpid()
    host = os.fork()
    if host == 0:
        os.close(tell)
        os.close(keep)
        _host_side(parent, maps, network, api, (entered, ready, leave))
    os.close(ready)
    try:
        linux.unshare(NAMESPACES | (linux.CLONE_NEWNET if network.own else 0))
    except OSError as error:
        raise StartError(
            f"no user namespace can be made: {error.strerror}; as root: sysctl -w user.max_user_namespaces=15000, "
            "and on Debian kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0"
        ) from None
    os.write(tell, OKAY)
    if os.read(answer, 1) != OKAY:
        os.waitpid(host, 0)
        raise StartError("the namespaces could not be prepared; the lines above say why")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return host


def _host_side(
    parent: int, maps: tuple[list[str], list[str]], network: Network, api: Path, pipes: tuple[int, int, int]
) -> None:
    """Map the IDs of ``parent`` once it is in its user namespace, then become the network's program. Never returns."""
    entered, ready, leave = pipes
    code = 1
    try:
        os.setsid()  # a terminal's ^C is for the launcher, which ends the rest in order
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.read(entered, 1) == OKAY and _map_ids(parent, maps):
            if network.own:
                api.unlink(missing_ok=True)
                for descriptor in (ready, leave):
                    os.set_inheritable(descriptor, True)
                command = network.command(parent, ready, leave, api)
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 0)
                os.dup2(null, 1)
                os.execv(command[0], command)  # noqa: S606 - it becomes the program
            os.write(ready, OKAY)
            code = 0
    except OSError as error:
        inside.say(f"{error.filename or 'network'}: {error.strerror}")
    finally:
        os._exit(code)


def _map_ids(pid: int, maps: tuple[list[str], list[str]]) -> bool:
    for program, arguments in zip(("newuidmap", "newgidmap"), maps, strict=True):
        done = subprocess.run([program, str(pid), *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            inside.say(" ".join(done.stderr.split()) or f"{program} ended with {done.returncode}")
            return False
    return True


def _start_first(places: Places, network: Network, command: Sequence[str]) -> int:
    """Start process 1 of the new PID namespace, which runs the command once all is prepared."""
    first = os.fork()
    if first:
        return first
    code = 1
    try:
        os.setsid()
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        inside.prepare(places, network)
        code = inside.serve(command)
    except OSError as error:
        inside.say(f"{error.filename or 'namespaces'}: {error.strerror}")
    finally:
        os._exit(code)


def _supervise(first: int, host: int, network: Network) -> int:
    """Forward signals to the first process and return its exit code; end it when the network is gone."""
    for number in inside.FORWARDED:
        signal.signal(number, lambda received, _frame: os.kill(first, received))
    code = None
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return 1 if code is None else code
        if pid == first:
            if code is None:
                code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(ProcessLookupError):
                os.kill(host, signal.SIGTERM)
        elif pid == host and network.own and code is None:
            inside.say(f"{network.kind} ended, and the network with it; everything is stopped")
            code = 1
            os.kill(first, signal.SIGKILL)

"""A containerd that is stopped and taken over by a windlassd, both in scratch directories."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from compat.images import Archive, busybox_layer, layer
from compat.machines import WINDLASSD, Machine, Result

NEWER = "WINDLASS_TEST_CONTAINERD"
"""Names a directory with containerd 2.x and its shim, which CI does not have."""
SLEEP = ("/bin/sleep", "1000")


def containerd_of(kind: str, directory: Path) -> Machine:
    """Return a containerd of Debian's, or the one that the environment names."""
    machine = Machine("containerd", directory)
    if kind == "newer":
        place = os.environ.get(NEWER)
        if not place:
            pytest.skip(f"{NEWER} does not name a directory with containerd 2.x")
        machine.environment["PATH"] = f"{place}:{os.environ['PATH']}"
    return machine


class Takeover:
    """The containerd ``old``, the windlassd ``new``, and the command that turns one into the other."""

    def __init__(self, kind: str, scratch: Path) -> None:
        """Make both; nothing runs yet."""
        for name in ("c", "w"):
            (scratch / name).mkdir()
        self.old = containerd_of(kind, scratch / "c")
        self.new = Machine("windlass", scratch / "w")
        self.new.namespace = self.old.namespace
        self.archives = scratch / "archives"
        self.archives.mkdir()

    def fill(self, images: int, containers: int) -> None:
        """Have images, and a container of each that sleeps, in the containerd that runs."""
        base = busybox_layer()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: self._import(number, base), range(images)))
            list(pool.map(self._run, range(containers)))

    def _import(self, number: int, base: bytes) -> None:
        file = self.archives / f"{number}.tar"
        image = Archive(file, name(number), [base, layer({f"file{number}": b"x" * 100_000})])
        self.old.ctr("images", "import", str(image.path))
        file.unlink()

    def _run(self, number: int) -> None:
        self.old.ctr("run", "-d", name(number), f"c{number}", *SLEEP)

    def adopt(self, *options: str, faults: str = "") -> Result:
        """Run `windlassd adopt` to its end, however that is."""
        config = str(self.new.directory / "config.toml")
        command = [sys.executable, "-c", WINDLASSD, "-c", config, "adopt"]
        command += ["--from", str(self.old.root), "--state", str(self.old.state), *options]
        environment = {**os.environ, "WINDLASS_FAULTS": faults}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)

    def take_over(self, *options: str) -> float:
        """Stop containerd, adopt, and start windlassd; return the seconds that adopting took."""
        self.old.stop()
        began = time.monotonic()
        done = self.adopt(*options)
        took = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        self.new.start()
        return took

    def give_back(self) -> str:
        """Stop windlassd, give everything back, and start containerd; return what was printed."""
        self.new.stop()
        done = self.adopt("--back")
        assert done.returncode == 0, done.stderr
        self.old.start()
        return done.stdout

    def close(self) -> None:
        """Remove all of it. Whichever daemon has the containers removes them."""
        for machine in (self.new, self.old):
            with contextlib.suppress(AssertionError, OSError, subprocess.SubprocessError):
                for container in machine.ctr("containers", "ls", "-q").split():
                    machine.remove(container)
        for machine in (self.new, self.old):
            with contextlib.suppress(AssertionError):
                machine.stop()
            machine._sweep()
            shutil.rmtree(machine.directory, ignore_errors=True)


def name(number: int) -> str:
    """Return the name of an image."""
    return f"docker.io/library/busy:{number}"


@contextlib.contextmanager
def running(kind: str, scratch: Path) -> Iterator[Takeover]:
    """Yield one whose containerd runs; all of it is gone afterwards."""
    found = Takeover(kind, scratch)
    try:
        found.old.start()
        yield found
    finally:
        found.close()

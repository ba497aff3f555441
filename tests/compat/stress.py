"""Puts a windlassd of its own under load and says what it has lost, blocked or left behind; anyone can run it, as root.

python tests/compat/stress.py [--workers N] [--seconds T]              create, exec, kill, delete, for T seconds
python tests/compat/stress.py [--workers N] --kills K [--seed S]       the same, with K times `kill -9` at random
"""

# ruff: noqa: T201 -- a command prints
from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from compat.images import Archive, busybox_layer
from compat.machines import Machine
from compat.ordeal import put_under_strain
from compat.strain import Strain

IMAGE = "docker.io/library/busy:1"
NEEDED = {"ctr": "containerd", "runc": "runc", "busybox": "busybox-static"}


def run(options: argparse.Namespace, directory: Path) -> Strain:
    """Make a machine, strain it, and remove it."""
    archive = Archive(directory / "busy.tar", IMAGE, [busybox_layer()])
    place = directory / "m"
    place.mkdir()
    machine = Machine("windlass", place)
    try:
        machine.start()
        machine.ctr("images", "import", str(archive.path))
        found = asyncio.run(
            put_under_strain(
                machine, IMAGE, workers=options.workers, seconds=options.seconds, kills=options.kills, seed=options.seed
            )
        )
    finally:
        if machine.log.exists():
            shutil.copy(machine.log, options.log)
        machine.close()
    return found


def main() -> int:
    """Run as the command line says; exit code 1 when something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8, help="containers at a time (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="how long, without --kills (default %(default)s)")
    parser.add_argument("--kills", type=int, default=0, help="how many `kill -9`; none by default")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1 << 32), help="of the choices; random by default"
    )
    log = Path(tempfile.gettempdir(), "windlass-stress.log")
    parser.add_argument("--log", type=Path, default=log, help="where the daemon's log goes (default %(default)s)")
    parser.add_argument("--errors", action="store_true", help="also print the errors that the kills explain")
    options = parser.parse_args()
    if os.geteuid():
        parser.error("containers need root")
    for tool, package in NEEDED.items():
        if shutil.which(tool) is None:
            parser.error(f"{tool} is missing: apt install {package}")
    print(f"{options.workers} workers, seed {options.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="windlass-stress.", ignore_cleanup_errors=True) as name:
        found = run(options, Path(name))
    print(f"{time.monotonic() - began:.0f} s; done: {dict(found.counts)}; killed: {dict(found.kills)}")
    for excuse, count in found.excuses.most_common() if options.errors else ():
        print(f"{count:>4} × {excuse}")
    for violation in found.violations:
        print(violation)
    print(f"{found.settled:.1f} s after the last deletion everything was gone" if not found.violations else "")
    print(f"{len(found.violations)} violations, {found.kills.total()} kills, seed {options.seed}; log: {options.log}")
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main())

"""`windlassd adopt`: takes over a containerd, says what it would take, or gives it back."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from windlass import discovery
from windlass.config import loading
from windlass.config.loading import Flags, Paths
from windlass.errors import Error, StartError
from windlass.process import faultpoints, setup
from windlass_adopt import report
from windlass_adopt.adopting import adopt, give_back, resume
from windlass_adopt.journal import Journals
from windlass_adopt.places import Places, places_of
from windlass_adopt.plan import look

ROOT, STATE = Path("/var/lib/containerd"), Path("/run/containerd")


def parser() -> argparse.ArgumentParser:
    """Return the parser of what follows ``adopt``."""
    top = argparse.ArgumentParser(
        "windlassd [--root DIR] [--state DIR] adopt",
        description="Take over what a stopped containerd keeps and runs. Options of Windlass's own go before adopt.",
        allow_abbrev=False,
    )
    add = top.add_argument
    add("--from", dest="source", metavar="DIR", type=Path, default=ROOT, help=f"containerd's root (default {ROOT})")
    add("--state", metavar="DIR", type=Path, default=STATE, help=f"containerd's state directory (default {STATE})")
    add("--dry-run", action="store_true", help="say what would be taken, and change nothing")
    add("--leave-behind", action="store_true", help="adopt the rest when something cannot be taken")
    add("--back", action="store_true", help="give everything back to containerd, as it was")
    return top


def run(argv: Sequence[str], path: Path | None, paths: Paths, flags: Flags) -> int:
    """Run ``adopt ARGV`` and return the exit code. Raises StartError."""
    options = parser().parse_args(argv)
    if os.geteuid() != 0:
        raise StartError("only root can adopt a containerd; run as root")
    try:
        faultpoints.arm_from_environment()
    except ValueError as error:
        raise StartError(f"{faultpoints.VARIABLE}: {error}") from None
    draft = loading.read(path, paths, flags)
    config = draft.settle(discovery.discover(draft.disabled))
    places = places_of(config, options.source, options.state)
    try:
        return _run(options, places)
    except Error as error:
        raise StartError(str(error)) from None
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}; remove the cause and run this again") from error


def _run(options: argparse.Namespace, places: Places) -> int:
    if options.dry_run:
        journals = Journals(places.root)
        if journals.unfinished() or journals.done():
            state = "is adopted already" if journals.done() else "is adopted in part; finish it, or give it back"
            sys.stdout.write(f"what was in {places.source} {state}\n")
            return 0
        with contextlib.ExitStack() as locks:
            sys.stdout.write(report.plan_text(look(places, locks)))
        return 0
    setup.make_directory(places.root, 0o700, "root")
    setup.make_directory(places.state, 0o711, "state")
    lock = setup.hold(places.root)
    try:
        return _back(places) if options.back else _adopt(options, places)
    finally:
        os.close(lock)


def _adopt(options: argparse.Namespace, places: Places) -> int:
    began = time.monotonic()
    if resume(places):
        sys.stdout.write("the adoption that was interrupted is finished; start windlassd\n")
        return 0
    if Journals(places.root).done():
        sys.stdout.write(f"what was in {places.source} is adopted already; start windlassd\n")
        return 0
    with contextlib.ExitStack() as locks:
        plan = look(places, locks)
        adopt(plan, options.leave_behind)
    sys.stdout.write(report.done_text(plan, time.monotonic() - began))
    return 0


def _back(places: Places) -> int:
    for line in give_back(places):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{places.source} is containerd's again; start it\n")
    return 0

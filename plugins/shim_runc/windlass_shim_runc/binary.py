"""The shim as an executable, ``containerd-shim-windlass-v1``, for containerd and any other daemon that runs shims.

Every module that is imported before the socket listens is time that the daemon
waits, so what an action needs is imported when it is known (docs/containerd 4.3-4.5).
"""

# ruff: noqa: T201
# What shims print is their answer to the daemon.
from __future__ import annotations

import os
import sys

from windlass_shim_runc.flags import Flags, Refused, parse

MAX_STDIN = 10 << 20


def main() -> int:
    """Do what the command line says; the exit status is 1 with the reason on standard error."""
    try:
        flags = parse(sys.argv[1:])
        if flags.version:
            from windlass import __version__

            print(f"{os.path.basename(sys.argv[0])}:\n  Version:  {__version__}")  # noqa: PTH119 -- no pathlib here
            return 0
        if flags.info:
            from windlass_shim_runc import info

            write(info.describe(read_stdin()))
            return 0
        return act(flags)
    except (Refused, OSError, ValueError) as error:
        print(f"containerd-shim-windlass-v1: {error}", file=sys.stderr)
        return 1


def act(flags: Flags) -> int:
    """Start a shim, or clean up after one."""
    if not flags.namespace or not flags.id:
        raise Refused("flags -namespace and -id must be given")
    if flags.action == "start":
        from windlass_linux import sealing
        from windlass_shim_runc import bootstrap

        # Our own OCI runtime may enter containers from this process.
        sealing.execute(sys.executable, sys.orig_argv)
        return bootstrap.start(flags, read_stdin())
    if flags.action == "delete":
        from windlass_shim_runc import leftovers

        # containerd executes it in the bundle; the flag is for one that does not.
        bundle = os.path.join(os.path.dirname(flags.bundle or os.getcwd()), flags.id)  # noqa: PTH109, PTH118, PTH120
        write(leftovers.delete(bundle, flags.namespace, flags.id))
        return 0
    raise Refused(f"action {flags.action[:100]!r} is not known; use start or delete")


def read_stdin() -> bytes:
    """Return what the daemon gives; raises Refused for more than any daemon gives."""
    try:
        data = sys.stdin.buffer.read(MAX_STDIN + 1) if sys.stdin is not None and not os.isatty(0) else b""
    except OSError as error:
        raise Refused(f"cannot read standard input: {error}") from error
    if len(data) > MAX_STDIN:
        raise Refused(f"standard input exceeds {MAX_STDIN} bytes")
    return data


def write(answer: bytes) -> None:
    """Print an answer that is not text."""
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())

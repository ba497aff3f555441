"""Measures what a person waits for: `windlass run --rm` against `ctr run --rm` in pairs, `ps` and `--help`.

python bench/commands.py [--rounds N]     (as root; Debian packages as for start.py)

Both clients speak to the same windlassd, in turns; read the ratios of one run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from daemons import DEMO_IMAGE, IMAGE, Daemon, remove_tree, windlassd

WINDLASS = str(Path(sys.executable).parent / "windlass")


def seconds(command: Sequence[str], environment: dict[str, str]) -> float:
    """Run a command and return how long it took."""
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure(daemon: Daemon, rounds: int, environment: dict[str, str]) -> dict[str, list[float]]:
    """Let the commands take turns."""
    windlass = [WINDLASS, "--address", daemon.address, "--namespace", daemon.namespace]
    found: dict[str, list[float]] = {"ctr run": [], "windlass run": [], "windlass ps": [], "windlass --help": []}
    for number in range(rounds):
        ctr = daemon.ctr("run", "--rm", "--fifo-dir", str(daemon.scratch / "fifo"), IMAGE, f"r{number}", "/bin/true")
        found["ctr run"].append(seconds(ctr, environment))
        found["windlass run"].append(seconds([*windlass, "run", "--rm", IMAGE, "/bin/true"], environment))
        found["windlass ps"].append(seconds([*windlass, "ps"], environment))
        found["windlass --help"].append(seconds([WINDLASS, "--help"], environment))
    return found


def main() -> None:
    """Print medians and the ratio of the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    scratch = Path(tempfile.mkdtemp(prefix="windlass-bench-"))
    environment = {**os.environ, "WINDLASS_CLIENT_DATA": str(scratch / "data"), "WINDLASS_NETWORK": "none"}
    try:
        daemon = windlassd(scratch)
        try:
            archive = scratch / "image.tar"
            subprocess.run([sys.executable, str(DEMO_IMAGE), str(archive), IMAGE], check=True)
            daemon.run("images", "import", str(archive))
            found = measure(daemon, rounds, environment)
        finally:
            daemon.stop()
    finally:
        remove_tree(scratch)
    for name, times in found.items():
        print(f"{name:16} {statistics.median(times) * 1000:7.0f} ms, fastest {min(times) * 1000:.0f} ms")
    pairs = [ours / theirs for ours, theirs in zip(found["windlass run"], found["ctr run"], strict=True)]
    print(f"windlass run / ctr run: {statistics.median(pairs):.2f}")


if __name__ == "__main__":
    main()

"""Measures what starting windlassd costs, compared with another one: time to the first answer, processor time, memory.

python bench/boot.py --against /path/to/other/venv/bin/windlassd [--rounds N] [--json FILE]     (as root)

The two take turns. Processor time is the daemon's own until it is ready, and of the
programs that it ran to their end; unlike the time to the first answer a busy
machine hardly moves it. Each daemon runs twice before it counts, so that its bytecode is there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from daemons import STOP_TIMEOUT, Daemon
from start import memory

RESULTS = Path(__file__).parent / "results" / "boot.json"
WARM_UP = 2
SETTLE = 1.0
"""Seconds from readiness to the weighing."""

Figures = dict[str, list[float]]


def environment() -> Mapping[str, str]:
    """Return ours without what would keep Python from keeping bytecode."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def processor_time(pid: int) -> float:
    """Return the seconds that a process, and the children that it has waited for, have computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def boot(program: str, figures: Figures) -> None:
    """Start a daemon, note its figures, and stop it."""
    with tempfile.TemporaryDirectory(prefix="windlass-boot.") as name:
        scratch = Path(name)
        (scratch / "config.toml").touch()
        paths = ["--root", f"{name}/root", "--state", f"{name}/state", "--address", f"{name}/d.sock"]
        daemon = Daemon("windlass", [program, "-c", f"{name}/config.toml", *paths], scratch)
        try:
            spent = processor_time(daemon.pid)
            time.sleep(SETTLE)
            weights = memory(daemon.pid)
            for key, value in (("answers", daemon.answers), ("ready", daemon.ready), ("processor", spent)):
                figures.setdefault(key, []).append(value)
            for key in ("rss", "private"):
                figures.setdefault(key, []).append(weights[key])
        finally:
            daemon.process.terminate()
            daemon.process.wait(STOP_TIMEOUT)


def measure(programs: Mapping[str, str], rounds: int) -> dict[str, Figures]:
    """Let the daemons take turns."""
    figures: dict[str, Figures] = {name: {} for name in programs}
    for round in range(rounds + WARM_UP):
        for name, program in sorted(programs.items(), reverse=round % 2 == 1):
            boot(program, figures[name] if round >= WARM_UP else {})
    return figures


def show(figures: dict[str, Figures]) -> None:
    """Print medians and least values of both, and the ratios."""
    ours, theirs = figures["ours"], figures["other"]
    print(f"{'':<12}{'ours':>10}{'other':>10}{'ratio':>8}{'least':>10}{'least':>10}{'ratio':>8}   (seconds, megabytes)")
    for key in ours:
        pairs = [(reduce(ours[key]), reduce(theirs[key])) for reduce in (statistics.median, min)]
        print(f"{key:<12}" + "".join(f"{mine:>10.3f}{other:>10.3f}{mine / other:>8.2f}" for mine, other in pairs))


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", required=True, metavar="WINDLASSD", help="the other daemon's program")
    parser.add_argument("--rounds", type=int, default=10, help="measured rounds (default 10)")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go (default %(default)s)")
    options = parser.parse_args()
    clean = environment()
    os.environ.clear()
    os.environ.update(clean)
    figures = measure(
        {"ours": str(Path(sys.executable).parent / "windlassd"), "other": options.against}, options.rounds
    )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())

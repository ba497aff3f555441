"""Fuzzes the readers of what strangers send.

python tests/fuzz/fuzz.py TARGET [--seconds N | --runs N] [--seed N]     (TARGET: see targets.py)

With `pip install atheris` the mutations are guided by coverage; otherwise, and with --runs, they are those of
mutation.py, the same for the same seed. What fails is written to fuzz-TARGET-… in the current directory: put it into
seeds/TARGET/, where every run and CI begin, see it fail, and mend the reader.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[0] = str(HERE.parent)  # in place of here: this file has the name of its package
PATIENCE = 10
"""Seconds that one input may take."""
MEMORY = 1 << 30
"""Bytes that the process may have, inputs of at most 16 KiB being read."""


def seeds(target: str) -> list[bytes]:
    """Return the kept inputs of a target."""
    return [path.read_bytes() for path in sorted((HERE / "seeds" / target).iterdir())]


def run(name: str, seconds: float, runs: int, seed: int) -> int:
    """Read mutated seeds; return the number of inputs."""
    from fuzz.mutation import Mutator
    from fuzz.targets import TARGETS, resources

    kept = seeds(name)
    mutator, count, end = Mutator(kept, seed), 0, time.monotonic() + seconds
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _too_slow)
    with resources():
        while count < (runs + len(kept) if runs else sys.maxsize) and time.monotonic() < end:
            data = kept[count] if count < len(kept) else mutator.next()
            signal.alarm(PATIENCE)
            try:
                TARGETS[name](data)
            except BaseException:
                _keep(name, data)
                raise
            count += 1
        signal.alarm(0)
    return count


def run_guided(name: str, seconds: float) -> None:
    """Have atheris choose the inputs; it ends the process."""
    import atheris

    with atheris.instrument_imports(include=["windlass", *(f"windlass_{each}" for each in INSTRUMENTED)]):
        targets = importlib.import_module("fuzz.targets")
    scratch = tempfile.mkdtemp(prefix="windlass-fuzz-")
    flags = [f"-max_total_time={seconds:.0f}", f"-timeout={PATIENCE}", f"-rss_limit_mb={MEMORY >> 20}"]
    flags += ["-max_len=16384", f"-artifact_prefix=fuzz-{name}-", "-print_final_stats=1", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, scratch, str(HERE / "seeds" / name)], targets.TARGETS[name])
    atheris.Fuzz()


INSTRUMENTED = ("api", "diff", "images", "metadata", "restart", "runtime_v2", "server", "shim_runc")


def _too_slow(_number: int, _frame: object) -> None:
    raise TimeoutError(f"an input takes more than {PATIENCE} s")


def _keep(name: str, data: bytes) -> None:
    path = Path(f"fuzz-{name}-{hashlib.sha256(data).hexdigest()[:12]}")
    path.write_bytes(data)
    sys.stderr.write(f"fails on {path}\n")


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=sorted(path.name for path in (HERE / "seeds").iterdir()))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--unguided", action="store_true", help="without atheris, also where it is installed")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    if not (options.runs or options.unguided or options.seed is not None) and importlib.util.find_spec("atheris"):
        run_guided(options.target, options.seconds)
    count = run(options.target, options.seconds, options.runs, seed)
    sys.stdout.write(f"{options.target}: {count} inputs, seed {seed}: nothing found\n")


if __name__ == "__main__":
    main()

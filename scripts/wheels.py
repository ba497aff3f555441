"""Makes a wheel and a source archive of every distribution of this tree: python scripts/wheels.py DIRECTORY [compiled].

With `compiled`, distributions that have hot modules get wheels for this Python and this machine (scripts/compiled.py).
The same tree and SOURCE_DATE_EPOCH give the same bytes, whatever times and modes its files have.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compiled import AT_ONCE, into
from compiled import projects as compiled
from flit_core.sdist import SdistBuilder
from flit_core.wheel import make_wheel_in

TREE = Path(__file__).resolve().parent.parent


def projects() -> list[Path]:
    """Return the distributions of a release; examples are not among them."""
    return sorted(path for pattern in ("*", "plugins/*") for path in TREE.glob(f"{pattern}/pyproject.toml"))


def main() -> None:
    """Write them into the directory that the command line names."""
    target = Path(sys.argv[1]).resolve()
    target.mkdir(parents=True, exist_ok=True)
    hot = dict(compiled()) if sys.argv[2:] == ["compiled"] else {}
    wheels = {}
    for project in projects():
        wheels[project.parent] = make_wheel_in(project, target).file
        SdistBuilder.from_ini_path(project).build(target)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wheels |= zip(hot, pool.map(into, [wheels[each] for each in hot], hot, hot.values()), strict=True)
    for wheel in wheels.values():
        wheel.chmod(0o644)
    sys.stdout.write(f"{len(projects())} wheels and source archives are in {target}\n")


if __name__ == "__main__":
    main()

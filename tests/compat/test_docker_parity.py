"""The same commands by docker's client on dockerd and by `windlass`: the same exit code, and the same output."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from compat.conftest import require_foreign_tools
from compat.machines import Machine
from compat.parity import IMAGE, WINDLASS, Answer, Side, archive, difference, network
from compat.parity_cases import CASES
from compat.test_dockerd import TRACES, Docker, program

PAGE = Path(__file__).parents[2] / "docs" / "docker.md"


@pytest.fixture
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    """Docker on a dockerd of its own, and `windlass` on a windlassd."""
    tmp_path = tmp_path_factory.mktemp("p")  # short, for containerd's sockets
    require_foreign_tools()
    program("dockerd")
    new = [path for path in TRACES if not path.exists()]
    archive(tmp_path / "image.tar")
    with ExitStack() as stack:
        stack.callback(_forget, new)
        docker, windlass = (_machine(stack, kind, tmp_path) for kind in ("containerd", "windlass"))
        dockerd = Docker(docker[0], docker[1], ("--userland-proxy=false",))
        stack.callback(dockerd.close)
        dockerd.wait()
        ours = {"WINDLASS_ADDRESS": windlass[0].address, "CONTAINERD_NAMESPACE": windlass[0].namespace}
        ours |= {"WINDLASS_CLIENT_DATA": str(tmp_path / "data"), "NETCONFPATH": str(tmp_path / "net.d")}
        ours["WINDLASS_NETWORK"] = "bridge"
        windlass_words = [*windlass[1], *WINDLASS]
        yield _side("docker", dockerd.command, {}, tmp_path), _side("windlass", windlass_words, ours, tmp_path)


def _machine(stack: ExitStack, kind: str, directory: Path) -> tuple[Machine, list[str]]:
    prefix = ["nsenter", f"--net={stack.enter_context(network())}", "--"]
    (directory / kind).mkdir()
    machine = Machine(kind, directory / kind)
    machine.enter(*prefix)
    machine.start()
    stack.callback(machine.close)
    return machine, prefix


def _side(name: str, words: list[str], environment: dict[str, str], directory: Path) -> Side:
    own = directory / f"{name}-files"
    own.mkdir()
    (own / "variables").write_text("A=1\n# comment\nB=x y\n")
    places = {"image": IMAGE, "archive": str(directory / "image.tar"), "dir": str(own)}
    return Side(words, {**os.environ, **environment}, places)


def _forget(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def answers(side: Side) -> list[Answer]:
    return [side.answer(text, case.stdin) for case, text in zip(CASES, side.texts(CASES), strict=True)]


@pytest.mark.root
@pytest.mark.timeout(900)
def test_the_same_commands_do_the_same(sides: tuple[Side, Side]) -> None:
    """One after another, since each needs what those before it left."""
    with ThreadPoolExecutor(2) as pool:
        docker, windlass = pool.map(answers, sides)
    own = {sides[0].places["dir"]: "DIR", sides[1].places["dir"]: "DIR"}
    found = {
        f"{number}: {case.docker}": problem
        for number, (case, theirs, ours) in enumerate(zip(CASES, docker, windlass, strict=True), 1)
        if (problem := difference(case, theirs, ours, own))
    }
    assert not found, "\n".join(f"{name}: {problem}" for name, problem in found.items())


def row(number: int) -> str:
    """Return the line of a command in the table of docs/docker.md."""
    case = CASES[number - 1]
    ours = f"`windlass {case.windlass}`" if case.windlass else "the same"
    cells = [str(number), f"`docker {case.docker}`", ours, case.compare]
    return f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |"


def test_the_page_lists_the_commands() -> None:
    """The table of docs/docker.md is made of the commands that are compared."""
    listed = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    assert listed == [row(number) for number in range(1, len(CASES) + 1)]

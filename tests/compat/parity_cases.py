"""The commands that docker's client on dockerd and `windlass` are given, one after another; docs/docker.md lists them.

Words in braces stand for what a run has of its own: the image, an archive with it, a directory.
"""

from __future__ import annotations

from dataclasses import dataclass

SAME, CODE, LINES = "output", "exit code", "lines"
"""What must be equal besides the exit code: all that is printed, nothing more, or the lines in any order."""


@dataclass(frozen=True)
class Case:
    """A command, and what must be the same."""

    docker: str
    windlass: str = ""
    """Where it is spelled otherwise."""
    compare: str = SAME
    stdin: str = ""

    @property
    def ours(self) -> str:
        """The words for `windlass`."""
        return self.windlass or self.docker


CASES = (
    Case("load -q -i {archive}", "image import {archive}", CODE),
    Case("run --rm {image} echo hello"),
    Case("run --rm -i {image} cat", stdin="sent"),
    Case("run --rm {image} sh -c 'echo out; echo err >&2; exit 7'"),
    Case("run --rm {image} no-such-program", compare=CODE),
    Case("run --rm {image} /etc", compare=CODE),
    Case("run --rm --no-such-option {image} true", compare=CODE),
    Case("run --rm -e A=1 -e B={{x}} {image} sh -c 'echo $A $B'"),
    Case("run --rm --entrypoint echo {image} instead"),
    Case("run --rm --hostname inside {image} hostname"),
    Case("run --rm -u nobody {image} id -u"),
    Case("run --rm -w /tmp {image} pwd"),
    Case("run --rm --read-only {image} touch /x"),
    Case("run --rm --pids-limit 5 {image} sh -c 'for i in 1 2 3 4 5 6; do sleep 1 & done'", compare=CODE),
    Case("run --name ended {image} sh -c 'exit 5'"),
    Case("rm ended"),
    Case("run -d --name box {image} sleep 1000", compare=CODE),
    Case("exec box echo inside"),
    Case("exec -i box cat", stdin="sent"),
    Case("exec box sh -c 'exit 3'"),
    Case("rm box", compare=CODE),
    Case("rm -f box"),
)

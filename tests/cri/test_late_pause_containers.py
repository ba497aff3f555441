"""The controller of pause containers is imported and made for the first call."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from windlass.contracts.sandboxes import SandboxController, SandboxStatus
from windlass.initialise import check_instance
from windlass_cri.podsandbox.late import LatePauseContainers


class Real:
    """Answers one question, and says when it was closed."""

    closed = False

    async def status(self, namespace: str, id: str, verbose: bool = False) -> SandboxStatus:
        return SandboxStatus(id, state=namespace)

    async def close(self) -> None:
        self.closed = True


async def test_it_is_made_once_for_the_first_call_and_then_closed() -> None:
    made: list[Real] = []

    def make() -> Any:  # for the methods that are called
        made.append(Real())
        return made[-1]

    late = LatePauseContainers(make)
    check_instance(late, SandboxController)
    assert not made
    assert [await late.status("n", id) for id in "ab"] == [SandboxStatus("a", state="n"), SandboxStatus("b", state="n")]
    await late.close()
    assert [each.closed for each in made] == [True]


async def test_an_import_that_fails_is_the_error_of_the_call_and_is_tried_again() -> None:
    problems: list[Exception] = [ImportError("no module named x")]

    def make() -> Any:  # as above
        if problems:
            raise problems.pop()
        return Real()

    late = LatePauseContainers(make)
    with pytest.raises(ImportError, match="no module named x"):
        await late.status("n", "a")
    assert (await late.status("n", "a")).id == "a"


async def test_what_was_never_made_is_not_made_to_be_closed() -> None:
    await LatePauseContainers(lambda: sys.exit("it was made")).close()

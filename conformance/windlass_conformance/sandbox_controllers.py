"""The promises of `windlass.contracts.sandboxes.SandboxController`, one test each (docs/containerd 3.12).

The subclass provides the fixture ``controller``: a function that makes a controller, or finds one, inside a running
event loop; ``runtime`` is the name of a runtime that has sandboxes, and ``namespace`` one that no other client uses.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import pytest

from windlass.contracts.sandboxes import Sandbox, SandboxController, SandboxOptions
from windlass.errors import AlreadyExists, Error, NotFound

PATIENCE = 30.0
READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"

Make = Callable[[], SandboxController]
Case = Callable[[SandboxController], Awaitable[None]]


class SandboxControllerSuite:
    """The promises of a sandbox controller; the module says how to run the suite."""

    certifies = "sandbox"

    @pytest.fixture
    def controller(self) -> Make:
        """Give what makes the controller under test; the subclass provides it."""
        raise NotImplementedError("the subclass provides the sandbox controller under test")

    @pytest.fixture
    def namespace(self) -> str:
        """Give a namespace."""
        return f"conformance-{secrets.token_hex(4)}"

    @pytest.fixture
    def runtime(self) -> str:
        """Give the name of a runtime with sandboxes."""
        return "io.containerd.runc.v2"

    def _run(self, controller: Make, namespace: str, case: Case) -> None:
        async def work() -> None:
            found = controller()
            try:
                async with asyncio.timeout(PATIENCE):
                    await case(found)
            finally:
                for id in ("one", "two"):
                    try:
                        await found.shutdown(namespace, id)
                    except Error:
                        continue  # it is not there
                close = getattr(found, "close", None)
                if close is not None:
                    await close()

        asyncio.run(work())

    def test_a_sandbox_lives_from_create_to_shutdown(self, controller: Make, namespace: str, runtime: str) -> None:
        """Status and events report created, ready, stopped and gone, and the exit."""

        async def case(found: SandboxController) -> None:
            await found.create(namespace, Sandbox("one", runtime), SandboxOptions())
            assert (await found.status(namespace, "one")).state == NOT_READY
            started = await found.start(namespace, "one")
            assert started.id == "one" and started.pid > 0
            status = await found.status(namespace, "one")
            assert (status.id, status.state, status.pid) == ("one", READY, started.pid)
            waiting = asyncio.ensure_future(found.wait(namespace, "one"))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await found.stop(namespace, "one", 5.0)
            assert (await waiting).status == 0
            assert (await found.status(namespace, "one")).state == NOT_READY
            await found.shutdown(namespace, "one")
            with pytest.raises(NotFound):
                await found.platform(namespace, "one")

        self._run(controller, namespace, case)

    def test_an_id_is_used_once(self, controller: Make, namespace: str, runtime: str) -> None:
        """A second sandbox of the same ID is AlreadyExists, and the first goes on."""

        async def case(found: SandboxController) -> None:
            await found.create(namespace, Sandbox("one", runtime), SandboxOptions())
            started = await found.start(namespace, "one")
            with pytest.raises(AlreadyExists):
                await found.create(namespace, Sandbox("one", runtime), SandboxOptions())
            assert (await found.status(namespace, "one")).pid == started.pid

        self._run(controller, namespace, case)

    def test_the_platform_is_told(self, controller: Make, namespace: str, runtime: str) -> None:
        """The platform has an operating system and an architecture."""

        async def case(found: SandboxController) -> None:
            await found.create(namespace, Sandbox("one", runtime), SandboxOptions())
            await found.start(namespace, "one")
            platform = await found.platform(namespace, "one")
            assert platform.os and platform.architecture

        self._run(controller, namespace, case)

    def test_stopping_twice_is_no_error(self, controller: Make, namespace: str, runtime: str) -> None:
        """A stopped sandbox can be stopped and waited for again."""

        async def case(found: SandboxController) -> None:
            await found.create(namespace, Sandbox("one", runtime), SandboxOptions())
            await found.start(namespace, "one")
            await found.stop(namespace, "one", 5.0)
            await found.stop(namespace, "one", 5.0)
            assert [(await found.wait(namespace, "one")).status for _ in range(2)] == [0, 0]

        self._run(controller, namespace, case)

    def test_what_is_not_there_is_not_found(self, controller: Make, namespace: str) -> None:
        """Platform, wait, shutdown and metrics of an unknown sandbox are NotFound."""

        async def case(found: SandboxController) -> None:
            for call in (found.platform, found.wait, found.shutdown, found.metrics):
                with pytest.raises(NotFound):
                    await call(namespace, "none")

        self._run(controller, namespace, case)

    def test_sandboxes_are_apart(self, controller: Make, namespace: str, runtime: str) -> None:
        """The end of one sandbox does not end another, and their processes differ."""

        async def case(found: SandboxController) -> None:
            for id in ("one", "two"):
                await found.create(namespace, Sandbox(id, runtime), SandboxOptions())
            pids = [(await found.start(namespace, id)).pid for id in ("one", "two")]
            assert pids[0] != pids[1]
            await found.stop(namespace, "one", 5.0)
            assert (await found.status(namespace, "two")).state == READY

        self._run(controller, namespace, case)

    def test_an_id_is_free_after_shutdown(self, controller: Make, namespace: str, runtime: str) -> None:
        """The same ID serves again when its sandbox is gone."""

        async def case(found: SandboxController) -> None:
            for _ in range(2):
                await found.create(namespace, Sandbox("one", runtime), SandboxOptions())
                await found.start(namespace, "one")
                await found.shutdown(namespace, "one")

        self._run(controller, namespace, case)

    def test_an_unknown_runtime_is_refused(self, controller: Make, namespace: str) -> None:
        """An unknown runtime is an error that names it, and nothing stays."""

        async def case(found: SandboxController) -> None:
            with pytest.raises(Error, match="nosuch"):
                await found.create(namespace, Sandbox("one", "io.containerd.nosuch.v1"), SandboxOptions())
                await found.start(namespace, "one")
            with pytest.raises(NotFound):
                await found.shutdown(namespace, "one")

        self._run(controller, namespace, case)

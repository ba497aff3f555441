"""Clients that ask again, errors that name a step, and the leases of pods."""

from __future__ import annotations

import asyncio

import pytest

from windlass.contracts.leases import Lease, LeaseStore, Resource
from windlass.errors import AlreadyExists, DeadlineExceeded, Error, InvalidArgument, NotFound, Unknown
from windlass_cri.attempts import Attempts
from windlass_cri.pods.leases import PodLeases
from windlass_cri.steps import runtime_step, step


class Work:
    """Something that is made as often as it is begun, once it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.error: Error | None = None

    async def __call__(self) -> str:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return f"id{number}"


async def left(task: asyncio.Task[str]) -> None:
    """Let a client begin to wait, and leave."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})


async def test_a_retry_joins_the_first_attempt() -> None:
    attempts, work = Attempts(), Work()
    calls = [asyncio.create_task(attempts.run("a", b"same", work)) for _ in range(3)]
    await asyncio.sleep(0)
    work.may_end.set()
    assert await asyncio.gather(*calls) == ["id1"] * 3


async def test_a_retry_gets_what_was_made_after_its_client_had_left() -> None:
    attempts, work = Attempts(), Work()
    await left(asyncio.create_task(attempts.run("a", b"same", work)))
    work.may_end.set()
    await asyncio.sleep(0.01)
    assert await attempts.run("a", b"same", work) == "id1"
    assert await attempts.run("a", b"same", work) == "id2"  # it was handed out; the name's owner refuses this one


async def test_what_was_stopped_is_not_handed_out() -> None:
    attempts, work = Attempts(), Work()
    work.may_end.set()
    await left(asyncio.create_task(attempts.run("a", b"same", work)))
    await asyncio.sleep(0.01)
    attempts.forget("a")
    assert await attempts.run("a", b"same", work) == "id2"


async def test_another_request_of_the_name_is_an_attempt_of_its_own() -> None:
    attempts, work = Attempts(), Work()
    work.may_end.set()
    made = await asyncio.gather(attempts.run("a", b"x", work), attempts.run("a", b"y", work))
    assert list(made) == ["id1", "id2"]


async def test_a_failure_is_every_waiting_clients_and_the_next_one_tries_anew() -> None:
    attempts, work = Attempts(), Work()
    work.error = Unknown("no luck")
    calls = [asyncio.create_task(attempts.run("a", b"", work)) for _ in range(2)]
    await asyncio.sleep(0)
    work.may_end.set()
    for call in calls:
        with pytest.raises(Unknown, match="no luck"):
            await call
    work.error = None
    assert await attempts.run("a", b"", work) == "id2"


async def test_closing_ends_what_is_being_made() -> None:
    attempts, work = Attempts(), Work()
    call = asyncio.create_task(attempts.run("a", b"", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await attempts.close()
    with pytest.raises(asyncio.CancelledError):
        await call


async def failing(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "kind"),
    [(NotFound("x"), NotFound), (DeadlineExceeded("x"), DeadlineExceeded), (InvalidArgument("x"), Unknown),
     (OSError("x"), Unknown)],
)  # fmt: skip
async def test_an_error_names_what_was_made_and_the_step(error: Exception, kind: type[Error]) -> None:
    with pytest.raises(kind, match=r"^pod a: network: x$") as raised:
        await step("pod a", "network", failing(error))
    assert type(raised.value) is kind


async def test_the_innermost_step_is_the_one_that_is_named() -> None:
    with pytest.raises(Unknown, match=r"^pod a: image: x$"):
        await step("pod a", "record", step("pod a", "image", failing(OSError("x"))))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('error during container init: error mounting "/x" to rootfs at "/y"', "mount"),
        ("unable to apply cgroup configuration: no space left", "cgroup"),
        ('exec: "nope": executable file not found in $PATH', "runtime"),
    ],
)
async def test_the_runtimes_words_say_which_step_it_was(text: str, name: str) -> None:
    with pytest.raises(Unknown) as raised:
        await runtime_step("container c", "failed to create containerd task", failing(Unknown(text)))
    assert str(raised.value) == f"container c: {name}: failed to create containerd task: {text}"


class Kept(LeaseStore):
    """Leases by ID."""

    def __init__(self) -> None:
        self.there: dict[str, Lease] = {}

    def create(self, id: str = "", labels: dict[str, str] | None = None) -> Lease:  # type: ignore[override] # a dict will do
        if id in self.there:
            raise AlreadyExists(id)
        self.there[id] = Lease(id, labels or {})
        return self.there[id]

    def delete(self, id: str) -> None:
        if self.there.pop(id, None) is None:
            raise NotFound(id)

    def list(self, filters: object = ()) -> list[Lease]:
        return [each for each in self.there.values() if "windlass.dev/for" in each.labels]

    def add_resource(self, id: str, resource: Resource) -> None:
        raise NotImplementedError

    def delete_resource(self, id: str, resource: Resource) -> None:
        raise NotImplementedError

    def resources(self, id: str) -> list[Resource]:  # type: ignore[valid-type] # the method above has its name
        raise NotImplementedError


async def test_leases_of_pods_that_are_gone_are_swept() -> None:
    kept = Kept()
    leases = PodLeases(kept)
    for id in ("known", "gone", "known"):
        await leases.create(id)
    kept.create("half-made", {"windlass.dev/for": "container"})
    kept.create("a client's", {})
    await leases.sweep({"known"})
    assert list(kept.there) == ["known", "a client's"]
    for _ in range(2):
        await leases.delete("known")
    assert list(kept.there) == ["a client's"]

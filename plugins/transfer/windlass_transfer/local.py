"""The transferrer: what happens follows from the two ends (docs/containerd 3.17)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from windlass.contracts.transfer import (
    Ask,
    Credentials,
    Destination,
    ExportArchive,
    ImportArchive,
    Progress,
    Registry,
    Report,
    Source,
    Stored,
    Transferrer,
    Unpack,
)
from windlass.contracts.values import Descriptor
from windlass.errors import Cancelled, InvalidArgument, Unimplemented
from windlass.records import dataclass
from windlass.typing import override
from windlass_images import platforms
from windlass_images.unpack import Ways
from windlass_local.store import LocalStore, Parts
from windlass_registry.client import Client, roots_of
from windlass_registry.credentials import Ask as BlockingAsk
from windlass_registry.repository import Repository
from windlass_transfer import archives
from windlass_transfer.admission import Admission
from windlass_transfer.pulling import Pull
from windlass_transfer.pushing import Push
from windlass_transfer.workers import Tools

logger = logging.getLogger(__name__)

ASK_TIMEOUT = 330.0


@dataclass(frozen=True)
class Settings:
    """What an operator has said."""

    roots: tuple[Path, ...]
    """Where ``hosts.toml`` files are, unless a client says otherwise."""
    snapshotters: tuple[Unpack, ...]
    """Which snapshotter a platform is unpacked with when the client leaves it open; the first that fits."""
    width: int = 1
    """Layers of one image that are applied at a time."""
    strict: bool = False
    """Unpack for the platforms of ``snapshotters`` alone; else the operating system has to be one of theirs."""


class LocalTransfer(Transferrer):
    """Moves images between registries, archives and the stores of this daemon."""

    def __init__(self, parts: Parts, tools: Tools, admission: Admission, settings: Settings) -> None:
        """Move images in the stores that ``parts`` are."""
        self._parts = parts
        self._tools = tools
        self._admission = admission
        self._settings = settings
        self._client = Client(settings.roots)

    @override
    async def transfer(
        self, namespace: str, source: Source, destination: Destination, report: Report, lease: str = ""
    ) -> None:
        store = LocalStore(self._parts, namespace, lease)

        async def admit(name: str, desc: Descriptor) -> None:
            await self._admission.admit(namespace, name, desc)

        match source, destination:
            case Registry(), Stored():
                await self._pull(store, source, destination, report, admit)
            case Stored(), Registry():
                with _Repository(self, destination) as repository:
                    await Push(self._tools, store, repository, report).run(source, destination)
            case ImportArchive(), Stored():
                unpacks = self._unpacks(destination)
                await archives.take(
                    store, source, destination, unpacks, report, admit, self._ways(), self._settings.strict
                )
            case Stored(), ExportArchive():
                await archives.give(store, source, destination, report)
            case Stored(), Stored():
                await _tag(store, source, destination, report)
            case ImportArchive(), ExportArchive():
                while data := await source.source.read():
                    await destination.sink.write(data)
            case _:
                raise Unimplemented(f"a transfer from {_word(source)} to {_word(destination)} is not possible")

    async def _pull(
        self,
        store: LocalStore,
        source: Registry,
        wanted: Stored,
        report: Report,
        admit: Callable[[str, Descriptor], Awaitable[None]],
    ) -> None:
        unpacks = self._unpacks(wanted)
        with _Repository(self, source) as repository:
            settings = self._settings
            pull = Pull(self._tools, store, repository, report, admit, settings.width, settings.strict)
            await pull.run(source, wanted, unpacks)

    def _unpacks(self, wanted: Stored) -> Sequence[Unpack]:
        """Return what is to be unpacked, with snapshotters that are there; InvalidArgument if none of it can be."""
        found = []
        for each in wanted.unpacks:
            if (unpack := self._supported(each)) is not None:
                found.append(unpack)
            else:
                logger.warning("%s cannot be unpacked by %s", platforms.write(each.platform), each.snapshotter or "any")
        if wanted.unpacks and not found:
            asked = ", ".join(
                f"{platforms.write(each.platform)} with {each.snapshotter or 'any'}" for each in wanted.unpacks
            )
            known = ", ".join(sorted(self._parts.capabilities))
            raise InvalidArgument(f"nothing can be unpacked as asked for ({asked}); snapshotters here: {known}")
        return found

    def _supported(self, wanted: Unpack) -> Unpack | None:
        fitting = [known.snapshotter for known in self._settings.snapshotters if self._fits(known, wanted)]
        choices = [wanted.snapshotter] if fitting and wanted.snapshotter else fitting
        there = (name for name in choices if name in self._parts.capabilities)
        name = next(there, None)
        return Unpack(wanted.platform, name) if name is not None else None

    def _fits(self, known: Unpack, wanted: Unpack) -> bool:
        if self._settings.strict:
            return platforms.matches(known.platform, wanted.platform)
        return platforms.normal(known.platform).os == (platforms.normal(wanted.platform).os or platforms.host().os)

    def _ways(self) -> Ways:
        return Ways(self._settings.width, alone=self._tools.snapshots)

    def repository(self, end: Registry, ask: BlockingAsk | None) -> Repository:
        """Return the repository of one end of a transfer."""
        return self._client.repository(
            end.reference,
            ask=ask,
            roots=roots_of(end.host_dir) if end.host_dir else None,
            scheme=_scheme(end.default_scheme),
            headers=_headers(end),
            trace=end.trace,
        )

    async def close(self) -> None:
        """Close idle connections, and take no further work."""
        self._client.close()
        self._tools.layers.close()
        self._tools.documents.close()


class _Repository:
    """A repository as long as a transfer lasts: whatever is under way in its threads ends with it."""

    def __init__(self, local: LocalTransfer, end: Registry) -> None:
        ask = None if end.ask is None else _from_thread(end.ask, asyncio.get_running_loop())
        self._repository = local.repository(end, ask)

    def __enter__(self) -> Repository:
        return self._repository

    def __exit__(self, *_: object) -> None:
        self._repository.abort()


def _from_thread(ask: Ask, loop: asyncio.AbstractEventLoop) -> BlockingAsk:
    """Return a question to a client as a thread puts it."""

    def blocking(host: str, reference: str) -> Credentials | None:
        future = asyncio.run_coroutine_threadsafe(_answered(ask, host, reference), loop)
        try:
            return future.result(ASK_TIMEOUT)
        except TimeoutError:
            future.cancel()
            raise Cancelled(f"the client did not answer for credentials for {host}") from None

    return blocking


async def _answered(ask: Ask, host: str, reference: str) -> Credentials | None:
    return await ask(host, reference)


async def _tag(store: LocalStore, source: Stored, destination: Stored, report: Report) -> None:
    if not destination.name:
        raise InvalidArgument(f"image {source.name} needs a name for its tag")
    image = await store.images.get(source.name)
    await store.images.put(destination.name, image.target, destination.labels or image.labels)
    report(Progress("saved", destination.name, desc=image.target))


def _scheme(scheme: str) -> str:
    if scheme not in ("", "http", "https"):
        raise InvalidArgument(f"default scheme {scheme[:40]!r} is neither http nor https")
    return scheme


def _headers(end: Registry) -> dict[str, str]:
    for name, value in end.headers.items():
        if not name or not (name + value).isascii() or not (name + value).isprintable() or ":" in name:
            raise InvalidArgument(f"header {name[:80]!r} cannot be sent")
    return dict(end.headers)


def _word(end: Source | Destination) -> str:
    words = {Registry: "a registry", Stored: "the store", ImportArchive: "an archive", ExportArchive: "an archive"}
    return words[type(end)]

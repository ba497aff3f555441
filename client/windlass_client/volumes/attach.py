"""Brings the mounts that a new container is to have into its spec: makes and fills volumes, and lets go on failure."""

from __future__ import annotations

import asyncio
import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from windlass.errors import FailedPrecondition, InvalidArgument, NotFound
from windlass_client import lookup
from windlass_client.datadir import DataDirectory
from windlass_client.volumes import usage
from windlass_client.volumes.options import Wanted
from windlass_client.volumes.volume import Volumes
from windlass_oci.payloads import read_spec

if TYPE_CHECKING:
    from windlass.contracts.mounts import Mount as ContractMount
    from windlass_client.client import Client
    from windlass_local.launch import Rootfs
    from windlass_oci.runtime_spec import Mount, Spec

TMPFS = ("nosuid", "nodev", "noexec")
"""What docker gives to a tmpfs, unless the options contradict it."""
OPPOSITES = {"nosuid": "suid", "nodev": "dev", "noexec": "exec"}


@dataclass(frozen=True)
class VolumeOptions:
    """The mounts of a container as its user asked for them."""

    data: DataDirectory
    wanted: Sequence[Wanted] = ()
    volumes_from: Sequence[str] = ()


@dataclass
class Attachment:
    """The volumes of a container that is being created, as a context: until its record is there they are reserved.

    When the creation fails, volumes without a name that were made for it are removed again.
    """

    client: Client
    options: VolumeOptions
    id: str
    _volumes: Volumes = field(init=False)
    _reserved: list[str] = field(default_factory=list)
    _made: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._volumes = Volumes(self.options.data)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reserved:
            await asyncio.shield(asyncio.to_thread(self._let_go, error is not None))

    async def attach(self, spec: Spec, rootfs: Rootfs) -> None:
        """Add all mounts to a spec; what its image declares as volumes comes last."""
        wanted = {each.destination: each for each in await self._inherited()}
        wanted |= {each.destination: each for each in self.options.wanted}
        for place in rootfs.image.volumes:
            clean = posixpath.normpath("/" + place.lstrip("/"))
            if clean != "/":
                wanted.setdefault(clean, Wanted("volume", "", clean))
        if wanted:
            mounts = await asyncio.to_thread(self._prepare, list(wanted.values()))
            await self._fill(wanted, mounts, rootfs)
            _add(spec, mounts)

    async def _inherited(self) -> list[Wanted]:
        """Return the volumes and host directories of the containers of --volumes-from."""
        found: list[Wanted] = []
        for text in self.options.volumes_from:
            name, _, mode = text.partition(":")
            if mode not in ("", "ro", "rw"):
                raise InvalidArgument(f"--volumes-from {text[:100]!r} is not of the form CONTAINER[:ro|rw]")
            container = await lookup.container(self.client, name)
            for each in usage.mounts_of(read_spec(container.id, container.spec.value), self._volumes.directory):
                if each.kind != "tmpfs":
                    read_only = mode == "ro" or each.read_only
                    found.append(Wanted(each.kind, each.name or each.source, each.destination, read_only, copy=False))
        return found

    def _prepare(self, wanted: Sequence[Wanted]) -> dict[str, Mount]:
        """Return the mounts by their destinations; volumes are there afterwards, and reserved."""
        with self._volumes.locked("volumes"):
            return {each.destination: self._mount(each) for each in wanted}

    def _mount(self, wanted: Wanted) -> Mount:
        if wanted.kind == "tmpfs":
            return _tmpfs(wanted)
        if wanted.kind == "bind":
            return _bind(wanted, _host_path(wanted))
        volume, new = self._volumes.create(wanted.source, wanted.labels, anonymous=not wanted.source)
        if new and volume.anonymous:
            self._made.append(volume.name)
        usage.reserve(self._volumes, volume.name, self.id)
        self._reserved.append(volume.name)
        return _bind(wanted, str(volume.path))

    async def _fill(self, wanted: dict[str, Wanted], mounts: dict[str, Mount], rootfs: Rootfs) -> None:
        from windlass_client.volumes import filling

        places = {
            each.destination: Path(mounts[each.destination]["source"])
            for each in wanted.values()
            if each.kind == "volume" and each.copy
        }
        if not await asyncio.to_thread(filling.any_empty, places.values()):
            return
        async with rootfs.namespace.mountable(rootfs.mounts) as plain:
            await asyncio.to_thread(self._fill_now, plain, places)

    def _fill_now(self, plain: Sequence[ContractMount], places: dict[str, Path]) -> None:
        from windlass_client.volumes import filling

        with self._volumes.locked("volumes-fill"):
            filling.fill(plain, places)

    def _let_go(self, failed: bool) -> None:
        with self._volumes.locked("volumes"):
            for name in self._reserved:
                usage.release(self._volumes, name, self.id)
            for name in self._made if failed else ():
                try:
                    self._volumes.remove(name)
                except (NotFound, FailedPrecondition):
                    pass  # the failure of the creation is what the user needs


def _bind(wanted: Wanted, source: str) -> Mount:
    options = list(wanted.options)
    if not {"bind", "rbind"} & set(options):
        options.insert(0, "rbind")
    if not any(option.lstrip("r") in ("private", "shared", "slave") for option in options):
        options.append("rprivate")
    if wanted.read_only and "ro" not in options:
        options.append("ro")
    return {"type": "bind", "source": source, "destination": wanted.destination, "options": options}


def _tmpfs(wanted: Wanted) -> Mount:
    defaults = [word for word in TMPFS if OPPOSITES[word] not in wanted.options and word not in wanted.options]
    options = [*defaults, *wanted.options, *(["ro"] if wanted.read_only else [])]
    return {"type": "tmpfs", "source": "tmpfs", "destination": wanted.destination, "options": options}


def _host_path(wanted: Wanted) -> str:
    path = Path(wanted.source)
    if wanted.create and not path.exists():
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not path.exists():
        raise NotFound(f"mount source {path} does not exist; make it, or use -v, which makes a directory")
    return wanted.source


def _add(spec: Spec, mounts: dict[str, Mount]) -> None:
    """Put mounts into a spec, each after those above it; they take the place of default ones."""
    ordered = [mounts[place] for place in sorted(mounts, key=lambda place: place.count("/"))]
    spec["mounts"] = [each for each in spec["mounts"] if each["destination"] not in mounts] + ordered
    spec.setdefault("annotations", {})[usage.PLACES] = json.dumps(sorted(mounts), separators=(",", ":"))

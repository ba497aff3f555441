"""Attaches containers to networks, checks and detaches them, and collects what earlier DELs missed.

Each call executes the plugins of a network in turn (CNI specification, sections 3 and 4). What ADD has begun is
kept before the first plugin runs, so that an attachment that was cut off half-way can still be taken back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass, replace

from windlass.errors import Error
from windlass_cni.cache import Cache, Cached
from windlass_cni.config import Json, Network, Object
from windlass_cni.execute import Programs
from windlass_cni.protocol import (
    CHECKS_SINCE,
    STATUS_SINCE,
    Attachment,
    execution_conf,
    joined,
    result_of,
)
from windlass_cni.result import Result, parse

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Networks:
    """Carries out the commands of CNI. Safe to use for several containers at once, for one container in turn."""

    programs: Programs
    cache: Cache

    async def add(self, network: Network, attachment: Attachment, capability_args: Object) -> Result:
        """Attach a container to a network.

        Raises the error of the plugin that failed, after what the others had done was taken back; FailedPrecondition,
        DeadlineExceeded and Unknown as `Programs.run` does, OSError for the cache.
        """
        begun = Cached(network, attachment, capability_args, None)
        await asyncio.to_thread(self.cache.keep, begun)
        try:
            document = await self._add(begun)
            await asyncio.to_thread(self.cache.keep, replace(begun, result=document))
        except BaseException:
            await asyncio.shield(self._take_back(begun))
            raise
        return parse(network.name, attachment.interface, document)

    async def _add(self, cached: Cached) -> Object:
        previous: Object | None = None
        for plugin in cached.network.plugins:
            conf = execution_conf(cached.network, plugin, cached.capability_args, previous)
            output = await self.programs.run("ADD", plugin.type, conf, cached.attachment)
            previous = result_of(plugin.type, "ADD", output)
        return previous or {}

    async def _take_back(self, cached: Cached) -> None:
        try:
            await self.delete(cached)
        except Error as error:
            # The record stays: `collect` tries again.
            logger.warning("%s stays attached to %s: %s", cached.attachment.container, cached.network.name, error)

    async def check(self, cached: Cached) -> None:
        """Check that an attachment is as ADD made it. Raises the error of the plugin that finds it otherwise."""
        network = cached.network
        if network.disable_check or not network.at_least(CHECKS_SINCE):
            return
        for plugin in network.plugins:
            conf = execution_conf(network, plugin, cached.capability_args, cached.result)
            await self.programs.run("CHECK", plugin.type, conf, cached.attachment)

    async def delete(self, cached: Cached) -> None:
        """Detach, and forget the attachment. Raises the plugins' errors after all were asked; then it is kept."""
        network = cached.network
        previous = cached.result if network.at_least(CHECKS_SINCE) else None
        problems: list[Error] = []
        for plugin in reversed(network.plugins):
            conf = execution_conf(network, plugin, cached.capability_args, previous)
            try:
                await self.programs.run("DEL", plugin.type, conf, cached.attachment)
            except Error as error:
                problems.append(error)
        if problems:
            raise joined(problems)
        attachment = cached.attachment
        await asyncio.to_thread(self.cache.drop, network.name, attachment.container, attachment.interface)

    async def status(self, network: Network) -> None:
        """Ask plugins whether they can take another container. Raises the error of the first that cannot."""
        if network.at_least(STATUS_SINCE):
            for plugin in network.plugins:
                await self.programs.run("STATUS", plugin.type, execution_conf(network, plugin, {}, None))

    async def collect(self, network: Network, live: Collection[tuple[str, str]]) -> None:
        """Detach what is kept of ``network`` and is not among ``live``, pairs of container ID and interface.

        Then plugins of CNI 1.1 are asked to free what no live attachment uses. host-local, for one, frees nothing
        then, so it is the DELs that count. Raises the plugins' errors after all were asked.
        """
        problems: list[Error] = []
        for cached in await asyncio.to_thread(list, self.cache.all()):
            pair = (cached.attachment.container, cached.attachment.interface)
            if cached.network.name != network.name or pair in live:
                continue
            try:
                await self.delete(cached)
            except Error as error:
                problems.append(error)
        if network.at_least(STATUS_SINCE) and not network.disable_gc:
            valid: Json = [{"containerID": container, "ifname": interface} for container, interface in sorted(live)]
            for plugin in network.plugins:
                conf = {**execution_conf(network, plugin, {}, None), "cni.dev/valid-attachments": valid}
                try:
                    await self.programs.run("GC", plugin.type, conf)
                except Error as error:
                    problems.append(error)
        if problems:
            raise joined(problems)


async def add_all(
    networks: Networks, listed: Sequence[Network], attachment: Attachment, args: Object, serially: bool = False
) -> list[Result]:
    """Attach a container to several networks, as ``eth0``, ``eth1`` …; all or none.

    Raises the error of a network that failed, named, after the others were detached again.
    """
    ends = [replace(attachment, interface=f"eth{number}") for number in range(len(listed))]

    async def add(network: Network, end: Attachment) -> Result:
        try:
            return await networks.add(network, end, args)
        except Error as error:
            raise type(error)(f'network "{network.name}": {error}') from error

    attempts = [add(network, end) for network, end in zip(listed, ends, strict=True)]
    try:
        return [await each for each in attempts] if serially else await _together(attempts)
    except BaseException:
        for each in attempts:
            each.close()
        await asyncio.shield(_detach_all(networks, attachment.container))
        raise


async def _together(attempts: Sequence[Coroutine[object, object, Result]]) -> list[Result]:
    """Await all, also when one fails, so that none is still attaching while the others are taken back."""
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [each for each in outcomes if isinstance(each, Result)]


async def _detach_all(networks: Networks, container: str) -> None:
    try:
        await delete_all(networks, container)
    except Error as error:
        logger.warning("%s stays attached: %s", container, error)


async def delete_all(networks: Networks, container: str, netns: str | None = None) -> None:
    """Detach a container from all networks that it is kept of as attached to, the last first.

    ``netns`` is where its namespace is now, empty when it is gone. Raises the plugins' errors after all were asked.
    """
    problems: list[Error] = []
    for cached in reversed(await asyncio.to_thread(networks.cache.of_container, container)):
        place = cached.attachment if netns is None else replace(cached.attachment, netns=netns)
        try:
            await networks.delete(replace(cached, attachment=place))
        except Error as error:
            problems.append(type(error)(f'network "{cached.network.name}": {error}'))
    if problems:
        raise joined(problems)

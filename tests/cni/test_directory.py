"""A directory of networks is followed: a new file counts when it is written, a bad one says why."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from windlass.errors import FailedPrecondition
from windlass_cni.directory import NetworkDirectory


@contextlib.asynccontextmanager
async def watched(path: Path) -> AsyncIterator[NetworkDirectory]:
    directory = NetworkDirectory(path, most=1)
    task = asyncio.ensure_future(directory.watch())
    try:
        yield directory
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def names(directory: NetworkDirectory) -> list[str]:
    try:
        return [each.name for each in directory.networks]
    except FailedPrecondition as error:
        return [str(error)]


def write(path: Path, name: str) -> None:
    path.write_text(json.dumps({"name": name, "type": "bridge"}))


async def test_without_a_file_the_directory_is_named(tmp_path: Path) -> None:
    async with watched(tmp_path / "net.d") as directory:
        await until(lambda: names(directory) == [f"no network configuration in {tmp_path / 'net.d'}; put one there"])


async def test_files_that_come_change_and_go_are_followed(tmp_path: Path) -> None:
    async with watched(tmp_path) as directory:
        await until(lambda: "no network" in names(directory)[0])
        write(tmp_path / "20-b.conf", "b")
        await until(lambda: names(directory) == ["b"])
        write(tmp_path / "new", "a")
        (tmp_path / "new").rename(tmp_path / "10-a.conf")
        await until(lambda: names(directory) == ["a"])
        (tmp_path / "10-a.conf").write_text("{")
        await until(lambda: "10-a.conf: it is not JSON" in names(directory)[0])
        (tmp_path / "10-a.conf").unlink()
        await until(lambda: names(directory) == ["b"])


async def test_a_directory_that_was_removed_is_followed_again(tmp_path: Path) -> None:
    """containerd gives up CRI then."""
    path = tmp_path / "net.d"
    path.mkdir()
    write(path / "a.conf", "a")
    async with watched(path) as directory:
        await until(lambda: names(directory) == ["a"])
        shutil.rmtree(path)
        await until(lambda: names(directory) != ["a"])
        path.mkdir(exist_ok=True)
        write(path / "b.conf", "b")
        await until(lambda: names(directory) == ["b"])


def test_before_it_was_read_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="have not been read yet"):
        _ = NetworkDirectory(tmp_path).networks

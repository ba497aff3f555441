"""Promises of the verifier that asks programs: every one of them has to agree, and none can hold up a pull for ever."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from windlass.contracts.values import Descriptor
from windlass.errors import DeadlineExceeded, FailedPrecondition
from windlass_verifier_bindir.verifier import OUTPUT_LIMIT, BinDir

DESC = Descriptor("application/vnd.oci.image.manifest.v1+json", "sha256:" + "a" * 64, 417)


def program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def verifier(directory: Path, most: int = 10, timeout: float = 20.0) -> BinDir:
    return BinDir(directory, most, timeout)


async def test_without_programs_everything_is_allowed(tmp_path: Path) -> None:
    assert (await verifier(tmp_path).verify("a.test/b:1", DESC)).ok
    assert (await verifier(tmp_path / "none").verify("a.test/b:1", DESC)).ok


async def test_a_program_is_told_name_digest_and_descriptor(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "judge", f'echo "$@" > {tmp_path}/args; cat > {tmp_path}/stdin; echo fine')

    judgement = await verifier(tmp_path / "bin").verify("a.test/b:1", DESC)

    assert judgement.ok and judgement.reason == "judge => fine"
    told = (tmp_path / "args").read_text()
    assert told == f"-name a.test/b:1 -digest {DESC.digest} -stdin-media-type application/vnd.oci.descriptor.v1+json\n"
    assert json.loads((tmp_path / "stdin").read_text()) == {
        "mediaType": DESC.media_type,
        "digest": DESC.digest,
        "size": 417,
    }


async def test_the_first_that_objects_decides(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "a", "exit 0")
    program(tmp_path / "bin", "b", "echo 'not\nsigned'; exit 3")
    program(tmp_path / "bin", "c", f"touch {tmp_path}/asked")

    judgement = await verifier(tmp_path / "bin").verify("a.test/b:1", DESC)

    assert not judgement.ok and judgement.reason == "b => not signed"
    assert not (tmp_path / "asked").exists()


async def test_no_more_are_asked_than_there_may_be(tmp_path: Path) -> None:
    program(tmp_path, "a", "exit 0")
    program(tmp_path, "b", "exit 1")

    assert (await verifier(tmp_path, most=1).verify("a.test/b:1", DESC)).ok
    assert not (await verifier(tmp_path, most=-1).verify("a.test/b:1", DESC)).ok


async def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "slow", f"echo $$ > {tmp_path}/pid; sleep 1000 & wait")

    with pytest.raises(DeadlineExceeded, match="slow did not end within"):
        await verifier(tmp_path / "bin", timeout=0.5).verify("a.test/b:1", DESC)

    group = int((tmp_path / "pid").read_text())
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("its children are still there")


async def test_what_it_says_is_bounded(tmp_path: Path) -> None:
    program(tmp_path, "loud", "yes reason | head -c 10000000; yes | head -c 10000000 >&2; exit 1")

    judgement = await verifier(tmp_path).verify("a.test/b:1", DESC)

    assert not judgement.ok and len(judgement.reason) < OUTPUT_LIMIT + 100


async def test_one_that_cannot_be_executed_refuses(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")

    with pytest.raises(FailedPrecondition, match="text cannot be executed"):
        await verifier(tmp_path).verify("a.test/b:1", DESC)

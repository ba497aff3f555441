"""Stream processors: layers that this differ cannot read go through programs that can."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any  # fixtures whose classes live in conftest, which tests cannot import

import pytest

from windlass.contracts.diff import LAYER, LAYER_GZIP, LAYER_ZSTD, StreamProcessor
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor, Payload
from windlass.errors import DeadlineExceeded, FailedPrecondition, Internal, Unimplemented
from windlass_diff.chain import any_bytes, chain

SECRET = LAYER_GZIP + "+encrypted"
ROT = "tr '\\000-\\377' '\\200-\\377\\000-\\177'"
"""A cipher that is its own inverse."""


def encrypted(data: bytes) -> bytes:
    return bytes(byte ^ 0x80 for byte in data)


def program(directory: Path, name: str, script: str) -> str:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def processor(path: str, accepts: str = SECRET, returns: str = LAYER_GZIP, **more: list[str]) -> StreamProcessor:
    return StreamProcessor([accepts], returns, path, **more)


Run = Callable[..., Descriptor]


@pytest.fixture
def run(zygote: Any, content: Any, members: Any, tmp_path: Path, root: Path) -> Iterator[Run]:
    """Apply a layer of one file, encrypted, through programs of which nothing is left afterwards."""
    from windlass_diff.differ import WalkingDiffer

    archive = members().file("file", b"plain").bytes()
    mark = f"IN_TEST={tmp_path}"
    (tmp_path / "target").mkdir()

    def run(
        *scripts: str | StreamProcessor,
        data: bytes = encrypted(gzip.compress(archive)),
        media_type: str = SECRET,
        patience: float = 30.0,
        payloads: dict[str, Payload] | None = None,
    ) -> Descriptor:
        made = [processor(program(tmp_path, f"p{n}", s)) if isinstance(s, str) else s for n, s in enumerate(scripts)]
        named = {
            f"p{n}": StreamProcessor(p.accepts, p.returns, p.path, p.args, [*p.env, mark]) for n, p in enumerate(made)
        }
        differ = WalkingDiffer(zygote, tmp_path / "target", patience, processors=named)
        try:
            desc = content.add(data, media_type)
            return differ.apply(content, desc, [Mount("bind", str(root), ("rbind", "rw"))], payloads)
        finally:
            differ.close()

    run.digest = "sha256:" + hashlib.sha256(archive).hexdigest()  # type: ignore[attr-defined]  # for the tests
    run.size = len(archive)  # type: ignore[attr-defined]
    yield run
    deadline = time.monotonic() + 10
    while running(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not running(mark)


def running(mark: str) -> list[str]:
    """Return the processes that have ``mark`` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_an_encrypted_layer_is_decrypted(run: Any, root: Path) -> None:
    """What is returned describes the plain tar."""
    assert run(ROT) == Descriptor(LAYER, run.digest, run.size)
    assert (root / "file").read_text() == "plain"


def test_a_program_is_told_what_containerd_tells(run: Any, tmp_path: Path) -> None:
    """The media type, its arguments and environment; nothing but its streams is open."""
    out = tmp_path / "told"
    script = f'echo "$STREAM_PROCESSOR_MEDIATYPE $1 $KEY $(ls /proc/self/fd | wc -l) $$" >{out}; {ROT}'
    path = program(tmp_path, "told.sh", script)
    run(processor(path, args=["one"], env=["KEY=a=b"]))
    # ls itself opens the directory.
    assert out.read_text().split() == [SECRET, "one", "a=b", "4", "1"]


def test_its_payload_is_on_descriptor_3(run: Any, tmp_path: Path) -> None:
    """As an Any; others' payloads are not."""
    payload = Payload("type.googleapis.com/some.Key", bytes(range(256)) * 100)
    out = tmp_path / "payload"
    run(f"cat <&3 >{out}; {ROT}", payloads={"p0": payload, "p1": Payload("x", b"y")})
    from google.protobuf.any_pb2 import Any as AnyMessage

    message = AnyMessage.FromString(out.read_bytes())
    assert (message.type_url, message.value) == (payload.type_url, payload.value)
    run(f"cat /dev/fd/3 >{out}; {ROT}", payloads={"p0": payload})
    assert out.read_bytes() == any_bytes(payload)


def test_programs_are_chained(run: Any, members: Any, tmp_path: Path, root: Path) -> None:
    """Until there is something that the differ reads itself."""
    inner, outer = "application/inner", "application/outer"
    data = gzip.compress(encrypted(members().file("file", b"deep").bytes()))
    first = processor(program(tmp_path, "gunzip.sh", "gzip -d"), outer, inner)
    second = processor(program(tmp_path, "rot.sh", ROT), inner, LAYER)
    run(second, first, data=data, media_type=outer)
    assert (root / "file").read_text() == "deep"


def test_large_layers_go_through(run: Any, members: Any, root: Path) -> None:
    """Larger than all pipes and queues on the way."""
    data = os.urandom(1 << 20) * 24
    archive = members().file("big", data).bytes()
    run(ROT, data=encrypted(gzip.compress(archive, 1)))
    assert (root / "big").read_bytes() == data


def test_a_failure_is_told_with_what_the_program_said(run: Any) -> None:
    """In one line, with its exit status, rather than that the archive is damaged."""
    with pytest.raises(Internal, match=r"^layer sha256:\w+: stream processor p0 exited with status 3: no key for you$"):
        run("echo 'no key\nfor you' >&2; exit 3")
    with pytest.raises(Internal, match=r"p0 exited with status 4$"):
        run(f"{ROT}; exit 4")


def test_both_failures_of_a_chain_are_told(run: Any, tmp_path: Path) -> None:
    inner = processor(program(tmp_path, "inner", "cat >/dev/null; echo two >&2; exit 2"), "application/inner")
    outer = processor(program(tmp_path, "outer", "echo one >&2; exit 1"), SECRET, "application/inner")
    with pytest.raises(Internal, match="p0 exited with status 1: one; stream processor p1 exited with status 2: two"):
        run(outer, inner)


def test_one_that_floods_standard_error_is_drained(run: Any, root: Path) -> None:
    """It neither waits for us nor fills the message, which has the last of it."""
    flood = "dd if=/dev/zero bs=1M count=8 2>/dev/null | tr '\\000' x >&2"
    run(f"{flood}; {ROT}")
    assert (root / "file").exists()
    with pytest.raises(Internal) as caught:
        run(f"{flood}; echo ' last' >&2; exit 1")
    assert str(caught.value).endswith("xxx last")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("script", ["sleep 1000", f"sleep 1000 & {ROT}; sleep 1000"], ids=["no output", "no exit"])
def test_one_that_hangs_is_ended_with_all_that_it_started(run: Any, script: str) -> None:
    """The message names it."""
    with pytest.raises(DeadlineExceeded, match=r"no progress for 1.5 s .*(p0|end of stream)"):
        run(script, patience=1.5)


def test_one_that_reads_on_is_waited_for(run: Any, root: Path) -> None:
    """Some write only when they have read it all; longer than a program may do nothing."""
    data = encrypted(gzip.compress(b"", 9))
    parts = "; ".join(["dd bs=2 count=1 2>/dev/null; sleep 1"] * 4)
    script = f"{{ {parts}; cat; }} >/dev/null; exit 9"
    with pytest.raises(Internal, match="p0 exited with status 9"):
        run(script, data=data, patience=2.5)


def test_what_it_left_behind_ends_with_it(run: Any, root: Path) -> None:
    """A daemon that it started would keep its pipe open for ever."""
    run(f"sleep 1000 & {ROT}")
    assert (root / "file").exists()


def test_a_damaged_archive_is_told_as_such(run: Any) -> None:
    """When the program is not to blame."""
    from windlass.errors import InvalidArgument

    with pytest.raises(InvalidArgument):
        run(ROT, data=encrypted(gzip.compress(b"no tar" * 1000)))


def test_a_program_that_is_not_there_is_told(run: Any) -> None:
    with pytest.raises(FailedPrecondition, match="stream processor p0: there is no program /no/such; install it"):
        run(processor("/no/such"))


def test_a_program_that_cannot_be_executed_is_told(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken"
    path.write_bytes(b"\x7fELF nothing of the kind")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(Internal, match="p0 exited with status 127: it cannot be executed: Exec format error"):
        run(processor(str(path)))


# Which programs a layer goes through


def test_the_last_one_that_accepts_counts() -> None:
    both = {"a": processor("/a"), "b": processor("/b")}
    steps, compressed = chain(SECRET, both)
    assert [(step.id, step.media_type) for step in steps] == [("b", SECRET)]
    assert compressed


def test_programs_come_before_what_the_differ_can_do() -> None:
    """Also for its own types; the plain one ends a chain."""
    steps, compressed = chain(LAYER_ZSTD, {"a": processor("/a", LAYER_ZSTD, LAYER)})
    assert [step.id for step in steps] == ["a"] and not compressed
    steps, _ = chain(LAYER, {"a": processor("/a", LAYER, LAYER)})
    assert [step.id for step in steps] == ["a"]
    assert chain(LAYER_GZIP, {}) == ([], True)


def test_a_circle_is_refused() -> None:
    pair = {"a": processor("/a", "x", "y"), "b": processor("/b", "y", "x")}
    with pytest.raises(FailedPrecondition, match="stream processors a, b lead in a circle"):
        chain("x", pair)


def test_a_chain_that_leads_nowhere_is_for_another_differ() -> None:
    with pytest.raises(Unimplemented, match="media type 'z' is not a layer"):
        chain("x", {"a": processor("/a", "x", "z")})
    with pytest.raises(Unimplemented, match="it needs a stream processor"):
        chain(SECRET, {})

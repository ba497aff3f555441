"""Promises of the client: what it returns was asked for, and a registry that misbehaves is named in one line."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from registry.fake import MANIFEST, Fake, Handler, digest_of

from windlass.contracts.values import Descriptor
from windlass.errors import (
    Cancelled,
    Error,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from windlass_registry.client import Client
from windlass_registry.repository import Repository

DATA = os.urandom(300_000)
CONTENT = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST}).encode()


def fetch(repository: Repository, desc: Descriptor, offset: int = 0) -> bytes:
    with repository.blob(desc, offset) as blob:
        return b"".join(iter(lambda: blob.read(1 << 16), b""))


def one_line(error: pytest.ExceptionInfo[Error], *words: str) -> None:
    text = str(error.value)
    assert "\n" not in text and "\x1b" not in text
    for word in words:
        assert word in text


# What it does


def test_a_tag_is_resolved_and_its_manifest_fetched(repository: Repository, fake: Fake) -> None:
    desc = fake.add_manifest(CONTENT)

    assert repository.resolve() == desc
    assert repository.manifest(desc) == CONTENT
    assert [request[0] for request in fake.requests] == ["HEAD", "GET"]


def test_a_registry_that_does_not_tell_the_digest_is_asked_for_the_body(repository: Repository, fake: Fake) -> None:
    desc = fake.add_manifest(CONTENT)
    fake.misbehaviours.append(
        lambda handler: "manifests" in handler.path and handler.answered(200, CONTENT, {"Content-Type": MANIFEST})
    )

    assert repository.resolve() == desc


def test_a_blob_comes_whole_and_from_an_offset(repository: Repository, fake: Fake) -> None:
    desc = fake.add_blob(DATA)

    assert fetch(repository, desc) == DATA
    assert fetch(repository, desc, 1000) == DATA[1000:]
    assert fetch(repository, desc, len(DATA)) == b""
    assert fake.requests[-1][2]["Range"] == "bytes=1000-"


def test_a_registry_that_knows_no_ranges_has_its_first_bytes_dropped(repository: Repository, fake: Fake) -> None:
    fake.ranges = False

    assert fetch(repository, fake.add_blob(DATA), 1000) == DATA[1000:]


def test_a_broken_connection_is_resumed_where_it_broke(repository: Repository, fake: Fake) -> None:
    desc = fake.add_blob(DATA)
    cuts = [100_000, 50_000]

    def cut(handler: Handler) -> bool:
        if "blobs" not in handler.path or not cuts:
            return False
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        place = {"Content-Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"} if start else {}
        handler.answer(206 if start else 200, DATA[start:], place, cut=cuts.pop(0))
        return True

    fake.misbehaviours.append(cut)

    assert fetch(repository, desc) == DATA
    assert [request[2].get("Range") for request in fake.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_what_is_there_is_not_pushed_again(repository: Repository, fake: Fake) -> None:
    desc = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))
    manifest = Descriptor(MANIFEST, digest_of(CONTENT), len(CONTENT))
    pusher = repository.pusher()

    assert pusher.push_blob(desc, lambda: DATA)
    assert not pusher.push_blob(desc, lambda: DATA)
    assert pusher.push_manifest(manifest, CONTENT, "1")
    assert not pusher.push_manifest(manifest, CONTENT, "1")
    assert fetch(repository, desc) == DATA
    assert repository.resolve() == manifest
    assert repository.tags() == ["1"]


def test_a_blob_of_another_repository_is_mounted(repository: Repository, fake: Fake) -> None:
    desc = fake.add_blob(DATA)
    fake.misbehaviours.append(
        lambda handler: handler.command == "HEAD" and "/team/app/" in handler.path and handler.answered(404)
    )

    assert not repository.pusher().push_blob(desc, lambda: DATA, mount_from="team/base")
    assert [request[0] for request in fake.requests] == ["HEAD", "POST"]


def test_referrers_are_found_by_the_api_or_by_the_tag(repository: Repository, fake: Fake) -> None:
    subject = digest_of(CONTENT)
    entries = [
        {"mediaType": MANIFEST, "digest": digest_of(b"1"), "size": 1, "artifactType": "x/y"},
        {"mediaType": MANIFEST, "digest": digest_of(b"2"), "size": 1, "artifactType": "x/z"},
    ]
    index = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    assert repository.referrers(subject) == []

    fake.add_manifest(index, subject.replace(":", "-"), "application/vnd.oci.image.index.v1+json")
    assert [desc.digest for desc, _ in repository.referrers(subject, "x/y")] == [digest_of(b"1")]

    fake.misbehaviours.append(lambda handler: "referrers" in handler.path and handler.answered(200, index))
    assert len(repository.referrers(subject)) == 2


def test_a_read_is_cut_short_from_another_thread(repository: Repository, fake: Fake) -> None:
    desc = fake.add_blob(DATA)
    reading = threading.Event()
    released = threading.Event()

    def stall(handler: Handler) -> bool:
        handler.answer(200, DATA[:10], {"Content-Length": str(len(DATA))})
        handler.wfile.flush()
        reading.set()
        released.wait(20)
        return True

    fake.misbehaviours.append(stall)

    def abort() -> None:
        reading.wait(20)
        repository.abort()

    timer = threading.Thread(target=abort)
    timer.start()
    try:
        with pytest.raises(Cancelled):
            fetch(repository, desc)
    finally:
        released.set()
        timer.join()
    with pytest.raises(Cancelled):
        repository.resolve()


# Mirrors


def mirrored(root: Path, registry: str, *mirrors: str) -> None:
    directory = root / registry
    directory.mkdir()
    lines = [f'server = "http://{registry}"', *(f'[host."http://{mirror}"]\ndial_timeout = "1s"' for mirror in mirrors)]
    (directory / "hosts.toml").write_text("\n".join(lines))


def test_mirrors_that_are_down_or_have_it_not_are_passed_over(
    client: Client, fakes: Callable[[], Fake], tmp_path: Path
) -> None:
    empty, broken, origin = fakes(), fakes(), fakes()
    broken.misbehaviours.append(lambda handler: handler.answered(503))
    desc, layer = origin.add_manifest(CONTENT), origin.add_blob(DATA)
    mirrored(tmp_path, origin.authority, "127.0.0.1:1", empty.authority, broken.authority)
    repository = client.repository(f"{origin.authority}/team/app:1")

    assert repository.resolve() == desc
    assert repository.manifest(desc) == CONTENT
    assert fetch(repository, layer) == DATA
    assert f"ns={origin.authority}" in empty.requests[0][1]
    assert all("ns=" not in request[1] for request in origin.requests)
    assert len(broken.requests) == 3  # a mirror is asked once, there are others


def test_a_blob_is_taken_up_at_the_next_mirror(client: Client, fakes: Callable[[], Fake], tmp_path: Path) -> None:
    mirror, origin = fakes(), fakes()
    layer = origin.add_blob(DATA)
    mirror.misbehaviours.append(
        lambda handler: (
            handler.answered(206, DATA[1000:], {"Content-Range": "bytes 1000-1/2"}, cut=0)
            if "Range" in handler.headers
            else handler.answered(200, DATA, cut=1000)
        )
    )
    mirrored(tmp_path, origin.authority, mirror.authority)

    assert fetch(client.repository(f"{origin.authority}/team/app:1"), layer) == DATA
    assert origin.requests[0][2]["Range"] == "bytes=1000-"


def test_a_manifest_that_is_wrong_is_asked_of_the_next_mirror(
    client: Client, fakes: Callable[[], Fake], tmp_path: Path
) -> None:
    mirror, origin = fakes(), fakes()
    desc = origin.add_manifest(CONTENT)
    wrong = CONTENT.replace(b"2", b"3", 1)
    mirror.misbehaviours.append(lambda handler: handler.answered(200, wrong, {"Content-Type": MANIFEST}))
    mirrored(tmp_path, origin.authority, mirror.authority)

    assert client.repository(f"{origin.authority}/team/app:1").manifest(desc) == CONTENT


def test_when_no_host_has_it_each_is_named_with_its_reason(
    client: Client, fakes: Callable[[], Fake], tmp_path: Path
) -> None:
    mirror, origin = fakes(), fakes()
    mirrored(tmp_path, origin.authority, "127.0.0.1:1", mirror.authority)

    with pytest.raises(NotFound) as caught:
        client.repository(f"{origin.authority}/team/app:1").resolve()
    one_line(caught, f"resolve {origin.authority}/team/app tag 1", "127.0.0.1:1: Connection refused", mirror.authority)


# Registries that misbehave


def answers(fake: Fake, word: str, *arguments: object, **named: object) -> None:
    """Let every request with ``word`` in its path be answered so."""
    fake.misbehaviours.append(
        lambda handler: word in handler.path and handler.answered(*arguments, **named)  # type: ignore[arg-type] # as given
    )


def test_a_wrong_digest_is_told_when_the_last_byte_is_read(repository: Repository, fake: Fake) -> None:
    desc = fake.add_blob(DATA)
    answers(fake, "blobs", 200, DATA[:-1] + bytes([DATA[-1] ^ 1]))

    with pytest.raises(FailedPrecondition) as caught:
        fetch(repository, desc)
    one_line(caught, f"fetch blob of {fake.authority}/team/app {desc.digest}", "the bytes have digest")


@pytest.mark.parametrize("length", [len(DATA) - 1, len(DATA) + 1])
def test_a_wrong_length_is_refused_before_it_is_read(repository: Repository, fake: Fake, length: int) -> None:
    desc = fake.add_blob(DATA)
    answers(fake, "blobs", 200, (DATA + b"x")[:length])

    with pytest.raises(FailedPrecondition) as caught:
        fetch(repository, desc)
    one_line(caught, desc.digest, f"sends {length} bytes instead of {len(DATA)}")


def test_an_endless_body_is_cut_at_its_size(repository: Repository, fake: Fake) -> None:
    desc = fake.add_blob(DATA)

    def endless(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(DATA), DATA))
        while True:
            handler.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")

    fake.misbehaviours.append(endless)
    with pytest.raises(FailedPrecondition, match=f"longer than {len(DATA)} bytes"):
        fetch(repository, desc)


def test_a_body_that_always_ends_early_is_given_up(repository: Repository, fake: Fake) -> None:
    desc = fake.add_blob(DATA)
    fake.ranges = False
    answers(fake, "blobs", 200, DATA, cut=10)

    with pytest.raises(Error) as caught:
        fetch(repository, desc)
    one_line(caught, desc.digest, fake.authority)
    assert len(fake.requests) < 10


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"HTTP/1.1 403 \x1b[31mNo\r\nContent-Length: 0\r\n\r\n", "403 [31mNo"),
        (b"\x00\x1b\xff\r\n\r\n", "its answer is not HTTP"),
        (b"HTTP/9.9 hello\r\n\r\n", "its answer is not HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: 0\r\n\r\n" % MANIFEST.encode(),
            "sends an empty manifest",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "without a media type"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n" % MANIFEST.encode(),
            "its answer is not HTTP",
        ),
    ],
)
def test_what_is_hardly_http_is_told_in_words(repository: Repository, fake: Fake, raw: bytes, told: str) -> None:
    """And nothing of it that a terminal would obey."""

    def answer(handler: Handler) -> bool:
        handler.wfile.write(raw)
        handler.close_connection = True
        return True

    fake.misbehaviours.append(answer)
    with pytest.raises(Error) as caught:
        repository.resolve()
    one_line(caught, fake.authority, told)
    assert str(caught.value).isprintable()


def test_a_web_page_is_no_manifest(repository: Repository, fake: Fake) -> None:
    answers(fake, "manifests", 200, b"<html>", {"Content-Type": "text/html; charset=utf-8"})

    with pytest.raises(FailedPrecondition) as caught:
        repository.resolve()
    one_line(caught, f"resolve {fake.authority}/team/app tag 1", "web page")


def test_schema_1_is_named(repository: Repository, fake: Fake) -> None:
    answers(
        fake, "manifests", 200, b"{}", {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
    )

    with pytest.raises(Unimplemented, match="schema 1"):
        repository.resolve()


def test_a_huge_manifest_is_not_read(repository: Repository, fake: Fake) -> None:
    size = 100 << 20
    headers = {"Content-Type": MANIFEST, "Content-Length": str(size), "Docker-Content-Digest": digest_of(b"")}
    fake.misbehaviours.append(lambda handler: handler.command == "HEAD" and handler.answered(200, b"", headers))

    with pytest.raises(ResourceExhausted, match=f"{size} bytes"):
        repository.resolve()
    with pytest.raises(ResourceExhausted, match=f"{size} bytes"):
        repository.manifest(Descriptor(MANIFEST, digest_of(b""), size))


def test_a_length_that_no_body_can_have_is_passed_over(repository: Repository, fake: Fake) -> None:
    """Python refuses to read a number of more than 4300 digits; the manifest itself tells its size."""
    desc = fake.add_manifest(CONTENT)
    headers = {"Content-Type": MANIFEST, "Content-Length": "9" * 5000, "Docker-Content-Digest": desc.digest}
    fake.misbehaviours.append(lambda handler: handler.command == "HEAD" and handler.answered(200, b"", headers))

    assert repository.resolve().size == len(CONTENT)


def test_a_manifest_that_grows_is_cut(repository: Repository, fake: Fake) -> None:
    desc = fake.add_manifest(CONTENT)
    answers(fake, "manifests", 200, CONTENT + b" " * 100, {"Content-Type": MANIFEST})

    with pytest.raises(ResourceExhausted, match=f"more than {len(CONTENT)} bytes"):
        repository.manifest(desc)


def test_an_empty_blob_is_no_blob(repository: Repository) -> None:
    with pytest.raises(InvalidArgument, match="0 bytes"):
        repository.blob(Descriptor("x", digest_of(b""), 0))


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://a.test/x", "http://user:pw@a.test/x", "http://a.test:x/"]
)
def test_redirects_lead_to_http_only(repository: Repository, fake: Fake, target: str) -> None:
    answers(fake, "blobs", 307, b"", {"Location": target})

    with pytest.raises(Unavailable) as caught:
        fetch(repository, fake.add_blob(DATA))
    one_line(caught, "redirects to")
    assert "pw" not in str(caught.value)


def test_redirects_end(repository: Repository, fake: Fake) -> None:
    fake.misbehaviours.append(lambda handler: handler.answered(307, b"", {"Location": handler.path}))

    with pytest.raises(Unavailable, match="redirects more than 10 times"):
        fetch(repository, fake.add_blob(DATA))
    assert len(fake.requests) == 11


def test_a_busy_registry_is_asked_again(repository: Repository, fake: Fake) -> None:
    desc = fake.add_manifest(CONTENT)
    statuses = [429, 500, 503]
    fake.misbehaviours.append(lambda handler: bool(statuses) and handler.answered(statuses.pop()))

    assert repository.resolve() == desc
    assert len(fake.requests) == 4


def test_a_registry_that_stays_busy_is_given_up(repository: Repository, fake: Fake) -> None:
    answers(fake, "", 503, b'{"errors": [{"code": "BUSY", "message": "later\\nplease"}]}')

    with pytest.raises(Unavailable) as caught:
        repository.manifest(fake.add_manifest(CONTENT))
    one_line(caught, "503", "BUSY later please")
    assert len(fake.requests) == 5


def test_foreign_layers_are_asked_for_without_credentials_and_by_http_only(
    client: Client, fakes: Callable[[], Fake]
) -> None:
    registry, foreign = fakes(), fakes()
    desc = foreign.add_blob(DATA)
    repository = client.repository(f"{registry.authority}/team/app:1", scheme="http", headers={"X-Secret": "s"})
    urls = ["file:///etc/passwd", f"http://{foreign.authority}/v2/x/blobs/{desc.digest}"]

    with repository.blob(desc, urls=urls) as blob:
        assert blob.read(len(DATA)) == DATA[: blob.position]
    assert not registry.requests
    assert "X-Secret" not in foreign.requests[0][2] and "Authorization" not in foreign.requests[0][2]


@pytest.mark.parametrize("offset", [0, 1, 100_000, len(DATA) - 1, len(DATA)])
def test_a_large_blob_comes_over_several_connections_in_order(
    repository: Repository, fake: Fake, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    monkeypatch.setattr("windlass_registry.ranges.PART", 30_000)
    desc = fake.add_blob(DATA)
    cuts = [7_000, 11_000]

    def cut(handler: Handler) -> bool:
        if "Range" not in handler.headers or not cuts:
            return False
        first, _, last = handler.headers["Range"][6:].partition("-")
        start, end = int(first), int(last or len(DATA) - 1)
        place = {"Content-Range": f"bytes {start}-{end}/{len(DATA)}"}
        handler.answer(206, DATA[start : end + 1], place, cut=cuts.pop())
        return True

    fake.misbehaviours.append(cut)
    with repository.ranges(desc, offset, 3) as blob:
        assert b"".join(iter(lambda: bytes(blob.read(10_000)), b"")) == DATA[offset:]


def test_a_host_that_knows_no_ranges_is_read_by_one_connection(
    repository: Repository, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windlass_registry.ranges.PART", 30_000)
    desc = fake.add_blob(DATA)
    fake.ranges = False
    with repository.ranges(desc, 0, 3) as blob:
        assert b"".join(iter(lambda: bytes(blob.read(10_000)), b"")) == DATA


def test_parts_that_cannot_be_had_end_it(repository: Repository, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass_registry.ranges.PART", 30_000)
    desc = fake.add_blob(DATA)
    fake.misbehaviours.append(lambda handler: "bytes=9" in handler.headers.get("Range", "") and handler.answered(404))
    with repository.ranges(desc, 0, 3) as blob, pytest.raises(NotFound, match=desc.digest):
        while blob.read(10_000):
            pass
    assert blob.position == 90_000

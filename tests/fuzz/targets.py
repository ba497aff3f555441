"""What is fuzzed: each target reads bytes of a stranger's and lets through only the errors that its readers declare.

Whatever else a target raises is a bug. Beside errors it states what must hold of what was read: that it can be
written again, that it stays inside its limits.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any  # JSON

from fuzz.connections import Grpc, Ttrpc
from urllib3.util import parse_url

from windlass.config import durations, toml
from windlass.config import loading as configuration
from windlass.config.validate import ConfigError
from windlass.contracts.values import check_digest, check_identifier, check_labels
from windlass.errors import DataLoss, Error, FailedPrecondition, InvalidArgument, OutOfRange, from_code
from windlass.filters import expressions as filters
from windlass.filters import fieldpaths
from windlass.filters.regexp import InvalidRegexp, Regexp
from windlass_api.ttrpc import framing
from windlass_diff import headers, streams, tar
from windlass_diff.apply import clean
from windlass_images import dockersave, manifests, platforms
from windlass_metadata import references
from windlass_metadata.columns import decode_map, encode_map
from windlass_registry import challenges, failures, urls
from windlass_registry import references as registry_references
from windlass_registry.session import seconds_asked
from windlass_restart.restarter import _has_terminal
from windlass_runtime_v2 import bundle, bundles, foreign, joining, tasks
from windlass_server.http2.headers import Decoder, HeaderFailure
from windlass_shim_runc import messages
from windlass_shim_runc.messages import Message

Target = Callable[[bytes], None]
MOST = 64 << 20
"""Bytes that a small archive may unpack to here."""
NOW = 1_700_000_000_000_000_000


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    """Cut data, so that what is read ends in the middle of things."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def text_of(data: bytes) -> str:
    """Return text as the wire may have it: any that UTF-8 can write."""
    return data.decode("utf-8", "replace")


def writable(value: object) -> None:
    """Raise unless every string of a value can be written as UTF-8, as messages and files are."""
    json.dumps(value, ensure_ascii=False, default=str).encode()


def read_tar(data: bytes) -> None:
    """Every entry and its data, as the applier reads them."""
    pieces = chunks(data[1:], data[0] * 37 + 1 if data else 1)
    archive = tar.Archive(lambda: next(pieces, b""))
    with suppress(InvalidArgument), open(os.memfd_create("sink"), "wb") as sink:
        for entry in archive:
            assert clean(entry.name).startswith(b"/")
            assert b"/../" not in clean(entry.name) + b"/"
            headers.shown(entry.name).encode()
            if entry.type == headers.FILE and entry.size <= MOST:
                os.ftruncate(sink.fileno(), 0)
                archive.copy_to(entry, sink.fileno())
        archive.drain()


def read_layer(data: bytes) -> None:
    """A compressed layer; what it unpacks to is read in pieces and not kept."""
    with tempfile.TemporaryFile() as blob:
        blob.write(data)
        blob.flush()
        pipeline = streams.Pipeline(lambda: streams.open_source(streams.Blob(blob.fileno()), True), lambda: None)
        most = MOST
        with suppress(InvalidArgument, OutOfRange, DataLoss):
            while most > 0 and (chunk := pipeline.read()):
                assert len(chunk) <= streams.CHUNK
                most -= len(chunk)
        while most <= 0 and pipeline.read():
            pass


def read_filter(data: bytes) -> None:
    """A filter, and how it judges an object."""
    fields = {("name",): "a.b/c", ("labels", "a"): "b\nc", ("labels", "x.y"): "", ("digest",): "sha256:00"}

    def adaptor(path: Any) -> tuple[str, bool]:
        value = fields.get(tuple(path))
        return (value or "", value is not None)

    with suppress(InvalidArgument):
        filters.parse(text_of(data).split("\x1e"))(adaptor)


def read_regexp(data: bytes) -> None:
    """A regular expression, and a search for it."""
    pattern, _, subject = text_of(data).partition("\x1e")
    with suppress(InvalidRegexp, InvalidArgument):
        Regexp(pattern).search(subject)


def read_labels(data: bytes) -> None:
    """Labels: their limits, their column, masks over them, and what garbage collection reads in them."""
    parts = text_of(data).split("\x1e")
    labels = dict(zip(parts[::2], parts[1::2], strict=False))
    with suppress(InvalidArgument):
        check_labels(labels)
        assert decode_map(encode_map(labels)) == fieldpaths.kept_labels(labels)
        fieldpaths.updated_labels({"a": "b"}, labels, parts[::3], "it")
    references.is_root(labels)
    list(references.references("n", labels))
    list(references.back_references("n", labels))
    for condition in references.conditions("n", labels):
        condition.holds(references.parse_time(parts[-1]), NOW)
    for value in labels.values():
        references.expired(value, NOW)


def read_names(data: bytes) -> None:
    """Identifiers, digests, tags, platforms and durations."""
    text = text_of(data)
    with suppress(InvalidArgument):
        check_identifier("namespace", text)
        assert "/" not in text
        assert ".." not in text
    with suppress(InvalidArgument):
        check_digest(text)
        assert "/" not in text
    with suppress(InvalidArgument):
        assert platforms.parse(platforms.write(platforms.parse(text))) == platforms.parse(text)
    with suppress(ValueError):
        durations.write(durations.seconds(text))
    dockersave.full_name(text)


def read_toml(data: bytes) -> None:
    """TOML, whose values can be written and read again."""
    try:
        table = toml.parse(text_of(data), "f")
    except toml.SyntaxProblem as problem:
        assert problem.mark.line >= 1
        return
    assert sorted_text(toml.parse(toml.render(table), "g")) == sorted_text(table)


def sorted_text(table: dict[str, Any]) -> str:
    """Return a table so that equal ones are equal: a NaN is itself, and the order of keys does not count."""
    return json.dumps(table, sort_keys=True, default=repr)


def read_config(data: bytes) -> None:
    """A configuration file, up to what a daemon would start with."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data.replace(b"imports", b"Imports"))
        file.flush()
        with suppress(ConfigError):
            configuration.read(Path(file.name)).settle([])


def read_ttrpc(data: bytes) -> None:
    """Frames of a ttrpc client and server: the decoder, both envelopes, and the listener."""
    decoder = framing.FrameDecoder()
    for piece in chunks(data, 7):
        for frame in decoder.feed(piece):
            with suppress(framing.Malformed):
                framing.encode_request(framing.decode_request(frame.data))
            with suppress(framing.Malformed):
                response = framing.decode_response(frame.data)
                if response.code:
                    assert isinstance(from_code(response.code, response.message), Error)
    _ttrpc.feed(data)


def read_http2(data: bytes) -> None:
    """Bytes after an HTTP/2 client's preface."""
    _grpc.feed(data)


def read_hpack(data: bytes) -> None:
    """Header blocks, which share a table."""
    decoder = Decoder(4096)
    with suppress(HeaderFailure):
        for block in data.split(b"\x1e\x1e"):
            fields = decoder.decode(block)
            assert fields is None or sum(field.size for field in fields) <= 4096
            assert decoder._size <= 4096


KINDS = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]


def read_shim(data: bytes) -> None:
    """Every message of the shim's codec; what is read can be written and read again."""
    if not data:
        return
    kind = KINDS[data[0] % len(KINDS)]
    with suppress(framing.Malformed, InvalidArgument):
        message = messages.decode(kind, data[1:])
        again = messages.decode(kind, message.encode())
        assert again.encode() == message.encode()


def read_documents(data: bytes) -> None:
    """What images are made of: indexes, manifests, configs, and manifest.json of docker save."""
    for parse in (manifests.parse_index, manifests.parse_manifest):
        for media_type in ("", manifests.MANIFEST):
            with suppress(InvalidArgument):
                writable(asdict(parse(data, "it", media_type)))
    with suppress(InvalidArgument):
        writable(asdict(manifests.parse_config(data, "it")))
    files = {"config.json": "sha256:" + "0" * 64, "a/layer.tar": "sha256:" + "1" * 64}
    with suppress(InvalidArgument):
        writable([asdict(each) for each in dockersave.parse(data, files, {"b": "a/layer.tar", "c": "c"}, "it")])


def read_specs(data: bytes) -> None:
    """Runtime specs, where the daemon looks at them, and what shims write about themselves."""
    with suppress(InvalidArgument):
        spec = tasks._json_object("spec", data)
        tasks.refuse_root_cgroup("c", spec)
        joining.group_of(data)
    bundles.remapped_group(data)
    with suppress(ValueError):
        bundle.parse_bootstrap(data)
    with suppress(Error):
        foreign.parse_result(data)
    _has_terminal(container(data))
    with suppress(FailedPrecondition, InvalidArgument):
        tasks._json_object("spec", data)


def container(spec: bytes) -> Any:
    """Return a container with a spec."""
    from windlass.contracts.containers import Container
    from windlass.contracts.values import Payload

    return Container(id="c", runtime="r", spec=Payload("t", spec))


_grpc = Grpc()
_ttrpc = Ttrpc()


def read_registry(data: bytes) -> None:
    """A URL, a challenge, a date and a reference of a registry; what is asked is what was looked at."""
    text = text_of(data)
    base = "https://a.test:5000/v2/x/blobs/uploads/"

    def parsed() -> str:
        urls.parse(text)
        return text

    def joined() -> str:
        return urls.join(base, text)

    for read in (parsed, joined):
        try:
            url = read()
        except urls.BadUrl as error:
            assert str(error).isprintable()
            continue
        scheme, host, port = urls.place(url)
        asked = parse_url(url)
        assert (asked.scheme, (asked.host or "").strip("[]")) == (scheme, host) and asked.auth is None
        assert (asked.port or {"http": 80, "https": 443}[scheme]) == port
    with suppress(InvalidArgument):
        urls.place(f"https://{registry_references.parse(text).host}/")
    challenges.parse([text])
    seconds_asked(text, NOW / 1e9)
    failures.shown_url(text)
    assert "@" not in failures.shown_proxy(text)


TARGETS: dict[str, Target] = {
    name.removeprefix("read_"): target for name, target in list(globals().items()) if name.startswith("read_")
}


@contextmanager
def resources() -> Iterator[None]:
    """Close what the targets share."""
    try:
        yield
    finally:
        _grpc.close()
        _ttrpc.close()

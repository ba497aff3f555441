"""Requests to a repository: the digest of a tag, manifests, blobs, tags and referrers.

Source: docs/containerd 6.3.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import urllib3
from urllib3.exceptions import HTTPError

from windlass.contracts.values import DIGEST, Descriptor
from windlass.errors import Error, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unimplemented
from windlass_images import manifests
from windlass_registry import failures, hosts, urls
from windlass_registry.blobs import Blob
from windlass_registry.failures import HostFailure
from windlass_registry.hosts import Host, Tls
from windlass_registry.meter import Meter
from windlass_registry.pushing import Pusher
from windlass_registry.ranges import Ranges
from windlass_registry.references import Reference
from windlass_registry.session import Request, Session, each_scope
from windlass_registry.transport import explain

MANIFEST_LIMIT = manifests.MANIFEST_LIMIT
"""Bytes of a manifest or an index (docs/containerd 7.7)."""
LIST_LIMIT = 4 << 20
MOST_LISTED = 100_000
"""Tags or referrers."""
MOST_PAGES = 1000
UNTOLD = frozenset({401, 403, 405})
"""Answers to HEAD after which the body, which HEAD has none of, may say more."""
MOST_URLS = 8
ACCEPT = ", ".join((*sorted(manifests.MANIFESTS), *sorted(manifests.INDEXES), "*/*"))

_LINK = re.compile(r'<([^<>]*)>((?:[^<>",]|"[^"]*")*)')
_NEXT = re.compile(r';\s*rel\s*=\s*(?:next\b|"(?:[^"]*\s)?next(?:\s[^"]*)?")', re.IGNORECASE)
"""A relation of a link (RFC 8288 section 3): of several, and also without quotes."""

R = TypeVar("R")


class Repository:
    """One repository of a registry, as one reference names it; for any number of threads."""

    def __init__(self, reference: Reference, found: Sequence[Host], session: Session) -> None:
        """Ask the hosts of ``found`` in their order, each according to its capabilities."""
        self.reference = reference
        self._hosts = list(found)
        self._session = session

    def abort(self) -> None:
        """End everything that is under way, from any thread; calls that wait raise Cancelled."""
        self._session.abort()

    @property
    def meter(self) -> Meter:
        """The progress of running requests."""
        return self._session.meter

    def distrust(self, host: Host) -> None:
        """Send no more requests to a host that has sent wrong bytes."""
        self._hosts = [other for other in self._hosts if other.authority != host.authority]

    def hosts(self, capability: str) -> list[Host]:
        """Return the hosts that may be asked for something, in order."""
        return [host for host in self._hosts if capability in host.capabilities]

    # Manifests

    def resolve(self) -> Descriptor:
        """Return what the reference stands for now. Raises NotFound, Unavailable, Unauthenticated and others."""
        return self._first(hosts.RESOLVE, self.reference.wanted, "resolve", self._resolve)

    def _resolve(self, host: Host, patient: bool) -> Descriptor:
        request = self._manifest_request("HEAD", self.reference.object, ACCEPT, patient)
        with self._session.ask(host, request) as answer:
            if answer.status >= 400 and answer.status not in UNTOLD:
                raise failures.of_answer(host, answer)
            found = self._described(host, answer) if answer.status == 200 else None
        return found or self._counted(host, patient)

    def _described(self, host: Host, answer: urllib3.BaseHTTPResponse) -> Descriptor | None:
        """Return the descriptor in the headers; None means that the body is needed."""
        digest = self.reference.digest or answer.headers.get("Docker-Content-Digest", "")
        length = failures.length_of(answer)
        if not DIGEST.fullmatch(digest) or not length:
            return None
        if length > MANIFEST_LIMIT:
            raise HostFailure(
                host, f"the manifest has {length} bytes, {MANIFEST_LIMIT} are the limit", ResourceExhausted
            )
        return Descriptor(_media_type(host, answer), digest, length)

    def _counted(self, host: Host, patient: bool) -> Descriptor:
        request = self._manifest_request("GET", self.reference.object, ACCEPT, patient)
        with self._session.ask(host, request) as answer:
            if answer.status != 200:
                raise failures.of_answer(host, answer)
            media_type = _media_type(host, answer)
            data = self._body(host, answer, MANIFEST_LIMIT)
        if not data:
            raise HostFailure(host, "sends an empty manifest", FailedPrecondition)
        digest = self.reference.digest or f"sha256:{hashlib.sha256(data).hexdigest()}"
        _verify(host, data, digest)
        return Descriptor(media_type, digest, len(data))

    def manifest(self, desc: Descriptor) -> bytes:
        """Return a manifest or an index, its size and digest verified; a wrong one is asked of the next host."""
        if not 0 < desc.size <= MANIFEST_LIMIT:
            raise ResourceExhausted(
                f"fetch manifest of {self.reference.locator} {desc.digest}: its descriptor says {desc.size} bytes,"
                f" taken are 1 to {MANIFEST_LIMIT}"
            )

        def fetch(host: Host, patient: bool) -> bytes:
            request = self._manifest_request("GET", desc.digest, f"{desc.media_type}, */*", patient)
            with self._session.ask(host, request) as answer:
                if answer.status != 200:
                    raise failures.of_answer(host, answer)
                data = self._body(host, answer, desc.size)
            if len(data) != desc.size:
                raise HostFailure(host, f"sends {len(data)} bytes instead of {desc.size}", FailedPrecondition)
            _verify(host, data, desc.digest)
            return data

        return self._first(hosts.PULL, desc.digest, "fetch manifest of", fetch)

    def _manifest_request(self, method: str, object: str, accept: str, patient: bool) -> Request:
        scopes = each_scope(self.reference, "pull")
        return Request(method, f"manifests/{object}", headers=(("Accept", accept),), scopes=scopes, patient=patient)

    # Blobs

    def blob(self, desc: Descriptor, offset: int = 0, *, urls: Sequence[str] = (), verify: bool = True) -> Blob:
        """Return the bytes of a blob from ``offset`` on; the first read sends the first request.

        ``urls`` are other places where a foreign layer lies; they are asked first, without
        credentials. See `Blob` for who checks the digest.
        """
        if desc.size <= 0:
            raise InvalidArgument(f"fetch {self.reference.locator} {desc.digest}: a descriptor of {desc.size} bytes")
        return Blob(self._session, lambda: self._ways(desc, urls), desc, self._failing(desc), offset, verify)

    def ranges(self, desc: Descriptor, offset: int, width: int) -> Ranges:
        """Return the bytes of a blob, over ``width`` connections; the digest is the caller's to check."""

        def part(start: int, end: int | None) -> Blob:
            return Blob(self._session, lambda: self._ways(desc, ()), desc, self._failing(desc), start, False, end)

        return Ranges(part, desc.size, offset, width)

    def _failing(self, desc: Descriptor) -> Callable[[list[HostFailure]], Error]:
        return lambda found: failures.combine(self.reference, desc.digest, "fetch blob of", found)

    def _ways(self, desc: Descriptor, places: Sequence[str]) -> Iterator[tuple[Host, Request]]:
        accept = (("Accept", f"{desc.media_type}, */*"),)
        for url in places[:MOST_URLS]:
            yield _foreign(url), Request("GET", url=url, headers=accept, authorised=False)
        scopes = each_scope(self.reference, "pull")
        kind = "manifests" if desc.media_type in manifests.MANIFESTS | manifests.INDEXES else "blobs"
        able = self.hosts(hosts.PULL)
        for host in able:
            patient = host is able[-1]
            yield host, Request("GET", f"{kind}/{desc.digest}", headers=accept, scopes=scopes, patient=patient)

    # Lists

    def tags(self) -> list[str]:
        """Return the repository's tags, page after page."""
        return self._first(hosts.RESOLVE, "tags", "list", self._tags)

    def _tags(self, host: Host, patient: bool) -> list[str]:
        request = Request("GET", "tags/list", scopes=each_scope(self.reference, "pull"), patient=patient)
        found: list[str] = []
        for document in self._pages(host, request, "list of tags"):
            tags = document.get("tags") or []
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise HostFailure(host, "its list of tags is not one of strings", FailedPrecondition)
            found += tags
            if len(found) >= MOST_LISTED:
                break
        return found[:MOST_LISTED]

    def referrers(self, digest: str, artifact_type: str = "") -> list[tuple[Descriptor, str]]:
        """Return the manifests that have ``digest`` as their subject, each with its artifact type."""

        def fetch(host: Host, patient: bool) -> list[tuple[Descriptor, str]]:
            query = (("artifactType", artifact_type),) if artifact_type else ()
            scopes = each_scope(self.reference, "pull")
            request = Request("GET", f"referrers/{digest}", query=query, scopes=scopes, patient=patient)
            try:
                return self._referrers(host, request)
            except HostFailure as failure:
                if failure.kind is not NotFound:
                    raise
            tag = digest.replace(":", "-", 1)
            try:
                return self._referrers(host, self._manifest_request("GET", tag, f"{manifests.INDEX}, */*", patient))
            except HostFailure as failure:
                if failure.kind is not NotFound:
                    raise
                return []

        found = self._first(hosts.REFERRERS, digest, "list referrers of", fetch)
        return [(desc, kind) for desc, kind in found if not artifact_type or kind == artifact_type]

    def _referrers(self, host: Host, request: Request) -> list[tuple[Descriptor, str]]:
        found: list[tuple[Descriptor, str]] = []
        for document in self._pages(host, request, "list of referrers"):
            found += _referrers(host, document)
            if len(found) >= MOST_LISTED:
                break
        return found[:MOST_LISTED]

    def _pages(self, host: Host, request: Request, name: str) -> Iterator[Mapping[str, object]]:
        """Yield the JSON objects of a list, page after page."""
        for _ in range(MOST_PAGES):
            with self._session.ask(host, request) as answer:
                if answer.status != 200:
                    raise failures.of_answer(host, answer)
                data = self._body(host, answer, LIST_LIMIT)
                following = _next_page(host, answer)
            try:
                yield manifests.parse_object(data, f"its {name}")
            except InvalidArgument as error:
                raise HostFailure(host, str(error), FailedPrecondition) from None
            if not following:
                return
            request = replace(request, path="", url=following, query=())
        raise HostFailure(host, f"its {name} has more than {MOST_PAGES} pages", ResourceExhausted)

    def _body(self, host: Host, answer: urllib3.BaseHTTPResponse, limit: int) -> bytes:
        """Return a whole body of at most ``limit`` bytes."""
        parts: list[bytes] = []
        left = limit + 1
        try:
            while left > 0 and (data := answer.read(left, decode_content=True)):
                self._session.meter.bring(len(data))
                parts.append(data)
                left -= len(data)
        except (HTTPError, OSError) as error:
            raise HostFailure(host, explain(error)) from None
        if left <= 0:
            raise HostFailure(host, f"sends more than {limit} bytes", ResourceExhausted)
        return b"".join(parts)

    # Pushing

    def pusher(self) -> Pusher:
        """Return a sender of blobs and manifests to the first host that accepts them. Raises NotFound without one."""
        able = self.hosts(hosts.PUSH)
        if not able:
            raise failures.combine(self.reference, "", "push to", [])
        return Pusher(self.reference, able[0], self._session)

    def _first(self, capability: str, wanted: str, stage: str, ask: Callable[[Host, bool], R]) -> R:
        """Return what the first host that has it answers; the last is asked with patience."""
        found: list[HostFailure] = []
        able = self.hosts(capability)
        for host in able:
            try:
                answer = ask(host, host is able[-1])
            except HostFailure as failure:
                found.append(failure)
            else:
                self._session.meter.finish()
                return answer
        raise failures.combine(self.reference, wanted, stage, found)


def _media_type(host: Host, answer: urllib3.BaseHTTPResponse) -> str:
    media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type in ("text/html", "application/xhtml+xml"):
        raise HostFailure(host, "answers with a web page; it may be no registry, or a login page", FailedPrecondition)
    if media_type in ("text/plain", "application/vnd.docker.distribution.manifest.v1+prettyjws"):
        raise HostFailure(
            host, "has it only in docker's schema 1, which is not supported; push it again", Unimplemented
        )
    if not media_type:
        raise HostFailure(host, "sends something without a media type; it may be no registry", FailedPrecondition)
    if media_type not in manifests.MANIFESTS | manifests.INDEXES:
        raise HostFailure(
            host, f"sends {failures.one_line(media_type, 100)!r}, which is not a manifest", FailedPrecondition
        )
    return media_type


def _verify(host: Host, data: bytes, digest: str) -> None:
    algorithm = digest.partition(":")[0]
    found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if found != digest:
        raise HostFailure(host, f"sends bytes with digest {found}", FailedPrecondition)


def _foreign(url: str) -> Host:
    """Return the host of a layer that lies elsewhere; a malformed URL is refused by its request."""
    try:
        parts = urls.parse(url)
    except urls.BadUrl:
        return Host("https", "a URL of the layer")
    return Host(parts.scheme, parts.netloc, "", tls=Tls(), place="the layer's descriptor")


def _next_page(host: Host, answer: urllib3.BaseHTTPResponse) -> str:
    """Return where a list goes on, empty at its end; a relative place is one where this page came from."""
    for header in answer.headers.getlist("Link"):
        for target, parameters in _LINK.findall(header):
            if _NEXT.search(parameters):
                try:
                    return urls.join(answer.url or host.base, target)
                except urls.BadUrl as error:
                    raise HostFailure(host, f"continues its list at {error}", FailedPrecondition) from None
    return ""


def _referrers(host: Host, document: Mapping[str, object]) -> list[tuple[Descriptor, str]]:
    found = document.get("manifests")
    if not isinstance(found, list):
        raise HostFailure(host, "its list of referrers is not an index", FailedPrecondition)
    try:
        return [
            (manifests.parse_descriptor(item, "a referrer"), str(item.get("artifactType", ""))[:255]) for item in found
        ]
    except InvalidArgument as error:
        raise HostFailure(host, str(error), FailedPrecondition) from None

"""Sends blobs and manifests to a registry; skips content that it has, and mounts blobs of other repositories.

Source: docs/containerd 6.3.
"""

from __future__ import annotations

import urllib3

from windlass.contracts.values import Descriptor
from windlass.errors import FailedPrecondition, NotFound
from windlass_registry import failures, urls
from windlass_registry.failures import HostFailure
from windlass_registry.hosts import Host
from windlass_registry.references import Reference
from windlass_registry.session import Request, Session, each_scope
from windlass_registry.transport import Body

OCTETS = "application/octet-stream"


class Pusher:
    """Sends to one host; any number of threads may send blobs; send manifests after the blobs that they name."""

    def __init__(self, reference: Reference, host: Host, session: Session) -> None:
        """Send to the repository of ``reference``."""
        self._reference = reference
        self._session = session
        self._scopes = each_scope(reference, "pull", "push")
        self.host = host

    def has_blob(self, desc: Descriptor) -> bool:
        """Return whether the host has a blob."""
        return self._has(f"blobs/{desc.digest}", desc, "push blob to")

    def has_manifest(self, desc: Descriptor, tag: str = "") -> bool:
        """Return whether the host has a manifest, and with ``tag`` whether the tag stands for it."""
        return self._has(f"manifests/{tag or desc.digest}", desc, "push manifest to")

    def _has(self, path: str, desc: Descriptor, stage: str) -> bool:
        accept = (("Accept", f"{desc.media_type}, */*"),)
        try:
            with self._session.ask(self.host, Request("HEAD", path, headers=accept, scopes=self._scopes)) as answer:
                if answer.status == 404:
                    return False
                if answer.status != 200:
                    raise failures.of_answer(self.host, answer)
                return answer.headers.get("Docker-Content-Digest", desc.digest) == desc.digest
        except HostFailure as failure:
            raise failures.combine(self._reference, desc.digest, stage, [failure]) from None

    def push_blob(self, desc: Descriptor, body: Body, mount_from: str = "") -> bool:
        """Send a blob; ``body`` gives its bytes, anew for each try. Returns False if it was there or was mounted.

        ``mount_from`` is a repository of the same registry that has it.
        """
        if self.has_blob(desc):
            return False
        try:
            return self._upload(desc, body, mount_from)
        except HostFailure as failure:
            raise failures.combine(self._reference, desc.digest, "push blob to", [failure]) from None

    def _upload(self, desc: Descriptor, body: Body, mount_from: str) -> bool:
        place = self._begin(desc, mount_from)
        if place is None:
            return False
        headers = (("Content-Type", OCTETS), ("Content-Length", str(desc.size)))
        url = failures.with_query(place, [("digest", desc.digest)])
        request = Request("PUT", url=url, headers=headers, scopes=self._scopes, body=body)
        with self._session.ask(self.host, request) as answer:
            self._accepted(answer, desc)
        return True

    def _begin(self, desc: Descriptor, mount_from: str) -> str | None:
        """Ask for a place to upload to; None says that the blob was mounted."""
        empty = (("Content-Length", "0"),)
        if mount_from and mount_from != self._reference.repository:
            scopes = each_scope(self._reference, "pull", "push", source=mount_from)
            query = (("mount", desc.digest), ("from", mount_from))
            request = Request("POST", "blobs/uploads/", query=query, headers=empty, scopes=scopes)
            try:
                with self._session.ask(self.host, request) as answer:
                    if answer.status == 201:
                        return None
                    if answer.status == 202:
                        return self._place(answer)
            except HostFailure:
                pass  # a registry that does not let us read the other repository takes the bytes all the same
        request = Request("POST", "blobs/uploads/", headers=empty, scopes=self._scopes)
        with self._session.ask(self.host, request) as answer:
            if answer.status != 202:
                raise failures.of_answer(self.host, answer)
            return self._place(answer)

    def _place(self, answer: urllib3.BaseHTTPResponse) -> str:
        """Return where to upload to; a relative place is relative to the answer's URL, after all redirects."""
        target = answer.headers.get("Location", "")
        if not target:
            raise HostFailure(self.host, "gives no place to upload to", FailedPrecondition)
        try:
            return urls.join(answer.url or self.host.base, target)
        except urls.BadUrl as error:
            raise HostFailure(self.host, f"gives {error} to upload to", FailedPrecondition) from None

    def push_manifest(self, desc: Descriptor, data: bytes, tag: str = "") -> bool:
        """Send a manifest or an index, under ``tag`` if there is one. Returns False if it was there."""
        if self.has_manifest(desc, tag):
            return False
        headers = (("Content-Type", desc.media_type), ("Content-Length", str(len(data))))
        path = f"manifests/{tag or desc.digest}"
        request = Request("PUT", path, headers=headers, scopes=self._scopes, body=lambda: data)
        try:
            with self._session.ask(self.host, request) as answer:
                self._accepted(answer, desc)
        except HostFailure as failure:
            raise failures.combine(self._reference, desc.digest, "push manifest to", [failure]) from None
        return True

    def _accepted(self, answer: urllib3.BaseHTTPResponse, desc: Descriptor) -> None:
        if answer.status not in (200, 201, 202, 204):
            failure = failures.of_answer(self.host, answer)
            if failure.kind is NotFound:
                failure = HostFailure(
                    self.host, f"{failure}; the upload was forgotten, or something it names is missing"
                )
            raise failure
        stored = answer.headers.get("Docker-Content-Digest", desc.digest)
        if stored != desc.digest:
            text = failures.one_line(stored, 80)
            raise HostFailure(self.host, f"stored something else: {text}", FailedPrecondition)

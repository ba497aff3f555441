"""Promises of what lies elsewhere: a place that a registry names is asked, is told no secrets, and may be no URL."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Callable
from email.utils import formatdate
from urllib.parse import urlsplit

import pytest
from registry.fake import MANIFEST, Fake, Handler, digest_of

from windlass.contracts.transfer import Credentials
from windlass.contracts.values import Descriptor
from windlass.errors import Error, Unauthenticated
from windlass_registry import urls
from windlass_registry.client import Client
from windlass_registry.repository import Repository
from windlass_registry.session import seconds_asked

DATA = os.urandom(100_000)
BLOB = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))
SECRET = "s3cret-of-somebody"
BASIC = f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"
MALFORMED = [
    "http://[",
    "http://[::1",
    "http://a.test:x/",
    "http://a.test:99999/",
    "http:///v2/",
    "http://a..test\\@b.test/",
    "http://a b.test/",
    "http://a.test\x85/",
    "http://" + "a" * 300 + ".test/",
    "http://\xe4.test/",
    "http://user:pw@a.test/",
    "ftp://a.test/",
    "file:///etc/passwd",
    "http://a.test/" + "x" * (20 << 10),
]


def with_password(client: Client, fake: Fake) -> Repository:
    """A repository whose registry wants a password, and whose user has a header of their own."""
    fake.misbehaviours.insert(
        0,
        lambda handler: (
            handler.headers.get("Authorization") != BASIC
            and handler.answered(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
        ),
    )
    return client.repository(
        f"{fake.authority}/team/app:1",
        scheme="http",
        ask=lambda host, reference: Credentials("me", SECRET),
        headers={"X-Secret": SECRET},
    )


def sends(fake: Fake, word: str, status: int, target: Callable[[Handler], str]) -> None:
    """Let requests with ``word`` in their path be sent elsewhere."""
    fake.misbehaviours.append(
        lambda handler: word in handler.path and handler.answered(status, b"", {"Location": target(handler)})
    )


def fetch(repository: Repository, desc: Descriptor) -> bytes:
    with repository.blob(desc) as blob:
        return b"".join(iter(lambda: blob.read(1 << 16), b""))


def told_nothing(fake: Fake) -> None:
    """No secret has come here."""
    assert fake.requests
    assert SECRET not in repr((fake.requests, fake.bodies)) and "Authorization" not in repr(fake.requests)


def one_line(error: pytest.ExceptionInfo[Error]) -> str:
    text = str(error.value)
    assert text.isprintable() and len(text) < 1000
    assert SECRET not in text and "pw" not in text
    return text


# Uploads


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("relative", [True, False])
def test_an_upload_that_begins_elsewhere_goes_on_there(
    client: Client, fakes: Callable[[], Fake], status: int, relative: bool
) -> None:
    """The POST is followed with its method; the PUT goes where the POST ended, and no credentials go along."""
    registry, other = fakes(), fakes()
    repository = with_password(client, registry)
    sends(registry, "uploads", status, lambda handler: f"//{other.authority}{handler.path}")
    if not relative:
        sends(
            other, "uploads/1", 307, lambda handler: f"http://{other.authority}/upload/2?{urlsplit(handler.path).query}"
        )
        sends(other, "uploads/", 202, lambda handler: f"http://{other.authority}/v2/team/app/blobs/uploads/1")

    assert repository.pusher().push_blob(BLOB, lambda: DATA)

    assert other.blobs[BLOB.digest] == DATA and not registry.blobs
    assert [request[0] for request in other.requests] == ["POST", "PUT"] + ["PUT"] * (not relative)
    told_nothing(other)


def test_a_place_on_the_registry_itself_is_uploaded_to_with_credentials(client: Client, fake: Fake) -> None:
    repository = with_password(client, fake)

    assert repository.pusher().push_blob(BLOB, lambda: DATA)
    assert fake.requests[-1][0] == "PUT" and fake.requests[-1][2]["Authorization"] == BASIC


def test_a_place_of_another_scheme_loses_the_credentials(client: Client, fake: Fake) -> None:
    """Here the other scheme is https, which the place does not speak: so that nothing but the attempt is seen."""
    repository = with_password(client, fake)
    sends(fake, "uploads/", 202, lambda handler: f"https://{fake.authority}/v2/team/app/blobs/uploads/1")

    with pytest.raises(Error) as caught:
        repository.pusher().push_blob(BLOB, lambda: DATA)
    assert "TLS" in one_line(caught)
    assert urls.place(f"https://{fake.authority}/") != urls.place(f"http://{fake.authority}/")


def test_a_manifest_is_sent_where_its_put_is_redirected_to(client: Client, fakes: Callable[[], Fake]) -> None:
    registry, other = fakes(), fakes()
    repository = with_password(client, registry)
    sends(registry, "manifests", 307, lambda handler: f"http://{other.authority}{handler.path}")
    content = json.dumps({"schemaVersion": 2}).encode()

    assert repository.pusher().push_manifest(Descriptor(MANIFEST, digest_of(content), len(content)), content, "1")
    assert other.manifests["1"] == (MANIFEST, content)
    told_nothing(other)


# Lists


def tags(handler: Handler, *names: str, link: str = "") -> bool:
    handler.answer(200, json.dumps({"tags": names}).encode(), {"Link": link})
    return True


@pytest.mark.parametrize(
    "link",
    [
        '</v2/team/app/tags/list?n=2>; rel="next"',
        "</v2/team/app/tags/list?n=2>;rel=next",
        '<list?n=2>; title="a, b"; rel="last next"',
        '</first>; rel="first", </v2/team/app/tags/list?n=2>; rel="next"',
    ],
)
def test_tags_are_listed_page_after_page(repository: Repository, fake: Fake, link: str) -> None:
    fake.misbehaviours.append(
        lambda handler: tags(handler, "c") if "n=2" in handler.path else tags(handler, "a", "b", link=link)
    )

    assert repository.tags() == ["a", "b", "c"]


def test_a_list_goes_on_where_its_page_came_from(client: Client, fakes: Callable[[], Fake]) -> None:
    registry, other = fakes(), fakes()
    repository = with_password(client, registry)
    sends(registry, "tags", 307, lambda handler: f"http://{other.authority}/mirrored/tags")
    other.misbehaviours.append(
        lambda handler: tags(handler, "b") if "n=2" in handler.path else tags(handler, "a", link='</t?n=2>; rel="next"')
    )

    assert repository.tags() == ["a", "b"]
    assert [request[1] for request in other.requests] == ["/mirrored/tags", "/t?n=2"]
    told_nothing(other)


def test_a_next_page_on_another_host_is_told_no_credentials(client: Client, fakes: Callable[[], Fake]) -> None:
    registry, other = fakes(), fakes()
    repository = with_password(client, registry)
    registry.misbehaviours.append(
        lambda handler: tags(handler, "a", link=f'<http://{other.authority}/tags/list>; rel="next"')
    )
    other.misbehaviours.append(lambda handler: tags(handler, "b"))

    assert repository.tags() == ["a", "b"]
    told_nothing(other)


def test_referrers_have_pages_too(repository: Repository, fake: Fake) -> None:
    def page(handler: Handler) -> bool:
        if "referrers" not in handler.path:
            return False
        number = 2 if "page=2" in handler.path else 1
        entry = {"mediaType": MANIFEST, "digest": digest_of(b"%d" % number), "size": 1}
        link = f'<{urlsplit(handler.path).path}?page=2>; rel="next"' if number == 1 else ""
        handler.answer(200, json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(), {"Link": link})
        return True

    fake.misbehaviours.append(page)

    found = repository.referrers(digest_of(b"subject"))
    assert [desc.digest for desc, _ in found] == [digest_of(b"1"), digest_of(b"2")]


# Who may ask for a password


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_where_a_redirect_leads_to_nobody_is_given_the_password(
    client: Client, fakes: Callable[[], Fake], scheme: str
) -> None:
    """A 401 of another place is that place's answer, not the registry's question; its token server is not asked."""
    registry, other, thief = fakes(), fakes(), fakes()
    repository = with_password(client, registry)
    desc = registry.add_blob(DATA)
    sends(registry, "blobs", 307, lambda handler: f"http://{other.authority}/blob?signature={SECRET}")
    challenge = f'{scheme} realm="http://{thief.authority}/token",service="x"'
    other.misbehaviours.append(lambda handler: handler.answered(401, b"{}", {"WWW-Authenticate": challenge}))

    with pytest.raises(Unauthenticated) as caught:
        fetch(repository, desc)

    assert f"401 Unauthorized from {other.authority}" in one_line(caught)
    assert not thief.requests
    assert all("Authorization" not in request[2] for request in other.requests)


def test_a_redirect_within_the_registry_may_ask(client: Client, fake: Fake) -> None:
    """Only the place that the registry's own redirect leads to wants the password."""
    desc = fake.add_manifest(b'{"schemaVersion": 2}')
    repository = with_password(client, fake)
    guard = fake.misbehaviours.pop(0)
    fake.misbehaviours += [
        lambda handler: "inside" in handler.path and guard(handler),
        lambda handler: (
            "inside" not in handler.path and handler.answered(307, b"", {"Location": f"{handler.path}?inside"})
        ),
    ]

    assert repository.resolve() == desc


def test_an_upload_that_begins_elsewhere_may_not_ask_for_the_password(
    client: Client, fakes: Callable[[], Fake]
) -> None:
    registry, other, thief = fakes(), fakes(), fakes()
    repository = with_password(client, registry)
    sends(registry, "uploads", 202, lambda handler: f"http://{other.authority}/upload/1")
    challenge = f'Bearer realm="http://{thief.authority}/token",service="x"'
    other.misbehaviours.append(lambda handler: handler.answered(401, b"{}", {"WWW-Authenticate": challenge}))

    with pytest.raises(Unauthenticated):
        repository.pusher().push_blob(BLOB, lambda: DATA)
    assert not thief.requests
    told_nothing(other)


# What is no URL


@pytest.mark.parametrize("url", MALFORMED)
def test_a_layer_s_url_that_is_none_is_passed_over(repository: Repository, fake: Fake, url: str) -> None:
    desc = fake.add_blob(DATA)

    with repository.blob(desc, urls=[url]) as blob:
        assert b"".join(iter(lambda: blob.read(1 << 16), b"")) == DATA
    fake.blobs.clear()
    with repository.blob(desc, urls=[url]) as blob, pytest.raises(Error) as caught:
        blob.read(10)
    assert "a URL" in one_line(caught) or "a malformed URL" in one_line(caught)


@pytest.mark.parametrize("url", [url for url in MALFORMED if len(url) < 1000 and url.isascii()])
def test_a_realm_a_location_and_a_link_that_are_none_are_refused_in_one_line(
    client: Client, fakes: Callable[[], Fake], url: str
) -> None:
    def asked(misbehave: Callable[[Handler], bool], ask: Callable[[Repository], object]) -> str:
        fake = fakes()
        fake.misbehaviours.append(misbehave)
        repository = client.repository(
            f"{fake.authority}/team/app:1", scheme="http", ask=lambda host, reference: Credentials("me", SECRET)
        )
        with pytest.raises(Error) as caught:
            ask(repository)
        return one_line(caught)

    escaped = url.replace("\\", "\\\\")
    realm = asked(
        lambda handler: handler.answered(401, b"", {"WWW-Authenticate": f'Bearer realm="{escaped}"'}),
        lambda repository: repository.resolve(),
    )
    redirect = asked(
        lambda handler: handler.answered(307, b"", {"Location": url}),
        lambda repository: fetch(repository, BLOB),
    )
    upload = asked(
        lambda handler: "uploads" in handler.path and handler.answered(202, b"", {"Location": url}),
        lambda repository: repository.pusher().push_blob(BLOB, lambda: DATA),
    )
    link = asked(lambda handler: tags(handler, link=f'<{url}>; rel="next"'), lambda repository: repository.tags())
    assert "names no token server" in realm and "redirects to a" in redirect
    assert "to upload to" in upload and "continues its list at a" in link


@pytest.mark.parametrize("url", ["http://a.test", "HTTP://A.test:80/x?y#z", "https://[::1]:5000/", "http://a_b.test/"])
def test_what_others_ask_is_a_url(url: str) -> None:
    assert urls.parse(url).hostname


@pytest.mark.parametrize(
    ("target", "url"),
    [("/up/1?back=https://b.test/", "http://a.test/up/1?back=https://b.test/"), ("?a=:b", "http://a.test/v2/x?a=:b")],
)
def test_a_relative_place_may_have_a_url_in_its_query(target: str, url: str) -> None:
    assert urls.join("http://a.test/v2/x", target) == url


# What is not asked for


def test_the_reason_of_a_failure_is_not_unpacked(repository: Repository, fake: Fake) -> None:
    """A compressed error body, which no request asks for, could be a gigabyte."""
    body = gzip.compress(json.dumps({"errors": [{"code": "BOMB", "message": "x" * 1000}]}).encode())
    fake.misbehaviours.append(lambda handler: handler.answered(404, body, {"Content-Encoding": "gzip"}))

    with pytest.raises(Error) as caught:
        repository.resolve()
    text = one_line(caught)
    assert "BOMB" not in text and "Content-Encoding 'gzip'" in text


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_token_server_s_failure_is_not_read(client: Client, fakes: Callable[[], Fake], status: int) -> None:
    """Its body, of whatever length and encoding, does not matter: the status says that there is no token."""
    registry, server = fakes(), fakes()
    challenge = f'Bearer realm="http://{server.authority}/token"'
    registry.misbehaviours.append(lambda handler: handler.answered(401, b"", {"WWW-Authenticate": challenge}))
    length = {"Content-Length": str(1 << 40), "Content-Encoding": "gzip"}
    server.misbehaviours.append(lambda handler: handler.answered(status, b"x", length))
    repository = client.repository(
        f"{registry.authority}/team/app:1", scheme="http", ask=lambda host, reference: Credentials("me", SECRET)
    )

    with pytest.raises(Error, match=f"answered {status}"):
        repository.resolve()


# When to come again


def test_a_busy_registry_may_give_a_date() -> None:
    now = 1_800_000_000.0

    assert seconds_asked(formatdate(now + 20, usegmt=True), now) == 20
    assert seconds_asked(formatdate(now - 20, usegmt=True), now) == 0
    assert seconds_asked("7", now) == 7
    for text in ("", "soon", "-3", "1e9", "Mon, 99 Foo 2026", "Thu, 01 Jan 99999 00:00:00 GMT"):
        assert seconds_asked(text, now) is None

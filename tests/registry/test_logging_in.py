"""Promises of logging in: credentials go where they belong, once, and into no message."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from registry.fake import LAYER, MANIFEST, Fake, Handler

from windlass.contracts.transfer import Credentials
from windlass.errors import Error, FailedPrecondition, PermissionDenied, Unauthenticated, Unavailable
from windlass_registry.client import Client
from windlass_registry.credentials import DockerConfig
from windlass_registry.repository import Repository

CONTENT = b'{"schemaVersion": 2}'
SECRET = "s3cret-of-somebody"
USER = Credentials("me", SECRET)


class TokenServer:
    """Gives tokens, and lets only who has the newest one into a registry."""

    def __init__(self, registry: Fake, server: Fake, *, knows_post: bool = True, lifetime: object = 300) -> None:
        self.registry = registry
        self.tokens = 0
        self.lifetime = lifetime
        self.knows_post = knows_post
        self.challenge = f'Bearer realm="http://{server.authority}/token",service="{registry.authority}"'
        self.forms: list[dict[str, list[str]]] = []
        registry.misbehaviours.append(self.guard)
        server.misbehaviours.append(self.give)

    @property
    def valid(self) -> str:
        return f"Bearer token-{self.tokens}"

    def guard(self, handler: Handler) -> bool:
        if self.tokens and handler.headers.get("Authorization") == self.valid:
            return False
        handler.answer(401, b"{}", {"WWW-Authenticate": self.challenge})
        return True

    def give(self, handler: Handler) -> bool:
        if handler.command == "POST" and not self.knows_post:
            handler.answer(404)
            return True
        form = parse_qs(handler.body.decode()) if handler.command == "POST" else handler.query
        self.forms.append(form)
        basic = base64.b64encode(f"me:{SECRET}".encode()).decode()
        known = form.get("password") == [SECRET] or handler.headers.get("Authorization") == f"Basic {basic}"
        if not known and form.get("refresh_token") != [SECRET]:
            handler.answer(401, b"{}")
            return True
        self.tokens += 1
        answer = {"token": f"token-{self.tokens}", "expires_in": self.lifetime}
        handler.answer(200, json.dumps(answer).encode())
        return True


def of(client: Client, fake: Fake, credentials: Credentials | None, trace: list[str] | None = None) -> Repository:
    return client.repository(
        f"{fake.authority}/team/app:1",
        scheme="http",
        ask=lambda host, reference: credentials,
        trace=trace.append if trace is not None else None,
    )


@pytest.mark.parametrize("knows_post", [True, False])
@pytest.mark.parametrize("credentials", [USER, Credentials("", SECRET)], ids=["password", "refresh"])
def test_a_token_is_fetched_once_and_shared(
    client: Client, fakes: Callable[[], Fake], knows_post: bool, credentials: Credentials
) -> None:
    registry, server = fakes(), fakes()
    desc = registry.add_manifest(CONTENT)
    tokens = TokenServer(registry, server, knows_post=knows_post)
    trace: list[str] = []
    repository = of(client, registry, credentials, trace)
    if not knows_post and not credentials.username:
        with pytest.raises(Unauthenticated):
            repository.resolve()
        return

    assert repository.resolve() == desc
    assert repository.manifest(desc) == CONTENT
    assert tokens.tokens == 1
    assert tokens.forms[0]["scope"] == ["repository:team/app:pull"]
    assert tokens.forms[0]["service"] == [registry.authority]
    assert SECRET not in repr((trace, repository.__dict__, credentials))


def test_a_token_that_is_not_accepted_any_more_is_fetched_again(client: Client, fakes: Callable[[], Fake]) -> None:
    registry, server = fakes(), fakes()
    desc = registry.add_manifest(CONTENT)
    tokens = TokenServer(registry, server)
    repository = of(client, registry, USER)
    repository.resolve()
    tokens.tokens += 1  # the token that we have is an old one now

    assert repository.manifest(desc) == CONTENT


@pytest.mark.parametrize("lifetime", [1, -5, "soon", None, True, 10**30, 10**400])
def test_a_strange_lifetime_does_not_matter(client: Client, fakes: Callable[[], Fake], lifetime: object) -> None:
    registry, server = fakes(), fakes()
    desc = registry.add_manifest(CONTENT)
    TokenServer(registry, server, lifetime=lifetime)
    repository = of(client, registry, USER)

    assert repository.resolve() == desc
    assert repository.manifest(desc) == CONTENT


def test_wrong_credentials_end_in_one_line(client: Client, fakes: Callable[[], Fake]) -> None:
    registry, server = fakes(), fakes()
    TokenServer(registry, server)

    with pytest.raises(Unauthenticated) as caught:
        of(client, registry, Credentials("me", SECRET + "x")).resolve()
    assert SECRET not in str(caught.value)
    assert server.authority in str(caught.value) and f"resolve {registry.authority}/team/app" in str(caught.value)


def test_a_registry_that_always_refuses_is_asked_three_times(client: Client, fakes: Callable[[], Fake]) -> None:
    registry, server = fakes(), fakes()
    tokens = TokenServer(registry, server)
    registry.misbehaviours[:] = [lambda handler: handler.answered(401, b"{}", {"WWW-Authenticate": tokens.challenge})]

    with pytest.raises(Unauthenticated):
        of(client, registry, USER).resolve()
    assert len(registry.requests) <= 6 and len(server.requests) <= 6


def test_basic_is_used_where_it_is_asked_for(client: Client, fake: Fake) -> None:
    desc = fake.add_manifest(CONTENT)
    expected = f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"
    fake.misbehaviours.append(
        lambda handler: (
            handler.headers.get("Authorization") != expected
            and handler.answered(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
        )
    )

    assert of(client, fake, USER).resolve() == desc
    with pytest.raises(Unauthenticated, match="none were given"):
        of(client, fake, None).resolve()
    with pytest.raises(Unauthenticated, match="does not accept"):
        of(client, fake, Credentials("you", "x")).resolve()


def test_nobody_is_asked_for_credentials_that_no_host_wants(client: Client, fake: Fake) -> None:
    fake.add_manifest(CONTENT)
    asked: list[str] = []
    repository = client.repository(
        f"{fake.authority}/team/app:1", scheme="http", ask=lambda host, reference: asked.append(host)
    )

    repository.resolve()

    assert not asked


def test_credentials_do_not_follow_a_redirect_to_another_host(client: Client, fakes: Callable[[], Fake]) -> None:
    registry, server, other = fakes(), fakes(), fakes()
    tokens = TokenServer(registry, server)
    desc = other.add_blob(CONTENT)

    def redirect(handler: Handler) -> bool:
        if tokens.guard(handler):
            return True
        handler.answer(307, b"", {"Location": f"http://{other.authority}{handler.path}?signature=abc"})
        return True

    registry.misbehaviours[:] = [redirect]
    trace: list[str] = []
    with of(client, registry, USER, trace).blob(desc) as blob:
        assert blob.read(1000) == CONTENT
    assert "Authorization" not in other.requests[0][2]
    assert "abc" not in "".join(trace)


def test_a_host_that_a_redirect_leads_to_gets_no_credentials_when_it_asks(
    client: Client, fakes: Callable[[], Fake]
) -> None:
    registry, other = fakes(), fakes()
    desc = registry.add_blob(CONTENT)
    registry.misbehaviours.append(
        lambda handler: handler.answered(307, b"", {"Location": f"http://{other.authority}/steal"})
    )
    other.misbehaviours.append(lambda handler: handler.answered(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'}))

    with pytest.raises(Error):
        of(client, registry, USER).blob(desc).read(10)
    assert all("Authorization" not in request[2] for request in other.requests)


@pytest.mark.parametrize(
    "realm", ["", "file:///etc/passwd", "ftp://a.test/token", "http://user:pw@a.test/", "//a.test/token"]
)
def test_a_realm_that_is_none_is_refused(client: Client, fake: Fake, realm: str) -> None:
    fake.misbehaviours.append(
        lambda handler: handler.answered(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}"'})
    )

    with pytest.raises(Unauthenticated, match="names no token server"):
        of(client, fake, USER).resolve()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>", Unauthenticated),
        (200, b"[]", Unauthenticated),
        (200, b'{"token": ""}', Unauthenticated),
        (200, b'{"token": "a\\nb"}', Unauthenticated),
        (200, b'{"token": 3}', Unauthenticated),
        (200, b" " * (2 << 20), Unauthenticated),
        (403, b"{}", Unauthenticated),
        (500, b"{}", Unavailable),
    ],
)
def test_a_token_server_that_gives_none_is_named(
    client: Client, fakes: Callable[[], Fake], status: int, body: bytes, kind: type[Error]
) -> None:
    registry, server = fakes(), fakes()
    TokenServer(registry, server)
    server.misbehaviours[:] = [lambda handler: handler.answered(status, body)]

    with pytest.raises(kind) as caught:
        of(client, registry, USER).resolve()
    assert server.authority in str(caught.value) and "\n" not in str(caught.value)


def test_who_is_known_and_not_allowed_is_told_so(client: Client, fake: Fake) -> None:
    denied = b'{"errors": [{"code": "DENIED", "message": "not for you"}]}'
    fake.misbehaviours.append(lambda handler: handler.answered(403, denied, {"Content-Type": MANIFEST}))

    with pytest.raises(PermissionDenied, match="DENIED not for you"):
        of(client, fake, USER).resolve()
    with pytest.raises(PermissionDenied, match="DENIED not for you"):
        of(client, fake, USER).blob(fake.add_blob(CONTENT)).read(1)


def test_a_mount_that_is_not_allowed_becomes_an_upload(client: Client, fake: Fake) -> None:
    desc = fake.add_blob(CONTENT)
    fake.blobs.clear()
    fake.misbehaviours.append(
        lambda handler: (
            "mount=" in handler.path and handler.answered(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
        )
    )

    assert of(client, fake, None).pusher().push_blob(desc, lambda: CONTENT, mount_from="secret/base")
    assert fake.blobs[desc.digest] == CONTENT
    assert desc.media_type == LAYER


# docker's config.json


def config(tmp_path: Path, document: object) -> DockerConfig:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    return DockerConfig(path)


def test_auths_are_found_by_host_however_they_were_written(tmp_path: Path) -> None:
    auth = base64.b64encode(f"me:{SECRET}".encode()).decode()
    found = config(
        tmp_path,
        {
            "auths": {
                "a.test": {"auth": auth},
                "https://b.test/v1/": {"auth": auth},
                "https://index.docker.io/v1/": {"auth": auth},
                "c.test": {"identitytoken": "refresh", "auth": auth},
                "d.test": {},
            }
        },
    )

    for host in ("a.test", "b.test", "docker.io", "registry-1.docker.io"):
        assert found.ask(host) == USER
    assert found.ask("c.test") == Credentials("", "refresh")
    assert found.ask("d.test") is None
    assert found.ask("e.test") is None
    assert DockerConfig(tmp_path / "none").ask("a.test") is None


def test_helpers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-mine"
    helper.write_text(
        "#!/bin/sh\nread host\n"
        'case "$host" in\n'
        f'a.test) echo \'{{"ServerURL": "a.test", "Username": "me", "Secret": "{SECRET}"}}\';;\n'
        'b.test) echo \'{"Username": "<token>", "Secret": "refresh"}\';;\n'
        "c.test) echo credentials not found in native keychain; exit 1;;\n"
        "d.test) echo broken; exit 1;;\n"
        "*) echo nonsense;;\nesac\n"
    )
    helper.chmod(helper.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = config(tmp_path, {"credsStore": "mine", "credHelpers": {"x.test": "absent", "y.test": "../evil"}})

    assert found.ask("a.test") == USER
    assert found.ask("b.test") == Credentials("", "refresh")
    assert found.ask("c.test") is None
    for host, words in (
        ("d.test", "failed: broken"),
        ("e.test", "did not answer with credentials"),
        ("x.test", "not installed"),
        ("y.test", "not the name of a program"),
    ):
        with pytest.raises(FailedPrecondition, match=words):
            found.ask(host)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": {"a.test": {"auth": "!"}}}', '{"auths": {"a.test": {"auth": "bWU="}}}']
)
def test_a_broken_config_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(Error, match=r"config\.json"):
        DockerConfig(tmp_path / "config.json").ask("a.test")

"""Logging in: the registry decides, docker's file keeps it for its owner alone, helpers get what they ask for."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from registry.fake import Fake, Handler
from registry.test_logging_in import SECRET, USER, TokenServer

from windlass.contracts.transfer import Credentials
from windlass.errors import Error, FailedPrecondition, InvalidArgument, Unauthenticated, Unavailable
from windlass_registry import logins
from windlass_registry.credentials import DockerConfig
from windlass_registry.logins import Logins

HELPER = """#!/usr/bin/env python3
import json, pathlib, sys
kept = pathlib.Path(__file__).with_name("kept.json")
known = json.loads(kept.read_text()) if kept.exists() else {}
text = sys.stdin.read()
if sys.argv[1] == "store":
    entry = json.loads(text)
    known[entry["ServerURL"]] = entry
elif sys.argv[1] == "erase":
    known.pop(text, None)
elif text in known:
    print(json.dumps(known[text]))
else:
    print("credentials not found in native keychain")
    sys.exit(1)
kept.write_text(json.dumps(known))
"""


def top(handler: Handler) -> bool:
    """Answer as a registry does at its top, which the fake leaves to its tests."""
    return handler.path == "/v2/" and handler.answered(200, b"{}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "docker" / "config.json"


@pytest.mark.parametrize(
    ("typed", "registry", "key"),
    [
        ("", "docker.io", "https://index.docker.io/v1/"),
        ("docker.io", "docker.io", "https://index.docker.io/v1/"),
        ("https://index.docker.io/v1/", "docker.io", "https://index.docker.io/v1/"),
        ("example.org", "example.org", "example.org"),
        ("https://example.org:5000/v2/", "example.org:5000", "example.org:5000"),
    ],
)
def test_what_users_call_a_registry(typed: str, registry: str, key: str) -> None:
    """Docker's own has a name of its own in docker's file."""
    assert logins.registry_of(typed) == registry
    assert logins.key_of(registry) == key
    with pytest.raises(InvalidArgument):
        logins.registry_of("no host")


def test_a_registry_with_tokens_is_asked(fakes: Callable[[], Fake]) -> None:
    """Before anything is stored; the secret is in no message."""
    registry, server = fakes(), fakes()
    tokens = TokenServer(registry, server)
    registry.misbehaviours.append(top)
    logins.verify(registry.authority, USER, (), "http")
    assert tokens.tokens == 1
    with pytest.raises(Unauthenticated, match=f"login at {registry.authority}") as caught:
        logins.verify(registry.authority, Credentials("me", SECRET + "x"), (), "http")
    assert SECRET not in str(caught.value)


def test_a_registry_with_basic(fake: Fake) -> None:
    """And on this machine without https, although no option says so."""
    expected = f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"
    fake.misbehaviours.append(
        lambda handler: (
            handler.headers.get("Authorization") != expected
            and handler.answered(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
        )
    )
    fake.misbehaviours.append(top)
    logins.verify(fake.authority, USER, ())
    with pytest.raises(Unauthenticated, match="does not accept the user name and password"):
        logins.verify(fake.authority, Credentials("me", "x"), ())


def test_a_registry_that_is_not_there() -> None:
    """One line, within a moment."""
    with pytest.raises(Unavailable, match=r"login at 127\.0\.0\.1:1"):
        logins.verify("127.0.0.1:1", USER, (), "http")


def test_credentials_are_kept_for_their_owner_alone(path: Path) -> None:
    """What else is in the file stays, and pulls find them."""
    path.parent.mkdir()
    path.write_text(json.dumps({"auths": {"other.org": {"auth": "eDp5"}}, "psFormat": "x"}))
    path.chmod(0o644)
    assert Logins(path).store("example.org", USER) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["config.json"]
    document = json.loads(path.read_text())
    assert document["psFormat"] == "x" and set(document["auths"]) == {"other.org", "example.org"}
    assert DockerConfig(path).ask("example.org") == USER

    assert Logins(path).erase("example.org")
    assert not Logins(path).erase("example.org")
    assert set(json.loads(path.read_text())["auths"]) == {"other.org"}


def test_a_file_that_is_not_there_or_a_link(path: Path, tmp_path: Path) -> None:
    """It is made, with its directory; a link to where the user keeps it stays one."""
    Logins(path).store("docker.io", USER)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert DockerConfig(path).ask("registry-1.docker.io") == USER
    real = tmp_path / "dotfiles.json"
    path.rename(real)
    path.symlink_to(real)
    Logins(path).store("example.org", USER)
    assert path.is_symlink() and "example.org" in json.loads(real.read_text())["auths"]


@pytest.mark.parametrize("setting", [{"credsStore": "test"}, {"credHelpers": {"example.org": "test"}}])
def test_a_helper_keeps_them(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: object) -> None:
    """The file then has no secret."""
    program = tmp_path / "bin/docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    path.parent.mkdir()
    path.write_text(json.dumps(setting))
    assert Logins(path).store("example.org", USER) == "docker-credential-test"
    assert SECRET not in path.read_text()
    assert DockerConfig(path).ask("example.org") == USER
    assert Logins(path).erase("example.org")
    assert DockerConfig(path).ask("example.org") is None
    assert not Logins(path).erase("example.org")


def test_what_cannot_be_stored(path: Path) -> None:
    """A broken file is not overwritten, a missing helper is named."""
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(Error, match=r"config\.json"):
        Logins(path).store("example.org", USER)
    assert path.read_text() == "{"
    path.write_text('{"credsStore": "is-not-there"}')
    with pytest.raises(FailedPrecondition, match=r"docker-credential-is-not-there, which .* names, is not installed"):
        Logins(path).store("example.org", USER)

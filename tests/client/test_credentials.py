"""Credentials of docker's: found where docker puts them, never shown."""

from __future__ import annotations

import base64
import json

import pytest

from windlass.errors import Error, InvalidArgument, Unavailable
from windlass.transfer import Credentials
from windlass_client.credentials import config_file, from_docker


@pytest.fixture
def write(tmp_path):
    path = tmp_path / "config.json"

    def write(document):
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


def auth(text):
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("document", "host", "found"),
    [
        ({}, "example.org", None),
        ({"auths": {"example.org": auth("me:p:w")}}, "example.org", Credentials("me", "p:w")),
        ({"auths": {"https://example.org": auth("me:pw")}}, "example.org", Credentials("me", "pw")),
        ({"auths": {"example.org:5000": auth("me:pw")}}, "example.org:5000", Credentials("me", "pw")),
        ({"auths": {"example.org": auth("me:pw")}}, "example.com", None),
        ({"auths": {"https://index.docker.io/v1/": auth("me:pw")}}, "docker.io", Credentials("me", "pw")),
        ({"auths": {"https://index.docker.io/v1/": auth("me:pw")}}, "registry-1.docker.io", Credentials("me", "pw")),
        ({"auths": {"x": {"username": "me", "password": "pw"}}}, "x", Credentials("me", "pw")),
        ({"auths": {"x": {"identitytoken": "t", **auth("me:pw")}}}, "x", Credentials("", "t")),
        ({"auths": {"x": {}}}, "x", None),
        ({"auths": []}, "x", None),
    ],
)
async def test_what_is_stored(write, document, host, found):
    """A registry is looked for under every name that docker has had for it."""
    assert await from_docker(host, path=write(document)) == found


async def test_no_file(tmp_path, monkeypatch):
    """Nobody has logged in; and docker's variable says where the file is."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert config_file() == tmp_path / "config.json"
    assert await from_docker("x") is None


@pytest.mark.parametrize(
    "document",
    ["{", "[]", "[" * 100_000, " " * (1 << 21), {"auths": {"x": {"auth": "not base64"}}}, {"credsStore": "../../evil"}],
    ids=["cut", "list", "deep", "large", "base64", "name"],
)
async def test_a_bad_file(write, document):
    """The error names the file or the helper, and nothing of what is in it."""
    with pytest.raises(InvalidArgument, match=r"config\.json|credential helper") as caught:
        await from_docker("x", path=write(document))
    assert "not base64" not in str(caught.value).replace("is not base64 of", "")


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """Put a credential helper, a shell script, where it is looked for."""

    def make(script):
        path = tmp_path / "docker-credential-test"
        path.write_text(f"#!/bin/sh\nread -r host || true\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return make


HELPED = {"credHelpers": {"example.org": "test"}, "auths": {"example.org": {}}}


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("""echo "{\\"Username\\": \\"$1-$host\\", \\"Secret\\": \\"pw\\"}" """, Credentials("get-example.org", "pw")),
        ("""echo '{"Username": "<token>", "Secret": "t"}'""", Credentials("", "t")),
        ("""echo '{"Username": "me", "Secret": ""}'""", None),
        ("""echo 'credentials not found in native keychain'; exit 1""", None),
    ],
)
async def test_helpers(write, helper, script, found):
    """They get the registry on standard input, and answer as docker's do."""
    helper(script)
    assert await from_docker("example.org", path=write(HELPED)) == found
    if found and found.username:
        assert (await from_docker("other", path=write({"credsStore": "test"}))).username == "get-other"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo secret; exit 3", "failed with exit code 3"),
        ("echo '{}'", "answered something else"),
        ("echo secret", "answered something else"),
        ("exec /bin/sleep 60", "did not answer within"),
    ],
)
async def test_helpers_that_fail(write, helper, monkeypatch, script, message):
    """One line that names the helper, and nothing that it said; nobody waits for ever."""
    monkeypatch.setattr("windlass_client.credentials.HELPER_TIMEOUT", 1 if "sleep" in script else 30)
    helper(script)
    with pytest.raises(Unavailable, match=f"credential helper docker-credential-test {message}") as caught:
        await from_docker("example.org", path=write(HELPED))
    assert "secret" not in str(caught.value)


async def test_no_such_helper(write):
    """The error says which program is missing."""
    with pytest.raises(Error, match="docker-credential-none cannot be started: No such file"):
        await from_docker("x", path=write({"credsStore": "none"}))

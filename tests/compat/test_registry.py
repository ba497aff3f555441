"""The registry client against Debian's docker-registry, however it is set up; and skopeo reads what was pushed."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from compat.images import OCI, digest_of
from compat.registries import (
    HTPASSWD,
    SECRET,
    USER,
    Authority,
    hosts,
    needs_registry,
    needs_skopeo,
    proxied,
    registry,
    token_server,
)

from windlass.contracts.transfer import Credentials
from windlass.contracts.values import Descriptor
from windlass.errors import Error, NotFound, Unauthenticated, Unavailable
from windlass_registry.client import Client
from windlass_registry.repository import Repository

pytestmark = needs_registry

LAYER = os.urandom(2 << 20)
CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()


def described(kind: str, data: bytes) -> Descriptor:
    return Descriptor(f"{OCI}.{kind}", digest_of(data), len(data))


LAYER_DESC = described("layer.v1.tar", LAYER)
CONFIG_DESC = described("config.v1+json", CONFIG)
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": {"mediaType": CONFIG_DESC.media_type, "digest": CONFIG_DESC.digest, "size": CONFIG_DESC.size},
        "layers": [{"mediaType": LAYER_DESC.media_type, "digest": LAYER_DESC.digest, "size": LAYER_DESC.size}],
    }
).encode()
MANIFEST_DESC = described("manifest.v1+json", MANIFEST)


def push(repository: Repository, tag: str = "1") -> None:
    pusher = repository.pusher()
    pusher.push_blob(LAYER_DESC, lambda: LAYER)
    pusher.push_blob(CONFIG_DESC, lambda: CONFIG)
    pusher.push_manifest(MANIFEST_DESC, MANIFEST, tag)


def check(repository: Repository) -> None:
    """All of the image comes back."""
    assert repository.resolve() == MANIFEST_DESC
    assert repository.manifest(MANIFEST_DESC) == MANIFEST
    with repository.blob(LAYER_DESC) as blob:
        assert b"".join(iter(lambda: blob.read(1 << 16), b"")) == LAYER


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    client = Client([tmp_path / "certs.d"])
    yield client
    client.close()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[str]:
    with registry(tmp_path / "plain") as address:
        yield address


@needs_skopeo
def test_what_was_pushed_is_pulled_and_read_by_skopeo(client: Client, plain: str) -> None:
    repository = client.repository(f"{plain}/team/app:1")
    with pytest.raises(NotFound, match="tag 1"):
        repository.resolve()

    push(repository)
    check(client.repository(f"{plain}/team/app:1"))
    check(client.repository(f"{plain}/team/app@{MANIFEST_DESC.digest}"))

    assert client.repository(f"{plain}/team/app:2").tags() == ["1"]
    found = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{plain}/team/app:1"],
        capture_output=True,
        check=True,
    )
    assert found.stdout == MANIFEST


def test_a_blob_of_another_repository_is_mounted(client: Client, plain: str) -> None:
    push(client.repository(f"{plain}/team/base:1"))

    def body() -> bytes:
        raise AssertionError("a blob was sent that the registry has")

    other = client.repository(f"{plain}/team/app:1").pusher()
    assert not other.push_blob(LAYER_DESC, body, mount_from="team/base")
    assert other.has_blob(LAYER_DESC)


def test_a_private_ca_is_needed_and_enough(client: Client, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.pair("server")
    tls = {"tls": {"certificate": str(certificate), "key": str(key)}}
    with registry(tmp_path / "tls", tls) as address:
        hosts(tmp_path / "certs.d", address, f'server = "https://{address}"')
        with pytest.raises(Unavailable, match="certificate was not accepted"):
            client.repository(f"{address}/team/app:1").resolve()

        hosts(tmp_path / "certs.d", address, f'server = "https://{address}"\nca = "{authority.ca}"')
        push(client.repository(f"{address}/team/app:1"))
        check(client.repository(f"{address}/team/app:1"))

        hosts(tmp_path / "certs.d", address, f'server = "https://{address}"\nskip_verify = true')
        check(client.repository(f"{address}/team/app:1"))

        # a loopback address without configuration is asked by https first, and not distrusted
        (tmp_path / "certs.d" / address / "hosts.toml").unlink()
        (tmp_path / "certs.d" / address).rmdir()
        check(client.repository(f"{address}/team/app:1"))


def test_a_client_certificate_is_shown_where_one_is_wanted(client: Client, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.pair("server")
    mine, my_key = authority.pair("client")
    tls = {"tls": {"certificate": str(certificate), "key": str(key), "clientcas": [str(authority.ca)]}}
    with registry(tmp_path / "tls", tls) as address:
        text = f'server = "https://{address}"\nca = "{authority.ca}"\n'
        hosts(tmp_path / "certs.d", address, text)
        with pytest.raises(Unavailable, match=r"TLS|certificate|broken|reset|closed"):
            client.repository(f"{address}/team/app:1").resolve()

        hosts(tmp_path / "certs.d", address, text + f'client = [["{mine}", "{my_key}"]]\n')
        push(client.repository(f"{address}/team/app:1"))
        check(client.repository(f"{address}/team/app:1"))


def test_basic_credentials(client: Client, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    auth = {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}
    with registry(tmp_path / "basic", auth=auth) as address:

        def ask(host: str, reference: str) -> Credentials:
            assert (host, reference) == (address, f"{address}/team/app:1")
            return Credentials(USER, SECRET)

        push(client.repository(f"{address}/team/app:1", ask=ask))
        check(client.repository(f"{address}/team/app:1", ask=ask))
        with pytest.raises(Unauthenticated, match="none were given"):
            client.repository(f"{address}/team/app:1").resolve()
        with pytest.raises(Unauthenticated, match="does not accept"):
            client.repository(f"{address}/team/app:1", ask=lambda *_: Credentials(USER, "wrong")).resolve()


def test_tokens(client: Client, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with token_server(authority) as (realm, asked):
        auth = {"token": {"realm": realm, "service": "test", "issuer": "windlass", "rootcertbundle": str(authority.ca)}}
        with registry(tmp_path / "token", auth=auth) as address:

            def ask(host: str, reference: str) -> Credentials:
                return Credentials(USER, SECRET)

            push(client.repository(f"{address}/team/app:1", ask=ask))
            asked.clear()
            check(client.repository(f"{address}/team/app:1", ask=ask))
            assert asked == ["repository:team/app:pull"]
            with pytest.raises(Unauthenticated, match="gave no token"):
                client.repository(f"{address}/team/app:1").resolve()


@pytest.mark.parametrize("fault", ["down", "slow", "wrong", "cut"])
def test_a_mirror_may_fail_in_any_way(client: Client, plain: str, tmp_path: Path, fault: str) -> None:
    push(client.repository(f"{plain}/team/app:1"))

    def spoil(path: str, count: int, body: bytes) -> bytes | None:
        if fault == "wrong" and "/manifests/" in path:
            return body.replace(b"2", b"3", 1)
        return body[: len(body) // 3] if fault == "cut" and "/blobs/" in path else None

    with proxied(plain, spoil) as proxy:
        if fault == "slow":
            proxy.hold = threading.Event()
        mirror = "127.0.0.1:1" if fault == "down" else proxy.address
        text = f'server = "http://{plain}"\n[host."http://{mirror}"]\ndial_timeout = "1s"\n'
        hosts(tmp_path / "certs.d", plain, text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("windlass_registry.transport.RESPONSE_TIMEOUT", 1.0)
            check(client.repository(f"{plain}/team/app:1"))
        if proxy.hold is not None:
            proxy.hold.set()
        if fault == "cut":
            assert proxy.blobs() > 1  # it was asked to go on before the next host was


def test_a_transfer_ends_at_once_when_it_is_not_wanted(client: Client, plain: str, tmp_path: Path) -> None:
    push(client.repository(f"{plain}/team/app:1"))
    with proxied(plain) as proxy:
        proxy.hold = threading.Event()
        repository = client.repository(f"{proxy.address}/team/app:1", scheme="http")
        timer = threading.Timer(0.3, repository.abort)
        timer.start()
        begun = time.monotonic()
        try:
            with pytest.raises(Error):
                repository.blob(LAYER_DESC).read(10)
        finally:
            proxy.hold.set()
            timer.join()
        assert time.monotonic() - begun < 10, "it waited for the host, which answers after 30 s"

"""Registries for tests: Debian's docker-registry as it may be met, and a proxy that spoils what one brings."""

from __future__ import annotations

import base64
import datetime
import http.client
import ipaddress
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

needs_registry = pytest.mark.skipif(
    shutil.which("docker-registry") is None, reason="docker-registry is not installed; apt install docker-registry"
)
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed; apt install skopeo")

USER, SECRET = "me", "s3cret"
HTPASSWD = f"{USER}:$2b$04$T4vOvuL.mMPPFb54G.puSeXC9zIiwz5GUPWeuQXxrx9ZclRXShXRy\n"
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "windlass test")])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
        assert isinstance(port, int)
        return port


class Authority:
    """A private CA in a directory, and what it signs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = rsa.generate_private_key(65537, 2048)
        self.certificate = self._sign(self.key, NAME, ca=True)
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, key: rsa.RSAPrivateKey, subject: x509.Name, ca: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(NAME)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def pair(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate for this machine and of its key."""
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, private = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate.write_bytes(self._sign(key, subject, ca=False).public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.TraditionalOpenSSL
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
        return certificate, private

    def token(self, service: str, access: Sequence[Mapping[str, object]]) -> str:
        """Return a token that a registry which trusts the CA accepts."""
        now = int(time.time())
        encoded = base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()
        header = {"typ": "JWT", "alg": "RS256", "x5c": [encoded]}
        claims = {"iss": "windlass", "sub": USER, "aud": service, "exp": now + 300, "nbf": now - 60, "iat": now}
        parts = [_base64(json.dumps(part).encode()) for part in (header, {**claims, "jti": "1", "access": access})]
        signature = self.key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
        return ".".join((*parts, _base64(signature)))


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def registry(
    directory: Path, http_options: Mapping[str, object] | None = None, auth: Mapping[str, object] | None = None
) -> Iterator[str]:
    """Run a docker-registry, and give its address."""
    directory.mkdir(exist_ok=True, parents=True)
    address = f"127.0.0.1:{free_port()}"
    config = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": address, **(http_options or {})},
        **({"auth": auth} if auth else {}),
    }
    path = directory / "config.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(path)], stdout=log, stderr=log)
    try:
        _wait(address, process, directory / "log")
        yield address
    finally:
        process.terminate()
        process.wait(10)


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, port = address.split(":")
    deadline = time.monotonic() + 20
    while True:
        with socket.socket() as attempt:
            if attempt.connect_ex((host, int(port))) == 0:
                return
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serve as long as the context lasts."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def token_server(authority: Authority) -> Iterator[tuple[str, list[str]]]:
    """Run a server that gives tokens for what is asked to `USER`; give its URL, and a list of what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            known = form.get("username") == [USER] and form.get("password") == [SECRET]
            self.give(form, known)

        def do_GET(self) -> None:
            form = parse_qs(urlsplit(self.path).query)
            basic = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
            self.give(form, self.headers.get("Authorization") == f"Basic {basic}")

        def give(self, form: dict[str, list[str]], known: bool) -> None:
            scopes = [scope for value in form.get("scope", []) for scope in value.split()]
            asked.extend(scopes)
            access = [
                {"type": kind, "name": name, "actions": actions.split(",")}
                for kind, name, actions in (scope.split(":") for scope in scopes)
            ]
            body = json.dumps({"token": authority.token(form["service"][0], access)}).encode() if known else b"{}"
            self.send_response(200 if known else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://{server.address}/token", asked


Spoil = Callable[[str, int, bytes], "bytes | None"]
"""Given a path, how often it has been asked for, and the body: other bytes; fewer are a connection that breaks."""


class FaultProxy(_Server):
    """Brings what a registry has, and spoils it as its test wants; counts what it was asked for."""

    def __init__(self, upstream: str, spoil: Spoil | None = None, delay: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Proxied)
        self.upstream = upstream
        self.spoil = spoil
        self.delay = delay
        self.hold: threading.Event | None = None
        """Answers to requests for blobs wait for it."""
        self.counts: dict[str, int] = {}
        self.lock = threading.Lock()

    def blobs(self) -> int:
        """Return how many blobs it was asked for."""
        return sum(count for key, count in self.counts.items() if key.startswith("GET") and "/blobs/" in key)


class _Proxied(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def do(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with proxy.lock:
            key = f"{self.command} {self.path}"
            count = proxy.counts[key] = proxy.counts.get(key, 0) + 1
        time.sleep(proxy.delay)
        connection = http.client.HTTPConnection(proxy.upstream)
        try:
            connection.request(self.command, self.path, body or None, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
            self.bring(answer, data, count)
        except (ConnectionError, http.client.HTTPException):
            self.close_connection = True
        finally:
            connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do

    def bring(self, answer: http.client.HTTPResponse, data: bytes, count: int) -> None:
        proxy = self.server
        if proxy.hold is not None and "/blobs/" in self.path:
            proxy.hold.wait(30)
        spoiled = proxy.spoil(self.path, count, data) if proxy.spoil is not None and self.command == "GET" else None
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        sent = data if spoiled is None else spoiled
        self.wfile.write(sent)
        if len(sent) < len(data):
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def proxied(upstream: str, spoil: Spoil | None = None, delay: float = 0.0) -> Iterator[FaultProxy]:
    """Run a proxy before a registry."""
    proxy = FaultProxy(upstream, spoil, delay)
    with serving(proxy):
        yield proxy


def hosts(root: Path, registry: str, text: str) -> None:
    """Write a ``hosts.toml`` for a registry."""
    directory = root / registry
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hosts.toml").write_text(text)

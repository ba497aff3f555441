"""TLS for the streaming server: a key pair from files, or one that is made and signed by itself."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from windlass.errors import FailedPrecondition

LIFETIME = timedelta(days=365)


def from_files(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context with a certificate and its key, both PEM. Raises FailedPrecondition."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise FailedPrecondition(f"streaming server: cannot use {certificate} with {key}: {error}") from None
    return context


def self_signed(addresses: Sequence[str]) -> ssl.SSLContext:
    """Return a context with a new certificate for this host and ``addresses``. Raises FailedPrecondition."""
    try:
        pem = _make(socket.gethostname(), addresses)
    except ImportError:
        raise FailedPrecondition(
            "a certificate for the streaming server needs the package cryptography; install it, or set"
            " tls_cert_file and tls_key_file of x509_key_pair_streaming"
        ) from None
    # Python reads key pairs from files alone; this one has no name left once it is read.
    with tempfile.NamedTemporaryFile() as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(pem)
        file.flush()
        return from_files(Path(file.name), Path(file.name))


def _make(name: str, addresses: Sequence[str]) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    names = [x509.DNSName(name), *(x509.IPAddress(ip_address(each)) for each in addresses)]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private

"""Signatures of images as cosign stores them in registries: simple signing, in the image's repository, by public key.

The signatures of ``sha256:X`` are an image with the tag ``sha256-X.sig`` in the same
repository. Each of its layers is a statement in JSON that names a digest; the
layer's annotation holds the signature over the statement's bytes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from windlass.contracts.values import Descriptor
from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_images.manifests import parse_object

STATEMENT = "application/vnd.dev.cosign.simplesigning.v1+json"
"""Media type of a layer that is a statement."""
ANNOTATION = "dev.cosignproject.cosign/signature"
STATEMENT_LIMIT = 64 << 10
"""Bytes of a statement; one is about 250 long."""
MAX_SIGNATURES = 32
KEY_LIMIT = 64 << 10
MIN_RSA_BITS = 2048

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class Signature:
    """A statement and its signature."""

    statement: bytes
    signature: bytes


def tag_of(digest: str) -> str:
    """Return the tag under which the signatures of an image lie."""
    return digest.replace(":", "-", 1) + ".sig"


def signature_of(layer: Descriptor) -> bytes | None:
    """Return the signature that a layer of a signature image carries, None if the layer is not a statement."""
    encoded = layer.annotations.get(ANNOTATION)
    if layer.media_type != STATEMENT or encoded is None:
        return None
    if layer.size > STATEMENT_LIMIT:
        raise InvalidArgument(f"signed statement {layer.digest} is longer than {STATEMENT_LIMIT} bytes")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgument(f"signature of statement {layer.digest} is not base64") from None


def load_keys(paths: Iterable[Path]) -> list[PublicKey]:
    """Read PEM files with public keys (ECDSA, Ed25519, RSA of 2048 bits or more). Raises FailedPrecondition."""
    return [_load_key(path) for path in paths]


def _load_key(path: Path) -> PublicKey:
    try:
        with path.open("rb") as file:
            data = file.read(KEY_LIMIT)
        key = load_pem_public_key(data)
    except OSError as error:
        raise FailedPrecondition(f"public key {path} cannot be read: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise FailedPrecondition(f"{path} is not a public key in PEM, as `cosign public-key` writes it") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise FailedPrecondition(f"public key {path} is RSA of {key.key_size} bits, {MIN_RSA_BITS} are the least")
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise FailedPrecondition(f"public key {path} is neither ECDSA nor Ed25519 nor RSA")
    return key


def is_signed(digest: str, signatures: Sequence[Signature], keys: Sequence[PublicKey]) -> bool:
    """Say whether one of the keys has signed a statement about ``digest``.

    A statement is read only after its signature was found valid; a validly
    signed statement about another digest counts for nothing.
    """
    return any(
        _fits(key, found) and _subject(found.statement) == digest
        for found in signatures[:MAX_SIGNATURES]
        for key in keys
    )


def _fits(key: PublicKey, found: Signature) -> bool:
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(found.signature, found.statement)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(found.signature, found.statement, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(found.signature, found.statement, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _subject(statement: bytes) -> str:
    """Return the digest that a statement is about, empty if it is about none."""
    try:
        critical = parse_object(statement, "signed statement").get("critical")
    except InvalidArgument:
        return ""
    image = critical.get("image") if isinstance(critical, dict) else None
    digest = image.get("docker-manifest-digest") if isinstance(image, dict) else None
    kind = critical.get("type") if isinstance(critical, dict) else None
    return digest if isinstance(digest, str) and kind == "cosign container image signature" else ""

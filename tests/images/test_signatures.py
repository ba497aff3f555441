"""Promises of signatures: only a listed key's signature over a statement about this very digest counts."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa

from windlass.contracts.values import Descriptor
from windlass.errors import FailedPrecondition, InvalidArgument
from windlass_images import signatures
from windlass_images.signatures import Signature

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64

Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def statement(digest: str = DIGEST, kind: str = "cosign container image signature") -> bytes:
    image = {"docker-manifest-digest": digest}
    return json.dumps({"critical": {"identity": {}, "image": image, "type": kind}, "optional": None}).encode()


def sign(key: Private, data: bytes) -> Signature:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return Signature(data, key.sign(data))
    if isinstance(key, rsa.RSAPrivateKey):
        return Signature(data, key.sign(data, padding.PKCS1v15(), hashes.SHA256()))
    return Signature(data, key.sign(data, ec.ECDSA(hashes.SHA256())))


def public_file(directory: Path, key: Private | dsa.DSAPrivateKey) -> Path:
    path = directory / "key.pub"
    pem = serialization.Encoding.PEM
    path.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.mark.parametrize("kind", ["ecdsa", "ed25519", "rsa"])
def test_a_listed_keys_signature_counts(tmp_path: Path, kind: str) -> None:
    made: dict[str, Private] = {
        "ecdsa": ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "rsa": rsa.generate_private_key(65537, 2048),
    }
    keys = signatures.load_keys([public_file(tmp_path, made[kind])])

    assert signatures.is_signed(DIGEST, [sign(made[kind], statement())], keys)
    for other in made.values():
        if other is not made[kind]:
            assert not signatures.is_signed(DIGEST, [sign(other, statement())], keys)


@pytest.mark.parametrize(
    "data",
    [
        statement(OTHER),
        statement(kind="something else"),
        b"{}",
        b"[]",
        b"no JSON",
        b'{"critical": []}',
        b'{"critical": {"image": {"docker-manifest-digest": 7}, "type": "cosign container image signature"}}',
    ],
)
def test_a_right_signature_over_another_statement_counts_for_nothing(data: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    assert not signatures.is_signed(DIGEST, [sign(key, data)], [key.public_key()])


def test_a_changed_statement_counts_for_nothing() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    good = sign(key, statement(OTHER))

    assert not signatures.is_signed(DIGEST, [Signature(statement(), good.signature)], [key.public_key()])
    assert not signatures.is_signed(DIGEST, [], [key.public_key()])
    assert not signatures.is_signed(DIGEST, [Signature(statement(), b"")], [key.public_key()])


def test_keys_that_are_weak_or_no_keys_are_refused_by_name(tmp_path: Path) -> None:
    weak = tmp_path / "key.pub"
    with pytest.raises(FailedPrecondition, match=f"{weak} cannot be read"):
        signatures.load_keys([weak])
    weak.write_text("no key")
    with pytest.raises(FailedPrecondition, match=f"{weak} is not a public key"):
        signatures.load_keys([weak])
    public_file(tmp_path, rsa.generate_private_key(65537, 1024))
    with pytest.raises(FailedPrecondition, match="RSA of 1024 bits"):
        signatures.load_keys([weak])
    public_file(tmp_path, dsa.generate_private_key(2048))
    with pytest.raises(FailedPrecondition, match="neither ECDSA nor Ed25519 nor RSA"):
        signatures.load_keys([weak])


def test_a_layers_signature_is_bounded_and_read_strictly() -> None:
    annotations = {signatures.ANNOTATION: base64.b64encode(b"xyz").decode()}
    layer = Descriptor(signatures.STATEMENT, DIGEST, 250, annotations)

    assert signatures.signature_of(layer) == b"xyz"
    assert signatures.signature_of(Descriptor("text/plain", DIGEST, 250, annotations)) is None
    assert signatures.signature_of(Descriptor(signatures.STATEMENT, DIGEST, 250)) is None
    with pytest.raises(InvalidArgument, match="longer than"):
        signatures.signature_of(Descriptor(signatures.STATEMENT, DIGEST, 1 << 20, annotations))
    with pytest.raises(InvalidArgument, match="not base64"):
        signatures.signature_of(Descriptor(signatures.STATEMENT, DIGEST, 250, {signatures.ANNOTATION: "é"}))


def test_signatures_lie_under_a_tag_of_the_digest() -> None:
    assert signatures.tag_of(DIGEST) == f"sha256-{'a' * 64}.sig"

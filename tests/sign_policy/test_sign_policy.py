"""Promises of the verifier: an image has what the policy requires, or it is refused, with the reason."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from registry.fake import MANIFEST, Fake, digest_of, running

from windlass.contracts.values import Descriptor
from windlass.errors import Error, FailedPrecondition
from windlass_images import signatures
from windlass_sign_policy.registry import Finder
from windlass_sign_policy.verifier import SignPolicy

DESC = Descriptor(MANIFEST, "sha256:" + "a" * 64, 417)
OTHER = "sha256:" + "b" * 64


@pytest.fixture
def fake() -> Iterator[Fake]:
    with running() as found:
        yield found


@pytest.fixture
def key(tmp_path: Path) -> ec.EllipticCurvePrivateKey:
    """A key whose public half is in ``key.pub``."""
    made = ec.generate_private_key(ec.SECP256R1())
    public = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    return made


def policy(tmp_path: Path, text: str) -> SignPolicy:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return SignPolicy(path, Finder(str(tmp_path / "certs.d"), "").find, 20.0)


def sign(fake: Fake, key: ec.EllipticCurvePrivateKey, digest: str, tag_for: str = DESC.digest) -> None:
    """Leave a signature as `cosign sign --key` does."""
    image = {"docker-manifest-digest": digest}
    statement = json.dumps({"critical": {"image": image, "type": "cosign container image signature"}}).encode()
    layer = fake.add_blob(statement)
    encoded = base64.b64encode(key.sign(statement, ec.ECDSA(hashes.SHA256()))).decode()
    described = {
        "mediaType": signatures.STATEMENT,
        "digest": layer.digest,
        "size": layer.size,
        "annotations": {signatures.ANNOTATION: encoded},
    }
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(b"{}"), "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [described]}
    fake.add_manifest(json.dumps(manifest).encode(), signatures.tag_of(tag_for))


def rule(fake: Fake, require: str, more: str = "") -> str:
    return f'[[rules]]\nprefix = "{fake.authority}/team"\nrequire = "{require}"\n{more}'


async def test_without_rules_images_are_allowed_and_nobody_is_asked(tmp_path: Path, fake: Fake) -> None:
    assert (await policy(tmp_path, "").verify(f"{fake.authority}/team/app:1", DESC)).ok
    assert not fake.requests


async def test_names_without_digest_are_refused_where_one_is_required(tmp_path: Path, fake: Fake) -> None:
    verifier = policy(tmp_path, rule(fake, "digest"))

    refused = await verifier.verify(f"{fake.authority}/team/app:1", DESC)
    assert not refused.ok and f"{tmp_path}/policy.toml:1" in refused.reason
    assert (await verifier.verify(f"{fake.authority}/team/app@{DESC.digest}", DESC)).ok
    assert not (await verifier.verify(f"{fake.authority}/team/app@{OTHER}", DESC)).ok


async def test_a_signed_image_is_allowed(tmp_path: Path, fake: Fake, key: ec.EllipticCurvePrivateKey) -> None:
    sign(fake, key, DESC.digest)
    verifier = policy(tmp_path, rule(fake, "signature", 'keys = ["key.pub"]\n'))

    judgement = await verifier.verify(f"{fake.authority}/team/app:1", DESC)

    assert judgement.ok, judgement.reason


async def test_an_image_without_signature_is_refused(
    tmp_path: Path, fake: Fake, key: ec.EllipticCurvePrivateKey
) -> None:
    verifier = policy(tmp_path, rule(fake, "signature", 'keys = ["key.pub"]\n'))

    judgement = await verifier.verify(f"{fake.authority}/team/app:1", DESC)

    assert not judgement.ok and "no signature" in judgement.reason and "key.pub" in judgement.reason


@pytest.mark.parametrize("case", ["another key", "another image"])
async def test_a_signature_of_something_else_is_none(
    tmp_path: Path, fake: Fake, key: ec.EllipticCurvePrivateKey, case: str
) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    sign(fake, other if case == "another key" else key, OTHER if case == "another image" else DESC.digest)
    verifier = policy(tmp_path, rule(fake, "signature", 'keys = ["key.pub"]\n'))

    judgement = await verifier.verify(f"{fake.authority}/team/app:1", DESC)

    assert not judgement.ok and "none of its 1 signatures" in judgement.reason


async def test_what_cannot_be_judged_is_an_error(tmp_path: Path, fake: Fake, key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(FailedPrecondition, match=r"policy\.toml:1"):
        await policy(tmp_path, "default = 3").verify("a.test/b:1", DESC)
    with pytest.raises(FailedPrecondition, match=r"missing\.pub cannot be read"):
        text = rule(fake, "signature", 'keys = ["missing.pub"]\n')
        await policy(tmp_path, text).verify(f"{fake.authority}/team/app:1", DESC)
    fake.misbehaviours.append(lambda handler: handler.answered(403))
    with pytest.raises(Error, match=fake.authority):
        text = rule(fake, "signature", 'keys = ["key.pub"]\n')
        await policy(tmp_path, text).verify(f"{fake.authority}/team/app:1", DESC)

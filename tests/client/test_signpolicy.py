"""The command `windlass image sign-policy`: without a daemon it shows, tries and extends the policy."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from windlass_client.cli import windlass


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(windlass, ["image", "sign-policy", "--file", str(path), *arguments])


def test_a_rule_that_was_added_is_shown_and_decides(tmp_path: Path) -> None:
    path, key = tmp_path / "policy.toml", tmp_path / "team.pub"
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    added = run(path, "add", "a.test/team", "signature", "--key", "team.pub")
    shown = run(path, "show", "--json")
    checked = run(path, "check", "a.test/team/app:1")
    other = run(path, "check", "b.test/app:1", "--json")

    assert added.exit_code == 0, added.output
    assert [rule["prefix"] for rule in json.loads(shown.stdout)] == ["a.test/team", "*"]
    assert checked.stdout == f"a.test/team/app:1: signature {key} ({path}:1)\n"
    assert json.loads(other.stdout)[0]["require"] == "allow"


def test_a_key_that_is_none_is_not_added(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"

    added = run(path, "add", "a.test", "signature", "--key", "none.pub")

    assert added.exit_code == 1
    assert "none.pub cannot be read" in str(added.exception)
    assert not path.exists()

"""The values that contracts share: what is a valid name, digest, label and address."""

from __future__ import annotations

import pytest

from windlass.contracts import values
from windlass.contracts.values import (
    MAX_IDENTIFIER,
    MAX_LABEL,
    Descriptor,
    Payload,
    Platform,
    check_digest,
    check_identifier,
    check_label_keys,
    check_labels,
    grpc_target,
)
from windlass.errors import InvalidArgument


@pytest.mark.parametrize("value", ["a", "default", "k8s.io", "a-b_c.d", "A1", "0", "a" * MAX_IDENTIFIER])
def test_an_identifier(value: str) -> None:
    check_identifier("namespace", value)


@pytest.mark.parametrize(
    "value",
    ["a..b", "-a", "a-", ".a", "a.", "a--b", "a._b", "a b", "a/b", "../a", "ä", "a\n", "a\0", "名前", "*", "a,b"],
)
def test_what_is_no_identifier(value: str) -> None:
    """Nothing that could mean another path, another line of a log, or another name somewhere else."""
    with pytest.raises(InvalidArgument, match="namespace") as caught:
        check_identifier("namespace", value)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_an_identifier_has_a_length() -> None:
    """The message names the limit, and never shows more of the name than that."""
    with pytest.raises(InvalidArgument, match="container must not be empty"):
        check_identifier("container", "")
    with pytest.raises(InvalidArgument, match=f"longer than {MAX_IDENTIFIER}") as caught:
        check_identifier("container", "a" * 100_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("algorithm", "length"), [("sha256", 64), ("sha384", 96), ("sha512", 128)])
def test_a_digest(algorithm: str, length: int) -> None:
    check_digest(f"{algorithm}:{'0123456789abcdef' * (length // 16)}")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "0" * 64 + "\n",
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha512:" + "0" * 64,
        "md5:" + "0" * 32,
        "SHA256:" + "0" * 64,
        "sha256:../../etc/passwd",
        "sha256:" + "0" * 1_000_000,
    ],
)
def test_what_is_no_digest(value: str) -> None:
    """A digest becomes part of a path, so that it is this or refused; the message is short however long it is."""
    with pytest.raises(InvalidArgument, match="digest") as caught:
        check_digest(value)
    assert len(str(caught.value)) < 300


def test_a_label_has_a_key_and_a_size() -> None:
    """Key and value together have 4096 bytes at most, counted as they are stored."""
    check_labels({})
    check_labels({"k": "v" * (MAX_LABEL - 1), "l": ""})
    with pytest.raises(InvalidArgument, match="label k has 4097 bytes"):
        check_labels({"k": "v" * MAX_LABEL})
    with pytest.raises(InvalidArgument, match="4098 bytes"):
        check_labels({"ä": "ä" * (MAX_LABEL // 2)})
    with pytest.raises(InvalidArgument, match="4096") as caught:
        check_labels({"k" * 100_000: ""})
    assert len(str(caught.value)) < 200


def test_an_empty_key_is_refused_if_it_has_a_value() -> None:
    """Without one it says nothing, and containerd lets it pass; the message names what it is a key of."""
    check_label_keys({"": ""})
    with pytest.raises(InvalidArgument, match="key of a label"):
        check_label_keys({"": "x"})
    with pytest.raises(InvalidArgument, match=r"key of an? annotation"):
        check_label_keys({"": "x"}, "annotation")
    with pytest.raises(InvalidArgument) as caught:
        check_labels({"": "x" * 100_000})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("/run/windlass/windlass.sock", "unix:/run/windlass/windlass.sock"),
        ("/run/a%41/x.sock", "unix:/run/a%2541/x.sock"),
        ("/run/what?/#1.sock", "unix:/run/what%3F/%231.sock"),
        ("/run/with space.sock", "unix:/run/with space.sock"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("dns:///example.org:5000", "dns:///example.org:5000"),
        ("127.0.0.1:5000", "127.0.0.1:5000"),
    ],
)
def test_an_address_as_grpc_spells_it(address: str, target: str) -> None:
    """A path is a socket of exactly that name; what is an address already stays as it is."""
    assert grpc_target(address) == target


@pytest.mark.parametrize(("machine", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")])
def test_the_architecture_of_this_machine_has_the_name_of_images(
    monkeypatch: pytest.MonkeyPatch, machine: str, name: str
) -> None:
    """A machine that images call as Linux does needs no translation."""
    import os

    found = os.uname()
    monkeypatch.setattr(values.os, "uname", lambda: os.uname_result((*tuple(found)[:4], machine)))  # type: ignore[attr-defined] # the module's own

    assert values.host_architecture() == name


def test_values_cannot_be_changed() -> None:
    """Whoever has one may keep it, and use it as a key where it has no map in it."""
    platform = Platform("linux", "arm64", "v8")
    assert platform == Platform("linux", "arm64", "v8") and len({platform, Platform("linux", "arm64", "v8")}) == 1
    for value, field in ((platform, "os"), (Payload("t", b""), "value"), (Descriptor("t", "d", 1), "size")):
        with pytest.raises(AttributeError):
            setattr(value, field, None)

"""Small immutable values that several contracts share."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import field

from windlass.errors import InvalidArgument
from windlass.records import dataclass

IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
"""Namespaces, containers, tasks, execs, sandboxes: 1 to 76 characters (docs/containerd 3.1)."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")

MAX_IDENTIFIER = 76
MAX_LABEL = 4096
SHOWN_LABEL_KEY = 64


@dataclass(frozen=True, slots=True)
class Payload:
    """The content of a protobuf Any: kept and passed on byte for byte.

    ``type_url`` is the bare message name, or a registered path for JSON
    (wire/README.md, "Any (typeurl)").
    """

    type_url: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Platform:
    """What a program in an image needs to run; words as in the OCI image specification."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Type, digest and size in bytes of a blob."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None


ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""What uname(2) calls a machine, and what images call it."""


def host_architecture() -> str:
    """Return this machine's architecture by the name that images have for it."""
    machine = os.uname().machine
    return ARCHITECTURES.get(machine, machine)


def grpc_target(address: str) -> str:
    """Return an address as gRPC spells it; a bare path is a unix socket, of whatever name.

    gRPC takes what it connects to for a URI and decodes it: ``/run/a%41/x.sock`` would be another socket.
    """
    if not address.startswith("/"):
        return address
    for character in "%?#":
        address = address.replace(character, f"%{ord(character):02X}")
    return f"unix:{address}"


def check_identifier(kind: str, value: str) -> None:
    """Raise InvalidArgument unless ``value`` is a valid identifier; ``kind`` names it in the message."""
    if not value:
        raise InvalidArgument(f"{kind} must not be empty")
    if len(value) > MAX_IDENTIFIER:
        raise InvalidArgument(f"{kind} {value[:MAX_IDENTIFIER]!r}… is longer than {MAX_IDENTIFIER} characters")
    if not IDENTIFIER.fullmatch(value):
        raise InvalidArgument(
            f"{kind} {value!r} is not valid: letters and digits, separated by single dots, dashes or underscores"
        )


def check_label_keys(labels: Mapping[str, str], what: str = "label") -> None:
    """Raise InvalidArgument for an empty key; one without a value is dropped anyway, and fine, as in containerd.

    Leases, sandboxes and active mounts, and the annotations of images, have no other limit there
    (core/metadata/boltutil/helpers.go); ``what`` names the entries in the message.
    """
    if labels.get(""):
        article = "an" if what[0] in "aeiou" else "a"
        raise InvalidArgument(
            f"the key of {article} {what} must not be empty; its value is {labels[''][:SHOWN_LABEL_KEY]!r}"
        )


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise InvalidArgument for an empty key, and for a label whose key and value together exceed 4096 bytes."""
    check_label_keys(labels)
    for key, value in labels.items():
        size = len(key.encode()) + len(value.encode())
        if size > MAX_LABEL:
            shown = key if len(key) <= SHOWN_LABEL_KEY else key[:SHOWN_LABEL_KEY] + "…"
            raise InvalidArgument(f"label {shown} has {size} bytes of key and value, the limit is {MAX_LABEL}")


def check_digest(value: str) -> None:
    """Raise InvalidArgument unless ``value`` is ``algorithm:hex`` of an algorithm that we know."""
    if not DIGEST.fullmatch(value):
        raise InvalidArgument(f"digest {value[:140]!r} is not a sha256, sha384 or sha512 digest")

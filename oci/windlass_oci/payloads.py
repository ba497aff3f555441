"""Specs as containers' records carry them: a JSON document under a type URL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from windlass.contracts.containers import Container
from windlass.contracts.values import Payload
from windlass.errors import InvalidArgument

if TYPE_CHECKING:
    from windlass_oci.runtime_spec import Spec

# wire/README.md, "Any (typeurl)"
SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
PROCESS = "types.containerd.io/opencontainers/runtime-spec/1/Process"


def to_payload(type_url: str, document: Mapping[str, object]) -> Payload:
    """Return a JSON document as the services carry it."""
    return Payload(type_url, json.dumps(document, separators=(",", ":")).encode())


def spec_of(container: Container) -> Spec:
    """Return a container's spec. Raises InvalidArgument if it has none that can be read."""
    return read_spec(container.id, container.spec.value if container.spec else b"")


def read_spec(id: str, data: bytes) -> Spec:
    """Return the spec of container ``id``, with fields that we do not know. Raises InvalidArgument if it is none."""
    try:
        spec = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"container {id} has a spec that is not JSON: {error}") from None
    if not isinstance(spec, dict):
        raise InvalidArgument(f"container {id} has a spec that is not a JSON object")
    # A client's own document: its author knows what the fields are.
    return cast("Spec", spec)

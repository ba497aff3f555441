"""What is to be started: what the flags, the environment and standard input say (docs/containerd 4.4)."""

from __future__ import annotations

import os

from windlass_api.ttrpc.framing import BYTES, Malformed, as_bytes, fields
from windlass_shim_runc.flags import Flags, Refused

INSTANCE, NAMESPACE, TTRPC_ADDRESS, GRPC_ADDRESS, BINARY, SOCKET_DIRECTORY = 1, 2, 5, 6, 7, 9
"""Fields of containerd.runtime.bootstrap.v1.BootstrapParams."""

TEXTS = (INSTANCE, NAMESPACE, TTRPC_ADDRESS, GRPC_ADDRESS, BINARY, SOCKET_DIRECTORY)
OF_AN_ANY = {1, 2}
"""The fields of a google.protobuf.Any, which is how older daemons give a shim its options."""


class Start:
    """What is to be started, from flags, environment and standard input, whichever the daemon uses."""

    def __init__(self, flags: Flags, data: bytes) -> None:
        self.namespace, self.id = flags.namespace, flags.id
        self.grpc_address, self.publish_binary = flags.address, flags.publish_binary
        self.ttrpc_address = os.environ.get("TTRPC_ADDRESS", "")
        self.socket_directory = ""
        self.is_current = False
        """Whether the daemon wants a message as its answer; older ones take the address alone."""
        try:
            self._read(data)
        except (Malformed, UnicodeDecodeError) as error:
            raise Refused(f"standard input is neither BootstrapParams nor options: {error}") from error

    def _read(self, data: bytes) -> None:
        found = {at: as_bytes(raw) for at, wire_type, raw in fields(data) if wire_type == BYTES}
        if found.keys() <= OF_AN_ANY and (found.get(INSTANCE), found.get(NAMESPACE)) != (
            self.id.encode(),
            self.namespace.encode(),
        ):
            # Options alone, or nothing: a daemon before BootstrapParams. Create brings the options again.
            return
        text = {at: raw.decode() for at, raw in found.items() if at in TEXTS}
        instance, namespace = text.get(INSTANCE, ""), text.get(NAMESPACE, "")
        if (instance, namespace) != (self.id, self.namespace):
            raise Refused(
                f"parameters for {namespace[:76]}/{instance[:76]} do not match the flags, {self.namespace}/{self.id}"
            )
        self.is_current = True
        self.ttrpc_address = text.get(TTRPC_ADDRESS) or self.ttrpc_address
        self.grpc_address = text.get(GRPC_ADDRESS) or self.grpc_address
        self.publish_binary = text.get(BINARY) or self.publish_binary
        self.socket_directory = text.get(SOCKET_DIRECTORY, "")

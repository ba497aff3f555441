"""Where traces go, from the environment that OpenTelemetry specifies and from the plugin's block."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from windlass.errors import InvalidArgument
from windlass.records import dataclass

HTTP, GRPC = "http/protobuf", "grpc"
_TRUE, _FALSE = ("1", "t", "true"), ("", "0", "f", "false")


@dataclass(frozen=True)
class Otlp:
    """A collector. An empty endpoint is that of the environment, which the exporter reads itself."""

    protocol: str
    endpoint: str = ""
    insecure: bool = False

    @classmethod
    def read(
        cls, endpoint: str, protocol: str, insecure: bool, environment: Mapping[str, str] = os.environ
    ) -> Otlp | None:
        """Return where traces go, None for nowhere. Raises InvalidArgument for what cannot be."""
        disabled = environment.get("OTEL_SDK_DISABLED", "").lower()
        if disabled not in (*_TRUE, *_FALSE):
            raise InvalidArgument(f"OTEL_SDK_DISABLED={disabled} is neither true nor false")
        exporter = environment.get("OTEL_TRACES_EXPORTER", "")
        if exporter not in ("", "otlp", "none"):
            raise InvalidArgument(f"OTEL_TRACES_EXPORTER={exporter} is not supported; set it to otlp or none")
        given = _first(environment, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
        if disabled in _TRUE or exporter == "none" or not (given or endpoint):
            return None
        names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        protocol = _first(environment, *names) or protocol or HTTP
        if protocol not in (HTTP, GRPC):
            raise InvalidArgument(f"OTLP over {protocol} is not supported; set the protocol to {HTTP} or {GRPC}")
        if urlsplit(given or endpoint).scheme not in ("http", "https"):
            raise InvalidArgument(f"the collector's address {given or endpoint} is not a URL of http or https")
        if given:
            return cls(protocol)
        return cls(protocol, endpoint if protocol == GRPC else _with_path(endpoint), insecure)


def _first(environment: Mapping[str, str], *names: str) -> str:
    return next((value for name in names if (value := environment.get(name, ""))), "")


def _with_path(endpoint: str) -> str:
    """Return the URL that takes traces, as containerd makes it of an endpoint without a path."""
    return endpoint if urlsplit(endpoint).path.strip("/") else f"{endpoint.rstrip('/')}/v1/traces"

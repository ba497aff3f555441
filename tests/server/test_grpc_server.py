"""The table of methods that services register."""

from __future__ import annotations

import pytest
from server.grpc_echo import LIMIT, Echo

from windlass.errors import AlreadyExists
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server


def test_a_second_service_of_one_name_is_refused() -> None:
    """It would take the calls of the first without a word."""
    server = Server(Limits(LIMIT, LIMIT))
    server.add("t.Echo", Echo().methods())
    with pytest.raises(AlreadyExists, match=r"two plugins serve gRPC service t\.Echo; name one .* disabled_plugins"):
        server.add("t.Echo", {})

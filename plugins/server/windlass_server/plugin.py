"""Registers the listeners."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.contracts.metrics import METRICS, CallCounter
from windlass.contracts.monitors import TASK_MONITOR
from windlass.contracts.properties import GRPC_ADDRESS, TTRPC_ADDRESS
from windlass.contracts.services import GRPC, SERVER, TTRPC
from windlass.plugin import InitContext, Plugin, SkipPlugin

if TYPE_CHECKING:
    from windlass_server.grpc.listener import GrpcServer
    from windlass_server.sockets import Place

logger = logging.getLogger(__name__)

MESSAGE_SIZE = 16 << 20


@dataclass(frozen=True)
class GrpcConfig:
    """Configuration of ``io.containerd.server.v1.grpc``."""

    #: Path of the socket; the flag --address wins. Empty: windlass.sock in the state directory.
    address: str = ""
    #: Owner of the socket; -1 is the daemon's own user.
    uid: int = -1
    #: Group of the socket; -1 is the daemon's own group.
    gid: int = -1
    #: Largest message that is accepted, in bytes.
    max_recv_message_size: int = MESSAGE_SIZE
    #: Largest message that is sent, in bytes.
    max_send_message_size: int = MESSAGE_SIZE


@dataclass(frozen=True)
class TtrpcConfig:
    """Configuration of ``io.containerd.server.v1.ttrpc``."""

    #: Path of the socket to which shims report. Empty: the gRPC one with .ttrpc appended.
    address: str = ""
    #: Owner of the socket; -1 is the daemon's own user.
    uid: int = -1
    #: Group of the socket; -1 is the daemon's own group.
    gid: int = -1


@dataclass(frozen=True)
class MetricsConfig:
    """Configuration of ``io.containerd.server.v1.metrics``."""

    #: Where metrics are served, such as 127.0.0.1:1338; empty for nowhere. Every client that can connect reads them.
    address: str = ""


@dataclass(frozen=True)
class PrometheusConfig:
    """Configuration of ``io.containerd.metrics.v1.grpc-prometheus``."""

    #: Report how the times of calls are distributed, for each method; this is a dozen values more for each.
    grpc_histogram: bool = False


def _own(uid: int, gid: int) -> tuple[int, int]:
    return uid if uid >= 0 else os.geteuid(), gid if gid >= 0 else os.getegid()


def _place(context: InitContext, address: str, owner: tuple[int, int]) -> Place:
    from windlass_server.sockets import listen

    place = listen(Path(context.properties[address]), owner)
    context.on_stop(place.close)
    return place


def _sizes(context: InitContext) -> tuple[int, int]:
    config = context.config(GrpcConfig)
    return config.max_recv_message_size or MESSAGE_SIZE, config.max_send_message_size or MESSAGE_SIZE


def prepare_grpc(context: InitContext) -> GrpcServer:
    """Listen for clients: what the early services serve is answered, and everything else when the daemon can."""
    from windlass_server.grpc.listener import GrpcServer

    config = context.config(GrpcConfig)
    server = GrpcServer(_place(context, GRPC_ADDRESS, _own(config.uid, config.gid)), *_sizes(context))
    context.on_stop(server.stop)
    asyncio.run_coroutine_threadsafe(server.open(context.all(GRPC)), context.loop).result()
    return server


def init_grpc(context: InitContext) -> GrpcServer:
    """Give the server that listens all services."""
    from windlass_server.activation import inherited

    for path in inherited.close_rest():  # every server has prepared by now
        logger.warning("systemd has passed the socket %s, and no server is configured to listen there", path)
    server: GrpcServer = context.prepared
    server.take(context.all(GRPC), list(context.all(METRICS).values()))
    context.on_reload(("max_recv_message_size", "max_send_message_size"), lambda: server.limit(*_sizes(context)))
    context.on_start(server.start)
    return server


def prepare_ttrpc(context: InitContext) -> Place:
    """Listen for shims, which are answered when the daemon can."""
    config = context.config(TtrpcConfig)
    return _place(context, TTRPC_ADDRESS, _own(config.uid, config.gid))


def init_ttrpc(context: InitContext) -> object:
    """Make the server that answers shims."""
    from windlass_server.ttrpc.listener import TtrpcServer

    server = TtrpcServer(context.prepared, list(context.all(TTRPC).values()))
    context.on_start(server.start)
    context.on_stop(server.stop)
    return server


def init_counts(context: InitContext) -> CallCounter:
    """Make what counts the calls of clients."""
    from windlass_server.counting import CallCounts

    return CallCounts(context.config(PrometheusConfig).grpc_histogram)


def init_metrics(context: InitContext) -> object:
    """Listen for scrapers."""
    config = context.config(MetricsConfig)
    if not config.address:
        raise SkipPlugin("no address for metrics; set address in [metrics]")
    if importlib.util.find_spec("prometheus_client") is None:
        raise SkipPlugin("metrics need prometheus-client; pip install 'windlass-server[metrics]'")
    from windlass_server.metrics import MetricsServer

    counting = list(context.all(METRICS).values())
    server = MetricsServer(config.address, [*context.all(TASK_MONITOR).values(), *counting], context.gates)
    for each in counting:
        each.turn_on()
    context.on_start(server.start)
    context.on_stop(server.stop)
    return server


GRPC_SERVER = Plugin(
    SERVER, id="grpc", init=init_grpc, requires=(GRPC, METRICS), config=GrpcConfig, prepare=prepare_grpc
)
TTRPC_SERVER = Plugin(
    SERVER, id="ttrpc", init=init_ttrpc, requires=(TTRPC, GRPC), config=TtrpcConfig, prepare=prepare_ttrpc
)
METRICS_SERVER = Plugin(SERVER, id="metrics", init=init_metrics, requires=(TASK_MONITOR, METRICS), config=MetricsConfig)
CALL_COUNTS = Plugin(METRICS, id="grpc-prometheus", init=init_counts, config=PrometheusConfig)

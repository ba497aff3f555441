"""Which pods and containers a filter of CRI's lists chooses; it looks only at what the filter names."""

from __future__ import annotations

from collections.abc import Iterable

from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.record import Container, Pod
from windlass_cri.views import state


def pods_that_match(pods: Iterable[Pod], wanted: cri.PodSandboxFilter) -> Iterable[Pod]:
    """Return the pods that a client wants."""
    if id := wanted.id:
        pods = [each for each in pods if each.id.startswith(id)]
    if wanted.HasField("state"):
        number = wanted.state.state
        pods = [each for each in pods if state(each) == number]
    for key, value in wanted.label_selector.items():
        pods = [each for each in pods if each.config.labels.get(key) == value]
    return pods


def containers_that_match(containers: Iterable[Container], wanted: cri.ContainerFilter) -> Iterable[Container]:
    """Return the containers that a client wants."""
    if id := wanted.id:
        containers = [each for each in containers if each.id.startswith(id)]
    if pod := wanted.pod_sandbox_id:
        containers = [each for each in containers if each.data.pod.startswith(pod)]
    if wanted.HasField("state"):
        number = wanted.state.state
        containers = [each for each in containers if each.status.state == number]
    for key, value in wanted.label_selector.items():
        containers = [each for each in containers if each.config.labels.get(key) == value]
    return containers

"""Pods by CRI, with Debian's CNI plugins and runc: what the kubelet sees of them (docs/containerd 5.5)."""

from __future__ import annotations

import pytest
from compat.cri_daemon import CriDaemon

from windlass_api.runtime.v1 import api_pb2 as cri

pytestmark = pytest.mark.root


def test_a_pod_and_a_container_run_and_are_gone_when_removed(cri_daemon: CriDaemon) -> None:
    with cri_daemon.pod() as pod:
        container = cri_daemon.run_container(pod)
        status = cri_daemon.pod_status(pod).status
        assert status.state == cri.SANDBOX_READY
        assert cri_daemon.container_status(container).state == cri.CONTAINER_RUNNING
        assert cri_daemon.exec(container, "/bin/echo", "hello") == "hello\n"
        assert status.network.ip in cri_daemon.addresses_taken()
    assert not cri_daemon.pods()
    assert not cri_daemon.addresses_taken()
    assert not cri_daemon.attachments()

"""Measures what a kubelet asks of CRI, with 1,000 containers and images; Windlass and containerd 2.x by turns.

python bench/kubelet.py [--containerd DIRECTORY] [--rounds N] [--records N] [--only NAME …]      (as root)

As bench/calls.py; the containers are created and all but a few do not run, in pods on the host's network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
from calls import Contender, one_by_one
from daemons import IMAGE
from google.protobuf.message import Message
from nodes import TIMEOUT, Node, nodes

from windlass_api.containerd.services.content.v1 import content_pb2, content_pb2_grpc
from windlass_api.containerd.services.images.v1 import images_pb2, images_pb2_grpc
from windlass_api.runtime.v1 import api_pb2 as cri

METADATA = (("containerd-namespace", "k8s.io"),)
RUNTIME, IMAGES = "/runtime.v1.RuntimeService/", "/runtime.v1.ImageService/"
PODS = 50
RUNNING = 50
"""Containers that run, one in each pod."""


def fill(node: Node, records: int) -> None:
    """Make pods, containers and images."""
    with grpc.insecure_channel(
        f"unix:{node.daemon.address}", options=(("grpc.default_authority", "localhost"),)
    ) as channel:
        for number in range(records):
            _image(channel, number)
    pods = [node.run_pod(f"pod{number}", host=True, group=f"pod{number}") for number in range(PODS)]
    for number, pod in enumerate(pods[:RUNNING]):
        node.run_container(pod, f"run{number}")
    for number in range(records - RUNNING):
        node.create_container(pods[number % PODS], f"box{number}")
    end = time.monotonic() + TIMEOUT
    while len(node.images.ListImages(cri.ListImagesRequest()).images) < records and time.monotonic() < end:
        time.sleep(0.1)


def _image(channel: grpc.Channel, number: int) -> None:
    """Make an image without layers."""
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"User": str(number)},
            "rootfs": {"type": "layers", "diff_ids": []},
        }
    ).encode()
    form = "application/vnd.oci.image."
    about = {"mediaType": f"{form}config.v1+json", "digest": _digest(config), "size": len(config)}
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": f"{form}manifest.v1+json", "config": about, "layers": []}
    ).encode()
    _write(channel, config, {"containerd.io/gc.root": "now"})
    _write(channel, manifest, {"containerd.io/gc.ref.content.config": _digest(config)})
    image = images_pb2.Image(name=f"registry.example/team/image-{number}:latest")
    image.target.media_type = f"{form}manifest.v1+json"
    image.target.digest, image.target.size = _digest(manifest), len(manifest)
    images_pb2_grpc.ImagesStub(channel).Create(images_pb2.CreateImageRequest(image=image), metadata=METADATA)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _write(channel: grpc.Channel, data: bytes, labels: dict[str, str]) -> None:
    request = content_pb2.WriteContentRequest(
        action=content_pb2.COMMIT,
        ref=_digest(data),
        total=len(data),
        expected=_digest(data),
        data=data,
        labels=labels,
    )
    list(content_pb2_grpc.ContentStub(channel).Write(iter([request]), metadata=METADATA))


def asked(node: Node) -> list[tuple[str, str, Message, int]]:
    """Return every call that asks: its short name, path, request, and how often it is made in a round."""
    pods = node.runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=TIMEOUT).items
    running = cri.ContainerFilter(state=cri.ContainerStateValue(state=cri.CONTAINER_RUNNING))
    runs = node.runtime.ListContainers(cri.ListContainersRequest(filter=running), timeout=TIMEOUT).containers
    pod, container = pods[0].id, runs[0].id
    inside = cri.ContainerFilter(pod_sandbox_id=pod)
    labelled = cri.ContainerFilter(label_selector={"io.kubernetes.container.name": "run7"})
    ready = cri.PodSandboxFilter(state=cri.PodSandboxStateValue(state=cri.SANDBOX_READY))
    one, many = 1000, 20
    return [
        ("version", f"{RUNTIME}Version", cri.VersionRequest(), one),
        ("status", f"{RUNTIME}Status", cri.StatusRequest(), 200),
        ("config", f"{RUNTIME}RuntimeConfig", cri.RuntimeConfigRequest(), one),
        ("containers", f"{RUNTIME}ListContainers", cri.ListContainersRequest(), many),
        ("containers that run", f"{RUNTIME}ListContainers", cri.ListContainersRequest(filter=running), 100),
        ("containers of a pod", f"{RUNTIME}ListContainers", cri.ListContainersRequest(filter=inside), 100),
        ("containers by label", f"{RUNTIME}ListContainers", cri.ListContainersRequest(filter=labelled), 100),
        ("container status", f"{RUNTIME}ContainerStatus", cri.ContainerStatusRequest(container_id=container), one),
        (
            "container status, verbose",
            f"{RUNTIME}ContainerStatus",
            cri.ContainerStatusRequest(container_id=container, verbose=True),
            100,
        ),
        ("pods", f"{RUNTIME}ListPodSandbox", cri.ListPodSandboxRequest(), 200),
        ("pods that are ready", f"{RUNTIME}ListPodSandbox", cri.ListPodSandboxRequest(filter=ready), 200),
        ("pod status", f"{RUNTIME}PodSandboxStatus", cri.PodSandboxStatusRequest(pod_sandbox_id=pod), one),
        ("container stats", f"{RUNTIME}ContainerStats", cri.ContainerStatsRequest(container_id=container), 100),
        ("stats of containers", f"{RUNTIME}ListContainerStats", cri.ListContainerStatsRequest(), 5),
        ("pod stats", f"{RUNTIME}PodSandboxStats", cri.PodSandboxStatsRequest(pod_sandbox_id=pod), 50),
        ("stats of pods", f"{RUNTIME}ListPodSandboxStats", cri.ListPodSandboxStatsRequest(), 5),
        ("metrics", f"{RUNTIME}ListPodSandboxMetrics", cri.ListPodSandboxMetricsRequest(), 5),
        ("metric descriptors", f"{RUNTIME}ListMetricDescriptors", cri.ListMetricDescriptorsRequest(), 100),
        ("images", f"{IMAGES}ListImages", cri.ListImagesRequest(), many),
        ("image status", f"{IMAGES}ImageStatus", cri.ImageStatusRequest(image=cri.ImageSpec(image=IMAGE)), one),
        ("file systems", f"{IMAGES}ImageFsInfo", cri.ImageFsInfoRequest(), 200),
    ]


def measure(wanted: Sequence[Node], rounds: int, only: Sequence[str]) -> list[Contender]:
    """Ask in turns."""
    asks = {node.name: asked(node) for node in wanted}
    daemons = [Contender(node.name, node.daemon.address, node.daemon.pid) for node in wanted]
    for number in range(rounds):
        for each in range(len(asks[wanted[0].name])):
            for daemon in daemons[:: 1 if number % 2 else -1]:
                name, path, message, calls = asks[daemon.name][each]
                if not only or name in only:
                    one_by_one(daemon, name, path, message, calls)
    return daemons


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containerd", type=Path, help="directory of a containerd of 2.x")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="windlass-kubelet.", dir="/dev/shm", ignore_cleanup_errors=True) as name:
        with nodes(Path(name), options.containerd) as wanted:
            for node in wanted:
                fill(node, options.records)
            daemons = measure(wanted, options.rounds, options.only)
        Path(name).mkdir(exist_ok=True)
    for what in daemons[0].figures:
        row = [statistics.median(daemon.figures[what]) for daemon in daemons]
        ratio = f"ratio {row[0] / row[1]:5.2f}" if len(row) > 1 else ""
        print(f"{what:46} " + " ".join(f"{value:10.0f}" for value in row) + f" {ratio}", flush=True)
    print(f"load before {load:.1f}, after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()

"""What is kept because it is asked for all the time: items of lists, and the accounts of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from windlass.contracts.values import Platform
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.images.images import Image as Known
from windlass_cri.record import Container, ContainerData, Pod, PodData, Status
from windlass_cri.selection import containers_that_match, pods_that_match
from windlass_cri.spec.users import LARGEST, MOST_IMAGES, KnownAccounts
from windlass_cri.views import container_entry, image_entry, pod_entry
from windlass_images.manifests import ImageConfig
from windlass_oci.users import Accounts


class Image:
    """A `windlass_local.launch.Rootfs` as far as this needs one; counts the looks into it."""

    def __init__(self, *layers: str, passwd: str = "") -> None:
        self.image = ImageConfig(Platform("linux", "amd64"), layers)
        self.passwd = passwd
        self.looks = 0

    async def accounts(self) -> Accounts:
        """Look."""
        self.looks += 1
        return Accounts(self.passwd)


async def looks(known: KnownAccounts, image: Image) -> int:
    """Return how often the image has been looked into, after another question."""
    found = await known.of(image)  # type: ignore[arg-type] # as far as it is one
    assert found.passwd == image.passwd
    return image.looks


def listed(pod: Pod) -> cri.PodSandbox:
    """Return a pod as a list's bytes have it."""
    (item,) = cri.ListPodSandboxResponse.FromString(pod_entry(pod)).items
    return item


def test_a_pods_bytes_are_made_again_when_it_has_changed() -> None:
    pod = Pod("p", cri.PodSandboxConfig(labels={"a": "b"}), PodData("n"))
    assert listed(pod).state == cri.SANDBOX_NOTREADY
    pod.ready, pod.data = True, replace(pod.data, created_at=5)
    first, found = pod_entry(pod), listed(pod)
    assert (found.state, found.created_at, dict(found.labels)) == (cri.SANDBOX_READY, 5, {"a": "b"})
    assert pod_entry(pod) is first
    pod.ready = False
    assert listed(pod).state == cri.SANDBOX_NOTREADY


def test_a_containers_bytes_are_made_again_when_it_has_changed(tmp_path: Path) -> None:
    container = Container("c", cri.ContainerConfig(), ContainerData("n", "p"), tmp_path, Status(created_at=1))
    first = container_entry(container)
    assert container_entry(container) is first
    for change, state in (
        ({"started_at": 2}, cri.CONTAINER_RUNNING),
        ({"unknown": True}, cri.CONTAINER_UNKNOWN),
        ({"unknown": False, "finished_at": 3}, cri.CONTAINER_EXITED),
    ):
        container.change(**change)
        (item,) = cri.ListContainersResponse.FromString(container_entry(container)).containers
        assert (item.id, item.state) == ("c", state)


def test_bytes_joined_are_the_list_of_all_and_of_each_part_of_a_stream() -> None:
    pods = [Pod(f"p{number}", cri.PodSandboxConfig(labels={"n": str(number)}), PodData("n")) for number in range(3)]
    joined = b"".join(map(pod_entry, pods))
    assert [each.id for each in cri.ListPodSandboxResponse.FromString(joined).items] == ["p0", "p1", "p2"]
    assert [each.id for each in cri.StreamPodSandboxesResponse.FromString(joined).pod_sandboxes] == ["p0", "p1", "p2"]
    item = image_entry(Known("sha256:1", ["a:1"], 7, "0:0"))
    assert item == cri.StreamImagesResponse.FromString(item).SerializeToString()
    (image,) = cri.ListImagesResponse.FromString(item).images
    assert (image.id, list(image.repo_tags), image.size, image.uid.value) == ("sha256:1", ["a:1"], 7, 0)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "abc"),
        ({"id": "a"}, "a"),
        ({"id": "z"}, ""),
        ({"state": cri.ContainerStateValue(state=cri.CONTAINER_CREATED)}, "ab"),
        ({"state": cri.ContainerStateValue(state=cri.CONTAINER_RUNNING)}, "c"),
        ({"pod_sandbox_id": "pod-b"}, "b"),
        ({"label_selector": {"of": "c"}}, "c"),
        ({"label_selector": {"of": "c", "more": "x"}}, ""),
        ({"pod_sandbox_id": "pod-", "label_selector": {"of": "a"}}, "a"),
    ],
)
def test_a_filter_chooses_containers(wanted: dict[str, object], found: str, tmp_path: Path) -> None:
    containers = [
        Container(
            name,
            cri.ContainerConfig(labels={"of": name}),
            ContainerData("n", f"pod-{name}"),
            tmp_path,
            Status(1, started_at=int(name == "c")),
        )
        for name in "abc"
    ]
    chosen = containers_that_match(containers, cri.ContainerFilter(**wanted))  # type: ignore[arg-type] # by names
    assert "".join(each.id for each in chosen) == found


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, "ab"),
        ({"id": "b"}, "b"),
        ({"state": cri.PodSandboxStateValue(state=cri.SANDBOX_READY)}, "a"),
        ({"state": cri.PodSandboxStateValue(state=cri.SANDBOX_NOTREADY)}, "b"),
        ({"label_selector": {"of": "b"}}, "b"),
    ],
)
def test_a_filter_chooses_pods(wanted: dict[str, object], found: str) -> None:
    pods = [Pod(name, cri.PodSandboxConfig(labels={"of": name}), PodData("n"), name == "a") for name in "ab"]
    chosen = pods_that_match(pods, cri.PodSandboxFilter(**wanted))  # type: ignore[arg-type] # by names
    assert "".join(each.id for each in chosen) == found


async def test_an_image_is_looked_into_once() -> None:
    known, image = KnownAccounts(), Image("sha256:1", "sha256:2", passwd="a:x:1:1::/:\n")
    assert [await looks(known, image), await looks(known, image)] == [1, 1]
    assert await looks(known, Image("sha256:1", passwd="b:x:2:2::/:\n")) == 1


async def test_what_is_large_or_has_no_layers_is_not_kept() -> None:
    known = KnownAccounts()
    for image in (Image("sha256:1", passwd="x" * (LARGEST + 1)), Image()):
        assert [await looks(known, image), await looks(known, image)] == [1, 2]


async def test_the_image_that_was_first_is_forgotten_first() -> None:
    known, images = KnownAccounts(), [Image(f"sha256:{number}") for number in range(MOST_IMAGES + 1)]
    for image in images:
        await looks(known, image)
    assert [await looks(known, images[-1]), await looks(known, images[0])] == [1, 2]

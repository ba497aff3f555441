"""What is kept because it is asked for all the time: items of lists, and the accounts of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from windlass.contracts.values import Platform
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.record import Container, ContainerData, Pod, PodData, Status
from windlass_cri.spec.users import LARGEST, MOST_IMAGES, KnownAccounts
from windlass_cri.views import container_item, pod_item
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


def test_an_item_of_a_list_is_made_again_when_it_has_changed() -> None:
    pod = Pod("p", cri.PodSandboxConfig(labels={"a": "b"}), PodData("n"))
    assert pod_item(pod).state == cri.SANDBOX_NOTREADY
    pod.ready, pod.data = True, replace(pod.data, created_at=5)
    first = pod_item(pod)
    assert (first.state, first.created_at, dict(first.labels)) == (cri.SANDBOX_READY, 5, {"a": "b"})
    assert pod_item(pod) is first
    pod.ready = False
    assert pod_item(pod).state == cri.SANDBOX_NOTREADY


def test_an_item_of_a_container_is_made_again_when_it_has_changed(tmp_path: Path) -> None:
    container = Container("c", cri.ContainerConfig(), ContainerData("n", "p"), tmp_path, Status(created_at=1))
    first = container_item(container)
    assert container_item(container) is first
    for change, state in (
        ({"started_at": 2}, cri.CONTAINER_RUNNING),
        ({"unknown": True}, cri.CONTAINER_UNKNOWN),
        ({"unknown": False, "finished_at": 3}, cri.CONTAINER_EXITED),
    ):
        container.change(**change)
        assert container_item(container).state == state


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

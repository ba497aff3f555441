"""The files of a pod, as tests have them."""

from __future__ import annotations

from pathlib import Path

from windlass_cri.pods.files import PodFiles


def made_files(directory: Path) -> PodFiles:
    """Return the files of a pod as they are on the disk, without the mount of /dev/shm."""
    files = PodFiles(directory)
    files.shm.mkdir(parents=True, exist_ok=True)
    for path in (files.hostname, files.hosts, files.resolv_conf):
        path.touch()
    return files

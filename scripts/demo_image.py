"""Builds a small OCI image archive from files of this machine: no network, no container tool.

python scripts/demo_image.py OUT.tar NAME [BUSYBOX [COMMAND ...]]
python scripts/demo_image.py --busybox          prints the path of a static busybox; exit code 1 if there is none
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}
APPLETS = """
    sh ls cat echo ps hostname id sleep env mount true false stty head tail cut wc kill seq dd tty
"""
PT_INTERP = 3
TREE = Path(__file__).resolve().parent.parent
FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}


def static_busybox() -> Path:
    """Return a busybox that needs no library of its root file system, or a path where there is none."""
    places = (Path(TREE, ".venv", "bin/busybox"), Path("/bin/busybox"))
    return next((place.resolve() for place in places if is_static(place)), places[0])


def is_static(path: Path) -> bool:
    """Return whether a program is started without a loader, which its root file system would have to have."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    # elf(5), of 64 bits: where the table of segments begins, the size of an entry, how many there are.
    if len(head) < 64 or head[:5] != b"\x7fELF\x02":
        return False
    order = "<" if head[5] == 1 else ">"
    (start,), (size, count) = struct.unpack_from(f"{order}Q", head, 32), struct.unpack_from(f"{order}HH", head, 54)
    entries = [head[at : at + 4] for at in range(start, start + size * count, size or 1)]
    loader = struct.pack(f"{order}I", PT_INTERP)
    return bool(entries) and all(len(entry) == 4 and entry != loader for entry in entries)


def layer(busybox: Path) -> bytes:
    """Return a layer with busybox, the names it goes by, and the files that a shell looks for."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for directory in ("bin", "etc", "dev", "proc", "sys", "run", "tmp", "root"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(entry)
        add(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        for name, data in FILES.items():
            add(tar, name, data, 0o644)
        for applet in APPLETS.split():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    """Add a regular file of root's."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def build(out: Path, name: str, busybox: Path, command: Sequence[str]) -> None:
    """Write the archive; the same files give the same bytes."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str, **more: object) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    kind = "application/vnd.oci.image"
    rootfs = layer(busybox)
    platform = {"os": "linux", "architecture": MACHINES.get(os.uname().machine, os.uname().machine)}
    config = {
        **platform,
        "config": {"Env": ["PATH=/bin"], "Cmd": list(command)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(rootfs).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": [blob(rootfs, f"{kind}.layer.v1.tar")],
    }
    names = {"annotations": {"io.containerd.image.name": name}, "platform": platform}
    target = blob(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json", **names)
    with tarfile.open(out, "w") as tar:
        add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644)
        add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [target]}).encode(), 0o644)
        for digest, data in blobs.items():
            add(tar, f"blobs/sha256/{digest}", data, 0o644)


def main(arguments: list[str]) -> int | str:
    """Do what the command line says and return the exit code, or what is wrong."""
    busybox = Path(arguments[2]) if len(arguments) > 2 else static_busybox()
    if not is_static(busybox):
        return f"demo_image: {busybox} is not a static busybox; run scripts/setup busybox-static, or name one"
    if arguments == ["--busybox"]:
        sys.stdout.write(f"{busybox}\n")
    else:
        build(Path(arguments[0]), arguments[1], busybox, arguments[3:] or ["sh"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

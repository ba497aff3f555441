"""Docker's client on dockerd, and `windlass` on a daemon: each runs the same commands in a network of its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compat.parity_cases import CODE, LINES, Case

from windlass_conformance.boxes import BUSYBOX

IMAGE = "example.org/busy:1"
APPLETS = """
    sh cat echo sleep true false ps id env hostname touch ls mkdir rm wc head tail grep ip ping wget nc kill seq dd
    nslookup httpd sort pwd
"""
FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}
WINDLASS = [sys.executable, "-c", "import sys; from windlass_client.cli import main; sys.exit(main())"]
PATTERNS = (
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d\d:?\d\d| UTC|Z)?( UTC)?", "TIME"),
    (r"\b(About an? |Less than an? |\d+ )(second|minute|hour)s?( ago)?\b", "AGE"),
    (r"\b\d{1,3}(\.\d{1,3}){3}(/\d{1,2})?\b", "ADDRESS"),
)
"""What differs from run to run."""


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    error: str


def archive(path: Path) -> None:
    """Write an image with a shell as `docker save` would."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "etc", "proc", "sys", "dev", "root", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for name, data in {**FILES, "bin/busybox": BUSYBOX.read_bytes()}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
        for applet in APPLETS.split():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    config = {
        "architecture": os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"made": "here"}, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
        "history": [{"created": "2026-01-02T03:04:05Z", "created_by": "busybox"}],
    }
    data = json.dumps(config).encode()
    name = f"{hashlib.sha256(data).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [IMAGE], "Layers": ["layer/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for file, content in ((name, data), ("layer/layer.tar", layer.getvalue())):
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        listed = json.dumps(manifest).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(listed)
        tar.addfile(entry, io.BytesIO(listed))


@contextlib.contextmanager
def network() -> Iterator[str]:
    """Yield the path of a new network namespace, in which only its loopback interface is."""
    name = f"windlass-parity-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        # With IPv6, docker says twice where a port is.
        off = ("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
        subprocess.run(["ip", "netns", "exec", name, *off], check=True)
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


class Side:
    """One of the two that are compared."""

    def __init__(self, words: list[str], environment: Mapping[str, str], places: Mapping[str, str]) -> None:
        """``words`` begin each command; ``places`` are what braces stand for."""
        self._words = words
        self._environment = environment
        self.places = places
        self._ours = "windlass_client" in " ".join(words)

    def texts(self, cases: Sequence[Case]) -> list[str]:
        """Return the commands as this side spells them."""
        return [case.ours if self._ours else case.docker for case in cases]

    def answer(self, text: str, stdin: str) -> Answer:
        """Run a command to its end."""
        for name, value in self.places.items():
            text = text.replace(f"{{{name}}}", value)
        done = subprocess.run(
            [*self._words, *shlex.split(text)],
            env=dict(self._environment),
            input=stdin.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def normalised(text: str, sides: Mapping[str, str]) -> str:
    """Return an output without what differs from run to run, and from one side to the other."""
    for pattern, word in PATTERNS:
        text = re.sub(pattern, word, text)
    for value, word in sides.items():
        text = text.replace(value, word)
    return "\n".join(" ".join(line.split()) for line in text.splitlines()).strip()


def difference(case: Case, docker: Answer, windlass: Answer, sides: Mapping[str, str]) -> str:
    """Return how the answers differ in what the case compares, empty if they do not."""
    if docker.code != windlass.code:
        return f"exit code {docker.code} and {windlass.code}; windlass said {windlass.error.strip()[-300:]!r}"
    if case.compare == CODE:
        silent = docker.code and bool(docker.error.strip()) != bool(windlass.error.strip())
        return "only one of them says why" if silent else ""
    for theirs, ours in ((docker.out, windlass.out), (docker.error, windlass.error)):
        first, second = (normalised(each, sides) for each in (theirs, ours))
        if case.compare == LINES:
            first, second = ("\n".join(sorted(each.splitlines())) for each in (first, second))
        if first != second:
            return f"docker printed {first[-400:]!r}, and windlass {second[-400:]!r}"
    return ""

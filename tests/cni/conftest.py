"""Plugins for these tests: small programs that note how they were called, and do as their configuration says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from windlass_cni.cache import Cache
from windlass_cni.config import Network, parse
from windlass_cni.execute import Programs
from windlass_cni.networks import Networks
from windlass_cni.protocol import Attachment

PROGRAM = f"""#!{sys.executable}
import json, os, pathlib, sys, time
conf = json.load(sys.stdin)
command = os.environ["CNI_COMMAND"]
keys = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS")
note = {{"command": command, "plugin": os.path.basename(sys.argv[0]), "conf": conf}}
note |= {{key: os.environ.get(key) for key in keys}}
with open(conf["notes"], "a") as file:
    file.write(json.dumps(note) + "\\n")
act = conf.get("on" + command, "")
if act == "fail":
    print(json.dumps({{"cniVersion": "1.0.0", "code": 11, "msg": "no more addresses", "details": "range is full"}}))
    sys.exit(1)
if act == "die":
    print("Segmentation\\x1b[31m fault", file=sys.stderr)
    sys.exit(2)
if act == "garbage":
    print("hello")
if act == "much":
    sys.stdout.write("x" * (5 << 20))
if act == "hang":
    time.sleep(60)
if act == "early":
    sys.exit(0)
if command == "ADD" and not act:
    result = conf.get("prevResult") or {{"cniVersion": conf["cniVersion"]}}
    result.setdefault("interfaces", []).append({{"name": os.environ["CNI_IFNAME"], "sandbox": os.environ["CNI_NETNS"]}})
    result.setdefault("ips", []).append({{"address": "10.9.0.7/24", "gateway": "10.9.0.1", "interface": 0}})
    print(json.dumps(result))
"""


class World:
    """A directory of programs, a cache, and what the programs have noted."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.notes = tmp_path / "notes"
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        for name in ("first", "second"):
            (self.bin / name).write_text(PROGRAM)
            (self.bin / name).chmod(0o755)
        self.cache = Cache(tmp_path / "results")
        self.networks = Networks(Programs((self.bin,), timeout=10), self.cache)

    def network(self, name: str = "net", version: str = "1.1.0", **first: object) -> Network:
        """A network of two plugins; ``first`` is more configuration of the first."""
        plugins = [
            {"type": "first", "notes": str(self.notes), "capabilities": {"portMappings": True}, **first},
            {"type": "second", "notes": str(self.notes)},
        ]
        return parse(json.dumps({"cniVersion": version, "name": name, "plugins": plugins}))

    def called(self) -> list[str]:
        """What was executed so far, as ``ADD first``."""
        return [f"{note['command']} {note['plugin']}" for note in self.all_notes()]

    def all_notes(self) -> list[dict[str, object]]:
        """Each call."""
        return [json.loads(line) for line in self.notes.read_text().splitlines()] if self.notes.exists() else []


ATTACHMENT = Attachment("c1", "/run/netns/x", "eth0", (("IgnoreUnknown", "1"), ("K8S_POD_NAME", "web")))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)

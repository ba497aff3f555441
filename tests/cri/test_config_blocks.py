"""CRI's configuration: what kubelets' nodes have from containerd's versions is read without a word, and means the same.

The files in ``configs`` are CRI's part of what ``containerd config default`` prints; the kubelet's documentation has
``SystemdCgroup`` set to true.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from windlass_cri.config import Cni, Containerd
from windlass_cri.migration import migrate

FILES = Path(__file__).with_name("configs")
WINDLASSD = Path(sys.executable).with_name("windlassd")
OLD, IMAGES, RUNTIME = "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"


def check(path: Path) -> list[str]:
    """What an operator reads of a file."""
    done = subprocess.run([WINDLASSD, "--config", path, "config", "check"], capture_output=True, text=True, timeout=60)
    return [line for line in (done.stdout + done.stderr).splitlines() if str(path) in line]


@pytest.mark.parametrize("name", ["containerd-1.6", "containerd-1.7", "containerd-2.1", "containerd-2.4"])
def test_what_containerd_prints_passes_without_a_word(name: str) -> None:
    path = FILES / f"{name}.toml"
    assert check(path) == [f"{path}: no problems"]


def test_a_key_without_effect_is_said_so_where_it_asks_for_something(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        f'version = 4\n[plugins."{IMAGES}"]\ndiscard_unpacked_layers = true\nmax_concurrent_downloads = 3\n'
        f'[plugins."{IMAGES}".image_decryption]\nkey_model = "elsewhere"\n'
    )
    told = "of io.containerd.cri.v1.images has no effect: containerd has it, Windlass does not"
    assert sorted(check(path)) == [
        f'{path}:3: warning: "discard_unpacked_layers" {told}',
        f'{path}:6: warning: "image_decryption.key_model" {told}',
    ]


def test_the_single_block_is_split() -> None:
    plugins = tomllib.loads((FILES / "containerd-1.7.toml").read_text())["plugins"]
    migrate(plugins)
    runtime, images = plugins[RUNTIME], plugins[IMAGES]
    assert images["pinned_images"] == {"sandbox": "registry.k8s.io/pause:3.8"}
    assert images["snapshotter"] == "overlayfs" and images["image_pull_progress_timeout"] == "5m0s"
    assert runtime["cni"]["bin_dirs"] == ["/opt/cni/bin"] and "bin_dir" not in runtime["cni"]
    runc = runtime["containerd"]["runtimes"]["runc"]
    assert runc["sandboxer"] == "podsandbox" and runc["options"]["SystemdCgroup"] is True
    assert "default_runtime" not in runtime["containerd"] and "systemd_cgroup" not in runtime
    assert set(plugins[OLD]) == {
        "disable_tcp_service", "enable_tls_streaming", "stream_idle_timeout", "stream_server_address",
        "stream_server_port", "x509_key_pair_streaming",
    }  # fmt: skip


def test_what_the_new_blocks_have_stays() -> None:
    plugins = {
        OLD: {"sandbox_image": "old", "cni": {"conf_dir": "/old", "bin_dir": "/old"}, "stats_collect_period": 1},
        IMAGES: {"pinned_images": {"sandbox": "new"}},
        RUNTIME: {"cni": {"conf_dir": "/new"}},
    }
    migrate(plugins)
    assert plugins == {
        OLD: {},
        IMAGES: {"pinned_images": {"sandbox": "new"}, "stats_collect_period": 1},
        RUNTIME: {"cni": {"conf_dir": "/new", "bin_dirs": ["/old"]}},
    }


def test_runtimes_of_before_there_were_handlers_are_handlers() -> None:
    runtimes = {"default_runtime": {"runtime_type": "a.v1"}, "untrusted_workload_runtime": {"runtime_type": "b.v1"}}
    plugins = {OLD: {"containerd": runtimes}}
    migrate(plugins)
    assert plugins[RUNTIME]["containerd"] == {
        "default_runtime_name": "default",
        "runtimes": {"default": {"runtime_type": "a.v1"}, "untrusted": {"runtime_type": "b.v1"}},
    }


def test_what_was_removed_and_is_set_stays_to_be_warned_of() -> None:
    plugins = {OLD: {"systemd_cgroup": True, "containerd": {"no_pivot": True}}}
    migrate(plugins)
    assert plugins[RUNTIME] == {"systemd_cgroup": True, "containerd": {"no_pivot": True}}


def test_an_older_directory_of_plugins_is_the_only_one() -> None:
    assert Cni(bin_dir="/a").programs == ("/a",) and Cni(bin_dirs=("/b", "/c")).programs == ("/b", "/c")
    with pytest.raises(ValueError, match="bin_dir and bin_dirs are both set; leave out bin_dir"):
        Cni(bin_dir="/a", bin_dirs=("/b",))


def test_a_default_handler_has_to_be_there() -> None:
    with pytest.raises(ValueError, match='default_runtime_name is "kata", runtimes has runc'):
        Containerd("kata")

"""The pods' addresses, and the network that is made of a template for them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from windlass.errors import Unknown
from windlass_cri.config import Cni
from windlass_cri.pods.network import PodNetwork
from windlass_cri.pods.runtimeconfig import NAME, routes_of, update
from windlass_cri.pods.templates import render

TEMPLATE = """{
  "name": "made", "cniVersion": "1.0.0",
  {{- /* of the kubelet's addresses */ -}}
  "plugins": [{"type": "bridge", "main": "{{.PodCIDR}}", "ipam": {"type": "host-local",
    "ranges": [{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}],
    "routes": [{{ range $i, $route := .Routes }}{{ if $i }}, {{ end }}{"dst": "{{ $route }}"}{{ end }}]}}]
}"""
FIELDS = {"PodCIDR": "10.0.0.0/8", "PodCIDRRanges": ["10.0.0.0/8", "fd00::/64"], "Routes": []}


def network(tmp_path: Path, template: str = TEMPLATE) -> Cni:
    path = tmp_path / "template"
    path.write_text(template)
    return Cni(bin_dirs=(), conf_dir=str(tmp_path / "net.d"), conf_template=str(path))


def updated(tmp_path: Path, config: Cni, cidrs: str) -> Path:
    async def scenario() -> None:
        pods = PodNetwork(config, tmp_path / "cache")
        await pods.reload()
        await update(pods, config, cidrs)

    asyncio.run(scenario())
    return Path(config.conf_dir) / NAME


def test_a_network_is_made_of_the_template(tmp_path: Path) -> None:
    made = updated(tmp_path, network(tmp_path), "10.9.0.0/16, fd00::/64")
    (plugin,) = json.loads(made.read_text())["plugins"]
    assert plugin["main"] == "10.9.0.0/16"
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.9.0.0/16"}], [{"subnet": "fd00::/64"}]]
    assert plugin["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    assert made.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in made.parent.iterdir()] == [NAME]


def test_a_network_that_is_there_stays_the_only_one(tmp_path: Path) -> None:
    config = network(tmp_path)
    given = Path(config.conf_dir) / "10-given.conflist"
    given.parent.mkdir()
    given.write_text('{"name": "given", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}')
    assert not updated(tmp_path, config, "10.9.0.0/16").exists()


def test_no_addresses_or_no_template_do_nothing(tmp_path: Path) -> None:
    assert not updated(tmp_path, network(tmp_path), "").exists()
    assert not updated(tmp_path, Cni(conf_dir=str(tmp_path / "net.d")), "10.9.0.0/16").exists()


@pytest.mark.parametrize(
    "text", ["x", "10.9.0.0/33", " ", ",", "10.9.0.0", "10.9.0.0/255.0.0.0", 'fd00::%"x/64', "10.9.0.0/16,y"]
)
def test_addresses_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(Unknown, match="get routes: invalid CIDR address: "):
        updated(tmp_path, network(tmp_path), text)


def test_the_order_of_routes() -> None:
    assert routes_of(["fd00::/64", "10.0.0.0/8"]) == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize("path", ["", "missing", "."])
def test_a_template_that_cannot_be_read(tmp_path: Path, path: str) -> None:
    config = Cni(bin_dirs=(), conf_dir=str(tmp_path / "net.d"), conf_template=str(tmp_path / "x" / path))
    with pytest.raises(Unknown, match="no network can be made of the template"):
        updated(tmp_path, config, "10.9.0.0/16")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a {{.PodCIDR}} b", "a 10.0.0.0/8 b"),
        ("{{range .PodCIDRRanges}}<{{.}}>{{end}}", "<10.0.0.0/8><fd00::/64>"),
        ("{{range .Routes}}x{{else}}none{{end}}", "none"),
        ("{{if .Routes}}x{{if .PodCIDR}}y{{end}}{{else}}z{{end}}", "z"),
        ("a {{- .PodCIDR -}} b", "a10.0.0.0/8b"),
        ("{{.PodCIDRRanges}}", "[10.0.0.0/8 fd00::/64]"),
    ],
)
def test_templates(text: str, expected: str) -> None:
    assert render(text, FIELDS) == expected


@pytest.mark.parametrize(
    "text",
    ["{{.Nothing}}", "{{if .PodCIDR}}", "{{end}}", "{{range .PodCIDR}}{{end}}", '{{printf "%s" .PodCIDR}}', "{{$x}}"],
)
def test_templates_that_are_refused(text: str) -> None:
    with pytest.raises(Unknown, match="template: "):
        render(text, FIELDS)


def test_a_result_without_end_is_refused() -> None:
    with pytest.raises(Unknown, match="longer than"):
        render("{{range .R}}{{.PodCIDR}}{{end}}", {"PodCIDR": "x" * 1000, "R": ["y"] * 2000})

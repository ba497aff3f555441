"""Promises of plans: every host that would be asked, with the file and line of it, and nothing secret."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from windlass_client.cli import windlass

SECRET = "s3cret-of-somebody"


def write(root: Path, text: str) -> Path:
    directory = root / "certs.d" / "a.test"
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(text)
    return directory / "hosts.toml"


def plan(root: Path, *arguments: str, reference: str = "a.test/team/app:1") -> Result:
    command = ["pull", "--plan", "--hosts-dir", str(root / "certs.d"), *arguments, reference]
    return CliRunner().invoke(windlass, command, env={"DOCKER_CONFIG": str(root)}, standalone_mode=False)


def test_hosts_come_in_order_with_where_it_is_written(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'server = "https://origin.test"\n[host."http://mirror.test:5000"]\ncapabilities = ["pull"]\n'
        f'[host."http://mirror.test:5000".header]\nx-key = "{SECRET}"\n',
    )
    auth = base64.b64encode(f"me:{SECRET}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"origin.test": {"auth": auth}}}))

    shown = plan(tmp_path)
    steps = json.loads(plan(tmp_path, "--json").stdout)["steps"]

    assert shown.return_value == 0, shown.output
    assert [step["url"] for step in steps] == ["http://mirror.test:5000/v2", "https://origin.test/v2"]
    assert [step["place"] for step in steps] == [f"{path}:2", f"{path}:1"]
    assert [step["asked_for"] for step in steps] == [["pull"], ["resolve", "pull"]]
    assert steps[0]["headers"] == ["x-key"] and "clear" in steps[0]["tls"]
    assert steps[1]["credentials"] == f"user me from {tmp_path}/config.json: auths"
    assert SECRET not in shown.output and SECRET not in json.dumps(steps) and auth not in shown.output


def test_without_files_the_registry_itself_is_asked(tmp_path: Path) -> None:
    shown = plan(tmp_path, reference="docker.io/library/busybox:1")

    assert shown.return_value == 0
    assert "https://registry-1.docker.io/v2  (default)" in shown.output
    assert f"looked in {tmp_path}/certs.d/docker.io" in shown.output


@pytest.mark.parametrize(
    ("text", "words", "usable"),
    [
        ('server = "ftp://a.test"', ":1: ", False),
        ('[host."https://m.test"]\nca = "none.pem"', "none.pem does not exist", False),
        ('[host."https://m.test"]\nskip_verfy = true', "unknown key", True),
        ('server = "https://m.test"\ncapabilities = ["pull"]', "no host may be asked to resolve", True),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, words: str, usable: bool) -> None:
    path = write(tmp_path, text)

    shown = plan(tmp_path)

    assert shown.return_value == (0 if usable else 1)
    assert words in shown.output and str(path) in shown.output


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://p.test:1", "http://p.test:1"),
        (f"http://me:{SECRET}@p.test:1", "http://p.test:1"),
        (f"me:{SECRET}@p.test:1", "http://p.test:1"),
        (f"http://me:a/{SECRET}://@{SECRET}@p.test:1/", "http://p.test:1/"),
        (f"https://{SECRET}@[::1]:1", "https://[::1]:1"),
    ],
)
@pytest.mark.parametrize("json", [False, True])
def test_a_proxy_is_named_without_its_password(tmp_path: Path, proxy: str, shown: str, json: bool) -> None:
    command = ["pull", "--plan", "--hosts-dir", str(tmp_path), "a.test/team/app:1", *(["--json"] if json else [])]
    made = CliRunner().invoke(windlass, command, env={"DOCKER_CONFIG": str(tmp_path), "https_proxy": proxy})

    assert f"{shown}\n" in made.output or f'"{shown}"' in made.output
    assert SECRET not in made.output and "me:" not in made.output

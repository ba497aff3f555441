"""`--format`: templates as docker's users write them, tables and JSON."""

from __future__ import annotations

import pytest

from windlass.errors import InvalidArgument
from windlass_client import format as form
from windlass_client.templates import Template

BOX = {
    "Name": "box",
    "State": {"Status": "running", "Pid": 7, "Dead": False},
    "Labels": {"a.b": "1", "c": "2"},
    "Ports": [{"HostPort": 80}, {"HostPort": 81}],
    "Cmd": ["sh", "-c"],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "box"),
        ("{{ .State.Status }}:{{.State.Pid}}", "running:7"),
        ("{{.State.Dead}}", "false"),
        ("{{json .State}}", '{"Status":"running","Pid":7,"Dead":false}'),
        ("{{.State | json}}", '{"Status":"running","Pid":7,"Dead":false}'),
        ('{{index .Labels "a.b"}}', "1"),
        ('{{.Labels "a.b"}}', "1"),
        ("{{(index .Ports 1).HostPort}}", "81"),
        ("{{range .Ports}}{{.HostPort}} {{end}}", "80 81 "),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a.b=1;c=2;"),
        ("{{range $i, $p := .Ports}}{{$i}}:{{$p.HostPort}}/{{$.Name}} {{end}}", "0:80/box 1:81/box "),
        ("{{if .State.Dead}}dead{{else}}alive{{end}}", "alive"),
        ("{{with .State}}{{.Pid}}{{end}}", "7"),
        ('{{join .Cmd ","}} {{len .Cmd}}', "sh,-c 2"),
        ('{{if eq .Name "box"}}yes{{end}}', "yes"),
        ("{{if and .Name (not .State.Dead)}}yes{{end}}", "yes"),
        ('{{printf "%s-%d" .Name .State.Pid}}', "box-7"),
        ("{{upper .Name}}", "BOX"),
        ("a {{- .Name -}} b", "aboxb"),
        ("{{.Cmd}} {{.Labels}}", "[sh -c] map[a.b:1 c:2]"),
        ("plain", "plain"),
        ("{{/* note */}}x", "x"),
    ],
)
def test_a_template_gives_the_text_that_docker_gives(template: str, text: str) -> None:
    assert Template(template).render(BOX) == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Nme}}", "field .Nme does not exist; known are"),
        ("{{range .Cmd}}", "without {{end}}"),
        ("{{end}}", "without a block"),
        ("{{.Name", "has no end"),
        ("{{frob .Name}}", "function 'frob' is not known"),
        ("{{.Name ?}}", "not understood"),
        ("{{range .Name}}{{end}}", "neither a list nor a map"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(template: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Template(template).render(BOX)
    assert words in str(caught.value)


ROWS = [{"Names": "box", "Image": "busybox", "Size": "1B"}, {"Names": "other", "Image": "a", "Size": "2B"}]
COLUMNS = {"Names": "NAMES", "Image": "IMAGE"}


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("", "NAMES   IMAGE\nbox     busybox\nother   a\n"),
        ("table {{.Image}}\\t{{.Names}}", "IMAGE     NAMES\nbusybox   box\na         other\n"),
        ("table {{.Size}}", "SIZE\n1B\n2B\n"),
        ("{{.Names}}\\t{{.Size}}", "box\t1B\nother\t2B\n"),
        ("json", '{"Names":"box","Image":"busybox","Size":"1B"}\n{"Names":"other","Image":"a","Size":"2B"}\n'),
    ],
)
def test_rows(capsys: pytest.CaptureFixture[str], format: str, text: str) -> None:
    form.rows(ROWS, COLUMNS, format)
    assert capsys.readouterr().out == text


def test_a_name_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    form.rows([{"Names": "\x1b[2Jx"}], {"Names": "NAMES"}, "{{.Names}}")
    form.rows([{"Names": "\x1b[2Jx"}], {"Names": "NAMES"})
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 21, "3 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_an_age_is_said_as_docker_says_it(seconds: float, text: str) -> None:
    assert form.age(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0B"), (999, "999B"), (13312, "13.3kB"), (7_800_000, "7.8MB")])
def test_a_size_is_said_as_docker_says_it(count: int, text: str) -> None:
    assert form.size(count) == text

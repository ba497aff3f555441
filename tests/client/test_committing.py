"""`commit --change`: a Dockerfile's instructions, as docker reads them."""

from __future__ import annotations

import pytest

from windlass.errors import InvalidArgument
from windlass_client.committing import instructions
from windlass_client.committing.diffing import without_places


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ('CMD ["a", "b c"]', "Cmd", ["a", "b c"]),
        ("cmd echo hi", "Cmd", ["/bin/sh", "-c", "echo hi"]),
        ("ENTRYPOINT []", "Entrypoint", []),
        ("ENV B=c 'D=e f'", "Env", ["A=old", "B=c", "D=e f"]),
        ("ENV A new value", "Env", ["A=new value"]),
        ("LABEL k=v l=w", "Labels", {"k": "v", "l": "w"}),
        ("EXPOSE 80 53/udp", "ExposedPorts", {"80/tcp": {}, "53/udp": {}}),
        ('VOLUME ["/a"]', "Volumes", {"/a": {}}),
        ("VOLUME /a /b", "Volumes", {"/a": {}, "/b": {}}),
        ("WORKDIR sub", "WorkingDir", "/work/sub"),
        ("WORKDIR /abs", "WorkingDir", "/abs"),
        ("USER nobody", "User", "nobody"),
        ("STOPSIGNAL SIGINT", "StopSignal", "SIGINT"),
        ("ONBUILD RUN true", "OnBuild", ["RUN true"]),
    ],
)
def test_instructions(text: str, key: str, value: object) -> None:
    """What is there already is kept, unless the instruction replaces it."""
    config: instructions.Config = {"Env": ["A=old"], "WorkingDir": "/work"}
    instructions.apply(config, text)
    assert config[key] == value


@pytest.mark.parametrize("text", ["RUN true", "CMD", "CMD [1]", 'CMD ["a"', "ENV A=b C", "LABEL 'x", "", "FROM x"])
def test_bad_instructions(text: str) -> None:
    """One line says what is wrong."""
    with pytest.raises(InvalidArgument):
        instructions.apply({}, text)


def test_what_a_runtime_makes_is_no_change() -> None:
    """Nor is a directory that it made something in; one with a change of its own is."""
    found = [("/etc", "C"), ("/etc/hosts", "A"), ("/run", "A"), ("/new", "A")]
    assert without_places(found, {"/etc/hosts", "/run"}) == [("/new", "A")]
    found.append(("/etc/passwd", "C"))
    assert without_places(found, {"/etc/hosts", "/run"}) == [("/etc", "C"), ("/new", "A"), ("/etc/passwd", "C")]

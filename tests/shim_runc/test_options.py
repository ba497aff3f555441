"""The options that come with a task, in each form that clients send."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from windlass import errors
from windlass_shim_runc import messages, placement
from windlass_shim_runc.execspec import with_terminal
from windlass_shim_runc.generic import GenericOptions
from windlass_shim_runc.messages import AnyMessage, Options
from windlass_shim_runc.options import GENERIC, runc_options

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the shim runs on Linux only")


def generic(body: str, path: str = "") -> AnyMessage:
    """Return options as TOML."""
    return AnyMessage(type_url=GENERIC, value=GenericOptions(config_body=body.encode(), config_path=path).encode())


def test_none_are_the_defaults() -> None:
    assert runc_options(AnyMessage()) == Options()


@pytest.mark.parametrize("prefix", ["", "type.googleapis.com/", "types.containerd.io/"])
def test_they_come_under_any_prefix(prefix: str) -> None:
    wanted = Options(binary_name="crun", systemd_cgroup=True, io_uid=7)
    assert runc_options(AnyMessage(type_url=prefix + Options._name, value=wanted.encode())) == wanted


def test_toml_has_containerds_names(tmp_path: Path) -> None:
    """In any case, in the request or in a file; the request's own come first."""
    text = 'BinaryName = "crun"\nsystemdcgroup = true\nIoUid = 7\n'
    wanted = Options(binary_name="crun", systemd_cgroup=True, io_uid=7)
    file = tmp_path / "options.toml"
    file.write_text(text)
    assert runc_options(generic(text)) == wanted
    assert runc_options(generic("", str(file))) == wanted
    assert runc_options(generic('Root = "/r"', str(file))) == Options(root="/r")
    assert runc_options(generic("")) == Options()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (AnyMessage(type_url="x.Y"), errors.FailedPrecondition, "options of type x.Y are not for this runtime"),
        (AnyMessage(type_url=Options._name, value=b"\xff"), errors.Error, "runtime options cannot be parsed"),
        (AnyMessage(type_url=GENERIC, value=b"\xff"), errors.InvalidArgument, "cannot be read as TOML"),
        (generic("= 1"), errors.InvalidArgument, "cannot be read as TOML"),
        (generic("", "/no/such/file"), errors.InvalidArgument, "cannot be read as TOML: .*No such file"),
        (generic("Colour = 1"), errors.InvalidArgument, "runtime option Colour = 1 is not one of runc's"),
        (generic("SystemdCgroup = 1"), errors.InvalidArgument, "SystemdCgroup = 1 is not one of runc's, or of another"),
        (generic("IoUid = true"), errors.InvalidArgument, "IoUid = True is not one"),
    ],
)
def test_what_is_wrong_is_named(options: AnyMessage, error: type[errors.Error], words: str) -> None:
    with pytest.raises(error, match=words):
        runc_options(options)


@pytest.mark.parametrize(
    ("group", "error", "words"),
    [
        ("/../etc", errors.InvalidArgument, "leads out of the cgroup file system"),
        ("a/../../b", errors.InvalidArgument, "leads out of the cgroup file system"),
        ("/no/such/group", errors.FailedPrecondition, "does not exist; make it first"),
    ],
)
def test_a_shim_cgroup_must_be_there(group: str, error: type[errors.Error], words: str) -> None:
    """Nothing is moved anywhere otherwise."""
    with pytest.raises(error, match=words):
        placement.join(group, 1)


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize(
    "spec",
    [
        b'{"terminal":true,"args":["sh"]}',
        b'{"args":["sh"],"terminal": true}',
        b'{"TERMINAL":true,"args":["sh"],"terminal":false}',
        rb'{"\u0074erminal":true,"args":["sh"]}',
        b'{"args":["sh"]}',
        b'{"args":["\\"terminal\\":true"]}',
    ],
)
def test_the_request_decides_whether_an_exec_has_a_terminal(spec: bytes, wanted: bool) -> None:
    """Whatever the spec says, in whatever spelling Go takes for it; nothing else of it changes."""
    import json

    before, after = json.loads(spec), json.loads(with_terminal(spec, wanted))
    said = [value for name, value in after.items() if name.lower() == "terminal"]
    assert (said or [False])[-1] is wanted
    assert len(said) <= 1
    assert after["args"] == before["args"]


def test_a_message_is_itself_after_the_wire() -> None:
    """Every field of the largest request, with its zero and without."""
    mounts = (messages.Mount(type="bind", source="/a", options=("ro", "")),)
    request = messages.CreateTaskRequest(id="box", bundle="/b", rootfs=mounts, terminal=True, checkpoint="/c")
    assert messages.decode(messages.CreateTaskRequest, request.encode()) == request
    assert messages.decode(messages.CreateTaskRequest, b"") == messages.CreateTaskRequest()

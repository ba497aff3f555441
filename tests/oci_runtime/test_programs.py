"""What is executed, and what is said where that cannot be: the words that clients of runc look for."""

from __future__ import annotations

import pytest
from oci_runtime.bundles import Runtime, Spec, spec

from windlass.errors import InvalidArgument
from windlass_oci_runtime.report import Failure


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("none", 'exec: "none": executable file not found in $PATH'),
        ("plain", 'exec: "plain": executable file not found in $PATH'),
        ("/none", 'exec: "/none": stat /none: no such file or directory'),
        ("/bin", 'exec: "/bin": permission denied'),
        ("/bin/plain", 'exec: "/bin/plain": permission denied'),
    ],
)
def test_a_program_that_cannot_be_executed(runtime: Runtime, program: str, words: str) -> None:
    (runtime.rootfs / "bin/plain").write_text("")
    (runtime.rootfs / "bin/plain").chmod(0o644)
    with pytest.raises(Failure) as caught:
        runtime.create(spec(program))
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/none\n", 'exec: "/bin/script": no such file or directory\n'),
        ("not a program", 'exec: "/bin/script": exec format error\n'),
    ],
)
def test_what_linux_does_not_execute_is_said_in_the_output(runtime: Runtime, text: str, words: str) -> None:
    """It is known only when the container has been started."""
    (runtime.rootfs / "bin/script").write_text(text)
    (runtime.rootfs / "bin/script").chmod(0o755)
    assert runtime.run(spec("/bin/script")) == (1, words)


def test_a_working_directory_that_is_missing_is_made(runtime: Runtime) -> None:
    document = spec("pwd")
    document["process"]["cwd"] = "/made/for/it"
    assert runtime.run(document) == (0, "/made/for/it\n")


def test_a_working_directory_that_only_root_may_enter(runtime: Runtime) -> None:
    """As by runc: it is entered before the user is changed."""
    (runtime.rootfs / "secret").mkdir(mode=0o700)
    document = spec("pwd")
    document["process"].update(cwd="/secret", user={"uid": 1000, "gid": 1000})
    document["process"]["capabilities"] = {}
    assert runtime.run(document) == (0, "/secret\n")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (["PATH=/bin", "A=1", "A=2"], "2,/root\n"),
        (["PATH=/bin", "HOME=/a", "HOME="], ",/root\n"),
        (["PATH=/bin", "HOME=", "HOME=/a"], ",/a\n"),
    ],
)
def test_of_variables_that_are_named_twice_the_last_value_counts(
    runtime: Runtime, environment: list[str], words: str
) -> None:
    document = spec("sh", "-c", "echo $A,$HOME")
    document["process"]["env"] = environment
    assert runtime.run(document) == (0, words)


def test_what_linux_does_not_know_yet_is_left_out(runtime: Runtime) -> None:
    """A capability, as by runc; and a limit that Python does not name is set."""
    document = spec("true")
    document["process"]["capabilities"]["bounding"] = ["CAP_KILL", "CAP_OF_THE_FUTURE"]
    document["process"]["rlimits"] = [{"type": "RLIMIT_LOCKS", "soft": 5, "hard": 5}]
    assert runtime.run(document)[0] == 0


def changed(**process: object) -> Spec:
    document = spec("true")
    document["process"].update(process)
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({key: value for key, value in spec("true").items() if key != "process"}, "process is missing"),
        ({**spec("true"), "process": {}}, "process.args is empty"),
        (changed(env=["PATH"]), "process.env has 'PATH', which is not NAME=value"),
        (changed(cwd="/a\0b"), "process.cwd has a NUL byte"),
        (changed(cwd="relative"), "process.cwd 'relative' is not an absolute path"),
        (changed(user={"umask": -1}), "process.user.umask -1 is not one of Linux"),
    ],
)
def test_a_process_that_cannot_be_is_refused_by_name(runtime: Runtime, document: Spec, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        runtime.create(document)

"""Checkpoints by criu: the OCI runtime's flags, and an error that says what criu said (docs/containerd 4.8)."""

# ruff: noqa: PTH103, PTH112, PTH117, PTH118, PTH123
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os

from windlass.errors import Error, FailedPrecondition, InvalidArgument
from windlass_api.ttrpc.framing import Malformed
from windlass_shim_runc import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from windlass_shim_runc.messages import AnyMessage, CheckpointOptions, CheckpointTaskRequest, Options

    class Program(Protocol):
        """What a job needs of the OCI runtime that is a program."""

        environment: dict[str, str]

        @property
        def is_runc(self) -> bool:
            """Whether it is runc, which finds criu by PATH."""

        async def run(self, verb: str, id: str, *flags: str, timeout: float) -> None:
            """Run a command to its end."""


TIMEOUT = 600.0
"""Every page of the container is written; the client's own deadline is the one that counts."""

MAX_LOG = 64 << 10
DUMP_LOG, RESTORE_LOG = "dump.log", "restore.log"

HARMLESS = "rlimit: Can't setup RLIMIT_NOFILE for self"
"""What criu 4 logs as an error, where it cannot have more descriptors, before it goes on without (criu/util.c)."""


def parse(options: AnyMessage) -> CheckpointOptions:
    """Return a request's options; without any, the defaults."""
    if options.type_url and options.type_url.rpartition("/")[2] != messages.CheckpointOptions._name:
        raise InvalidArgument(f"checkpoint options of type {options.type_url[:100]} are not known")
    try:
        return messages.decode(messages.CheckpointOptions, options.value)
    except Malformed as error:
        raise Error(f"checkpoint options cannot be parsed: {error}") from error


class Job:
    """Directories for one run of criu; its working directory goes afterwards unless the client chose it."""

    def __init__(self, runtime: Program, id: str, bundle: str, options: Options) -> None:
        self._runtime = runtime
        self._id = id
        self._bundle = bundle
        self._options = options

    async def dump(self, request: CheckpointTaskRequest) -> str:
        """Write a checkpoint and return where; raises Error, after which the container runs on."""
        options = parse(request.options)
        image = request.path or options.image_path or self._options.criu_image_path
        check_path("checkpoint", image)
        os.makedirs(image, mode=0o700, exist_ok=True)
        work = self._work(options.work_path)
        flags = ["--image-path", image, "--work-path", work, *dump_flags(options)]
        try:
            await self._runtime.run("checkpoint", self._id, *flags, timeout=TIMEOUT)
        except Error as error:
            raise self._explained(error, work, DUMP_LOG) from error
        finally:
            self._clean(work, options.work_path)
        return image

    def restore_flags(self, image: str, terminal: bool) -> list[str]:
        """Return the runtime's flags for a restore; what a checkpoint was allowed, its restore is."""
        work = self._work("")
        flags = ["--image-path", image, "--work-path", work, "--detach", "--no-subreaper"]
        flags += ["--tcp-established", "--ext-unix-sk", "--file-locks"]
        if terminal:
            flags.append("--shell-job")
        if self._options.no_pivot_root:
            flags.append("--no-pivot")
        return flags

    def explained_restore(self, error: Error) -> Error:
        """Return what to tell the client of a restore that failed."""
        return self._explained(error, self._place(""), RESTORE_LOG)

    def end_restore(self) -> None:
        """Clean up after a restore."""
        self._clean(self._place(""), "")

    def _work(self, chosen: str) -> str:
        self._require_criu()
        work = self._place(chosen)
        check_path("working directory", work)
        os.makedirs(work, mode=0o700, exist_ok=True)
        return work

    def _place(self, chosen: str) -> str:
        base = os.path.join(self._bundle, "work")
        default = os.path.join(base if os.path.isdir(base) else self._bundle, "criu-work")
        return chosen or self._options.criu_work_path or default

    def _clean(self, work: str, chosen: str) -> None:
        if not chosen and not self._options.criu_work_path:
            import shutil

            shutil.rmtree(work, ignore_errors=True)

    def _explained(self, error: Error, work: str, name: str) -> Error:
        """Keep criu's log in the bundle and put its first complaint into the error."""
        try:
            with open(os.path.join(work, name), "rb") as source:
                log = source.read(MAX_LOG)
        except OSError:
            return error if "criu" in str(error) else type(error)(f"{error}; criu left no log")
        kept = os.path.join(self._bundle, f"criu-{name}")
        with open(kept, "wb") as target:
            target.write(log)
        lines = [each for each in log.decode(errors="replace").splitlines() if "Error" in each and HARMLESS not in each]
        said = lines[0].strip() if lines else "nothing"
        return type(error)(f"{error}; criu said: {said}; its log is {kept}")

    def _require_criu(self) -> None:
        """Raise FailedPrecondition when runc would not find criu; crun has it built in."""
        path = self._runtime.environment.get("PATH", os.defpath)
        if self._runtime.is_runc and not any(
            os.access(os.path.join(place, "criu"), os.X_OK) for place in path.split(":")
        ):
            raise FailedPrecondition(f"criu was not found in {path}; install it or set the option CriuPath")


def check_path(what: str, path: str) -> None:
    """Raise InvalidArgument for a path that depends on where the shim happens to be."""
    if not os.path.isabs(path):
        raise InvalidArgument(f"{what} {path[:200]!r} is not an absolute path")


def dump_flags(options: CheckpointOptions) -> list[str]:
    """Return the runtime's flags for a checkpoint."""
    flags = [] if options.exit else ["--leave-running"]
    switches = {
        "--tcp-established": options.open_tcp,
        "--ext-unix-sk": options.external_unix_sockets,
        "--shell-job": options.terminal,
        "--file-locks": options.file_locks,
    }
    flags += [flag for flag, wanted in switches.items() if wanted]
    for namespace in options.empty_namespaces:
        flags += ["--empty-ns", namespace]
    if options.cgroups_mode:
        flags += ["--manage-cgroups-mode", options.cgroups_mode]
    if options.parent_path:
        flags += ["--parent-path", options.parent_path]
    return flags

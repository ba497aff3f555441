"""Shims that are executables of others: started, and cleaned up after, as by containerd (docs/containerd 4.3)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from windlass import __version__
from windlass.contracts.tasks import Exit
from windlass.contracts.values import Payload
from windlass.errors import DeadlineExceeded, Error, Unimplemented
from windlass.process import nofile
from windlass_api.containerd.runtime.bootstrap.v1 import bootstrap_pb2 as bootstrap_pb
from windlass_api.containerd.task.v3 import shim_pb2 as pb
from windlass_runtime_v2.bundle import Bootstrap, Bundle
from windlass_runtime_v2.settings import Deadlines, ShimSettings
from windlass_runtime_v2.wire import exit_of

logger = logging.getLogger(__name__)

LOG_LEVELS = {"trace": -8, "debug": -4, "info": 0, "warn": 4, "error": 8, "fatal": 10, "panic": 12}
MAX_SOCKET_DIR = 42
MAX_OUTPUT_SHOWN = 2000
BARE_OPTIONS = ("shim-runc-v1", "shim-runhcs-v1")
"""Shims that want the options on standard input and nothing else."""

NOT_AN_ANY = b"type with url"
"""What shims of containerd before 2.3 say of the message that newer ones insist on: they take it for options."""


class ForeignShims:
    """Executes shim binaries. Its methods block and are called in threads."""

    def __init__(self, settings: ShimSettings, deadlines: Deadlines) -> None:
        """Start shims with ``settings``."""
        self._settings = settings
        self._deadlines = deadlines
        self._old: set[str] = set()

    def start(self, bundle: Bundle, binary: str, options: Payload | None) -> Bootstrap:
        """Execute the shim's ``start`` and return what it answers; both are kept in the bundle.

        Raises Error with the shim's own words, DeadlineExceeded.
        """
        bundle.write_shim_binary(binary)
        bare = binary in self._old or any(name in binary for name in BARE_OPTIONS)
        data = encode_options(options) if bare else self._params(bundle, options)
        code, output, said = self._execute(bundle, binary, ["start"], data, self._deadlines.request)
        if code and not bare and NOT_AN_ANY in said:
            self._old.add(binary)
            code, output, said = self._execute(
                bundle, binary, ["start"], encode_options(options), self._deadlines.request
            )
        if code:
            shown = _shown(output + said)
            raise Error(f"shim {binary} of task {bundle.id} did not start (exit code {code}): {shown}")
        bootstrap = parse_result(output)
        bundle.write_bootstrap(bootstrap)
        return bootstrap

    def describe(self, binary: str, options: bytes) -> bytes:
        """Return the encoded RuntimeInfo that a shim prints for ``-info``. Raises Error with its own words."""
        timeout = self._deadlines.cleanup
        try:
            done = subprocess.run([binary, "-info"], input=options, capture_output=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise DeadlineExceeded(f"shim {binary} -info took over {timeout:g} s") from None
        except OSError as error:
            raise Error(f"cannot execute shim {binary}: {error.strerror}") from error
        if done.returncode:
            raise Error(f"shim {binary} -info ended with {done.returncode}: {_shown(done.stderr or done.stdout)}")
        return done.stdout

    def clean(self, bundle: Bundle, binary: str, seconds: float) -> Exit | None:
        """Execute the shim's ``delete``, which ends what a dead shim left. Raises Error when it fails."""
        action = ["-bundle", str(bundle.path), "delete"]
        code, output, said = self._execute(bundle, binary, action, b"", seconds)
        if code:
            raise Error(f"{binary} delete ended with {code}: {_shown(said)}")
        try:
            answer = pb.DeleteResponse.FromString(output)
        except DecodeError:
            return None
        return exit_of(answer, answer.pid)

    def _params(self, bundle: Bundle, options: Payload | None) -> bytes:
        settings = self._settings
        params = bootstrap_pb.BootstrapParams(
            instance_id=bundle.id,
            namespace=bundle.namespace,
            log_level=LOG_LEVELS.get(settings.log_level, 0),  # type: ignore[arg-type] # an open enum
            containerd_version=__version__,
            containerd_ttrpc_address=settings.ttrpc_address,
            containerd_grpc_address=settings.grpc_address,
            containerd_binary=_daemon_binary(),
        )
        if options is not None:
            value = AnyMessage(type_url=options.type_url, value=options.value)
            params.extensions.append(bootstrap_pb.Extension(value=value))
        if len(os.fsencode(settings.socket_dir)) <= MAX_SOCKET_DIR:
            params.socket_dir = str(settings.socket_dir)
        return params.SerializeToString()

    def _execute(
        self, bundle: Bundle, binary: str, action: list[str], data: bytes, timeout: float
    ) -> tuple[int, bytes, bytes]:
        settings = self._settings
        arguments = [binary, "-namespace", bundle.namespace, "-address", settings.grpc_address]
        arguments += ["-publish-binary", _daemon_binary(), "-id", bundle.id]
        if settings.log_level in ("debug", "trace"):
            arguments.append("-debug")
        try:
            # CPython starts it by vfork(2), since it has neither a preexec_fn nor another user.
            done = subprocess.run(
                nofile.limited(arguments + action),
                cwd=bundle.path,
                env=self._environment(bundle.namespace),
                input=data,
                capture_output=True,
                process_group=0,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeadlineExceeded(f"shim {binary} {action[-1]} of task {bundle.id} took over {timeout:g} s") from None
        except OSError as error:
            raise Error(f"cannot execute shim {binary} of task {bundle.id}: {error.strerror}") from error
        return done.returncode, done.stdout, done.stderr

    def _environment(self, namespace: str) -> dict[str, str]:
        environment = {"GOMAXPROCS": "2", **os.environ, "MAX_SHIM_VERSION": "2"}
        environment["TTRPC_ADDRESS"] = self._settings.ttrpc_address
        environment["GRPC_ADDRESS"] = self._settings.grpc_address
        environment["NAMESPACE"] = namespace
        for setting in self._settings.env:
            key, _, value = setting.partition("=")
            environment[key] = value
        return environment


def parse_result(output: bytes) -> Bootstrap:
    """Read what a shim's ``start`` printed: a message, a JSON object, or a bare address.

    Raises Unimplemented for a version to come.
    """
    # The message first and untrimmed: it may end in a byte that looks like a newline.
    with contextlib.suppress(DecodeError):
        result = bootstrap_pb.BootstrapResult.FromString(output)
        if result.version and result.address:
            return _checked(Bootstrap(result.address, result.version, result.protocol or "ttrpc"))
    text = output.decode(errors="replace").strip()
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
        if isinstance(value, dict):
            found = {str(key).lower(): item for key, item in value.items()}
            version = found.get("version")
            if isinstance(version, int) and version >= 2:
                return _checked(Bootstrap(str(found.get("address", "")), version, str(found.get("protocol", ""))))
    return Bootstrap(text, version=2)


def _checked(bootstrap: Bootstrap) -> Bootstrap:
    if bootstrap.version > 3:
        raise Unimplemented(f"shim speaks version {bootstrap.version} of the protocol, known are 2 and 3")
    return bootstrap


def encode_options(options: Payload | None) -> bytes:
    """Return options as the Any that shims read, nothing when there are none."""
    if options is None:
        return b""
    return AnyMessage(type_url=options.type_url, value=options.value).SerializeToString()


def _shown(output: bytes) -> str:
    return output.decode(errors="replace").strip()[:MAX_OUTPUT_SHOWN]


def _daemon_binary() -> str:
    program = Path(sys.argv[0]).absolute()
    return str(program) if program.is_file() else sys.executable

"""Reads the options that come with a task: containerd.runc.v1.Options, however the client spells them."""

from __future__ import annotations

from windlass.errors import Error, FailedPrecondition
from windlass_api.ttrpc.framing import Malformed
from windlass_shim_runc import generic, messages

GENERIC = "runtimeoptions.v1.Options"
"""What clients send for runtimes whose names they do not know."""


def runc_options(options: messages.AnyMessage) -> messages.Options:
    """Return a request's options; without any, the defaults."""
    if not options.type_url:
        return messages.Options()
    name = options.type_url.rpartition("/")[2]
    if name == GENERIC:
        return generic.parse(options.value)
    if name != messages.Options._name:
        raise FailedPrecondition(
            f"options of type {options.type_url[:100]} are not for this runtime; send {messages.Options._name}"
        )
    try:
        return messages.decode(messages.Options, options.value)
    except Malformed as error:
        raise Error(f"runtime options cannot be parsed: {error}") from error

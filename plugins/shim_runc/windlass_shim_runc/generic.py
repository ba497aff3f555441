"""Reads runtimeoptions.v1.Options, whose content is TOML with containerd's names of runc's options."""

from __future__ import annotations

from windlass.errors import InvalidArgument
from windlass_api.ttrpc.framing import Malformed
from windlass_shim_runc import disk, messages

NAMES = {key.replace("_", ""): key for key, _ in messages.Options._fields.values()}
"""By the name in lower case without its word breaks: NoPivotRoot is no_pivot_root."""


class GenericOptions(messages.Message):
    """runtimeoptions.v1.Options."""

    type_url = ""
    config_path = ""
    config_body = b""


def parse(data: bytes) -> messages.Options:
    """Return the options in ``config_body``, else in the file ``config_path``; raises InvalidArgument."""
    import tomllib  # which few shims ever need

    try:
        generic = messages.decode(GenericOptions, data)
        text = generic.config_body or (disk.read(generic.config_path) if generic.config_path else b"")
        table = tomllib.loads(text.decode())
    except (Malformed, OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"runtime options cannot be read as TOML: {error}") from error
    options = messages.Options()
    for name, value in table.items():
        key = NAMES.get(name.lower(), "")
        if not key or type(value) is not type(getattr(options, key)):
            raise InvalidArgument(
                f"runtime option {name[:76]} = {value!r:.100} is not one of runc's, or of another type"
            )
        setattr(options, key, value)
    return options

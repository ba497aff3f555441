"""What a daemon says on the command line of `containerd-shim-windlass-v1` (docs/containerd 4.3)."""

from __future__ import annotations

VALUES = ("namespace", "id", "address", "publish-binary", "bundle", "socket")
SWITCHES = ("debug", "info", "v", "version")


class Flags:
    """What a daemon says on the command line; every flag may be missing."""

    def __init__(self) -> None:
        self.namespace = self.id = self.address = self.publish_binary = self.bundle = self.action = ""
        self.version = self.info = self.debug = False


class Refused(Exception):
    """The call is wrong; the message is all the daemon shows."""


def parse(arguments: list[str]) -> Flags:
    """Read flags as Go's flag package does: one dash or two, a value after ``=`` or as the next word."""
    flags, words = Flags(), list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            flags.action = word
            break
        name, given, value = word.lstrip("-").partition("=")
        if name in SWITCHES:
            setattr(flags, "version" if name == "v" else name, value.lower() not in ("0", "f", "false"))
        elif name in VALUES:
            if not given:
                if not words:
                    raise Refused(f"flag -{name} needs a value")
                value = words.pop(0)
            setattr(flags, name.replace("-", "_"), value)
        else:
            raise Refused(
                f"flag {word[:100]!r} is not known; flags are {', '.join('-' + n for n in VALUES + SWITCHES)}"
            )
    return flags

"""The keys that leave a container without ending it: `--detach-keys`, ctrl-p ctrl-q otherwise."""

from __future__ import annotations

from collections.abc import Callable

from windlass.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse(text: str) -> bytes:
    """Return the bytes of ``ctrl-p,ctrl-q`` or ``a,b``. Raises InvalidArgument."""
    return bytes(_key(word, text) for word in (text or DEFAULT).split(","))


def _key(word: str, text: str) -> int:
    if len(word) == 1 and word.isascii():
        return ord(word)
    key = word.removeprefix("ctrl-")
    if len(key) == 1 and key != word:
        if "a" <= key <= "z":
            return ord(key) - ord("a") + 1
        if key in SPECIAL:
            return SPECIAL[key]
    raise InvalidArgument(f"detach keys {text[:40]!r} are not like ctrl-p,ctrl-q or a,b: {word[:20]!r} is no key")


class Watcher:
    """Passes typed bytes on, except the keys, which it reports; keys that may be their beginning wait."""

    def __init__(self, keys: bytes, found: Callable[[], None]) -> None:
        self._keys = keys
        self._found = found
        self._seen = 0

    def __call__(self, data: bytes) -> bytes:
        """Return what is to be passed on."""
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    self._seen = 0
                    self._found()
                    return bytes(out)
                continue
            out += self._keys[: self._seen]
            self._seen = 1 if byte == self._keys[0] else 0
            if not self._seen:
                out.append(byte)
        return bytes(out)

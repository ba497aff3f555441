"""One zygote for every package whose entries are run: else all children would have the imports of all."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

from windlass.contracts.zygote import Child, Zygote
from windlass.errors import Unavailable
from windlass.typing import override
from windlass_zygote.spawner import ForkingZygote


class ZygotePerPackage(Zygote):
    """Keeps a zygote for each top-level package, made when it is first named."""

    def __init__(self, executable: str = sys.executable) -> None:
        """Run zygotes by ``executable``."""
        self._executable = executable
        self._lock = threading.Lock()
        self._zygotes: dict[str, ForkingZygote] = {}
        self._closed = False

    @override
    def preload(self, modules: Sequence[str]) -> None:
        # Each module by its package's zygote, which starts now.
        for package in {package_of(module) for module in modules}:
            self._zygote(package).preload([module for module in modules if package_of(module) == package])

    @override
    def spawn(self, entry: str, arguments: Sequence[str], descriptors: Sequence[int], timeout: float = 10.0) -> Child:
        return self._zygote(package_of(entry)).spawn(entry, arguments, descriptors, timeout)

    def close(self) -> None:
        """Let the zygotes end; children that they forked live on."""
        with self._lock:
            self._closed = True
            zygotes = list(self._zygotes.values())
        for zygote in zygotes:
            zygote.close()

    def _zygote(self, package: str) -> ForkingZygote:
        with self._lock:
            if self._closed:
                raise Unavailable("the zygote is closed: the daemon is stopping")
            if package not in self._zygotes:
                self._zygotes[package] = ForkingZygote(self._executable)
            return self._zygotes[package]


def package_of(name: str) -> str:
    """Return the top-level package of ``"package.module:function"`` or ``"package.module"``."""
    return name.partition(":")[0].partition(".")[0]

"""The init process of a PID namespace that a pod's containers share: it reaps what they leave, and nothing else.

Runs as a fork of the zygote, so it imports little.
"""

from __future__ import annotations

import os
import signal

MODULE = "windlass_sandboxer.reaper"
ENTRY = f"{MODULE}:serve"


def serve(arguments: list[str], descriptors: list[int]) -> int:
    """Make the namespace with its init, and end; the init's pid on the host goes to the first descriptor.

    The other descriptors are namespaces to be in, the first a user namespace if the argument is "user". They are not
    arguments, which every container of the pod would see.
    """
    from windlass_linux import calls as linux

    answer, *namespaces = descriptors
    if arguments:
        from windlass_sandboxer.owned import enter

        enter(namespaces)
    else:
        for namespace in namespaces:
            linux.setns(namespace)
    linux.unshare(linux.CLONE_NEWPID)
    child = os.fork()
    if child:
        os.write(answer, b"%d" % child)
        return 0
    for descriptor in descriptors:
        os.close(descriptor)
    linux.set_name("windlass-pod")
    _reap()
    return 0


def _reap() -> None:
    """Reap children for ever. As the init of its namespace it gets no signal from inside that it does not handle."""
    # Blocked, so that none comes between reaping and waiting.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        signal.sigwait({signal.SIGCHLD})

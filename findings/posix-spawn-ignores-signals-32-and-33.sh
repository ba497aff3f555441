#!/bin/bash
# glibc 2.36, GNU Make 4.3, CPython 3.11: programs that posix_spawn(3) starts ignore signals 32 and 33.
#
# An ignored signal stays ignored across execve(2). glibc keeps signals 32 and 33 for its threads. Its posix_spawn
# blocks every handler between vfork and exec, sets these two to "ignore" there, and leaves them so, unless the caller
# asks for their default by POSIX_SPAWN_SETSIGDEF. Callers that ask for nothing, or for a few signals by name, start
# programs that differ from those that fork(2) and execve(2) start: GNU Make, and Python's os.posix_spawn, whose
# argument setsigdef refuses 32 and 33 as invalid. So does subprocess.run with close_fds=False and a path.
#
# Seen: SigIgn in /proc/self/status is 0000000180000000 under make and os.posix_spawn, 0000000000000000 under a shell.
# Exits with 1 if this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" && cd "$work"
apt-get download -q make=4.3-4.1 >/dev/null 2>&1 || { apt-get update -q >/dev/null && apt-get download -q make=4.3-4.1 >/dev/null; }
dpkg -x make_4.3-4.1_*.deb "$work"
printf 'all:\n\t@grep SigIgn /proc/self/status\n' >Makefile
cat >spawn.py <<'PYTHON'
import os
import signal

names = [signal.SIGPIPE, signal.SIGXFSZ]
pid = os.posix_spawn("/bin/grep", ["grep", "SigIgn", "/proc/self/status"], os.environ, setsigdef=names)
os.waitpid(pid, 0)
PYTHON

by_shell=$(sh -c 'grep SigIgn /proc/self/status; true' | cut -f2)
by_make=$(usr/bin/make | cut -f2)
by_python=$(python3 spawn.py | cut -f2)
echo "$(getconf GNU_LIBC_VERSION); $(usr/bin/make --version | head -n 1); $(python3 --version)"
echo "SigIgn under a shell $by_shell, under make $by_make, under os.posix_spawn $by_python"
[ "$by_shell" = 0000000000000000 ] && [ "$by_make" = 0000000180000000 ] && [ "$by_python" = 0000000180000000 ]

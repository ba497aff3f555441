# shellcheck shell=bash
. /windlass/tests/compat/installing/prelude.sh
python3 -m venv /tmp/part
pip() { /tmp/part/bin/pip install -q --no-index --find-links /built "$@"; }
pip windlass-kernel
! /tmp/part/bin/windlassd --root /tmp/r --state /tmp/s >/tmp/said 2>&1
grep -q "no plugin is installed: pip install windlass brings all of ours" /tmp/said && check kernel
pip windlass-events
! /tmp/part/bin/windlassd --root /tmp/r --state /tmp/s >/tmp/said 2>&1
grep -q "no server is installed, so no client could connect: pip install windlass brings" /tmp/said && check "no server"
pip windlass
/tmp/part/bin/windlassd --root /tmp/r --state /tmp/s --address /tmp/w.sock >/tmp/log & daemon=$!
for _ in $(seq 600); do /tmp/part/bin/windlass -a /tmp/w.sock version >/dev/null 2>&1 && break; sleep 0.1; done
/tmp/part/bin/windlass -a /tmp/w.sock plugins ls | grep -q overlayfs && check whole
stop

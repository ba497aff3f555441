# shellcheck shell=bash
# Sourced by the scripts of this directory, which scripts/fresh-debian runs.
set -eu
export PATH=/usr/local/bin:$PATH
exec 3>&2 2>&1

start() {
    windlassd >>/tmp/log 2>&1 & daemon=$!
    for _ in $(seq 600); do windlass version >/dev/null 2>&1 && return; sleep 0.1; done
    cat /tmp/log; exit 1
}
stop() { kill "$daemon"; wait "$daemon" || true; }
# What a system has, but for what every package leaves: dpkg's lists, logs, caches.
files() {
    find / /var/lib -xdev \( -path /tmp -o -path /root -o -path /windlass -o -path /built -o -path /later \
        -o -path /var/lib/dpkg -o -path /var/log -o -path /var/cache \) -prune -o -print | LC_ALL=C sort
}
check() { echo "ok $1"; }
box() {
    python3 /windlass/scripts/demo_image.py /tmp/image.tar example.org/demo:1 >/dev/null
    windlass image import /tmp/image.tar >/dev/null 2>&1
    windlass run -d --net-host --name box example.org/demo:1 sh -c 'trap "exit 7" TERM; while :; do sleep 0.1; done' >/dev/null
    pid=$(box_pid)
}
box_pid() { windlass exec box cat /proc/1/stat >/dev/null && pgrep -f 'trap "exit 7"' | head -1; }
still_there() { [ "$(box_pid)" = "$pid" ]; }
end_box() { windlass rm --force box >/dev/null; }
mkdir /opt/other # dpkg removes a directory that is empty, whoever has made it
files >/tmp/before

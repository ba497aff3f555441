# shellcheck shell=bash
. /windlass/tests/compat/installing/prelude.sh
dpkg -i /built/windlass_*.deb
windlassd --version | grep -q 0.1.0
windlass config check
[ -e /usr/share/man/man1/windlass-run.1.gz ] && [ -x /usr/bin/containerd-shim-windlass-v1 ]
[ -z "$(dpkg -V windlass)" ] && check installed
start; box
[ -z "$(dpkg -V windlass)" ] && [ -z "$(find /opt/windlass -newer /tmp/image.tar)" ] && check "runs without writing to its files"
echo '# mine' >>/etc/windlass/config.toml

dpkg -i --force-confold /later/windlass_*.deb
windlassd --version | grep -q 0.1.1
tail -1 /etc/windlass/config.toml | grep -q mine && check "upgraded, configuration kept"
still_there && check "the old daemon serves during the upgrade"
stop; start
still_there && check "the new daemon serves the old shim"

stop
dpkg -r windlass
kill -0 "$pid" && check "a container outlives the package"
[ -e /etc/windlass/config.toml ] && [ ! -e /opt/windlass ] && [ ! -e /usr/bin/windlass ] && check removed
dpkg -P windlass
grep -q . /var/lib/windlass/*/meta.db && check "a purge spares data of containers that run"

dpkg -i /later/windlass_*.deb
start
still_there && check "a later installation finds it"
end_box; stop
dpkg -P windlass
files >/tmp/after
diff /tmp/before /tmp/after && check "nothing is left"

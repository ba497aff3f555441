# shellcheck shell=bash
. /windlass/tests/compat/installing/prelude.sh
prefix=/srv/wind
install() { /windlass/scripts/install --prefix $prefix "$@"; }

install --from /built
windlassd --version | grep -q 0.1.0 && [ "$(readlink /usr/local/bin/windlassd)" = $prefix/bin/windlassd ] && check installed
start; box
[ -z "$(find $prefix -newer /tmp/image.tar)" ] && check "runs without writing to its files"
echo '# mine' >>/etc/windlass/config.toml

install --from /built
still_there && check "the old daemon serves during the upgrade"
stop; start
still_there && tail -1 /etc/windlass/config.toml | grep -q mine && check "the new daemon serves the old shim"

! install --uninstall >/tmp/said 2>&1
grep -q "1 containers are there, such as $CONTAINERD_NAMESPACE/.*: remove them first" /tmp/said &&
    check "containers are not left by accident"
! install --uninstall --force >/tmp/said 2>&1
grep -q "windlassd is running" /tmp/said && check "a daemon is not removed while it runs"
end_box; stop
install --uninstall >/tmp/said
grep -q "/etc/windlass stays; --purge" /tmp/said && [ ! -e /usr/local/bin/windlass ] && check "data stays"

# Sourced by the scripts of this directory: words to the user, Debian packages, a Python that is new enough.
# shellcheck shell=bash

name=$(basename "$0")
say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 1; }

LOCK_TIMEOUT=300
apt_log=$(mktemp)
trap 'rm -f "$apt_log"' EXIT

# Runs apt-get; waits for another one that is at work, as apt-get itself does for only some of its locks.
apt() {
    local told='' until=$((SECONDS + LOCK_TIMEOUT))
    until apt-get -q -o "DPkg::Lock::Timeout=$LOCK_TIMEOUT" "$@" >"$apt_log" 2>&1; do
        grep -q 'Could not get lock' "$apt_log" && [ "$SECONDS" -lt "$until" ] || return 1
        [ -n "$told" ] || say "waiting for another apt-get, at most $LOCK_TIMEOUT s"
        told=yes
        sleep 2
    done
}

# Runs apt-get, and once more with new lists: those of a fresh machine are empty, those of an old one name what is gone.
apt_anew() { apt "$@" || { apt update && apt "$@"; }; }

no_packages() { tail -n 5 "$apt_log" >&2; die "apt-get could not get $*; the last it said is above"; }

install_packages() {
    command -v dpkg-query >/dev/null || return 0 # not Debian: the user has to know what to install
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "Debian packages are missing: run \`apt-get install ${missing[*]}\` as root, then this again"
    say "installing ${missing[*]}, which takes about a minute"
    export DEBIAN_FRONTEND=noninteractive
    apt_anew install -y --no-remove --no-install-recommends "${missing[@]}" || no_packages "${missing[@]}"
}

find_python() {
    local python
    for python in /usr/bin/python3.11 /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
        if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
            "$python" -c 'import ensurepip' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    die "no Python 3.11 or newer with venv: on Debian 12, \`apt-get install python3-venv\` as root"
}

# make_environment PYTHON FINAL STAGE PIP-ARGUMENT…: makes at STAGE the virtual environment that is to be at FINAL.
# Its files have the time $SOURCE_DATE_EPOCH, and nothing in them says where it was made.
make_environment() {
    local python=$1 final=$2 stage=$3 script
    shift 3
    "$python" -m venv "$stage"
    "$stage/bin/python" -m pip install -qq --disable-pip-version-check --no-compile "$@" >&2 || return 1
    "$stage/bin/python" -m pip uninstall -qq -y setuptools >&2
    rm -f "$stage"/bin/[Aa]ctivate* "$stage"/bin/easy_install*
    find "$stage" -name __pycache__ -prune -exec rm -r {} +
    for script in "$stage"/bin/* "$stage/pyvenv.cfg"; do
        [ -L "$script" ] || sed -i "s|$stage|$final|g" "$script"
    done
    # before they are compiled: a compiled file has the time of its source
    find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    env -u SOURCE_DATE_EPOCH PYTHONHASHSEED=0 "$stage/bin/python" -m compileall -q -j 0 -s "$stage" -p "$final" "$stage/lib" >&2
    find "$stage" -path '*/__pycache__*' -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

# The time of the last commit, so that one commit gives one set of files.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)}"
export SOURCE_DATE_EPOCH

#!/bin/sh
# Makes the virtual environment $1 (where there is none that works) and installs the lock file $2 into it.
# On Debian and Ubuntu it also installs python3-venv when that is missing and it may (root, or sudo without a
# password). PYTHON names the interpreter to use; it must be 3.11 or newer.
set -eu

venv=$1
lock=$2

fail() {
    echo "setup: $*" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    if [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON is not Python 3.11 or newer"
    fi
    fail "no Python 3.11 or newer was found; install one (Debian 12, Ubuntu 24.04 and later have it as" \
        "python3), or name it: make PYTHON=/path/to/python3"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

may_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

if ! { [ -x "$venv/bin/python" ] && is_new_enough "$venv/bin/python" \
    && "$venv/bin/python" -c 'import pip' 2>/dev/null; }; then
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        may_install || fail "Python's venv is not installed. Run as root: apt-get install $version"
        echo "setup: installing $version"
        as_root apt-get -qq update
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$version" \
            >/dev/null
    fi
    echo "setup: making the virtual environment $venv"
    "$python" -m venv --clear "$venv"
fi

echo "setup: installing $lock"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r "$lock"

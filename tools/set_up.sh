#!/bin/sh
# Makes the virtual environment DIR with exactly the releases of constraints.txt: tools/set_up.sh DIR [EXTRAS]
#
# EXTRAS are some of pyproject.toml's optional dependencies, e.g. dev or dev,tensorflow. Debian splits the venv module off
# python3; where it is missing it is installed (by root), or virtualenv is used if there is one, or the reader is told
# what to do.
set -eu

directory=$1
extras=${2:-}
python=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)

fail() {
    echo "set-up: $*" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "$python not found: install Python 3.11 or newer, or say make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: Python 3.11 or newer is needed; say make PYTHON=/path/to/python3"

has_venv() {
    "$python" -c 'import venv, ensurepip' >/dev/null 2>&1
}

make_environment() {
    if has_venv; then
        "$python" -m venv --clear "$directory"
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "set-up: installing python3-venv" >&2
        { apt-get install -y -q python3-venv || { apt-get update -q && apt-get install -y -q python3-venv; }; } >&2 ||
            fail "apt-get could not install python3-venv"
        has_venv || fail "$python still has no venv module; say make PYTHON=/usr/bin/python3"
        "$python" -m venv --clear "$directory"
    elif "$python" -m virtualenv --version >/dev/null 2>&1; then
        "$python" -m virtualenv --clear "$directory"
    elif "$python" -m pip --version >/dev/null 2>&1 && "$python" -m venv --without-pip --clear "$directory" 2>/dev/null; then
        "$python" -m pip --python "$directory/bin/python" install --quiet pip
    else
        fail "$python has no venv module: run 'sudo apt-get install python3-venv', then make again"
    fi
}

# Taken anew if it is not whole, e.g. after an interruption or when the system's Python has changed.
"$directory/bin/python" -m pip --version >/dev/null 2>&1 || make_environment
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$root/constraints.txt" --editable "$root${extras:+[$extras]}" ||
    fail "the dependencies could not be installed; the messages above say why"

# So that the first runs are as fast as later ones, also where Python is told to write no bytecode.
# A folder that cannot be written costs this speed and nothing else.
"$directory/bin/python" -m compileall -q "$root/ml4f" || true

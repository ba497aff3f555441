#!/usr/bin/env bash
# mypy 2.4.1 (mypyc), setuptools 84.2.1, Python 3.11: a module that is compiled without any message cannot be imported
# if a class in it has an annotated field of type `memoryview`. The same source runs as plain Python; with `bytes` in
# place of `memoryview` the compiled module is imported, too.
#
# Seen:
#   plain: 3
#   compiled with memoryview: KeyError: 'memoryview'
#   compiled with bytes: 3
#
# Needs python3-venv, python3-dev and a C compiler. Exits with 1 if it behaves otherwise.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check mypy==2.4.1 setuptools==84.2.1

source_of() {
    cat <<PYTHON
from dataclasses import dataclass


@dataclass
class Chunk:
    data: $1


def length() -> int:
    return len(Chunk($1(b"abc")).data)
PYTHON
}

compile_module() {
    venv/bin/python - "$1" >log 2>&1 <<'PYTHON' || { cat log; exit 1; }
import sys
from mypyc.build import mypycify
from setuptools import setup

name = sys.argv[1]
setup(name=name, ext_modules=mypycify([f"{name}.py"]), script_args=["build_ext", "--inplace"])
PYTHON
    mkdir "$1.only" && mv "$1".*.so "$1.only"
}

say() { # the result, or the last line of the traceback
    venv/bin/python -c "import sys; sys.path[:0] = ['$1']; import $2; print($2.length())" 2>&1 | tail -n 1
}

source_of memoryview >views.py
source_of bytes >whole.py
plain=$(say . views)
compile_module views
compile_module whole
rm views.py whole.py
views=$(say views.only views) whole=$(say whole.only whole)
printf 'plain: %s\ncompiled with memoryview: %s\ncompiled with bytes: %s\n' "$plain" "$views" "$whole"
[ "$plain" = 3 ] && [ "$views" = "KeyError: 'memoryview'" ] && [ "$whole" = 3 ]

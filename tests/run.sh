#!/usr/bin/env bash
# Runs the tests from a bare clone: makes the environment if needed, checks the style, runs pytest with the arguments.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. common/support/environment.sh
make_environment pytest jinja2 markdown
if "$PYTHON" -m ruff --version >/dev/null 2>&1; then
    "$PYTHON" -m ruff check . || exit 1
fi
halves=() # two files at a time, where pytest-xdist is there and nobody asked for something else
if [ $# -eq 0 ] && "$PYTHON" -c 'import xdist' 2>/dev/null; then
    halves=(-n 2 --dist loadfile)
fi
exec "$PYTHON" -m pytest ${halves[@]+"${halves[@]}"} "$@"

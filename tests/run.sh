#!/usr/bin/env bash
# Run the tests from a bare clone: set up the environment, check the style, run pytest with the arguments given.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. common/support/environment.sh
make_environment pytest jinja2 markdown pylopdf_fonts_zh_cn
if "$PYTHON" -m ruff --version >/dev/null 2>&1; then
    "$PYTHON" -m ruff check --output-format concise . && "$PYTHON" -m ruff format --check . || exit 1
fi
workers=() # two test files at a time, where pytest-xdist is installed and no argument asks for something else
if [ $# -eq 0 ] && "$PYTHON" -c 'import xdist' 2>/dev/null; then
    workers=(-n 2 --dist loadfile)
fi
exec "$PYTHON" -m pytest ${workers[@]+"${workers[@]}"} "$@"

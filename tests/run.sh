#!/usr/bin/env bash
# Run the tests from a bare clone: set up the environment, check the style, run pytest with the arguments given.
# --faults: try every attack of tests/faults as often as it is worth, in half an hour; without it, each a few times.
set -u
case ${1:-} in
    -h | --help)
        echo "usage: bash tests/run.sh [--faults | PYTEST_ARGUMENT ...]"
        echo "--faults: try every attack of tests/faults as often as it is worth, in half an hour"
        exit 0
        ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
. common/support/environment.sh
make_environment pytest hypothesis jinja2 markdown pylopdf_fonts_zh_cn
if "$PYTHON" -m ruff --version >/dev/null 2>&1; then
    "$PYTHON" -m ruff check --output-format concise . && "$PYTHON" -m ruff format --check . || exit 1
fi
workers=() # two files at a time, or two kinds of attacks, where no argument asks for something else
case $* in
    '') workers=(-n 2 --dist loadfile) ;;
    --faults) workers=(-n 2 --dist loadgroup) && set -- --faults tests/faults ;;
esac
"$PYTHON" -c 'import xdist' 2>/dev/null || workers=()
exec "$PYTHON" -m pytest ${workers[@]+"${workers[@]}"} "$@"

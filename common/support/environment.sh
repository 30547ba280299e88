# Sourced by run_all.sh and tests/run.sh from the repository root. Leaves $PYTHON: a Python that can import what is needed.

needed='
import sys
assert sys.version_info >= (3, 10)
import torch, torchvision, numpy, matplotlib, sklearn, tqdm
assert tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 11)
'

can_import() { # can_import PYTHON [MODULE ...]
    local python=$1 extra
    shift
    extra=$(printf 'import %s\n' "$@")
    [ $# -gt 0 ] || extra=''
    "$python" -c "$needed$extra" >/dev/null 2>&1
}

make_environment() { # make_environment [MODULE ...]: $PYTHON with these modules too
    local base candidate
    for PYTHON in python3 python; do
        if command -v "$PYTHON" >/dev/null && can_import "$PYTHON" "$@"; then
            echo "environment: $("$PYTHON" -c 'import sys, torch; print(sys.executable, "with torch", torch.__version__)')"
            return
        fi
    done
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || [ ! -x .venv/Scripts/python.exe ] || PYTHON=.venv/Scripts/python.exe
    if [ -x "$PYTHON" ] && can_import "$PYTHON" "$@"; then
        echo "environment: .venv"
        return
    fi
    if [ -x "$PYTHON" ] && can_import "$PYTHON"; then
        echo "environment: .venv, installing the packages that the tests need"
        install_requirements "$@"
        return
    fi
    base=''
    for candidate in python3 python python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            base=$candidate
            break
        fi
    done
    if [ -z "$base" ]; then
        echo "error: no Python 3.10 or newer on the PATH; install one (https://www.python.org/downloads/) and run this again" >&2
        exit 1
    fi
    echo "environment: the current python3 lacks required packages; creating .venv with $("$base" --version)"
    if ! "$base" -m venv --clear .venv; then
        echo "error: $base cannot make a virtual environment (Debian: apt install python3-venv); then run this again" >&2
        exit 1
    fi
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON=.venv/Scripts/python.exe
    if [ "$(uname -s)" = Linux ] && [ ! -e /proc/driver/nvidia/version ] && ! command -v nvidia-smi >/dev/null; then
        echo "no NVIDIA driver: trying PyTorch's CPU wheels, a tenth of the size"
        # Where that index does not answer, pip may find builds elsewhere that do not match each other: the import tells.
        if ! "$PYTHON" -m pip install --retries 1 --timeout 20 --index-url https://download.pytorch.org/whl/cpu 'torch>=2.11' torchvision ||
            ! "$PYTHON" -c 'import torch, torchvision' 2>/dev/null; then
            echo "PyTorch's CPU wheels are unavailable; installing the default build (about 3 GB)"
            "$base" -m venv --clear .venv
        fi
    fi
    install_requirements "$@"
}

install_requirements() { # install_requirements [MODULE ...]: what tests need is left out where no module is asked for
    local wanted=requirements.txt
    if [ $# -eq 0 ]; then
        wanted=.venv/requirements.txt
        sed '/^# for tests only/,$d' requirements.txt >"$wanted"
    fi
    if ! "$PYTHON" -m pip install -r "$wanted" || ! can_import "$PYTHON" "$@"; then
        echo "error: the packages of requirements.txt could not be installed into .venv; see pip's output above, then run this again" >&2
        exit 1
    fi
}

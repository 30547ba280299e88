# Sourced by run_all.sh and tests/run.sh from the repository root. Sets $PYTHON to a Python that has the packages needed.

required='
import sys
assert sys.version_info >= (3, 10)
import torch, torchvision, numpy, matplotlib, sklearn, tqdm
assert tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 11)
'

# Prints the dependencies of pyproject.toml, and those of the dependency groups named, one per line.
list_requirements='
import sys
try:
    import tomllib
except ImportError:  # Python 3.10, whose pip has the same parser
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    document = tomllib.load(file)
print("\n".join(sum((document["dependency-groups"][name] for name in sys.argv[1:]), document["project"]["dependencies"])))
'

can_import() { # can_import PYTHON [MODULE ...]: whether it imports what the tasks need, and these modules
    local python=$1 extra=''
    shift
    [ $# -eq 0 ] || extra=$(printf 'import %s\n' "$@")
    "$python" -c "$required$extra" >/dev/null 2>&1
}

can_use_gpu() { # can_use_gpu PYTHON: whether its torch can use the NVIDIA card, if there is one and $want_gpu is set
    [ -z "${want_gpu:-}" ] || "$1" -c "$gpu_is_usable" >/dev/null 2>&1
}

gpu_is_usable='
import sys
from common.support import machine
sys.exit(bool(machine.cuda_problem()))
'

make_environment() { # make_environment [MODULE ...]: set $PYTHON, installing into .venv where no Python has the packages
    local base candidate index
    for PYTHON in python3 python; do
        if command -v "$PYTHON" >/dev/null && can_import "$PYTHON" "$@" && can_use_gpu "$PYTHON"; then
            echo "environment: $("$PYTHON" -c 'import sys, torch; print(sys.executable, "with torch", torch.__version__)')"
            return
        fi
    done
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
    index=$("$base" common/support/nvidia.py)
    set_venv_python
    # A .venv from the right index is not made again: where it cannot use the card, the program says why.
    if [ -x "$PYTHON" ] && can_import "$PYTHON" && { can_use_gpu "$PYTHON" || [ "$(cat .venv/index 2>/dev/null)" = "$index" ]; }; then
        if can_import "$PYTHON" "$@"; then
            echo "environment: .venv"
        else
            echo "environment: .venv, installing the packages that the tests need"
            install_requirements "$@"
        fi
        return
    fi
    echo "environment: no Python here has the required packages, with a torch for this machine; creating .venv with $("$base" --version)"
    make_venv "$base"
    if [ -n "$index" ]; then
        echo "installing PyTorch from its wheels for $index"
        if ! install_wheels "$index" $(grep -E '^torch(vision)?==' constraints.txt) && ! install_wheels "$index" 'torch>=2.11' torchvision; then
            echo "PyTorch's wheels for $index are unavailable; installing the default build (about 3 GB)"
            make_venv "$base"
        fi
    fi
    echo "$index" >.venv/index
    install_requirements "$@"
}

set_venv_python() {
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || [ ! -x .venv/Scripts/python.exe ] || PYTHON=.venv/Scripts/python.exe # Windows
}

make_venv() { # make_venv PYTHON: create an empty .venv
    if ! "$1" -m venv --clear .venv; then
        echo "error: $1 cannot make a virtual environment (Debian: apt install python3-venv); then run this again" >&2
        exit 1
    fi
    set_venv_python
}

install_wheels() { # install_wheels INDEX REQUIREMENT ...
    # Where the index does not answer, pip may find builds elsewhere that do not match each other; then the import fails.
    local index=$1
    shift
    "$PYTHON" -m pip install --retries 1 --timeout 20 --index-url "https://download.pytorch.org/whl/$index" "$@" &&
        "$PYTHON" -c 'import torch, torchvision' 2>/dev/null
}

install_requirements() { # install_requirements [MODULE ...]: with the packages that only tests need if a module is named
    local list=.venv/requirements.txt groups=()
    [ $# -eq 0 ] || groups=(dev)
    "$PYTHON" -c "$list_requirements" ${groups[@]+"${groups[@]}"} >"$list"
    if ! install_list "$list" || ! can_import "$PYTHON" "$@"; then
        echo "error: the packages of pyproject.toml could not be installed into .venv; see pip's output above, then run this again" >&2
        exit 1
    fi
}

install_list() { # install_list FILE: the versions of constraints.txt, else the newest
    local versions=.venv/constraints.txt torch='^torch(vision)?=='
    "$PYTHON" -c 'import torch, torchvision' 2>/dev/null || torch='^$' # what is installed for this machine stays
    grep -vE "$torch" constraints.txt >"$versions"
    "$PYTHON" -m pip install -r "$1" -c "$versions" && return
    echo "pip could not install the versions of constraints.txt; trying the newest ones"
    "$PYTHON" -m pip install -r "$1"
}

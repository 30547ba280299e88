# Sourced by run_all.sh and tests/run.sh from the repository root. Sets $PYTHON to a Python that has the packages needed.
# It runs in bash 3.2 (macOS) and in Git Bash (Windows) too.

export PYTHONUTF8=1 # Windows' Python otherwise prints and reads in the code page of the country
wheels=https://download.pytorch.org/whl
torch_floor=$(sed -n 's/.*"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)

required="
import sys
assert sys.version_info >= (3, 10)
import torch, torchvision, numpy, matplotlib, sklearn, tqdm, filelock
numbers = lambda version: tuple(map(int, version.split('.')[:2]))
assert numbers(torch.__version__) >= numbers('$torch_floor')
"

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

gpu_is_usable='
import sys
from common.support import machine
sys.exit(bool(machine.cuda_problem()))
'

stop() { # stop MESSAGE
    echo "error: $1" >&2
    exit 1
}

can_import() { # can_import PYTHON [MODULE ...]: whether it imports what the tasks need, and these modules
    local python=$1 extra=''
    shift
    [ $# -eq 0 ] || extra=$(printf 'import %s\n' "$@")
    "$python" -c "$required$extra" >/dev/null 2>&1
}

can_use_gpu() { # can_use_gpu PYTHON: whether its torch can use the NVIDIA card, if there is one and $want_gpu is set
    [ -z "${want_gpu:-}" ] || "$1" -c "$gpu_is_usable" >/dev/null 2>&1
}

make_environment() { # make_environment [MODULE ...]: set $PYTHON, installing into .venv where no Python has the packages
    local base index
    for PYTHON in python3 python; do
        if command -v "$PYTHON" >/dev/null && can_import "$PYTHON" "$@" && can_use_gpu "$PYTHON"; then
            echo "environment: $("$PYTHON" -c 'import sys, torch; print(sys.executable, "with torch", torch.__version__)')"
            return
        fi
    done
    find_uv
    base=$(find_python) || stop "no Python 3.10 or newer on the PATH; install one (https://www.python.org/downloads/) and run this again"
    index=$("$base" common/support/nvidia.py | tr -d '\r')
    set_venv_python
    # A .venv from the right index is not made again: where it cannot use the card, the program says why. Nor is one that
    # a better one cannot be had for, as that index does not answer.
    if [ -x "$PYTHON" ] && can_import "$PYTHON" &&
        { can_use_gpu "$PYTHON" || [ "$(cat .venv/index 2>/dev/null)" = "$index" ] || ! has_wheels "$index"; }; then
        if can_import "$PYTHON" "$@"; then
            echo "environment: .venv"
        else
            echo "environment: .venv, installing the packages that the tests need"
            install_requirements "$@"
        fi
        return
    fi
    case $(uname -s)-$(uname -m) in
        Darwin-x86_64) stop "PyTorch has no wheels for Intel Macs since torch 2.2, and this needs torch $torch_floor; use another machine, or open notebook.ipynb in Colab" ;;
    esac
    check_space "$index"
    if make_venv "$base"; then
        echo "environment: .venv, new, with $("$base" --version)${uv:+, by uv}"
    else
        PYTHON=$base
        echo "environment: $base cannot make a virtual environment (Debian: apt install python3-venv); installing into $base itself"
    fi
    if [ -n "$index" ]; then
        echo "installing PyTorch from its wheels for $index"
        if ! install_wheels "$index" $(sed -nE 's/^(torch(vision)?==[^ ]*).*/\1/p' constraints.txt) && ! install_wheels "$index" "torch>=$torch_floor" torchvision; then
            echo "PyTorch's wheels for $index are unavailable; installing the default build"
            [ "$index" != cpu ] || check_space default
            [ "$PYTHON" = "$base" ] || make_venv "$base"
            index=default # so that the next start tries again
        fi
    fi
    install_requirements "$@"
    [ "$PYTHON" = "$base" ] || echo "$index" >.venv/index
}

find_uv() { # find_uv: set $uv to its path, or to nothing; it does not read pip's settings, which may name a mirror
    local mirror
    uv=$(command -v uv) || { uv='' && return; }
    mirror=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$(pip config get global.index-url 2>/dev/null | tr -d '\r')}}
    [ -z "$mirror" ] || export UV_DEFAULT_INDEX=$mirror
}

find_python() { # find_python: print a Python of version 3.10 or newer; uv, where it is installed, can download one
    local candidate
    for candidate in python3 python python3.14 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    [ -n "$uv" ] && "$uv" python install 3.13 >&2 && "$uv" python find 3.13
}

check_space() { # check_space INDEX: print how much is downloaded, and stop if the disk cannot hold it
    local download=0.5 disk=2 free
    case $1-$(uname -s) in cu* | default-Linux) download=3 disk=7 ;; esac
    free=$(free_space)
    echo "environment: about $download GB will be downloaded; they take about $disk GB of disk ($free GB are free)"
    [ "$free" -ge "$disk" ] || stop "only $free GB are free on this disk, and the packages take about $disk GB; free some, or move this folder to a larger disk"
}

free_space() { # free_space: print the whole GB that are free on this disk
    "$base" -c 'import shutil; print(shutil.disk_usage(".").free // 10**9)' | tr -d '\r'
}

set_venv_python() {
    PYTHON=.venv/bin/python
    [ -x "$PYTHON" ] || [ ! -x .venv/Scripts/python.exe ] || PYTHON=.venv/Scripts/python.exe # Windows
}

make_venv() { # make_venv PYTHON: create an empty .venv; status 1 if this Python cannot (Colab, Debian without a package)
    if [ -n "$uv" ] && "$uv" venv --quiet --clear --seed --python "$1" .venv || "$1" -m venv --clear .venv; then
        set_venv_python
    else
        rm -rf .venv # half of one
        return 1
    fi
}

install() { # install ARGUMENT ...: by uv where it is installed, else by pip
    if [ -n "$uv" ]; then
        "$uv" pip install --python "$PYTHON" "$@"
    else
        "$PYTHON" -m pip install "$@"
    fi
}

has_wheels() { # has_wheels INDEX: whether this index of PyTorch's wheels answers
    "$base" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=20).close()' "$wheels/$1/torch/" 2>/dev/null
}

install_wheels() { # install_wheels INDEX REQUIREMENT ...
    # Where the index does not answer, pip may find builds elsewhere that do not match each other; then the import fails.
    local index=$1
    shift
    # For uv a mirror in UV_DEFAULT_INDEX would come before --index-url.
    UV_DEFAULT_INDEX='' UV_HTTP_TIMEOUT=20 UV_HTTP_RETRIES=1 PIP_RETRIES=1 PIP_DEFAULT_TIMEOUT=20 \
        install --index-url "$wheels/$index" "$@" &&
        "$PYTHON" -c 'import torch, torchvision' 2>/dev/null
}

install_requirements() { # install_requirements [MODULE ...]: with the packages that only tests need if a module is named
    local groups=() lists
    [ $# -eq 0 ] || groups=(dev)
    lists=$(mktemp -d)
    "$PYTHON" -c "$list_requirements" ${groups[@]+"${groups[@]}"} >"$lists/requirements.txt"
    install_list "$lists" && can_import "$PYTHON" "$@" ||
        stop "the packages of pyproject.toml could not be installed with $("$PYTHON" --version); see the output above, then run this again"
    rm -r "$lists"
}

install_list() { # install_list FOLDER: what its requirements.txt names, in the versions of constraints.txt, else the newest
    local torch='^torch(vision)?==' names
    "$PYTHON" -c 'import torch, torchvision' 2>/dev/null || torch='^$' # what is installed for this machine stays
    names=$(sed 's/[^A-Za-z0-9._-].*//' "$1/requirements.txt" | tr '\n' '|')
    grep -E "^(${names%|})==" constraints.txt | grep -vE "$torch" >"$1/hashed.txt"
    grep -vE "$torch" constraints.txt | sed 's/ --hash.*//' >"$1/constraints.txt"
    install_versions "$1" && return
    if [ -n "$uv" ]; then
        echo "uv could not install these packages; trying pip"
        uv=''
        install_versions "$1" && return
    fi
    echo "the versions of constraints.txt could not be installed; trying the newest ones"
    install -r "$1/requirements.txt"
}

install_versions() { # install_versions FOLDER: what its lists name; stop if a file has another hash than constraints.txt says
    # pip wants hashes of all packages or of none. So those with hashes come first, without what they depend on. Standard
    # output stays the terminal, for pip's bars of progress.
    (
        set -o pipefail
        { install --no-deps --require-hashes -r "$1/hashed.txt" 2>&1 >&3 | tee "$1/errors" >&2; } 3>&1
    ) && install -r "$1/requirements.txt" -c "$1/constraints.txt" && return
    ! grep -qi hash "$1/errors" ||
        stop "a package is not the one that constraints.txt names (see the hashes above), and was not installed; somebody may have changed it. Try another network or package index"
    return 1
}

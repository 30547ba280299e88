#!/usr/bin/env bash
# Run every task from a bare clone: set up the environment, download the data, train, write tables, figures and page.
# README.md describes it.
set -u

TASKS=(task1_loss_curves task2_regularization task3_hparams task4_architectures project3_wrn)
# The scripts of the tasks that have several, in the order of a reader's interest. A script comes after those whose
# results it takes over: compare_models and improvements have networks that main.py trains, improvements may need the
# probabilities of label_audit, and ensemble combines what is there.
TASK4=(main batch_size ablations)
PROJECT3=(main compare_models batch_epoch_grid label_audit improvements ensemble)
SCRIPTS=("${TASK4[@]/#/task4_architectures/}" "${PROJECT3[@]/#/project3_wrn/}")
usage="usage: bash run_all.sh [--scale quick|full] [--device auto|cpu|cuda|mps] [--data DIR]
                       [--plan] [--fresh] [TASK|SCRIPT ...]
--fresh: start over instead of resuming from checkpoints
--plan: print every run with its estimated time and memory, and train nothing
tasks: ${TASKS[*]}
scripts: ${SCRIPTS[*]}
Without names every task runs. The studies of project3_wrn, which are all of its scripts except main, are then started
at full scale on CUDA only."

refuse() {
    printf 'error: %s\n%s\n' "$1" "$usage" >&2
    exit 2
}

one_of() { # one_of FLAG VALUE CHOICE ...
    local flag=$1 value=$2 choice
    shift 2
    for choice in "$@"; do [ "$value" = "$choice" ] && return; done
    refuse "$flag must be one of: $*; not '$value'"
}

scale='' device=auto plan='' passed=() names=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) echo "$usage"; exit 0 ;;
        --plan) plan=yes; shift ;;
        --fresh) passed+=(--fresh); shift ;;
        --scale | --device | --data)
            [ $# -ge 2 ] || refuse "$1 needs a value"
            case $1 in
                --scale) one_of "$1" "$2" quick full; scale=$2 ;;
                --device) one_of "$1" "$2" auto cpu cuda mps; device=$2 ;;
                --data) case $2 in /* | [A-Za-z]:*) passed+=(--data "$2") ;; *) passed+=(--data "$PWD/$2") ;; esac ;;
            esac
            shift 2
            ;;
        -*) refuse "unknown flag $1" ;;
        *)
            name=${1%/}
            name=${name%.py}
            one_of "task or script" "$name" "${TASKS[@]}" "${SCRIPTS[@]}"
            names+=("$name")
            shift
            ;;
    esac
done
[ ${#names[@]} -gt 0 ] || names=("${TASKS[@]}")

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
exec </dev/null # nothing here reads input, and a closed stdin makes some subprocesses fail
. common/support/environment.sh
want_gpu='' # where a card is here, an environment whose torch cannot use it is not good enough
case $device-$plan in auto- | cuda-) want_gpu=yes ;; esac
make_environment

choose_device='
import sys
from common import cli
from common.support import machine
cli.entry_point(lambda: print(machine.choose_device(sys.argv[1])))
'
discard_checkpoints='
import contextlib, sys
from pathlib import Path
from common.support import checkpoints, errors, files
for folder in sys.argv[1:]:
    for lock in Path(folder).rglob("checkpoints/lock"):
        with contextlib.suppress(errors.UserError), files.locked(lock, wait=False):  # another run_all.sh may train there
            checkpoints.discard_all(lock.parent)
'
if [ -z "$plan" ] || [ "$device" != cuda ]; then # --plan works without the GPU
    device=$("$PYTHON" -c "$choose_device" "$device") || exit $?
fi
if [ -n "$scale" ]; then
    echo "scale: $scale; device: $device"
elif [ "$device" = cuda ]; then
    scale=full
    echo "CUDA device: running at full scale"
else
    scale=quick
    echo "no CUDA device: running at quick scale (embedded sample, 3-4 minutes; not comparable with the report)"
fi

starts() { # starts NAME: the script and flags of each start of a task or of one of its scripts, one per line
    local flags="--scale $scale --device $device" script
    case $1-$scale-$device in
        project3_wrn-full-cuda) for script in "${PROJECT3[@]}"; do starts "$1/$script"; done ;;
        project3_wrn-*) starts project3_wrn/main ;;
        project3_wrn/main-full-cuda)
            printf -- "$1.py $flags %s\n" '--model resnet18' '--model wrn28_10' '--model wrn16_8' \
                '--recipe fast94 --seeds 10' '--recipe fast95 --seeds 10' '--recipe fast96'
            ;;
        project3_wrn/main-full-*) printf -- "$1.py $flags %s\n" '--recipe fast94' '--recipe fast96' ;;
        project3_wrn/ensemble-*) echo "$1.py --scale $scale" ;; # it trains nothing
        # project 3 keeps every finished run in a file; the other tasks keep it in a checkpoint until all is done
        project3_wrn/*) echo "$1.py $flags" ;;
        task4_architectures-*) for script in "${TASK4[@]}"; do starts "$1/$script"; done ;;
        */*) echo "$1.py $flags --keep-checkpoints" ;;
        *) echo "$1/main.py $flags --keep-checkpoints" ;;
    esac
}

child='' # the running start
run() { # run COMMAND ...: run it so that a signal to this shell is answered at once
    "$@" 3<&- &
    child=$!
    wait "$child"
    local status=$?
    child=''
    return "$status"
}

stop_on_signals() {
    trap 'stop_by INT 130' INT
    trap 'stop_by TERM 143' TERM
    trap 'stop_by HUP 129' HUP
}

stop_by() { # stop_by SIGNAL STATUS: end the running start, and then this shell
    trap '' INT TERM HUP
    [ -z "$child" ] || { kill "$child" && wait "$child"; } 2>/dev/null
    echo "stopped by SIG$1; what was trained is saved. Rerun the same command without --fresh to resume" >&2
    exit "$2"
}

failed=()
run_starts() { # run_starts NAME [FLAG ...]: run each start of a task or script; those that fail are added to `failed`
    local start name=$1
    shift
    while IFS= read -r start <&3; do
        # shellcheck disable=SC2086  # a start is split into its arguments
        run "$PYTHON" $start "$@" ${passed[@]+"${passed[@]}"} || failed+=("$(short_name "$start")")
    done 3< <(starts "$name")
}

short_name() { # short_name START: the start without the flags that all starts have
    printf '%s\n' "$1" | sed -E 's/ --(scale|device) [a-z]+//g; s/ --keep-checkpoints//'
}

list_failed() { # list_failed: the failed starts, separated by "; "
    local list
    list=$(printf '; %s' "${failed[@]}")
    printf '%s' "${list:2}"
}

run_plans() { # run_plans NAME ...: print the plan of each start; status 1 if one of them fails
    local name
    stop_on_signals # a subshell, as in a pipeline, starts without traps
    # a training that several scripts have is done once: each script adds its own to this list
    PLANNED=$(mktemp) || return 1
    export PLANNED
    trap 'rm -f "$PLANNED"' EXIT
    for name; do run_starts "$name" --plan; done
    [ ${#failed[@]} -eq 0 ]
}

if [ -n "$plan" ]; then
    run_plans "${names[@]}" | "$PYTHON" -m common.support.plan
    exit "${PIPESTATUS[0]}"
fi

stop_on_signals
for name in "${names[@]}"; do
    echo "== $name"
    run_starts "$name"
done

# The page shows the full-scale results. A Python that was not set up here may lack the packages that build it.
page=''
for candidate in "$PYTHON" .venv/bin/python .venv/Scripts/python.exe; do
    if "$candidate" -c 'import jinja2, markdown' 2>/dev/null; then
        page=yes
        run "$candidate" grading/build.py || failed+=(page)
        break
    fi
done
if [ -z "$page" ]; then
    echo "the page was not built: $PYTHON lacks jinja2 or markdown"
    echo "(pip install jinja2 markdown, then: python grading/build.py)"
fi

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: $(list_failed) (see the messages above); everything else is done" >&2
    exit 1
fi
# Everything is done, so no task needs its checkpoints. A quick run leaves those of an unfinished full one alone.
[ "$scale" = quick ] && folder=outputs_quick || folder=outputs
finished=()
for name in "${names[@]}"; do
    case $name in project3_wrn*) ;; *) finished+=("${name%%/*}/$folder") ;; esac # project 3 removes its own
done
"$PYTHON" -c "$discard_checkpoints" ${finished[@]+"${finished[@]}"}
if [ "$scale" = quick ]; then
    echo "to train on all of CIFAR-10: bash run_all.sh --scale full"
    echo "(it resumes after an interruption; add --plan to see how long it takes)"
fi
echo "done: ${names[*]}"

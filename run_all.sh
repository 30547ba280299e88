#!/usr/bin/env bash
# Run every task from a bare clone: set up the environment, download the data, train, write tables, figures and page.
# README.md describes it.
set -u

ALL=(task1_loss_curves task2_regularization task3_hparams task4_architectures project3_wrn)
usage="usage: bash run_all.sh [--scale quick|full] [--device auto|cpu|cuda|mps] [--data DIR]
                       [--plan] [--fresh] [TASK ...]
--fresh: start over instead of resuming from checkpoints
--plan: print every run with its estimated time and memory, and train nothing
tasks: ${ALL[*]}"

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

scale='' device=auto plan='' passed=() tasks=()
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
                --data) case $2 in /*) passed+=(--data "$2") ;; *) passed+=(--data "$PWD/$2") ;; esac ;;
            esac
            shift 2
            ;;
        -*) refuse "unknown flag $1" ;;
        *) one_of task "${1%/}" "${ALL[@]}"; tasks+=("${1%/}"); shift ;;
    esac
done
[ ${#tasks[@]} -gt 0 ] || tasks=("${ALL[@]}")

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

starts() { # starts TASK: the script and flags of each start, one per line
    local flags="--scale $scale --device $device --keep-checkpoints"
    case $1-$scale-$device in
        project3_wrn-full-cuda)
            printf -- "$1/main.py $flags %s\n" '--model resnet18' '--model wrn28_10' \
                '--recipe fast94 --seeds 10' '--recipe fast95 --seeds 10' '--recipe fast96'
            ;;
        project3_wrn-full-*) printf -- "$1/main.py $flags %s\n" '--recipe fast94' '--recipe fast96' ;;
        task4_architectures-*) printf -- "$1/%s $flags\n" main.py batch_size.py ;;
        *) echo "$1/main.py $flags" ;;
    esac
}

run_starts() { # run_starts TASK [FLAG ...]: run each start of a task; status 1 if one of them fails
    local start started='' status=0 task=$1
    shift
    while IFS= read -r start <&3; do
        started=yes
        # shellcheck disable=SC2086  # a start is split into its arguments
        "$PYTHON" $start "$@" ${passed[@]+"${passed[@]}"} 3<&- || status=1
    done 3< <(starts "$task")
    [ -n "$started" ] && return "$status"
}

run_plans() { # run_plans TASK ...: print the plan of each start; status 1 if one of them fails
    local task status=0
    for task; do run_starts "$task" --plan || status=1; done
    return "$status"
}

if [ -n "$plan" ]; then
    run_plans "${tasks[@]}" | "$PYTHON" -m common.support.plan
    exit "${PIPESTATUS[0]}"
fi

trap 'echo "interrupted; finished work is saved. Rerun the same command without --fresh to resume" >&2; exit 130' INT
failed=()
for task in "${tasks[@]}"; do
    echo "== $task"
    run_starts "$task" || failed+=("$task")
done

# The page shows the full-scale results. A Python that was not set up here may lack the packages that build it.
page=''
for candidate in "$PYTHON" .venv/bin/python; do
    if "$candidate" -c 'import jinja2, markdown' 2>/dev/null; then
        page=yes
        "$candidate" grading/build.py || failed+=(page)
        break
    fi
done
if [ -z "$page" ]; then
    echo "the page was not built: $PYTHON lacks jinja2 or markdown"
    echo "(pip install jinja2 markdown, then: python grading/build.py)"
fi

if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]} (see the messages above); the other tasks are done" >&2
    exit 1
fi
# Everything is done, so no task needs its checkpoints. A quick run leaves those of an unfinished full one alone.
[ "$scale" = quick ] && folder=outputs_quick || folder=outputs
for task in "${tasks[@]}"; do
    # Of project 3, only what was started here is removed: one of its studies may be unfinished.
    for run in "$task/$folder" "$task/$folder"/{batch_size,resnet18,wrn28_10,fast94,fast95,fast96}; do
        [ ! -d "$run/checkpoints" ] || find "$run/checkpoints" -type f -name '*.pt' -delete
    done
done
if [ "$scale" = quick ]; then
    echo "to train on all of CIFAR-10: bash run_all.sh --scale full"
    echo "(it resumes after an interruption; add --plan to see how long it takes)"
fi
echo "done: ${tasks[*]}"

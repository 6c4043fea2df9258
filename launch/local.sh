#!/usr/bin/env bash
# Train on this machine: in one process, or in several that share its GPUs or cores.
#
#   launch/local.sh [options] -- --config=configs/digits.py --workdir=runs/digits
#
#   --processes=N   how many to start (1: all devices in one process, the normal case)
#   --gpus=0,1,…    GPUs to share out (CUDA_VISIBLE_DEVICES, else all of nvidia-smi)
#   --port=N        where process 0 waits for the others (a free one)
#   --logs=DIR      output of processes 1, 2, … (WORKDIR.logs)
#   --grace=N       seconds the others have to end by themselves once one failed (60)
#   --python=PATH   the interpreter (python)
#   --dry-run       print the commands and run nothing
#
# Ctrl-C and SIGTERM are passed on once each: the first saves and ends with status 0 (or
# config.train.exit_code_on_preemption), a second one ends at once. The same command goes
# on. The status is that of the first process that ended badly.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

processes=1 port="" logs="" grace=60 python=python
gpus=${CUDA_VISIBLE_DEVICES-unset}
while (($#)); do
    case $1 in
    --processes=*) processes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --logs=*) logs=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    --help | -h) usage && exit ;;
    --) shift && break ;;
    *) unknown "$1" ;;
    esac
    shift
done
whole_number processes "$processes" 1
whole_number grace "$grace" 0
[[ ! $port ]] || whole_number port "$port" 1
training=("$python" -m ddpm_jax.main "$@")
(($#)) || refuse "nothing to run: put the arguments of ddpm_jax.main after --, such as" \
    "-- --config=configs/digits.py --workdir=runs/digits"

if ((processes == 1)); then
    if [[ $gpus != "${CUDA_VISIBLE_DEVICES-unset}" ]]; then
        training=(env "CUDA_VISIBLE_DEVICES=$gpus" "${training[@]}")
    fi
    run exec "${training[@]}"
    exit
fi

need_workdir "$@"
logs=${logs:-$workdir.logs} # beside the run: a new run wants an empty directory
if [[ $gpus == unset ]]; then
    gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null) || gpus=""
    gpus=${gpus//$'\n'/,}
fi
IFS=, read -ra gpu <<<"$gpus"
((${#gpu[@]} % processes == 0)) || refuse "${#gpu[@]} GPUs ($gpus) cannot be shared" \
    "out evenly among $processes processes: change --processes or --gpus"

is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
if [[ ! $port ]]; then
    port=$((20000 + RANDOM % 10000))
    while is_taken "$port"; do port=$((20000 + RANDOM % 10000)); done
fi

command_of() { # sets `command`, that of process $1
    command=(env "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port"
        "JAX_NUM_PROCESSES=$processes" "JAX_PROCESS_ID=$1")
    if ((${#gpu[@]})); then
        local share=$((${#gpu[@]} / processes)) IFS=,
        command+=("CUDA_VISIBLE_DEVICES=${gpu[*]:$1 * share:share}")
    fi
    command+=("${training[@]}")
}

if [[ $dry_run ]]; then
    quoted mkdir -p "$logs"
    for ((i = 0; i < processes; i++)); do
        command_of "$i"
        redirection=""
        ((i == 0)) || redirection=">>$(quoted "$logs/process_$i.log") 2>&1 "
        echo "$(quoted "${command[@]}") $redirection&"
    done
    echo wait
    exit
fi

pids=()
stop() { # one that has ended by now is no error
    local pid
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
}
end() { # with all that they started
    local pid
    for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
}
stopped=""
trap 'stopped=yes; stop' INT TERM HUP # they all mean: save and end

mkdir -p "$logs"
set -m # each in a process group of its own: the terminal's Ctrl-C comes through us alone
for ((i = 0; i < processes; i++)); do
    command_of "$i"
    if ((i == 0)); then
        "${command[@]}" </dev/null &
    else
        "${command[@]}" </dev/null >>"$logs/process_$i.log" 2>&1 &
    fi
    pids[i]=$!
done
set +m

status=0 failed="" deadline=0 told=""
while ((${#pids[@]})); do
    for i in "${!pids[@]}"; do
        kill -0 "${pids[i]}" 2>/dev/null && continue
        code=0
        wait "${pids[i]}" || code=$?
        unset "pids[i]"
        if ((code && (!status || status == 143))); then
            status=$code
            # 143 is no failure, nor what ends once all were told: they saved as told.
            [[ $stopped ]] || ((code == 143)) || failed=$i deadline=$((SECONDS + grace))
        fi
    done
    if [[ $failed ]] && ((SECONDS >= deadline)); then
        # Without their peer they can neither go on nor save.
        if [[ $told ]]; then end; else stop; fi
        told=yes deadline=$((SECONDS + 5))
    fi
    { sleep 0.2; } 2>/dev/null || true # a signal to the whole group ends it too
done
[[ ! $failed ]] || {
    where="is above"
    ((failed == 0)) || where="is in $logs/process_$failed.log"
    echo "error: process $failed of $processes ended with status $status (what it said" \
        "$where); resume with: $(quoted "${again[@]}")" >&2
}
exit "$status"

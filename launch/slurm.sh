#!/usr/bin/env bash
# Train on a Slurm cluster: one process a node, which uses all GPUs of its node.
#
#   launch/slurm.sh [options] -- --config=… --workdir=/shared/runs/…
#
#   --nodes=N            (1)
#   --gpus-per-node=N    (1)
#   --cpus-per-task=N    of each process (8 a GPU)
#   --time=LIMIT         of the job, which goes on by itself after it (24:00:00)
#   --partition=NAME     (that of the cluster)
#   --sbatch=OPTION      any other option of sbatch, such as --sbatch=--account=vision
#   --logs=DIR           output of the processes, process_0.log … (WORKDIR.logs)
#   --python=PATH        the interpreter, the same on all nodes (python)
#   --dry-run            print the command and run nothing
#
# Two minutes before the time limit, and where the job has to make room, every process
# gets SIGTERM and saves; the job is queued again and goes on. So it does when a node
# fails. scancel JOB ends it for good; the same command goes on.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

nodes=1 gpus=1 cpus="" limit=24:00:00 more=() logs="" python=python
while (($#)); do
    case $1 in
    --nodes=*) nodes=${1#*=} ;;
    --gpus-per-node=*) gpus=${1#*=} ;;
    --cpus-per-task=*) cpus=${1#*=} ;;
    --time=*) limit=${1#*=} ;;
    --partition=*) more+=("$1") ;;
    --sbatch=*) more+=("${1#*=}") ;;
    --logs=*) logs=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    --help | -h) usage && exit ;;
    --) shift && break ;;
    *) unknown "$1" ;;
    esac
    shift
done
whole_number nodes "$nodes" 1
whole_number gpus-per-node "$gpus" 1
cpus=${cpus:-$((8 * gpus))} # Slurm's own default is one
whole_number cpus-per-task "$cpus" 1
need_workdir "$@"
logs=${logs:-$workdir.logs} # beside the run: a new run wants an empty directory
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

run mkdir -p "$logs"
run sbatch --job-name="${workdir##*/}" --nodes="$nodes" --ntasks-per-node=1 \
    --gpus-per-node="$gpus" --cpus-per-task="$cpus" --time="$limit" \
    --signal=TERM@120 --requeue --open-mode=append --output="$logs/job_%j.log" \
    ${more[@]+"${more[@]}"} \
    "$here/slurm.sbatch" "$here/until_told.sh" "$logs" \
    "$python" -m ddpm_jax.main "$@"

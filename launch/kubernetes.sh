#!/usr/bin/env bash
# Train on Kubernetes, on a TPU slice of GKE or on GPUs: one process a pod, as a JobSet.
#
#   launch/kubernetes.sh --image=IMAGE --tpu=… --topology=… [options] \
#       -- --config=… --workdir=/runs/…
#
#   --name=NAME      of the JobSet (ddpm-jax)
#   --image=IMAGE    with bash, this package and its configs
#   --claim=NAME     volume claim that all pods mount at /runs, ReadWriteMany (runs)
#   --tpu=TYPE       tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice, …
#   --topology=AxB   of the slice, such as 4x4 or 2x2x4
#   --chips=N        TPU chips a pod (4); the topology gives the number of pods
#   --gpus=N         GPUs a pod, instead of --tpu
#   --pods=N         with GPUs (1)
#   --python=PATH    the interpreter in the image (python)
#   --dry-run        print the manifest and run nothing
#
# It goes on by itself when pods are evicted or machines fail. What process 0 says:
#   kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=NAME,batch.kubernetes.io/job-completion-index=0
# `kubectl delete jobset NAME` lets all save and end; the same command goes on.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name=ddpm-jax image="" claim=runs tpu="" topology="" chips=4 gpus="" pods="" python=python
while (($#)); do
    case $1 in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --claim=*) claim=${1#*=} ;;
    --tpu=*) tpu=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --chips=*) chips=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --pods=*) pods=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    --help | -h) usage && exit ;;
    --) shift && break ;;
    *) unknown "$1" ;;
    esac
    shift
done
[[ $image ]] || refuse "no --image=…: it needs bash, this package and its configs"
dns='^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$'
[[ $name =~ $dns ]] || refuse "--name=$name: 1 to 40 lower-case letters, digits and -," \
    "beginning with a letter"
if [[ $tpu && ! $gpus ]]; then
    device=tpu
    [[ ! $pods ]] || refuse "--pods=$pods is for GPUs: the topology gives those of a TPU"
    [[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] ||
        refuse "--topology=$topology is no topology such as 4x4 or 2x2x4"
    whole_number chips "$chips" 1
    ((${topology//x/*} % chips == 0)) || refuse "--topology=$topology cannot be divided" \
        "among pods of --chips=$chips"
    pods=$((${topology//x/*} / chips))
elif [[ $gpus && ! $tpu ]]; then
    device=gpu pods=${pods:-1}
    whole_number gpus "$gpus" 1
    whole_number pods "$pods" 1
else
    refuse "give either --tpu=TYPE and --topology=AxB, or --gpus=N"
fi
need_workdir "$@"
[[ $workdir == /runs/* ]] || refuse "--workdir=$workdir is not under /runs, the only" \
    "place that all pods share and that outlives them"
here=$(dirname "${BASH_SOURCE[0]}")

text() { # a string of YAML; $$ because Kubernetes itself would replace $(NAME)
    local string=${1//\\/\\\\}
    string=${string//\"/\\\"}
    string=${string//$'\n'/\\n}
    string=${string//$'\t'/\\t}
    printf '"%s"\n' "${string//\$/\$\$}"
}

manifest() {
    local line indent argument script
    while IFS= read -r line; do
        indent=${line%%[! ]*}
        [[ $line != '#'* ]] || continue
        case $line in
        *"# tpu") [[ $device == tpu ]] || continue ;;
        *"# gpu") [[ $device == gpu ]] || continue ;;
        *__UNTIL_TOLD__)
            while IFS= read -r script; do
                echo "$indent$script"
            done <"$here/until_told.sh"
            continue
            ;;
        *"- __COMMAND__")
            for argument in "$python" -m ddpm_jax.main "$@"; do
                echo "$indent- $(text "$argument")"
            done
            continue
            ;;
        esac
        line=${line%" # "[tg]pu}
        line=${line//__NAME__/"$name"}
        line=${line//__IMAGE__/"$(text "$image")"}
        line=${line//__CLAIM__/"$(text "$claim")"}
        line=${line//__TPU__/"$(text "$tpu")"}
        line=${line//__TOPOLOGY__/"$(text "$topology")"}
        line=${line//__PODS__/"$pods"}
        line=${line//__CHIPS__/"$chips"}
        echo "${line//__GPUS__/"$gpus"}"
    done <"$here/kubernetes.yaml"
}

if [[ $dry_run ]]; then
    manifest "$@"
else
    manifest "$@" | kubectl apply --filename=-
fi

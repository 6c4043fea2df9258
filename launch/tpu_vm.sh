#!/usr/bin/env bash
# Train on a Cloud TPU VM or on a pod slice of many: run this on your own machine.
#
#   launch/tpu_vm.sh COMMAND [options] [-- --config=… --workdir=/mnt/runs/…]
#
#   create          ask for the TPU and wait until it is there
#   install         on all workers: Python, this checkout, the place of the runs
#   start  -- …     the training, on all workers, in the background
#   status          the TPU's state; of each worker whether it trains, and its last line
#   logs            follow what process 0 says (--worker=N: another one's)
#   stop            let it save and end
#   resume -- …     create again what was preempted, install, start: the same arguments
#   fetch  -- …     copy the run to --to
#   delete          give the TPU back; what lies on the workers' own disks is gone
#
#   --name=NAME     of the TPU                               [TPU_NAME]
#   --project=ID    of Google Cloud                          [TPU_PROJECT]
#   --zone=ZONE     such as us-west4-a                       [TPU_ZONE]
#   --type=TYPE     v5litepod-16, v5p-8, v6e-8, v4-32, …     [TPU_TYPE]
#   --runtime=NAME  software of the VM (that of the type)    [TPU_RUNTIME]
#   --bucket=NAME   bucket with folders, mounted on all      [TPU_BUCKET]
#   --nfs=HOST:/DIR Filestore share, instead of a bucket     [TPU_NFS]
#   --mount=DIR     where it is mounted (/mnt/runs)          [TPU_MOUNT]
#   --spot          cheaper, and may be taken away           [TPU_SPOT=yes]
#   --package=SPEC  what pip installs, instead of this checkout
#   --worker=N      for logs (0)
#   --to=DIR        for fetch (runs)
#   --dry-run       print the commands and run nothing
#
# What stands in brackets is read where the option is missing.
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

name=${TPU_NAME-} project=${TPU_PROJECT-} zone=${TPU_ZONE-} type=${TPU_TYPE-}
runtime=${TPU_RUNTIME-} bucket=${TPU_BUCKET-} nfs=${TPU_NFS-} spot=${TPU_SPOT-}
mount=${TPU_MOUNT:-/mnt/runs} package="" worker=0 to=runs
case ${1-} in
create | install | start | status | logs | stop | resume | fetch | delete) ;;
--help | -h) usage && exit ;;
*) refuse "unknown command '${1-}': choose from create, install, start, status, logs," \
    "stop, resume, fetch, delete" ;;
esac
action=$1
shift
while (($#)); do
    case $1 in
    --name=*) name=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --runtime=*) runtime=${1#*=} ;;
    --bucket=*) bucket=${1#*=} ;;
    --nfs=*) nfs=${1#*=} ;;
    --mount=*) mount=${1#*=} ;;
    --spot) spot=yes ;;
    --package=*) package=${1#*=} ;;
    --worker=*) worker=${1#*=} ;;
    --to=*) to=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    --help | -h) usage && exit ;;
    --) shift && break ;;
    *) unknown "$1" ;;
    esac
    shift
done
mount=${mount%/} bucket=${bucket#gs://}
[[ ! $spot || $spot == yes ]] || refuse "TPU_SPOT=$spot: give yes, or leave it out"

need() { # options that this command cannot do without
    local option variable
    for option; do
        variable=TPU_${option^^}
        [[ ${!option} ]] || refuse "$action needs --$option=… (or $variable)"
    done
}

need name project zone
where=(--project="$project" --zone="$zone")
queue=(gcloud compute tpus queued-resources)
vm=(gcloud compute tpus tpu-vm)
pid=/dev/shm/ddpm_jax.pid # of the worker's process; forgotten when the VM starts anew

on() { # worker or "all", script
    run "${vm[@]}" ssh "$name" "${where[@]}" --worker="$1" --command="$2"
}

need_type() {
    need type
    [[ ! $runtime ]] || return 0
    case $type in
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v[234]-*) runtime=tpu-ubuntu2204-base ;;
    *) refuse "no --runtime is known for --type=$type: give both" ;;
    esac
}

need_place() {
    [[ $bucket || $nfs ]] || refuse "$action needs --bucket=… or --nfs=…, where the runs" \
        "are: a TPU VM's own disk is lost with it, and its workers do not share one"
    [[ ! ($bucket && $nfs) ]] || refuse "--bucket=$bucket and --nfs=$nfs: give one"
}

need_training() {
    need_workdir "$@"
    [[ $workdir == "$mount"/* ]] || refuse "--workdir=$workdir is not under $mount," \
        "the only place that all workers share and that outlives them"
}

create() {
    run "${queue[@]}" create "$name" --node-id="$name" "${where[@]}" \
        --accelerator-type="$type" --runtime-version="$runtime" \
        --scopes=https://www.googleapis.com/auth/cloud-platform ${spot:+--spot}
    await
}

state=(describe "$name" "${where[@]}" --format='value(state.state)')

await() {
    local now
    if [[ $dry_run ]]; then
        echo "# every 30 seconds, until it prints ACTIVE:"
        run "${queue[@]}" "${state[@]}"
        return
    fi
    while now=$("${queue[@]}" "${state[@]}"); [[ $now != ACTIVE ]]; do
        [[ $now != FAILED && $now != SUSPEND* ]] || fail "$name is $now (why:" \
            "$(quoted "${queue[@]}" describe "$name" "${where[@]}")): $0 resume creates" \
            "it again"
        echo "$name: $now" >&2
        sleep 30
    done
}

recreate() { # where it was preempted, or is gone
    local now
    if [[ $dry_run ]]; then
        run "${queue[@]}" "${state[@]}"
        echo "# where that prints SUSPENDED or FAILED:"
        run "${queue[@]}" delete "$name" "${where[@]}" --force --quiet
        echo "# where it is not ACTIVE:"
        create
        echo "# then:"
        return
    fi
    if ! now=$("${queue[@]}" "${state[@]}" 2>&1); then
        [[ $now == *NOT_FOUND* ]] || fail "$now"
        create
        return
    fi
    case $now in
    *FAILED | *SUSPEND*)
        run "${queue[@]}" delete "$name" "${where[@]}" --force --quiet
        create
        ;;
    *) await ;;
    esac
}

mounting() { # the script that mounts the place of the runs
    local apt="sudo apt-get -qq -o DPkg::Lock::Timeout=300" # a new VM updates itself
    if [[ $nfs ]]; then
        cat <<END
$apt update && $apt install -y nfs-common
sudo mount -t nfs $(quoted "$nfs" "$mount")
sudo chmod 1777 $(quoted "$mount")
END
    else
        # No cache of names: each worker has to see what the others write, at once.
        cat <<END
keys=/usr/share/keyrings/cloud.google.asc
curl -fsS https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee \$keys >/dev/null
echo "deb [signed-by=\$keys] https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list
$apt update && $apt install -y gcsfuse
sudo chown "\$(id -u)" $(quoted "$mount")
gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 $(quoted "$bucket" "$mount")
END
    fi
}

install() {
    local root archive=${TMPDIR:-/tmp}/ddpm_jax-$name.tar.gz what=$package
    if [[ ! $package ]]; then
        what='.[tpu]'
        root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
        run tar --exclude=./.git --exclude=./runs --exclude='./.venv*' -czf "$archive" \
            -C "$root" .
        run "${vm[@]}" scp "$archive" "$name:ddpm_jax.tar.gz" "${where[@]}" --worker=all
    fi
    # The VM's own Python is too old; uv brings one.
    on all "set -eu
mkdir -p ~/ddpm_jax/source && cd ~/ddpm_jax/source
$([[ $package ]] || echo 'tar -xzf ~/ddpm_jax.tar.gz')
[ -x ~/.local/bin/uv ] || curl -LsSf https://astral.sh/uv/install.sh | sh
~/.local/bin/uv venv --quiet --allow-existing --python=3.12 ~/ddpm_jax/venv
~/.local/bin/uv pip install --quiet --python=\$HOME/ddpm_jax/venv/bin/python $(quoted "$what")"
    on all "set -eu
sudo mkdir -p $(quoted "$mount")
if ! mountpoint -q $(quoted "$mount"); then
$(mounting)
fi"
}

start() {
    on all "set -eu
mountpoint -q $(quoted "$mount") || { echo \"\$(hostname): $mount is not mounted: install first\" >&2; exit 1; }
cd ~/ddpm_jax/source
[ ! -f $pid ] || ! kill -0 \$(cat $pid) 2>/dev/null || { echo \"\$(hostname): it trains already\" >&2; exit 1; }
nohup ../venv/bin/python -m ddpm_jax.main $(quoted "$@") >>../log 2>&1 </dev/null &
echo \$! >$pid"
}

status() {
    run "${queue[@]}" "${state[@]}"
    on all "is=ended
if [ -f $pid ] && kill -0 \$(cat $pid) 2>/dev/null; then is=trains; fi
echo \"\$(hostname): \$is; \$(tail -n 1 ~/ddpm_jax/log)\""
}

stop() {
    on all "[ -f $pid ] || { echo \"\$(hostname): it does not train\" >&2; exit 1; }
kill -TERM \$(cat $pid) 2>/dev/null
for second in \$(seq 300); do kill -0 \$(cat $pid) 2>/dev/null || break; sleep 1; done
tail -n 3 ~/ddpm_jax/log
! kill -0 \$(cat $pid) 2>/dev/null || { echo \"\$(hostname): it still saves after 5 minutes\" >&2; exit 1; }"
}

fetch() {
    run mkdir -p "$to/${workdir##*/}"
    if [[ $bucket ]]; then
        run gcloud storage rsync --recursive "gs://$bucket${workdir#"$mount"}" \
            "$to/${workdir##*/}"
    else
        run "${vm[@]}" scp --recurse "$name:$workdir" "$to" "${where[@]}" --worker=0
    fi
}

case $action in
create)
    need_type
    create
    ;;
install)
    need_place
    install
    ;;
start)
    need_training "$@"
    start "$@"
    ;;
resume)
    need_type
    need_place
    need_training "$@"
    recreate
    install
    start "$@"
    ;;
fetch)
    need_place
    need_training "$@"
    fetch
    ;;
status) status ;;
logs) on "$worker" 'tail -n 100 -F ~/ddpm_jax/log' ;;
stop) stop ;;
delete) run "${queue[@]}" delete "$name" "${where[@]}" --force --quiet ;;
esac

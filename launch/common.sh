# shellcheck shell=bash
# What the launchers share; sourced, never run.

# Long options and arguments only travel safely with arrays that may be empty.
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
    echo "error: bash $BASH_VERSION is too old: the launchers need bash 4.4 or newer" >&2
    exit 2
}

dry_run=""
# shellcheck disable=SC2034
again=("$0" "$@") # the command that was given, to be shown where it goes on

refuse() { # one sentence about the command line
    echo "error: $*" >&2
    exit 2
}

fail() { # one sentence about anything else
    echo "error: $*" >&2
    exit 1
}

usage() { # the comment at the top of the script
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

unknown() { # an argument that no option matches; the options are those of the usage
    local known
    known=$(sed -n 's/^#   *\(--[a-z-]*\).*/\1/p' "$0" | paste -sd' ' -)
    refuse "unknown option '$1': choose from $known, and put the arguments of" \
        "ddpm_jax.main after --"
}

whole_number() { # name, value, least
    if ! [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || (($2 < $3)); then
        refuse "--$1=$2 is no whole number from $3 on"
    fi
}

quoted() { # prints a command as a line of shell that means the same
    local LC_ALL=C word line=""
    for word; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/"'\\''"}'"
        line+=" $word"
    done
    printf '%s\n' "${line# }"
}

run() { # runs a command, or prints it
    if [[ $dry_run ]]; then quoted "$@"; else "$@"; fi
}

workdir_of() { # the value of the last --workdir among the arguments
    local found=""
    while (($#)); do
        case $1 in
        --workdir=* | -workdir=*) found=${1#*=} ;;
        --workdir | -workdir) found=${2-} ;;
        esac
        shift
    done
    printf '%s\n' "${found%/}"
}

need_workdir() { # the arguments of ddpm_jax.main: sets `workdir`, or refuses
    (($#)) || refuse "nothing to run: put the arguments of ddpm_jax.main after --," \
        "such as -- --config=configs/digits.py --workdir=runs/digits"
    workdir=$(workdir_of "$@")
    [[ $workdir ]] || refuse "no --workdir=… after --: all processes need the same one," \
        "so it has to be named"
    [[ $workdir != *://* ]] || refuse "--workdir=$workdir is no directory: mount the" \
        "bucket and give the path under the mount (see launch/README.md)"
}

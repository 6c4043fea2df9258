#!/usr/bin/env bash
# Run a command; end with status 143 where it saved and ended because of SIGTERM.
#
#   launch/until_told.sh COMMAND [ARGUMENT …]
#
# The training ends with status 0 when it is finished, and also when it has saved because
# it was told to stop. To a scheduler 0 means finished: the job would never go on. Here
# being told to stop becomes 143 (128 + SIGTERM), and any other status stays what it is.
set -uo pipefail

told=""
trap 'told=yes; trap "" TERM; kill -TERM "$command"' TERM # passed on once
"$@" &
command=$!
wait "$command"
status=$?
if [[ $told ]]; then # the signal ended the first wait
    wait "$command"
    status=$?
    ((status)) || status=143
fi
exit "$status"

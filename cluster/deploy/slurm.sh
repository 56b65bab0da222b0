#!/usr/bin/env bash
# A run under Slurm, from the project's folder, which all nodes see, in the environment that has this project:
#
#   sbatch --nodes=8 cluster/deploy/slurm.sh CONFIG [key=value ...]
#
# The first node is Ray's head and has the driver too. Two minutes before the end of the time, or when the job is
# preempted, the run saves, and the job goes back into the queue; it continues there. After a lost node Slurm puts it
# back by itself. A run that has ended, or a mistake in the config, ends the job.
#SBATCH --job-name=multigate
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

[ $# -ge 1 ] || { echo "sbatch --nodes=N cluster/deploy/slurm.sh CONFIG [key=value ...]" >&2; exit 2; }
folder=${SLURM_SUBMIT_DIR:-$PWD}
cd "$folder"
start=$folder/cluster/deploy/start_host.sh

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export PORT=$((20000 + SLURM_JOB_ID % 10000)) # another job may share the head's host
export RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID      # Ray's folder on each node, short: sockets lie in it
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN     # of this job alone; srun hands it on
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')

# Starts Ray on some of the nodes, in the background, until its step is ended.
on_nodes() { # HOSTS COUNT ROLE
    srun --overlap --nodes="$2" --ntasks="$2" --nodelist="$1" env DRAIN_S=0 "$start" "$3" &
    steps+=($!)
}

steps=() driver=
stop() { # the driver saves; then Ray ends, on these nodes alone
    trap '' TERM
    stopped=yes
    if [ -n "$driver" ]; then kill -TERM "$driver" 2>/dev/null || true; fi
}
stopped=
trap stop TERM

address_of_head() {
    srun --overlap --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" bash -c '
        ip -o -4 address show dev "${INTERFACE:-$(ip -o route get 192.0.2.1 | sed -n "s/.* dev \([^ ]*\).*/\1/p")}"' |
        sed -n 's/.* inet \([0-9.]*\).*/\1/p' | head -n 1
}
RAY_ADDRESS=$(address_of_head):$PORT
export RAY_ADDRESS

on_nodes "${hosts[0]}" 1 head
python -m cluster.waiting "$RAY_ADDRESS" --nodes=1
if [ ${#hosts[@]} -gt 1 ]; then
    others=$(IFS=,; echo "${hosts[*]:1}")
    on_nodes "$others" $((${#hosts[@]} - 1)) "$RAY_ADDRESS"
    python -m cluster.waiting "$RAY_ADDRESS" --nodes=${#hosts[@]}
fi

code=0
if [ -z "$stopped" ]; then
    python -m trainer train "$@" --resume-or-start &
    driver=$!
    wait "$driver" || code=$?
    # `wait` returns when a signal comes; the driver may still be saving.
    while kill -0 "$driver" 2>/dev/null; do wait "$driver" || code=$?; done
fi
kill -TERM "${steps[@]}" 2>/dev/null || true
wait "${steps[@]}" || true
if [ -n "$stopped" ]; then
    scontrol requeue "$SLURM_JOB_ID" || true # where preemption has done it already
    exit 0
fi
exit "$code"

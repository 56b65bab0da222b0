#!/usr/bin/env bash
# Ray on a bare host, in the foreground, until it is stopped:
#
#   start_host.sh head                  the first host; prints the address for the others
#   start_host.sh 10.0.0.1:6379         any other host
#
# Ctrl-C or SIGTERM ends Ray on this host alone, for this cluster alone (`ray stop` ends all of the machine): the
# workers here first get DRAIN_S seconds to save. More words go to `ray start`, such as --num-gpus=4.
# `ray` and `python` are those of the environment that has this project.
#
#   INTERFACE   the network interface between the hosts, such as eth0; the one of the way to the head, or of the
#               default route, if left out
#   PORT        of the head [6379]
#   DRAIN_S     [60]; 0 ends at once
#   RAY_AUTH_TOKEN_PATH   the token's file [~/.ray/auth_token]; the head makes it, copy it to the others
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
role=${1:?"head, or the address of the head, such as 10.0.0.1:6379"}
shift
port=${PORT:-6379}

fail() {
    echo "start_host.sh: $1" >&2
    exit 2
}

# The address of this host on the way to another, or on an interface.
interface_to() { ip -o route get "$1" 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p'; }
address_of() { ip -o -4 address show dev "$1" 2>/dev/null | sed -n 's/.* inet \([0-9.]*\).*/\1/p' | head -n 1; }

if [ -z "${INTERFACE:-}" ]; then
    if [ "$role" = head ]; then target=192.0.2.1; else target=${role%:*}; fi # an address that nobody has
    INTERFACE=$(interface_to "$target")
    [ -n "$INTERFACE" ] || fail "no way to $target; set INTERFACE"
    [ "$INTERFACE" != lo ] || fail "$target is this host itself; set INTERFACE to what the other hosts reach"
fi
address=$(address_of "$INTERFACE")
[ -n "$address" ] || fail "the interface $INTERFACE has no IPv4 address here"

# What ranks of all hosts talk through. NCCL takes InfiniBand for data where there is some.
export GLOO_SOCKET_IFNAME=$INTERFACE NCCL_SOCKET_IFNAME="=$INTERFACE"

export RAY_AUTH_MODE=token
if [ -z "${RAY_AUTH_TOKEN:-}" ]; then
    export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
    if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
        [ "$role" = head ] || fail "no token in $RAY_AUTH_TOKEN_PATH; copy it from the head"
        mkdir -p "$(dirname "$RAY_AUTH_TOKEN_PATH")"
        (umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH")
    fi
fi

# A host that does not answer is lost after 9 seconds at most; Ray's own settings take up to 65.
export RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=2000 RAY_health_check_failure_threshold=3

ulimit -n "$(ulimit -Hn)"
if [ "$role" = head ]; then
    join=(--head --port="$port")
    head=$address:$port
    echo "the others: start_host.sh $head" >&2
else
    join=(--address="$role")
    head=$role
fi
cd "$project" # workers find the project there
ray start "${join[@]}" --node-ip-address="$address" --disable-usage-stats --block "$@" &
ray=$!

leave() {
    trap '' TERM INT
    if [ "$role" != head ] && [ "${DRAIN_S:-60}" != 0 ]; then
        python -m cluster.leaving --address="$head" --seconds="${DRAIN_S:-60}" || true
    fi
    kill -TERM "$ray" 2>/dev/null || true # it ends the processes that it has started
    wait "$ray" || true
    exit 0
}
trap leave TERM INT
wait "$ray"

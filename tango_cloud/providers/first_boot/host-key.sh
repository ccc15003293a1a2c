#!/bin/sh
# Gives the machine a host key of its own making, once.
#
#   host-key stage      make a fresh key beside the one in use; print its public half
#   host-key activate   swap it in; return once the SSH server answers with it
#
# Both are idempotent, and may be killed at any point: whoever comes next carries on.
# After `activate`, `stage` prints the key in use.
set -eu
umask 077
ETC=${TANGO_CLOUD_ETC:-/etc/tango-cloud}
STATE=${TANGO_CLOUD_STATE:-/var/lib/tango-cloud}
KEY=${TANGO_CLOUD_HOST_KEY:-/etc/ssh/ssh_host_ed25519_key}
NEXT=$KEY.next
SECONDS_TO_RELOAD=6

fail() {
    echo "$*" >&2
    exit 1
}

stage() {
    # An image made of one of our machines has that one's marker: the word tells them apart.
    cmp -s "$ETC/first-key.pub" "$STATE/first-boot" || fail "first boot has not finished yet"
    if [ ! -e "$NEXT" ] && [ -e "$ETC/bootstrap" ]; then
        rm -f "$KEY.new" "$KEY.new.pub"
        ssh-keygen -q -t ed25519 -N '' -C '' -f "$KEY.new" </dev/null >&2
        sync "$KEY.new" "$KEY.new.pub" 2>/dev/null || sync
        # The private half last: its presence says that both are there.
        mv "$KEY.new.pub" "$NEXT.pub"
        mv "$KEY.new" "$NEXT"
    fi
    # An `activate` that was cut short may have moved the public half already.
    if [ -e "$NEXT" ] && [ -e "$NEXT.pub" ]; then cat "$NEXT.pub"; else cat "$KEY.pub"; fi
}

activate() {
    if [ -e "$NEXT" ]; then
        if [ -e "$NEXT.pub" ]; then mv "$NEXT.pub" "$KEY.pub"; fi
        # Before the private half moves: cut short here, the staged key is still the one to take.
        rm -f "$ETC/bootstrap"
        mv "$NEXT" "$KEY"
        if command -v restorecon >/dev/null; then restorecon "$KEY" "$KEY.pub" || :; fi
    fi
    # Also when the key was swapped before: the last call may not have come as far as this.
    systemctl reload ssh 2>/dev/null || systemctl reload sshd || fail "the SSH server does not reload"
    # The server reloads on its own time, and its next visitor must not meet the old key.
    wanted=$(cut -d ' ' -f 2 "$KEY.pub")
    deadline=$(($(date +%s) + SECONDS_TO_RELOAD))
    until answers "$wanted"; do
        [ "$(date +%s)" -lt "$deadline" ] || fail "the SSH server does not answer with its new key"
        sleep 0.1
    done
}

answers() {
    for address in 127.0.0.1 $(hostname -I 2>/dev/null); do
        if ssh-keyscan -T 2 -t ed25519 "$address" 2>/dev/null | grep -qF "$1"; then return 0; fi
    done
    return 1
}

[ $# -eq 1 ] || fail "usage: host-key stage|activate"
case $1 in
stage | activate) ;;
*) fail "usage: host-key stage|activate" ;;
esac
exec 9>"$KEY.lock"
flock 9
# Without the lock's descriptor, or whatever a reload starts would hold the lock.
"$1" 9>&-

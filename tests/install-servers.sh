# The tests use OpenSSH's sshd and bubblewrap where they are installed, those on an emulated EC2
# iproute2, sudo and curl too. As root on Debian or Ubuntu, install what is missing; elsewhere the
# tests that need it are skipped, and say so.
for program in sshd bwrap ssh ip sudo curl; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, so some tests are skipped:$missing"
    exit 0
fi
echo "installing for the tests:$missing"
# Only the programs are wanted: a server that the package would start would listen to the world.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update >/dev/null
apt-get install --yes --no-install-recommends \
    openssh-server openssh-client bubblewrap iproute2 sudo curl >/dev/null

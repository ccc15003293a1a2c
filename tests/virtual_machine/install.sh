# Make a virtual machine for the tests, in the folder given: Debian with systemd and cloud-init, and
# the kernel and initial RAM disk to boot it with. QEMU boots it, in software, so that it runs where
# no machine may be virtualised. As root on Debian or Ubuntu; elsewhere the tests that need it are
# skipped, and say so.
set -eu
folder=${1:?usage: install.sh FOLDER}
[ ! -e "$folder/.done" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "only root on Debian or Ubuntu makes the virtual machine: its tests are skipped"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
for program in qemu-system-x86_64 mmdebstrap mke2fs; do
    command -v $program >/dev/null || missing=yes
done
if [ -n "${missing:-}" ]; then
    apt-get update >/dev/null
    apt-get install --yes --no-install-recommends \
        qemu-system-x86 mmdebstrap debian-archive-keyring e2fsprogs >/dev/null
fi
mkdir -p "$folder"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# cloud-init would set a locale that is not there.
locale='echo "locale: C.UTF-8" >"$1/etc/cloud/cloud.cfg.d/90-locale.cfg"'
packages=linux-image-cloud-amd64,initramfs-tools,systemd-sysv,udev,dbus,libpam-systemd
packages=$packages,cloud-init,netplan.io,systemd-resolved,locales,openssh-server,sudo
packages=$packages,iproute2,procps,cron,python3,make,bubblewrap
mmdebstrap --quiet --mode=root --variant=minbase --include=$packages \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook="$locale" bookworm "$root/system"
cp "$root"/system/boot/vmlinuz-* "$folder/kernel"
cp "$root"/system/boot/initrd.img-* "$folder/initrd"
rm -f "$folder/disk"
mke2fs -q -t ext4 -L system -d "$root/system" "$folder/disk" 3G
touch "$folder/.done"

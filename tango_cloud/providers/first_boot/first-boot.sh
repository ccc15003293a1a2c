#!/bin/sh
# Ends the first boot. Any failure stops it, and a machine without its marker never becomes ready.
set -eu
ETC=${TANGO_CLOUD_ETC:-/etc/tango-cloud}
STATE=${TANGO_CLOUD_STATE:-/var/lib/tango-cloud}
KEY=${TANGO_CLOUD_HOST_KEY:-/etc/ssh/ssh_host_ed25519_key}

# What an image that was made of one of our machines may have left.
rm -f "$STATE/first-boot" "$KEY.next" "$KEY.next.pub"
mkdir -p "$STATE"
chmod 0711 "$STATE"
systemctl daemon-reload
# First: whatever else fails, the machine ends by itself.
systemctl enable --now tango-cloud-expiry.timer
systemctl enable --now tango-cloud-boot.service
cp "$ETC/first-key.pub" "$STATE/first-boot.new"
mv "$STATE/first-boot.new" "$STATE/first-boot"

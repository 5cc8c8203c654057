#!/bin/sh
# image.sh CLONE NODE PLAN IMAGE KERNEL...: makes the disk that a guest runs from, one for all kernels. On it are this machine's own
# tools with the libraries they name, the modules of the unpacked kernel packages, node, the compiled clone and the plan. Both NVMe and
# ext4 are built into Debian's cloud kernels, so they start from it without an initramfs.
set -eu
clone=$1
node=$2
plan=$3
image=$4
shift 4

# Debian's own, whatever else comes first in the caller's path.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
root="$image.root"
rm -rf "$root"
for folder in dev etc proc root run sys tmp var/lib var/tmp usr/bin usr/sbin usr/lib usr/lib64 sluice; do
  mkdir -p "$root/$folder"
done
for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$root/$folder"; done

cp -L "$node" "$root/usr/bin/node"
cp /usr/bin/busybox "$root/usr/bin/busybox"
for tool in bash sh mount umount unshare setpriv sysctl kmod ip nft conntrack tcpdump python3; do
  cp -L "$(command -v "$tool")" "$root/usr/bin/$tool"
done
# Where the kernel itself looks for it.
ln -s ../bin/kmod "$root/usr/sbin/modprobe"
cp -a /usr/lib/python3.* "$root/usr/lib"
find "$root/usr/bin" "$root"/usr/lib/python3.*/lib-dynload -type f -exec ldd {} + 2>/dev/null |
  sed -n 's,.*[[:space:]]\(/[^ ]*\) (0x.*,\1,p' | sort -u |
  while read -r library; do
    mkdir -p "$root/$(dirname "$library")"
    cp -L "$library" "$root/$library"
  done
for file in passwd group hosts protocols services nsswitch.conf iproute2; do
  [ ! -e "/etc/$file" ] || cp -aL "/etc/$file" "$root/etc"
done

for kernel in "$@"; do
  mkdir -p "$root/usr/lib/modules"
  cp -a "$kernel"/lib/modules/* "$root/usr/lib/modules"
  depmod -b "$root" "$(basename "$kernel"/lib/modules/*)"
done

tar -C "$clone" -c --exclude=node_modules/node --exclude=node_modules/typescript --exclude=node_modules/@typescript \
  --exclude=node_modules/@biomejs --exclude=node_modules/.cache \
  package.json README.md deploy gateway controller-client test node_modules | tar -C "$root/sluice" -x
cp "$plan" "$root/sluice/plan.json"
install -m 755 "$clone/test/kernels/init.sh" "$root/init"

kilobytes=$(du -s --block-size=1K --apparent-size "$root" | cut -f 1)
rm -f "$image"
mke2fs -q -t ext4 -O ^has_journal -d "$root" "$image" "$((kilobytes * 5 / 4 + 262144))k" >/dev/null
rm -rf "$root"

#!/bin/sh
# initramfs.sh CLONE KERNEL FILE: packs what a guest runs in, everything at the path it has on this machine: the packages that tests
# need, as they are installed here, with all that they depend on; npm; the compiled clone; the modules of the unpacked kernel package.
set -eu
clone=$(realpath "$1")
kernel=$2
file=$3
need="systemd kmod procps netbase iproute2 nftables conntrack tcpdump python3 awscli prometheus man-db binutils curl"

npm=$(command -v npm)
npm_folder=$(dirname "$(dirname "$(readlink -f "$npm")")")
# Debian's own, whatever else comes first in the caller's path.
PATH=/usr/sbin:/usr/bin:/sbin:/bin

packages() {
  required=$(dpkg-query -W -f '${Priority} ${Package}\n' | sed -n 's/^required //p')
  closure=$(apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances $required $need | grep '^[a-z0-9]')
  dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' $closure 2>/dev/null | sed -n 's/^installed //p'
}

list() {
  # The folders of the root are links into /usr, whatever the package says.
  dpkg-query -L $(packages) | grep '^/[^.]' | grep -vE '^/usr/share/(doc|info|javascript|locale|man|zoneinfo)/' |
    sed -E 's,^/(bin|sbin|lib|lib32|lib64)(/|$),/usr/\1\2,'
  find / -maxdepth 1 -type l
  # What packages make when they are installed.
  printf '/etc/%s\n' passwd group nsswitch.conf hosts
  find /etc/alternatives /var/lib/dpkg
  for path in "$npm" "$npm_folder" "$clone/build/kernels/plan.json"; do
    while [ "$path" != / ]; do
      echo "$path"
      path=$(dirname "$path")
    done
  done
  find "$npm_folder"
  find "$clone" \( -path "$clone/.git" -o -path "$clone/build" -o -name .tap -o -path '*/node_modules/typescript' \
    -o -path '*/node_modules/@typescript' -o -path '*/node_modules/@biomejs' -o -path '*/node-linux-*/include' \) -prune \
    -o -path '*/node_modules/*' \( -name '*.map' -o -name '*.d.*ts' \) -o -print
}

depmod -b "$kernel" "$(basename "$kernel"/lib/modules/*)"
# The kernel unpacks one archive after another; where a folder is a link, into where it leads.
{
  list | LC_ALL=C sort -u | cpio --quiet -o -H newc
  cd "$kernel"
  find lib/modules | cpio --quiet -o -H newc
} >"$file"

#!/bin/sh
# kernel.sh SERIES FOLDER: downloads the newest of Debian's cloud kernels of a series ("6.1") that apt offers, unpacks it below
# the folder, without installing it, and prints where. What was unpacked before is not downloaded again.
set -eu
series=$1
folder=$2

newest() {
  apt-cache pkgnames "linux-image-$series." | grep -E '^linux-image-[0-9][0-9a-z.+-]*-cloud-amd64$' | sort -V | tail -n 1
}

name=$(newest)
if [ -z "$name" ] && [ "$(id -u)" = 0 ]; then
  apt-get update -qq >&2 || :
  name=$(newest)
fi
if [ -z "$name" ]; then
  echo "apt offers no linux-image-$series.*-cloud-amd64" >&2
  exit 1
fi
if [ ! -e "$folder/$name" ]; then
  mkdir -p "$folder/download"
  cd "$folder/download"
  rm -rf ./*
  apt-get download -qq "$name" >&2
  dpkg -x ./*.deb unpacked
  mv unpacked "../$name"
  rm -f ./*.deb
fi
echo "$folder/$name"

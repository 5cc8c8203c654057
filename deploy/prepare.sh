#!/bin/sh
# Makes a fresh clone ready: Debian packages (packages.sh says which), npm packages, build. Skips what is done.
set -eu
cd "$(dirname "$0")/.."

sh deploy/packages.sh "$@"
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "Installing npm packages"
  npm ci --no-audit --loglevel=error
fi
[ -e gateway/nftables-napi/build/netlink.node ] || npm rebuild nftables-napi --loglevel=error
node_modules/.bin/tsc -b
# tap is made anew without the plugin that compiles tests: they are compiled above, by a compiler it does not know.
if [ "${1:-}" = --tests ] && [ ! -e node_modules/.tap-built ]; then
  node_modules/.bin/tap build >/dev/null
  touch node_modules/.tap-built
fi

#!/bin/sh
# Installs the Debian packages that the quickstart, or with --tests the tests, with --kernels those on other kernels, with
# --bench the benchmarks, need, and says which.
# With everything there it does nothing, and needs no privileges.
set -eu

need="gcc libc6-dev iproute2 procps"
case "${1:-}" in
  --tests) need="$need nftables conntrack tcpdump python3 python3-boto3"
     # What reads our flow records and metrics: IPFIX, syslog, Kafka; certificates for TLS; Prometheus with promtool.
     need="$need nfdump rsyslog kcat openssl prometheus"
     # What runs the package's units, in namespaces of its own, not as this machine's init; another clock for the product.
     need="$need systemd libfaketime"
     # What checks the AWS commands that the documentation shows.
     need="$need awscli" ;;
  --kernels) need="$need qemu-system-x86 kmod cpio" ;;
  # What ours are measured against: DPDK's rte_lpm, libmnl, ulogd2.
  --bench) need="$need nftables conntrack pkg-config libdpdk-dev libmnl-dev ulogd2 ulogd2-json" ;;
esac

missing=""
for package in $need; do
  dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -z "$missing" ] && exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "Missing packages:$missing. On Debian, as root: apt-get install$missing" >&2
  exit 0
fi
echo "Installing Debian packages:$missing"
# None of them is to run as a service: policy-rc.d is what Debian's maintainer scripts ask before they start one.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
# Nor at the next boot.
case "$missing " in *" prometheus "*) update-rc.d prometheus disable ;; esac

#!/bin/sh
# init.sh CLONE NODE: the guest's first process: mounts what a system has, runs the tests of the plan, and powers off.
export PATH=/usr/sbin:/usr/bin HOME=/root
# A test changes the root, and none can be changed that is mounted on nothing, as the kernel's first is: it is mounted on itself.
if [ "$#" = 2 ]; then
  mount -n --bind / /run
  cd /run && mount -n --move . / && exec chroot . "$0" "$@" moved
fi
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t devtmpfs devtmpfs /dev
ln -s /proc/self/fd /dev/fd
mkdir /dev/pts /dev/shm
mount -t devpts -o ptmxmode=666 devpts /dev/pts
ip link set lo up
stty -F /dev/ttyS1 raw -echo
cd "$1" && "$2" test/dist/kernels/guest.js build/kernels/plan.json >/dev/ttyS1
echo o >/proc/sysrq-trigger
exec sleep infinity

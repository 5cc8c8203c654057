#!/usr/bin/busybox sh
# The guest's first process: mounts what a system has, runs the tests of the plan, and powers off.
# The real tools first: busybox has lesser ones of the same names.
export PATH=/usr/bin:/usr/lib/busybox HOME=/root
/usr/bin/busybox mkdir -p /usr/lib/busybox
/usr/bin/busybox --install -s /usr/lib/busybox
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
ln -s /proc/self/fd /dev/fd
mkdir -p /dev/shm
for folder in /tmp /run /dev/shm; do mount -t tmpfs tmpfs $folder; done
ip link set lo up
cd /sluice || poweroff -f
stty -F /dev/ttyS1 raw -echo
node test/dist/kernels/guest.js plan.json >/dev/ttyS1
sync
poweroff -f

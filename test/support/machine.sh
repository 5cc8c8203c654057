#!/bin/sh
# Becomes systemd on a machine of its own: this one's files under an overlay, so that nothing is written here. To be run
# in new mount, process, UTS, IPC and cgroup namespaces, with an empty folder.
set -eu
folder=$1

mount -t tmpfs tmpfs "$folder"
mkdir "$folder/changes" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/changes,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
chmod 1777 tmp
mount -t tmpfs tmpfs dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
: > dev/console
if grep -q name=systemd /proc/self/cgroup; then
  mount -t tmpfs tmpfs sys/fs/cgroup
  mkdir sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
else
  mount -t cgroup2 cgroup2 sys/fs/cgroup
fi
# Of the services of this machine none but the journal.
rm -rf lib/systemd/system/*.wants etc/systemd/system/*.wants
mkdir -p lib/systemd/system/sysinit.target.wants etc/systemd/journald.conf.d
ln -s ../systemd-journald.service lib/systemd/system/sysinit.target.wants/
printf '[Journal]\nAudit=no\nReadKMsg=no\n' > etc/systemd/journald.conf.d/test.conf
echo '[Manager]
LogTarget=journal' > etc/systemd/system.conf
mkdir old
pivot_root . old
umount -l old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --unit=basic.target

#!/bin/sh
# PID 1 of a guest: makes an ordinary machine of a bare kernel, runs one command, tells how it ended.
#
# The kernel's command line (uml.py, qemu.py) sets MODULES, what is to be /lib/modules, and for User-mode Linux EXCHANGE,
# the one directory of the host that the guest writes to. Here it is /run/exchange:
#     settings        from the host: MODE, CGROUPS, DEADLINE (s), DIRECTORY, VISIBLE (quoted words), SWAP (a disk),
#                     TEMPORARY (a disk with a file system for /tmp, or nothing) and the command, as "$@"
#     kernel          to the host: its release
#     output, exit    to the host: what the command wrote on both streams, and its exit code
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb

# What goes wrong here ends the guest at once instead of leaving a kernel without init: the console has told why.
halt() {
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}
trap halt EXIT

# --- the root: the host's files below, whatever is written to them in memory ---

mount -t proc proc /proc
grep -qw overlay /proc/filesystems || insmod "$MODULES/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
mount -t tmpfs -o mode=755 upper /mnt
mkdir /mnt/upper /mnt/work /mnt/root
# xino: files and directories of both layers tell one device number, as those of any other file system do
mount -t overlay -o xino=on,lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
pivot_root . mnt
cd /
umount -l /mnt

# --- what every machine has ---

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t securityfs securityfs /sys/kernel/security
if [ -d /sys/fs/selinux ]; then mount -t selinuxfs selinuxfs /sys/fs/selinux; fi
mount -t devtmpfs -o mode=755 devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
ln -s /proc/self/fd /dev/fd
mount -t tmpfs -o mode=755 run /run
mkdir -p /lib/modules /run/exchange /run/visible
mount --bind "$MODULES" /lib/modules
if [ -n "${EXCHANGE-}" ]; then
    # sync: each line is at the host when it is written, also when the guest dies of the next
    mount -t hostfs -o sync,"$EXCHANGE" exchange /run/exchange
else
    mount -t virtiofs exchange /run/exchange
fi
. /run/exchange/settings
uname -r >/run/exchange/kernel

# The host's temporary files are hidden: they come and go while the guest looks. What is needed of them stays.
number=0
for directory in $VISIBLE; do
    number=$((number + 1))
    mkdir "/run/visible/$number"
    mount --bind "$directory" "/run/visible/$number"
done
if [ -n "$TEMPORARY" ]; then
    mount "$TEMPORARY" /tmp
    chmod 1777 /tmp
    rmdir /tmp/lost+found
else
    mount -t tmpfs -o mode=1777 tmp /tmp
fi
mount -t tmpfs -o mode=1777 tmp /var/tmp
number=0
for directory in $VISIBLE; do
    number=$((number + 1))
    mkdir -p "$directory"
    mount --bind "/run/visible/$number" "$directory"
    umount "/run/visible/$number"
done

hostname guest
echo 0 >/proc/sys/kernel/printk_ratelimit # what is denied is looked for in the kernel's log: all of it
ip link set lo up
mkswap "$SWAP" >/dev/null
swapon "$SWAP"

# --- cgroups ---

version1() { # version1 DIRECTORY CONTROLLERS
    mkdir "/sys/fs/cgroup/$1"
    mount -t cgroup -o "$2" cgroup "/sys/fs/cgroup/$1"
}

# Whether this kernel has that controller.
known() { awk -v name="$1" '$1 == name { found = 1 } END { exit !found }' /proc/cgroups; }

case $CGROUPS in
    unified) mount -t cgroup2 cgroup2 /sys/fs/cgroup ;;
    v1)
        mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
        version1 cpu,cpuacct cpu,cpuacct # together, as systemd has them, with a link for each
        ln -s cpu,cpuacct /sys/fs/cgroup/cpu
        ln -s cpu,cpuacct /sys/fs/cgroup/cpuacct
        for controller in memory blkio pids devices freezer cpuset hugetlb; do
            if known $controller; then version1 $controller $controller; fi
        done
        version1 systemd none,name=systemd
        ;;
    hybrid) # not systemd's, which has no controller on v2: here each version has some of those that matter
        mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
        for controller in cpu cpuacct devices freezer cpuset; do
            if known $controller; then version1 $controller $controller; fi
        done
        version1 systemd none,name=systemd
        mkdir /sys/fs/cgroup/unified
        mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified # memory, io, pids; hugetlb where there is one
        ;;
esac

# --- the command ---

export GUEST="$MODE" # tells tests/guests/inside.py where it is
cd "$DIRECTORY"
code=0
timeout --kill-after=5 "$DEADLINE" "$@" >/run/exchange/output 2>&1 </dev/null || code=$?
echo "$code" >/run/exchange/exit

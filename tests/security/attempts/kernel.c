/* The kernel's files, devices and mounts: what tells about the host, sets it up, or leads to its disks. */
#include "attempt.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* The value that it has is written back. */
static int writable(const char *path)
{
    char text[4096];
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof(text));
    int wrote = n > 0 && pwrite(fd, text, (size_t)n, 0) == n;
    int why = errno;
    close(fd);
    errno = why;
    return wrote;
}

/* core_pattern, modprobe and uevent_helper are programs that the host's root runs. */
void try_settings(void)
{
    static const char *const PATHS[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
                                        "/sys/kernel/uevent_helper", "/proc/sys/kernel/randomize_va_space",
                                        "/proc/sys/vm/swappiness"};
    int why = 0;
    for (size_t i = 0; i < LENGTH(PATHS); i++) {
        if (writable(PATHS[i]))
            succeeded("wrote %s", PATHS[i]);
        why = why ? why : errno;
    }
    int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC); /* opened only: each letter does something */
    if (fd >= 0)
        succeeded("opened /proc/sysrq-trigger to write");
    errno = why;
    blocked("core_pattern, and others");
}

static int tells(const char *path)
{
    char text[64];
    struct stat found;
    if (stat(path, &found) < 0)
        return 0;
    if (!S_ISDIR(found.st_mode))
        return read_text(path, text, sizeof(text)) > 0;
    int count = 0;
    DIR *directory = opendir(path);
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count > 2;
}

void try_secrets(void)
{
    static const char *const PATHS[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug",
                                        "/sys/firmware"};
    int there = 0;
    for (size_t i = 0; i < LENGTH(PATHS); i++) {
        there |= access(PATHS[i], F_OK) == 0;
        if (tells(PATHS[i]))
            succeeded("read %s", PATHS[i]);
    }
    if (there)
        blocked_by("empty, or not to be read");
    blocked("/proc/keys, and others");
}

void try_interrupts(void)
{
    if (tells("/proc/interrupts"))
        succeeded("read /proc/interrupts");
    if (access("/proc/interrupts", F_OK) < 0)
        blocked("/proc/interrupts");
    blocked_by("empty: /proc/interrupts");
}

/* A device of the host, DEVICE=TYPE:MAJOR:MINOR, by a node of one's own. */
void try_make_device(void)
{
    static const char *const PLACES[] = {"/attempt-node", "/tmp/attempt-node", "/dev/attempt-node"};
    unsigned major = 0, minor = 0;
    char sector[8192], type = 0; /* more than a record of the kernel's log */
    int why = 0;
    if (sscanf(fact("device", ""), "%c:%u:%u", &type, &major, &minor) != 3)
        absent("no device was named");
    for (size_t i = 0; i < LENGTH(PLACES); i++) {
        if (mknod(PLACES[i], (type == 'b' ? S_IFBLK : S_IFCHR) | 0600, makedev(major, minor)) < 0) {
            why = errno == EROFS ? why : errno;
            continue;
        }
        long n = read_text(PLACES[i], sector, sizeof(sector));
        why = errno;
        unlink(PLACES[i]);
        if (n > 0)
            succeeded("read the host's device %c %u:%u", type, major, minor);
    }
    errno = why ? why : EROFS;
    blocked("a node of the host's device");
}

void try_devices(void)
{
    static const char *const PATHS[] = {"/dev/mem",   "/dev/kmsg",    "/dev/port",  "/dev/kvm",
                                        "/dev/fuse",  "/dev/net/tun", "/dev/sda",   "/dev/vda",
                                        "/dev/loop0", "/dev/nvme0n1", "/dev/vsock", "/dev/nvram"};
    for (size_t i = 0; i < LENGTH(PATHS); i++)
        if (open(PATHS[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK) >= 0)
            succeeded("opened %s", PATHS[i]);
    blocked("/dev/mem, /dev/kmsg, /dev/fuse, disks and others");
}

/* "Shocker": inode 2 is the root of any ext4. */
void try_handle(void)
{
    struct {
        unsigned bytes;
        int type;
        uint32_t inode, generation;
    } handle = {8, 1, 2, 0};
    int here = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (syscall(SYS_open_by_handle_at, here, &handle, O_RDONLY) >= 0)
        succeeded("opened inode 2 of the file system below");
    if (errno == ESTALE || errno == EOPNOTSUPP)
        absent("%s: / has no such handles", strerrorname_np(errno));
    blocked("open_by_handle_at");
}

void try_mount(void)
{
    if (mount("tmpfs", "/tmp", "tmpfs", 0, 0) < 0)
        blocked("mount tmpfs");
    umount2("/tmp", MNT_DETACH);
    succeeded("mounted a tmpfs");
}

/* A second procfs has no masks and no read-only parts. */
void try_proc_again(void)
{
    if (mount("proc", "/tmp", "proc", 0, 0) < 0)
        blocked("mount proc");
    int open_again = writable("/tmp/sys/kernel/core_pattern");
    umount2("/tmp", MNT_DETACH);
    if (open_again)
        succeeded("wrote core_pattern in a second /proc");
    blocked("core_pattern in a second /proc");
}

/* Take away what is mounted over /proc: by umount(2), or by making it writable again. */
void try_unmask(void)
{
    static const char *const PATHS[] = {"/proc/sys", "/proc/keys", "/proc/timer_list", "/proc/sysrq-trigger",
                                        "/sys/firmware"};
    int why = 0;
    for (size_t i = 0; i < LENGTH(PATHS); i++) {
        if (mount(0, PATHS[i], 0, MS_REMOUNT | MS_BIND, 0) == 0)
            succeeded("made %s writable", PATHS[i]);
        why = errno == EINVAL || errno == ENOENT ? why : errno;
        if (umount2(PATHS[i], MNT_DETACH) == 0)
            succeeded("unmounted %s", PATHS[i]);
        why = errno == EINVAL || errno == ENOENT ? why : errno;
    }
    if (!why)
        absent("nothing is mounted there");
    errno = why;
    blocked("umount and remount of /proc/sys, and others");
}

/* chroot(2): a second one below leaves the working directory above it. PROOF=... is a file of the host's. */
void try_walk_out(void)
{
    struct stat found;
    char *deeper = "/tmp/attempt-deeper";
    mkdir(deeper, 0700);
    if (chroot(deeper) < 0)
        blocked("chroot");
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0)
            blocked("chdir");
    if (chroot(".") < 0)
        blocked("chroot");
    if (stat(fact("proof", "/proof"), &found) < 0)
        blocked("a file of the host");
    succeeded("saw %s of the host", fact("proof", "/proof"));
}

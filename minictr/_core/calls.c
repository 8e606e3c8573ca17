/* Single system calls for kernel modules, for what Python 3.11 lacks; and names for error messages. */
#include "machine.h"

long mc_unshare(uint64_t flags)
{
    return MC_CALL1(__NR_unshare, flags);
}

long mc_setns(int fd, int nstype)
{
    return MC_CALL2(__NR_setns, fd, nstype);
}

long mc_pidfd_open(int pid, unsigned int flags)
{
    return MC_CALL2(__NR_pidfd_open, pid, flags);
}

long mc_pidfd_send_signal(int pidfd, int sig, unsigned int flags)
{
    return MC_CALL4(__NR_pidfd_send_signal, pidfd, sig, 0, flags);
}

long mc_pidfd_getfd(int pidfd, int fd, unsigned int flags)
{
    return MC_CALL3(__NR_pidfd_getfd, pidfd, fd, flags);
}

long mc_close_range(unsigned int first, unsigned int last, unsigned int flags)
{
    return MC_CALL3(__NR_close_range, first, last, flags);
}

long mc_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
    struct open_how how = {flags, mode, resolve};
    return MC_CALL4(__NR_openat2, dirfd, path, &how, sizeof(how));
}

long mc_open_tree(int dirfd, const char *path, unsigned int flags)
{
    return MC_CALL3(__NR_open_tree, dirfd, path, flags);
}

long mc_move_mount(int from, const char *from_path, int to, const char *to_path, unsigned int flags)
{
    return MC_CALL5(__NR_move_mount, from, from_path, to, to_path, flags);
}

long mc_mount(const char *source, const char *target, const char *fstype, uint64_t flags, const char *data)
{
    return MC_CALL5(__NR_mount, source, target, fstype, flags, data);
}

long mc_umount2(const char *target, int flags)
{
    return MC_CALL2(__NR_umount2, target, flags);
}

long mc_pivot_root(const char *new_root, const char *put_old)
{
    return MC_CALL2(__NR_pivot_root, new_root, put_old);
}

long mc_fsopen(const char *fstype, unsigned int flags)
{
    return MC_CALL2(__NR_fsopen, fstype, flags);
}

long mc_fsconfig(int fd, unsigned int cmd, const char *key, const char *value, int aux)
{
    return MC_CALL5(__NR_fsconfig, fd, cmd, key, value, aux);
}

long mc_fsmount(int fd, unsigned int flags, unsigned int attr)
{
    return MC_CALL3(__NR_fsmount, fd, flags, attr);
}

long mc_mount_setattr(int dirfd, const char *path, unsigned int flags, uint64_t set, uint64_t clear,
                      uint64_t propagation, int userns_fd)
{
    struct mount_attr attr = {set, clear, propagation, set & MOUNT_ATTR_IDMAP ? (uint64_t)userns_fd : 0};
    return MC_CALL5(__NR_mount_setattr, dirfd, path, flags, &attr, sizeof(attr));
}

long mc_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
    return MC_CALL5(__NR_prctl, option, a, b, c, d);
}

long mc_seccomp(unsigned int operation, unsigned int flags, const char *program, uint32_t length)
{
    struct sock_fprog fprog;
    mc_zero(&fprog, sizeof(fprog));
    fprog.len = (unsigned short)(length / sizeof(struct sock_filter));
    fprog.filter = (struct sock_filter *)(uintptr_t)program;
    return MC_CALL3(__NR_seccomp, operation, flags, program ? (void *)&fprog : 0);
}

/* SECCOMP_GET_NOTIF_SIZES: bytes of struct seccomp_notif, seccomp_notif_resp and seccomp_data, as the kernel has them.
 */
long mc_notif_sizes(uint16_t *sizes)
{
    return MC_CALL3(__NR_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, sizes);
}

long mc_sethostname(const char *name, size_t length)
{
    return MC_CALL2(__NR_sethostname, name, length);
}

long mc_setdomainname(const char *name, size_t length)
{
    return MC_CALL2(__NR_setdomainname, name, length);
}

long mc_keyctl(int operation, const char *name)
{
    return MC_CALL5(__NR_keyctl, operation, name, 0, 0, 0);
}

long mc_personality(unsigned long persona)
{
    return MC_CALL1(__NR_personality, persona);
}

long mc_setgroups(const char *groups, size_t count)
{
    return MC_CALL2(__NR_setgroups, count, groups);
}

/* setfsuid(2) and setfsgid(2) have no way to fail: what was set is asked for. The effective capabilities, of which a
 * change away from user 0 takes those over files, are set again. */
long mc_setfsids(unsigned int uid, unsigned int gid)
{
    uint64_t sets[3];
    long ret = mc_capget(0, sets);
    if (ret < 0)
        return ret;
    (void)MC_CALL1(__NR_setfsgid, gid);
    (void)MC_CALL1(__NR_setfsuid, uid);
    if ((unsigned int)MC_CALL1(__NR_setfsgid, -1) != gid || (unsigned int)MC_CALL1(__NR_setfsuid, -1) != uid)
        return -MC_EPERM;
    return mc_capset(sets[0], sets[1], sets[2]);
}

long mc_fstatfs_type(int fd)
{
    long fs[25]; /* struct statfs, asm-generic/statfs.h: f_type is first, 120 bytes in all */
    long result = MC_CALL2(__NR_fstatfs, fd, fs);
    return result < 0 ? result : fs[0];
}

long mc_bpf(int cmd, const char *attr, unsigned int size)
{
    return MC_CALL3(__NR_bpf, cmd, attr, size);
}

long mc_inotify_init1(int flags)
{
    return MC_CALL1(__NR_inotify_init1, flags);
}

long mc_inotify_add_watch(int fd, const char *path, uint32_t mask)
{
    return MC_CALL3(__NR_inotify_add_watch, fd, path, mask);
}

static const unsigned char STUB[] = {
#include "stub_bytes.inc"
};

const unsigned char *mc_stub(void)
{
    return STUB;
}

size_t mc_stub_size(void)
{
    return sizeof(STUB);
}

static const unsigned char MONITOR[] = {
#include "monitor_bytes.inc"
};

const unsigned char *mc_monitor_program(void)
{
    return MONITOR;
}

size_t mc_monitor_program_size(void)
{
    return sizeof(MONITOR);
}

static const unsigned char PROXY[] = {
#include "proxy_bytes.inc"
};

const unsigned char *mc_proxy_program(void)
{
    return PROXY;
}

size_t mc_proxy_program_size(void)
{
    return sizeof(PROXY);
}

/* Many small files at once, below DIRFD. NAMES: paths, a zero after each, and one more at the end. OUT gets for each
 * 32 bits, its length or -errno, and its text as one read(2) gives it. The bytes of OUT that are used; -ENOSPC when it
 * is too small. */
long mc_read_files(int dirfd, const char *names, char *out, size_t size)
{
    size_t used = 0;
    for (; *names; names += __builtin_strlen(names) + 1) {
        if (size - used <= sizeof(int32_t)) {
            return -MC_ENOSPC;
        }
        size_t room = size - used - sizeof(int32_t);
        long fd = MC_CALL4(__NR_openat, dirfd, names, MC_O_CLOEXEC, 0), got = fd;
        if (fd >= 0) {
            got = MC_CALL3(__NR_read, fd, out + used + sizeof(int32_t), room);
            mc_close((int)fd);
        }
        if (got == (long)room) {
            return -MC_ENOSPC;
        }
        int32_t told = (int32_t)got;
        __builtin_memcpy(out + used, &told, sizeof(told));
        used += sizeof(told) + (got > 0 ? (size_t)got : 0);
    }
    return (long)used;
}

// clang-format off
#define MC_NAMES(X) \
    X(prctl) X(read) X(unshare) X(setns) X(mount) X(open_tree) X(fsopen) X(fsconfig) X(fsmount) \
    X(mount_setattr) X(move_mount) X(fchdir) X(pivot_root) X(umount2) X(chdir) X(chroot) X(openat) \
    X(openat2) X(mkdirat) X(mknodat) X(fchmodat) X(fchownat) X(symlinkat) X(write) X(fstatfs) X(sethostname) \
    X(setdomainname) X(socket) X(ioctl) X(prlimit64) X(umask) X(getcwd) X(statx) X(personality) X(keyctl) \
    X(setsid) X(dup3) X(fcntl) X(sendmsg) X(capget) X(capset) X(setgroups) X(setresgid) X(setresuid) \
    X(getresuid) X(getresgid) X(getgroups) X(seccomp) X(close_range) X(execve) X(execveat) X(clone3) \
    X(rt_sigprocmask) X(mmap) X(clone) X(pidfd_open) X(pidfd_send_signal) X(pidfd_getfd) X(inotify_init1) \
    X(inotify_add_watch) X(landlock_create_ruleset) X(landlock_add_rule) X(landlock_restrict_self) \
    X(ptrace) X(process_vm_readv)
// clang-format on

const char *mc_syscall_name(int nr)
{
    switch (nr) {
#define X(name)                                                                                                        \
    case __NR_##name:                                                                                                  \
        return #name;
        MC_NAMES(X)
#undef X
    default:
        return "";
    }
}

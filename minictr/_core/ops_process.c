/* Attributes of the process: synchronisation, namespaces, limits, session, terminal, standard streams. */
#include "machine.h"

#include <asm/signal.h>
#include <linux/magic.h>

long mc_op_pdeathsig(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    return MC_CALL5(__NR_prctl, PR_SET_PDEATHSIG, op->arg[0], 0, 0, 0);
}

/* One byte means go. End of file means that the parent died before it said so. */
long mc_op_barrier(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    char go;
    long n;
    do {
        n = MC_CALL3(__NR_read, op->arg[0], &go, 1);
    } while (n == -MC_EINTR);
    if (n >= 0)
        mc_close((int)op->arg[0]);
    return n == 0 ? -MC_EPIPE : n < 0 ? n : 0;
}

/* "0" is the writing thread itself, and it is the only one: through `tasks` it moves without the lock of all thread
 * groups, for which cgroup.procs waits some 10 ms (an RCU grace period). Linux 5.6, kernel/cgroup/cgroup.c
 * cgroup_procs_write_start(). Permission is that of who opened the file (Linux 5.16, CVE-2021-4197). Born in its group
 * by CLONE_INTO_CGROUP, or where there is no such hierarchy, there is nothing to do. */
long mc_op_cgroup_enter(struct mc_machine *m, struct mc_op *op)
{
    if (op->arg[0] < 0)
        return 0;
    long n = MC_CALL3(__NR_write, op->arg[0], "0", 1);
    if (m->region) /* in a caller's thread the descriptor is the caller's */
        mc_close((int)op->arg[0]);
    return n == 1 ? 0 : n < 0 ? n : -MC_EIO;
}

long mc_op_subreaper(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    return MC_CALL5(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

/* CLONE_CLEAR_SIGHAND leaves ignored signals ignored, and Python ignores SIGPIPE and SIGXFSZ. */
long mc_op_sigreset(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    uint64_t none = 0;
    long ret = mc_reset_signals(0 /* SIG_DFL */);
    if (ret < 0)
        return ret;
    return MC_CALL4(__NR_rt_sigprocmask, SIG_SETMASK, &none, 0, 8);
}

long mc_op_unshare(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    return MC_CALL1(__NR_unshare, op->arg[0]);
}

/* A descriptor of the host's has done its work: nobody inside may find it in /proc (CVE-2024-21626). A caller's thread
 * keeps what is its own. */
static long spent(struct mc_machine *m, long ret, int64_t fd)
{
    if (ret >= 0 && m->region)
        mc_close((int)fd);
    return ret;
}

/* setns(2). A time namespace moves the clock that ops are stamped with. The stamps stay those of the namespace before:
 * by how much it moved is told by the clock that no time namespace has. */
static long enter(const struct mc_machine *m, int fd, int64_t flags)
{
    if (!m->region || !(flags & CLONE_NEWTIME))
        return MC_CALL2(__NR_setns, fd, flags);
    uint64_t before = mc_clock(MC_MONOTONIC_RAW) - mc_clock(MC_REALTIME);
    long ret = MC_CALL2(__NR_setns, fd, flags);
    mc_moved += mc_clock(MC_MONOTONIC_RAW) - mc_clock(MC_REALTIME) - before;
    return ret;
}

long mc_op_setns(struct mc_machine *m, struct mc_op *op)
{
    mc_root_changes(); /* a mount namespace brings its own */
    return spent(m, enter(m, (int)op->arg[0], op->arg[1]), op->arg[0]);
}

/* A time namespace that was unshared is for children only; before Linux 6.2 execve(2) does not enter it either, and the
 * program would have the host's clocks. */
long mc_op_setns_time(struct mc_machine *m, struct mc_op *op MC_UNUSED)
{
    long fd = MC_CALL4(__NR_openat, AT_FDCWD, "/proc/self/ns/time_for_children", MC_O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    long ret = enter(m, (int)fd, CLONE_NEWTIME);
    mc_close((int)fd);
    return ret;
}

long mc_op_enter_root(struct mc_machine *m, struct mc_op *op)
{
    mc_root_changes();
    long ret = MC_CALL1(__NR_fchdir, op->arg[0]);
    return spent(m, ret < 0 ? ret : MC_CALL1(__NR_chroot, "."), op->arg[0]);
}

long mc_op_sethostname(struct mc_machine *m, struct mc_op *op)
{
    const char *name = mc_text(m, op, 0);
    return MC_CALL2(__NR_sethostname, name, mc_strlen(name));
}

long mc_op_setdomainname(struct mc_machine *m, struct mc_op *op)
{
    const char *name = mc_text(m, op, 0);
    return MC_CALL2(__NR_setdomainname, name, mc_strlen(name));
}

/* netdevice(7): any socket will do; AF_UNIX is the one that is always there. */
long mc_op_loopback_up(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    struct {
        char name[16];
        short flags;
        char rest[22];
    } request;
    mc_zero(&request, sizeof(request));
    mc_copy(request.name, "lo", 3);
    long fd = MC_CALL3(__NR_socket, 1 /* AF_UNIX */, 2 | MC_O_CLOEXEC /* SOCK_DGRAM */, 0);
    if (fd < 0)
        return fd;
    long ret = MC_CALL3(__NR_ioctl, fd, 0x8913 /* SIOCGIFFLAGS */, &request);
    if (ret >= 0) {
        request.flags |= 1; /* IFF_UP */
        ret = MC_CALL3(__NR_ioctl, fd, 0x8914 /* SIOCSIFFLAGS */, &request);
    }
    mc_close((int)fd);
    return ret;
}

long mc_op_rlimit(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    uint64_t limit[2] = {(uint64_t)op->arg[1], (uint64_t)op->arg[2]};
    return MC_CALL4(__NR_prlimit64, 0, op->arg[0], limit, 0);
}

long mc_op_umask(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    long ret = MC_CALL1(__NR_umask, op->arg[0]);
    return ret < 0 ? ret : 0;
}

/* The working directory must be inside the root: a descriptor that leaked from the host could make it something else
 * (CVE-2024-21626), and then getcwd(2) answers "(unreachable)...". */
static long cwd_is_inside(void)
{
    char path[4096];
    long n = MC_CALL2(__NR_getcwd, path, sizeof(path));
    if (n < 0)
        return n;
    return path[0] == '/' ? 0 : -MC_ESTALE;
}

long mc_op_chdir(struct mc_machine *m, struct mc_op *op)
{
    const char *path = mc_text(m, op, 0);
    if (op->arg[0] & MC_MKDIR) {
        long fd = mc_mount_point(path, MC_MKDIR);
        if (fd < 0)
            return fd;
        mc_close((int)fd);
    }
    long ret = MC_CALL1(__NR_chdir, path);
    return ret < 0 ? ret : cwd_is_inside();
}

/* The beginning of struct statx, linux/stat.h. */
struct place {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint64_t rest[16];
    uint64_t mount; /* stx_mnt_id, Linux 5.8 */
    char more[112];
};

static long place_of(const char *path, struct place *at)
{
    return MC_CALL5(__NR_statx, AT_FDCWD, path, 0, 0x1001 /* STATX_TYPE | STATX_MNT_ID */, at);
}

long mc_op_verify_root(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    struct place root, above;
    long ret = place_of("/", &root);
    if (ret >= 0)
        ret = place_of("/..", &above);
    if (ret < 0)
        return ret;
    if (!(root.attributes & 0x2000 /* STATX_ATTR_MOUNT_ROOT, Linux 5.8 */))
        return -MC_EXDEV;
    if (root.mount != above.mount) /* ".." leads onto what is mounted over the root: the host's, still */
        return -MC_EXDEV;
    return cwd_is_inside();
}

long mc_op_personality(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    return MC_CALL1(__NR_personality, op->arg[0]);
}

long mc_op_keyring(struct mc_machine *m, struct mc_op *op)
{
    const char *name = mc_text(m, op, 0);
    return MC_CALL5(__NR_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, name[0] ? name : 0, 0, 0, 0);
}

long mc_op_setsid(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    return MC_CALL0(__NR_setsid);
}

static long dup_onto(int64_t fd, int target)
{
    return MC_CALL3(__NR_dup3, fd, target, 0);
}

long mc_op_stdio(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    int64_t high[3];
    /* first out of the way: a source may be 0, 1 or 2 itself */
    for (int i = 0; i < 3; i++) {
        high[i] = MC_CALL3(__NR_fcntl, op->arg[i], MC_F_DUPFD_CLOEXEC, 10);
        if (high[i] < 0)
            return high[i];
    }
    for (int i = 0; i < 3; i++) {
        long ret = dup_onto(high[i], i);
        if (ret < 0)
            return ret;
        mc_close((int)high[i]);
    }
    return 0;
}

/* unlockpt and TIOCGPTPEER: the slave by its master, never by a name that the image could have prepared. */
static long open_slave(int master)
{
    int unlock = 0;
    long ret = MC_CALL3(__NR_ioctl, master, 0x40045431 /* TIOCSPTLCK */, &unlock);
    if (ret >= 0)
        ret = MC_CALL3(__NR_ioctl, master, 0x5441 /* TIOCGPTPEER */, MC_O_RDWR | MC_O_NOCTTY | MC_O_CLOEXEC);
    return mc_above_stdio(ret);
}

static long open_master(void)
{
    long fs[25];
    long master = mc_above_stdio(mc_open_inside("/dev/pts/ptmx", MC_O_RDWR | MC_O_NOCTTY, MC_NOFOLLOW));
    if (master < 0)
        return master;
    long ret = MC_CALL2(__NR_fstatfs, master, fs);
    if (ret >= 0 && fs[0] != DEVPTS_SUPER_MAGIC)
        ret = -MC_EMEDIUMTYPE;
    return ret < 0 ? ret : master;
}

/* The parent has the master and has set the window size: a program must never see the wrong one first. */
static long wait_for_parent(int socket)
{
    char byte;
    long n;
    do {
        n = MC_CALL3(__NR_read, socket, &byte, 1);
    } while (n == -MC_EINTR);
    return n == 0 ? -MC_EPIPE : n;
}

/* The slave over /dev/console, for programs that write there (as runc and LXC do). */
static long bind_console(int slave)
{
    long tree = MC_CALL3(__NR_open_tree, slave, "", MC_AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return tree;
    long target = mc_mount_point("/dev/console", MC_MKFILE | MC_NOFOLLOW);
    if (target < 0)
        return target;
    long ret = MC_CALL5(__NR_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    mc_close((int)tree);
    mc_close((int)target);
    return ret;
}

long mc_op_console(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    long master = open_master();
    if (master < 0)
        return master;
    long slave = open_slave((int)master);
    if (slave < 0)
        return slave;
    long ret = MC_CALL5(__NR_fchownat, slave, "", op->arg[1], -1, MC_AT_EMPTY_PATH);
    if (ret >= 0 && (op->arg[2] & MC_CONSOLE_BIND))
        ret = bind_console((int)slave);
    if (ret >= 0) {
        int32_t fd = (int32_t)master;
        ret = mc_send((int)op->arg[0], "m", 1, &fd, 1, 0);
    }
    if (ret >= 0)
        ret = wait_for_parent((int)op->arg[0]);
    if (ret >= 0)
        ret = MC_CALL3(__NR_ioctl, slave, 0x540e /* TIOCSCTTY */, 0);
    for (int i = 0; ret >= 0 && i < 3; i++)
        ret = dup_onto(slave, i);
    mc_close((int)master);
    mc_close((int)slave);
    return ret < 0 ? ret : 0;
}

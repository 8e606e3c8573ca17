/* Files inside the root: directories, device nodes, links, and settings written through procfs. */
#include "machine.h"

#include <linux/magic.h>

/* At the directory that holds PATH: call nr(dirfd, name, ...). An entry that is there already is the caller's matter.
 */
long mc_op_mkdir(struct mc_machine *m, struct mc_op *op)
{
    const char *last;
    long parent = mc_parent_inside(mc_text(m, op, 0), &last);
    if (parent < 0)
        return parent;
    long ret = MC_CALL3(__NR_mkdirat, parent, last, op->arg[0]);
    /* the umask must not decide, and a directory of the image keeps what it has */
    if (ret >= 0)
        ret = MC_CALL3(__NR_fchmodat, parent, last, op->arg[0]);
    if (ret >= 0 && (op->arg[1] || op->arg[2]))
        ret = MC_CALL5(__NR_fchownat, parent, last, op->arg[1], op->arg[2], 0x100 /* AT_SYMLINK_NOFOLLOW */);
    mc_close((int)parent);
    return ret;
}

long mc_op_mknod(struct mc_machine *m, struct mc_op *op)
{
    const char *last;
    uint64_t major = (uint64_t)op->arg[1], minor = (uint64_t)op->arg[2];
    uint64_t device = (minor & 0xff) | (major << 8) | ((minor & ~0xffULL) << 12);
    long parent = mc_parent_inside(mc_text(m, op, 0), &last);
    if (parent < 0)
        return parent;
    long ret = MC_CALL4(__NR_mknodat, parent, last, op->arg[0], device);
    if (ret >= 0)
        ret = MC_CALL3(__NR_fchmodat, parent, last, op->arg[0] & 07777);
    mc_close((int)parent);
    return ret;
}

long mc_op_symlink(struct mc_machine *m, struct mc_op *op)
{
    const char *last;
    long parent = mc_parent_inside(mc_text(m, op, 1), &last);
    if (parent < 0)
        return parent;
    long ret = MC_CALL3(__NR_symlinkat, mc_text(m, op, 0), parent, last);
    mc_close((int)parent);
    return ret;
}

/* PATH without any link on the way, but for /proc/self, which is one: it is opened by itself first. A link made on
 * something that is mounted below /proc could lead to another file of procfs (CVE-2025-52881). */
static long open_for_writing(const char *path)
{
    if (!mc_same(path, "/proc/self/", 11))
        return mc_open_inside(path, MC_O_WRONLY, MC_NOFOLLOW);
    struct open_how how;
    mc_zero(&how, sizeof(how));
    how.flags = MC_O_WRONLY | MC_O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
    long self = mc_open_inside("/proc/self", MC_O_PATH | MC_O_DIRECTORY, 0);
    if (self < 0)
        return self;
    long fd = MC_CALL4(__NR_openat2, self, path + 11, &how, sizeof(how));
    mc_close((int)self);
    return fd;
}

long mc_op_write_file(struct mc_machine *m, struct mc_op *op)
{
    struct mc_statfs fs;
    long fd = open_for_writing(mc_text(m, op, 0));
    if (fd < 0)
        return fd;
    mc_zero(&fs, sizeof(fs));
    long ret = op->arg[1] ? MC_CALL2(__NR_fstatfs, fd, &fs) : 0;
    if (ret >= 0 && op->arg[1] && fs.type != op->arg[1])
        ret = -MC_EMEDIUMTYPE; /* something is mounted over procfs: CVE-2019-16884 */
    if (ret >= 0)
        ret = mc_write_all((int)fd, mc_text(m, op, 1), (size_t)op->arg[0]);
    mc_close((int)fd);
    return ret;
}

/* A regular file of procfs, whatever may be mounted over a part of it. */
static long open_procfs(const char *path)
{
    struct mc_statfs fs;
    long fd = mc_open_inside(path, 0, MC_NOFOLLOW);
    if (fd < 0)
        return fd;
    mc_zero(&fs, sizeof(fs));
    long ret = MC_CALL2(__NR_fstatfs, fd, &fs);
    if (ret >= 0 && fs.type != PROC_SUPER_MAGIC)
        ret = -MC_EMEDIUMTYPE;
    if (ret < 0)
        mc_close((int)fd);
    return ret < 0 ? ret : fd;
}

/* A new file with a random id, one line. */
static long random_id(long parent, const char *name)
{
    char id[64];
    long from = open_procfs("/proc/sys/kernel/random/uuid");
    if (from < 0)
        return from;
    long n = MC_CALL3(__NR_read, from, id, sizeof(id));
    mc_close((int)from);
    if (n < 0)
        return n;
    long file = MC_CALL4(__NR_openat, parent, name, MC_O_CREAT | MC_O_EXCL | MC_O_WRONLY | MC_O_CLOEXEC, 0444);
    if (file < 0)
        return file;
    long ret = mc_write_all((int)file, id, (size_t)n);
    if (ret >= 0)
        ret = MC_CALL2(__NR_fchmod, file, 0444); /* whatever the umask */
    mc_close((int)file);
    return ret;
}

/* The file stays: nothing can be mounted over one that is unlinked. */
long mc_op_boot_id(struct mc_machine *m, struct mc_op *op)
{
    const char *last;
    long parent = mc_parent_inside(mc_text(m, op, 0), &last);
    if (parent < 0)
        return parent;
    long ret = random_id(parent, last);
    long tree = ret < 0 ? ret : MC_CALL3(__NR_open_tree, parent, last, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    mc_close((int)parent);
    if (tree < 0)
        return tree;
    uint64_t attr = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    ret = mc_set_attributes((int)tree, 0, attr, 0, 0, -1);
    if (ret >= 0)
        ret = mc_move_inside(tree, "/proc/sys/kernel/random/boot_id", MC_NOFOLLOW);
    mc_close((int)tree);
    return ret;
}

/* Mount operations on handles: host paths before the root is changed, and the private trees made from them. */
#include "machine.h"

#include <linux/stat.h>

/* The descriptor in the slot an op names. */
int mc_handle(const struct mc_machine *m, int64_t slot)
{
    return slot >= 0 && slot < MC_MAX_SLOTS ? m->slots[slot] : -1;
}

long mc_take_slot(struct mc_machine *m, int64_t slot, long fd)
{
    if (fd < 0)
        return fd;
    if (slot < 0 || slot >= MC_MAX_SLOTS)
        return -MC_EINVAL;
    m->slots[slot] = (int32_t)fd;
    return fd;
}

long mc_op_propagation(struct mc_machine *m, struct mc_op *op)
{
    return MC_CALL5(__NR_mount, 0, mc_text(m, op, 0), 0, op->arg[0], 0);
}

long mc_op_open_tree(struct mc_machine *m, struct mc_op *op)
{
    long fd = MC_CALL3(__NR_open_tree, AT_FDCWD, mc_text(m, op, 0), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | op->arg[1]);
    return mc_take_slot(m, op->arg[0], fd);
}

long mc_op_adopt(struct mc_machine *m, struct mc_op *op)
{
    return mc_take_slot(m, op->arg[0], op->arg[1]);
}

/* One "key=value" or "key" to fsconfig. */
long mc_set_option(int fs, const char *option)
{
    char key[256];
    size_t n = 0;
    while (option[n] && option[n] != '=') {
        if (n + 1 >= sizeof(key))
            return -MC_ENAMETOOLONG;
        key[n] = option[n];
        n++;
    }
    key[n] = 0;
    if (!option[n])
        return MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_FLAG, key, 0, 0);
    return MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, key, option + n + 1, 0);
}

static long set_options(int fs, const char *option, int64_t count)
{
    for (int64_t i = 0; i < count; i++, option += mc_strlen(option) + 1) {
        long ret = mc_set_option(fs, option);
        if (ret < 0)
            return ret;
    }
    return 0;
}

/* fsconfig create and fsmount of a configured context, which is closed. */
long mc_finish_mount(int fs, int64_t attr)
{
    long ret = MC_CALL5(__NR_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
    if (ret >= 0)
        ret = MC_CALL3(__NR_fsmount, fs, FSMOUNT_CLOEXEC, attr);
    mc_close(fs);
    return ret;
}

long mc_new_mount(const char *fstype, const char *options, int64_t count, int64_t attr)
{
    long fs = MC_CALL2(__NR_fsopen, fstype, FSOPEN_CLOEXEC);
    if (fs < 0)
        return fs;
    /* shown as the mount's source in mountinfo */
    long ret = MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "source", fstype, 0);
    if (ret >= 0)
        ret = set_options((int)fs, options, count);
    if (ret < 0) {
        mc_close((int)fs);
        return ret;
    }
    return mc_finish_mount((int)fs, attr);
}

long mc_op_fsmount(struct mc_machine *m, struct mc_op *op)
{
    return mc_take_slot(m, op->arg[0], mc_new_mount(mc_text(m, op, 0), mc_text(m, op, 1), op->arg[1], op->arg[2]));
}

/* mount_setattr(2) on a descriptor. */
long mc_set_attributes(int fd, int flags, uint64_t set, uint64_t clear, uint64_t propagation, int userns)
{
    struct mount_attr attr;
    mc_zero(&attr, sizeof(attr));
    attr.attr_set = set;
    attr.attr_clr = clear;
    attr.propagation = propagation;
    if (set & MOUNT_ATTR_IDMAP)
        attr.userns_fd = (uint64_t)userns;
    return MC_CALL5(__NR_mount_setattr, fd, "", MC_AT_EMPTY_PATH | flags, &attr, sizeof(attr));
}

long mc_op_setattr(struct mc_machine *m, struct mc_op *op)
{
    int flags = op->arg[5] & MC_RECURSIVE ? MC_AT_RECURSIVE : 0;
    return mc_set_attributes(mc_handle(m, op->arg[0]), flags, (uint64_t)op->arg[1], (uint64_t)op->arg[2],
                             (uint64_t)op->arg[3], (int)op->arg[4]);
}

long mc_move_onto(int tree, int target)
{
    return MC_CALL5(__NR_move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

/* move_mount TREE onto PATH inside the root, and close both ends. */
long mc_move_inside(long tree, const char *path, int path_flags)
{
    long target = mc_mount_point(path, path_flags);
    if (target < 0)
        return target;
    long ret = mc_move_onto((int)tree, (int)target);
    mc_close((int)target);
    return ret;
}

long mc_op_root_attach(struct mc_machine *m, struct mc_op *op)
{
    int tree = mc_handle(m, op->arg[0]);
    long ret = MC_CALL5(__NR_move_mount, tree, "", AT_FDCWD, mc_text(m, op, 0), MOVE_MOUNT_F_EMPTY_PATH);
    /* by descriptor: PATH may be "/", where the name still means what lies below */
    return ret < 0 ? ret : MC_CALL1(__NR_fchdir, tree);
}

/* In the working directory that root_attach entered. */
long mc_op_pivot_root(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    /* pivot_root(2), NOTES: the old root ends up stacked on the new one and is detached from there */
    mc_root_changes();
    long ret = MC_CALL2(__NR_pivot_root, ".", ".");
    if (ret >= 0)
        ret = MC_CALL2(__NR_umount2, ".", MC_MNT_DETACH);
    return ret < 0 ? ret : MC_CALL1(__NR_chdir, "/");
}

long mc_op_chroot(struct mc_machine *m, struct mc_op *op)
{
    mc_root_changes();
    long ret = MC_CALL1(__NR_chdir, mc_text(m, op, 0));
    if (ret >= 0)
        ret = MC_CALL1(__NR_chroot, ".");
    return ret < 0 ? ret : MC_CALL1(__NR_chdir, "/");
}

/* What tells the mount at FD from all others; 0 where the kernel does not say (before Linux 5.8). */
static long mount_id(int fd)
{
    struct statx stat;
    mc_zero(&stat, sizeof(stat));
    long ret = MC_CALL5(__NR_statx, fd, "", MC_AT_EMPTY_PATH, STATX_MNT_ID, &stat);
    return ret < 0 ? ret : stat.stx_mask & STATX_MNT_ID ? (long)stat.stx_mnt_id : 0;
}

/* As mc_move_inside, and the answer is the mount's id where links may have led to the place. */
static long move_to_target(long tree, const char *path, int flags)
{
    long id = flags & MC_NOFOLLOW ? 0 : mount_id((int)tree);
    long ret = id < 0 ? id : mc_move_inside(tree, path, flags);
    return ret < 0 ? ret : id;
}

long mc_op_mount(struct mc_machine *m, struct mc_op *op)
{
    long tree = mc_new_mount(mc_text(m, op, 0), mc_text(m, op, 2), op->arg[0], op->arg[1]);
    if (tree < 0)
        return tree;
    long ret = move_to_target(tree, mc_text(m, op, 1), (int)op->arg[2]);
    mc_close((int)tree);
    return ret;
}

long mc_op_attach(struct mc_machine *m, struct mc_op *op)
{
    int tree = mc_handle(m, op->arg[0]), flags = (int)op->arg[1];
    if (tree < 0)
        return -MC_EINVAL;
    /* the mount point must be of the tree's kind, and nobody but the kernel knows that kind for sure */
    long is_directory = flags & (MC_MKDIR | MC_MKFILE) ? mc_is_directory(tree) : 0;
    if (is_directory < 0)
        return is_directory;
    if (flags & (MC_MKDIR | MC_MKFILE))
        flags = (flags & ~(MC_MKDIR | MC_MKFILE)) | (is_directory ? MC_MKDIR : MC_MKFILE);
    long ret = move_to_target(tree, mc_text(m, op, 0), flags);
    if (ret >= 0) {
        mc_close(tree);
        m->slots[op->arg[0]] = -1;
    }
    return ret;
}

/* The id of the mount that an op before put at the path whose text is at PATH in the blob (texts stand there once). */
static long mounted_at(const struct mc_machine *m, uint32_t path)
{
    for (uint32_t i = 0; i < *m->current; i++) {
        const struct mc_op *op = &m->ops[i];
        if ((op->kind == MC_OP_ATTACH && op->str[0] == path) || (op->kind == MC_OP_MOUNT && op->str[1] == path))
            return op->ret;
    }
    return -MC_EINVAL;
}

/* A link of the image may have led the mount below /dev, /proc or another mount, which covers it now; or whoever writes
 * to a shared volume has exchanged the way to it (CVE-2021-30465). */
long mc_op_verify_mount(struct mc_machine *m, struct mc_op *op)
{
    long wanted = mounted_at(m, op->str[0]);
    if (wanted <= 0)
        return wanted;
    long fd = mc_open_inside(mc_text(m, op, 0), MC_O_PATH, 0);
    if (fd < 0)
        return fd;
    long found = mount_id((int)fd);
    mc_close((int)fd);
    return found < 0 ? found : found == wanted ? 0 : -MC_EPERM;
}

long mc_op_readonly_path(struct mc_machine *m, struct mc_op *op)
{
    long target = mc_open_if_there(mc_text(m, op, 0));
    if (target == -MC_ENOENT)
        return 0;
    if (target < 0)
        return target;
    long tree =
        MC_CALL3(__NR_open_tree, target, "", MC_AT_EMPTY_PATH | MC_AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return tree;
    long ret = mc_set_attributes((int)tree, MC_AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, 0, -1);
    if (ret >= 0)
        ret = mc_move_onto((int)tree, (int)target);
    mc_close((int)tree);
    mc_close((int)target);
    return ret;
}

long mc_op_remount(struct mc_machine *m, struct mc_op *op)
{
    long fd = mc_open_inside(mc_text(m, op, 0), MC_O_PATH, (int)op->arg[2]);
    if (fd < 0)
        return fd;
    int flags = op->arg[2] & MC_RECURSIVE ? MC_AT_RECURSIVE : 0;
    long ret = mc_set_attributes((int)fd, flags, (uint64_t)op->arg[0], (uint64_t)op->arg[1], 0, -1);
    mc_close((int)fd);
    return ret;
}

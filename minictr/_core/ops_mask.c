/* Masks: what the image or procfs shows and the container must not see. */
#include "machine.h"

#include <linux/magic.h>

#define MC_ST_RDONLY 1   /* f_flags of statfs(2) */
#define MC_MASK_INODES 4 /* nr_inodes of the base, which tells it from any other tmpfs */

/* A read-only tmpfs with an empty directory and an empty file, that every mask of a run of masks is cut from. */
static long new_mask_base(void)
{
    long base = mc_new_mount("tmpfs", "size=4k\0nr_inodes=4\0mode=755", 3,
                             MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    if (base < 0)
        return base;
    long ret = MC_CALL3(__NR_mkdirat, base, "dir", 0555);
    long file = ret < 0 ? ret : MC_CALL4(__NR_openat, base, "file", MC_O_CREAT | MC_O_EXCL | MC_O_CLOEXEC, 0444);
    if (file < 0)
        return file;
    mc_close((int)file);
    ret = mc_set_attributes((int)base, 0, MOUNT_ATTR_RDONLY, 0, 0, -1);
    return ret < 0 ? ret : base;
}

/* A clone of a mount that hangs nowhere is refused before Linux 6.15, so the base is attached: below the first masked
 * directory, where its own clone covers it for good. Where a file is masked first it is laid over "/" meanwhile, where
 * no name leads; taking it away again costs an RCU grace period (0.1 ms). */
static long mask_base(struct mc_machine *m, int target, long is_directory)
{
    if (m->mask_base >= 0)
        return m->mask_base;
    long base = new_mask_base();
    if (base < 0)
        return base;
    long ret = is_directory ? mc_move_onto((int)base, target) : mc_move_inside(base, "/", 0);
    if (ret < 0)
        return ret;
    m->mask_over_root = !is_directory;
    m->mask_base = (int)base;
    return base;
}

long mc_mask_release(struct mc_machine *m)
{
    long ret = 0;
    if (m->mask_over_root) {
        ret = MC_CALL1(__NR_fchdir, m->mask_base);
        if (ret >= 0)
            ret = MC_CALL2(__NR_umount2, ".", MC_MNT_DETACH);
        if (ret >= 0)
            ret = MC_CALL1(__NR_chdir, "/");
    }
    mc_close(m->mask_base);
    m->mask_base = -1;
    return ret;
}

static long mask_target(struct mc_machine *m, int target)
{
    int first = m->mask_base < 0;
    long is_directory = mc_is_directory(target);
    if (is_directory < 0)
        return is_directory;
    long base = mask_base(m, target, is_directory);
    if (base < 0)
        return base;
    long tree = MC_CALL3(__NR_open_tree, base, is_directory ? "dir" : "file", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return tree;
    /* the first directory is covered by the base already: its mask goes on the base */
    long ret = mc_move_onto((int)tree, first && is_directory ? (int)base : target);
    mc_close((int)tree);
    return ret;
}

long mc_op_mask(struct mc_machine *m, struct mc_op *op)
{
    long target = mc_open_if_there(mc_text(m, op, 0));
    if (target == -MC_ENOENT)
        return 0; /* nothing to hide */
    if (target < 0)
        return target;
    long ret = mask_target(m, (int)target);
    mc_close((int)target);
    return ret;
}

static int as_it_was_left(const struct mc_statfs *fs, int masked)
{
    if (!(fs->flags & MC_ST_RDONLY))
        return 0;
    return !masked || (fs->type == TMPFS_MAGIC && fs->files == MC_MASK_INODES);
}

/* What lies at each path now: our mask, or something read-only. A later mount, of an image or by a race, may hide it.
 */
long mc_op_verify_paths(struct mc_machine *m, struct mc_op *op)
{
    const char *path = mc_text(m, op, 0);
    for (int64_t i = 0; i < op->arg[1]; i++, path += mc_strlen(path) + 1) {
        struct mc_statfs fs;
        long fd = mc_open_inside(path, MC_O_PATH, MC_NOFOLLOW);
        if (fd == -MC_ENOENT || fd == -MC_ENOTDIR)
            continue; /* not there, so there is nothing to hide */
        if (fd < 0)
            return fd;
        mc_zero(&fs, sizeof(fs));
        long ret = MC_CALL2(__NR_fstatfs, fd, &fs);
        mc_close((int)fd);
        if (ret < 0)
            return ret;
        if (!as_it_was_left(&fs, (int)op->arg[0]))
            return -MC_EPERM;
    }
    return 0;
}

/* Files of our own over those of the image: /etc/hosts and its kin. A link of the image is covered itself, and never
 * followed; what is missing is made, and where nothing can be made /etc is shown with it. */
#include "machine.h"

#include <linux/stat.h>

#define TEMPORARY ".etc_file"
#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

/* A tmpfs over "/", where no name leads. It must be mounted somewhere: of what is not, no file could be cloned before
 * Linux 6.15 (check_mnt, fs/namespace.c). */
static long hidden_tmpfs(void)
{
    static const char options[] = "mode=0755\0size=1M";
    long tree = mc_new_mount("tmpfs", options, 2, QUIET);
    if (tree < 0)
        return tree;
    long ret = mc_move_inside(tree, "/", 0);
    if (ret >= 0)
        return tree;
    mc_close((int)tree);
    return ret;
}

/* It goes; what was cloned of it, or is an overlay's layer, stays. */
static long let_go(long tmpfs)
{
    long ret = MC_CALL1(__NR_fchdir, tmpfs);
    if (ret >= 0)
        ret = MC_CALL2(__NR_umount2, ".", MC_MNT_DETACH);
    mc_close((int)tmpfs);
    return ret < 0 ? ret : MC_CALL1(__NR_chdir, "/");
}

/* All that FROM has, whatever its offset, to TO. */
static long copy_all(long from, long to)
{
    char buffer[4096];
    long n, done = 0;
    while ((n = MC_CALL4(__NR_pread64, from, buffer, sizeof(buffer), done)) > 0) {
        long ret = mc_write_all((int)to, buffer, (size_t)n);
        if (ret < 0)
            return ret;
        done += n;
    }
    return n;
}

static long new_file(long directory, const char *name)
{
    long fd = MC_CALL4(__NR_openat, directory, name, MC_O_CREAT | MC_O_EXCL | MC_O_WRONLY | MC_O_CLOEXEC, 0644);
    if (fd < 0)
        return fd;
    long ret = MC_CALL2(__NR_fchmod, fd, 0644); /* whatever the umask */
    if (ret >= 0)
        return fd;
    mc_close((int)fd);
    return ret;
}

/* A mount of a new file in DIRECTORY with the op's text, or with what its descriptor has. */
static long own_file(struct mc_machine *m, struct mc_op *op, long directory)
{
    long fd = new_file(directory, TEMPORARY);
    if (fd < 0)
        return fd;
    long ret = op->arg[1] < 0 ? mc_write_all((int)fd, mc_text(m, op, 1), (size_t)op->arg[0]) : copy_all(op->arg[1], fd);
    mc_close((int)fd);
    if (ret >= 0)
        ret = MC_CALL3(__NR_open_tree, directory, TEMPORARY, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (ret < 0)
        return ret;
    long tree = ret;
    ret = mc_set_attributes((int)tree, 0, QUIET, 0, 0, -1);
    if (ret >= 0)
        return tree;
    mc_close((int)tree);
    return ret;
}

/* What is at PATH, a link itself where it is one; no link on the way. */
static long open_there(const char *path)
{
    return mc_open_inside(path, MC_O_PATH | MC_O_NOFOLLOW, MC_NOFOLLOW);
}

/* The directory of PATH, without a link on the way. */
static long open_parent(const char *path)
{
    char parent[256];
    size_t cut = 0;
    for (size_t i = 0; path[i] && i < sizeof(parent); i++)
        if (path[i] == '/')
            cut = i;
    mc_copy(parent, path, cut);
    parent[cut] = 0;
    return mc_open_inside(cut ? parent : "/", MC_O_PATH | MC_O_DIRECTORY, MC_NOFOLLOW);
}

/* PATH as an empty file, its directory as old as before: neither a diff nor a backup has anything to tell of that. */
static long make_quietly(const char *path)
{
    struct statx stat;
    struct timespec_pair {
        int64_t sec, nsec;
    } times[2];
    mc_zero(&stat, sizeof(stat));
    long parent = open_parent(path);
    long known =
        parent < 0 ? parent : MC_CALL5(__NR_statx, parent, "", MC_AT_EMPTY_PATH, STATX_ATIME | STATX_MTIME, &stat);
    long fd = mc_mount_point(path, MC_MKFILE | MC_NOFOLLOW);
    if (fd >= 0 && known >= 0) {
        times[0].sec = stat.stx_atime.tv_sec, times[0].nsec = stat.stx_atime.tv_nsec;
        times[1].sec = stat.stx_mtime.tv_sec, times[1].nsec = stat.stx_mtime.tv_nsec;
        MC_CALL4(__NR_utimensat, parent, "", times, MC_AT_EMPTY_PATH); /* a nicety: without, it is newer */
    }
    if (parent >= 0)
        mc_close((int)parent);
    return fd;
}

/* Empty files called NAMES in DIRECTORY. */
static long new_files(long directory, const char *names, int64_t count)
{
    for (int64_t i = 0; i < count; i++, names += mc_strlen(names) + 1) {
        long fd = new_file(directory, names);
        if (fd < 0)
            return fd;
        mc_close((int)fd);
    }
    return 0;
}

/* The directory of PATH once more, with all that it has, and empty files called NAMES below that: an overlay without an
 * upper layer, over what nobody can write anyway. All of them at once: overlays are not stacked higher than two. */
static long show_with(const char *path, const char *names, int64_t count)
{
    char layers[64];
    long parent = open_parent(path);
    if (parent < 0)
        return parent;
    long tmpfs = hidden_tmpfs();
    long ret = tmpfs < 0 ? tmpfs : new_files(tmpfs, names, count);
    if (ret >= 0) {
        size_t n = mc_fd_path(layers, parent);
        layers[n] = ':';
        mc_fd_path(layers + n + 1, tmpfs);
        long fs = MC_CALL2(__NR_fsopen, "overlay", FSOPEN_CLOEXEC);
        ret = fs < 0 ? fs : MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "source", "overlay", 0);
        if (ret >= 0)
            ret = MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "lowerdir", layers, 0);
        if (ret >= 0)
            ret = mc_finish_mount((int)fs, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
        else if (fs >= 0)
            mc_close((int)fs);
        if (ret >= 0) {
            long tree = ret;
            ret = mc_move_onto((int)tree, (int)parent);
            mc_close((int)tree);
        }
    }
    if (tmpfs >= 0) {
        long gone = let_go(tmpfs);
        ret = ret < 0 ? ret : gone;
    }
    mc_close((int)parent);
    return ret < 0 ? ret : open_there(path);
}

/* What a mount can go onto at PATH. SEALED: nothing is made in this root. */
static long etc_target(struct mc_machine *m, struct mc_op *op)
{
    const char *path = mc_text(m, op, 0), *names = mc_text(m, op, 3);
    long fd = open_there(path);
    if (fd != -MC_ENOENT)
        return fd;
    if (op->arg[2] & MC_ETC_SEALED)
        return show_with(path, names, op->arg[3]);
    fd = make_quietly(path);
    if (fd >= 0 || fd == -MC_ELOOP || fd == -MC_ENOTDIR)
        return fd;
    /* a file system that cannot be written, or is somebody else's */
    long shown = show_with(path, names, op->arg[3]);
    return shown < 0 ? fd : shown;
}

long mc_op_etc_file(struct mc_machine *m, struct mc_op *op)
{
    const char *where = mc_text(m, op, 2);
    long target = etc_target(m, op), tree, ret;
    if (target < 0)
        return target;
    if (op->arg[2] & MC_ETC_TREE) {
        ret = mc_move_onto((int)op->arg[1], (int)target);
    } else {
        long directory = *where ? mc_open_inside(where, MC_O_PATH | MC_O_DIRECTORY, MC_NOFOLLOW) : hidden_tmpfs();
        ret = tree = directory < 0 ? directory : own_file(m, op, directory);
        if (tree >= 0) {
            ret = mc_move_onto((int)tree, (int)target);
            mc_close((int)tree);
        }
        if (directory >= 0) /* not before: what has no name any more is not mounted */
            MC_CALL3(__NR_unlinkat, directory, TEMPORARY, 0);
        if (directory >= 0 && *where)
            mc_close((int)directory);
        else if (directory >= 0 && let_go(directory) < 0 && ret >= 0)
            ret = -MC_EIO;
    }
    mc_close((int)target);
    return ret;
}

/* Paths inside the root. After pivot_root the process's own root is the container's, so no link can lead out by name;
 * what is left are procfs magic links (CVE-2024-21626, CVE-2019-16884) and links that lead a mount to another place of
 * the image (CVE-2021-30465, CVE-2025-31133). The first is closed by RESOLVE_NO_MAGICLINKS, the second by
 * RESOLVE_NO_SYMLINKS for every target that we name ourselves. */
#include "machine.h"

static long open_root(void)
{
    return mc_above_stdio(MC_CALL4(__NR_openat, AT_FDCWD, "/", MC_O_PATH | MC_O_CLOEXEC | MC_O_DIRECTORY, 0));
}

/* "/" as a directory: an absolute path restarts there, and ".." stops there. The stub, alone in its process, keeps it
 * from one op to the next until its root changes; in a caller's thread it is opened each time. */
#ifdef MC_STATIC
static long kept_root = -1;

static long take_root(void)
{
    if (kept_root < 0)
        kept_root = open_root();
    return kept_root;
}

static void leave_root(long root MC_UNUSED)
{
}

void mc_root_changes(void)
{
    if (kept_root >= 0)
        mc_close((int)kept_root);
    kept_root = -1;
}
#else
static long take_root(void)
{
    return open_root();
}

static void leave_root(long root)
{
    mc_close((int)root);
}

void mc_root_changes(void)
{
}
#endif

long mc_open_inside(const char *path, uint64_t flags, int path_flags)
{
    struct open_how how;
    mc_zero(&how, sizeof(how));
    how.flags = flags | MC_O_CLOEXEC;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    if (path_flags & MC_NOFOLLOW)
        how.resolve |= RESOLVE_NO_SYMLINKS;
    long root = take_root();
    if (root < 0)
        return root;
    long fd;
    int tries = 0;
    do { /* EAGAIN: a rename raced with ".." */
        fd = MC_CALL4(__NR_openat2, root, path, &how, sizeof(how));
    } while (fd == -MC_EAGAIN && ++tries < 32);
    leave_root(root);
    return fd;
}

/* The directory that holds the last component of PATH, which *last points at ("" for the root itself). */
long mc_parent_inside(const char *path, const char **last)
{
    char parent[4096];
    size_t n = mc_strlen(path), cut = 0;
    if (n >= sizeof(parent))
        return -MC_ENAMETOOLONG;
    for (size_t i = 0; i < n; i++)
        if (path[i] == '/')
            cut = i;
    *last = path[0] == '/' || cut ? path + cut + 1 : path;
    mc_copy(parent, path, cut);
    parent[cut] = 0;
    return mc_open_inside(cut ? parent : "/", MC_O_PATH | MC_O_DIRECTORY, 0);
}

static long make_last(const char *path, int as_file)
{
    const char *last;
    long parent = mc_parent_inside(path, &last), ret;
    if (parent < 0)
        return parent;
    if (as_file) {
        ret = MC_CALL4(__NR_openat, parent, last, MC_O_CREAT | MC_O_EXCL | MC_O_CLOEXEC, 0644);
        if (ret >= 0)
            mc_close((int)ret);
    } else {
        ret = MC_CALL3(__NR_mkdirat, parent, last, 0755);
    }
    mc_close((int)parent);
    return ret == -MC_EEXIST ? 0 : ret;
}

/* PATH, every missing directory of it made: each component is created by dirfd, one at a time. */
static long make_path(const char *path, int path_flags)
{
    char prefix[4096];
    size_t n = mc_strlen(path);
    if (n >= sizeof(prefix))
        return -MC_ENAMETOOLONG;
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        mc_copy(prefix, path, i);
        prefix[i] = 0;
        long fd = mc_open_inside(prefix, MC_O_PATH, path_flags);
        if (fd >= 0) {
            mc_close((int)fd);
            continue;
        }
        if (fd != -MC_ENOENT)
            return fd;
        long ret = make_last(prefix, i == n && (path_flags & MC_MKFILE));
        if (ret < 0)
            return ret;
    }
    return mc_open_inside(path, MC_O_PATH, path_flags);
}

/* An O_PATH descriptor of what a mount goes onto, made if it is missing and PATH_FLAGS say so. */
long mc_mount_point(const char *path, int path_flags)
{
    long fd = mc_open_inside(path, MC_O_PATH, path_flags);
    if (fd == -MC_ENOENT && (path_flags & (MC_MKDIR | MC_MKFILE)))
        return make_path(path, path_flags);
    return fd;
}

static long is_absent(long result)
{
    return result == -MC_ENOENT || result == -MC_ENOTDIR;
}

/* What is to be hidden or made read-only, if it is there; else ENOENT. That it is not there is believed when the kernel
 * says so twice, for then nothing is done, and nobody would see that something should have been. */
long mc_open_if_there(const char *path)
{
    long fd = mc_open_inside(path, MC_O_PATH, MC_NOFOLLOW);
    if (is_absent(fd))
        fd = mc_open_inside(path, MC_O_PATH, MC_NOFOLLOW);
    return is_absent(fd) ? -MC_ENOENT : fd;
}

/* 1, 0, or what keeps it from being known. */
long mc_is_directory(int fd)
{
    struct open_how how;
    mc_zero(&how, sizeof(how));
    how.flags = MC_O_PATH | MC_O_CLOEXEC | MC_O_DIRECTORY;
    long again = MC_CALL4(__NR_openat2, fd, ".", &how, sizeof(how));
    if (again < 0)
        return again == -MC_ENOTDIR ? 0 : again;
    mc_close((int)again);
    return 1;
}

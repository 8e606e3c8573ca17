/* The overlay root: layers by descriptor, and a layer that is thrown away. */
#include "machine.h"

/* "/proc/self/fd/N" of an O_PATH descriptor: layer paths of any length and with any character, in 20 bytes. */
size_t mc_fd_path(char *to, long fd)
{
    mc_copy(to, "/proc/self/fd/", 14);
    return 14 + mc_append_number(to + 14, (uint64_t)fd);
}

/* fsconfig takes 255 characters of a value: so many layers go into one "lowerdir", which every kernel has. */
#define MC_LAYERS_JOINED 13

/* The layers, topmost first, by descriptor. They are given one at a time, of OF in all. A few are one
 * "lowerdir"; of many each is a "lowerdir+" (Linux 6.5, EINVAL before), whose descriptor may be closed right after. */
struct layers {
    char joined[320];
    size_t length;
};

static long add_layer(int fs, struct layers *them, int64_t of, long fd)
{
    char path[32];
    if (of > MC_LAYERS_JOINED) {
        mc_fd_path(path, fd);
        return MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "lowerdir+", path, 0);
    }
    if (them->length + 24 > sizeof(them->joined))
        return -MC_ENAMETOOLONG;
    if (them->length)
        them->joined[them->length++] = ':';
    them->length += mc_fd_path(them->joined + them->length, fd);
    return 0;
}

static long join_layers(int fs, const struct layers *them, int64_t of)
{
    if (of > MC_LAYERS_JOINED)
        return 0;
    return MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "lowerdir", them->joined, 0);
}

static long lower_layers(int fs, const char *layer, int64_t count)
{
    struct layers them;
    them.length = 0;
    for (int64_t i = 0; i < count; i++, layer += mc_strlen(layer) + 1) {
        long fd = MC_CALL4(__NR_openat, AT_FDCWD, layer, MC_O_PATH | MC_O_CLOEXEC, 0);
        if (fd < 0)
            return fd;
        long ret = add_layer(fs, &them, count, fd);
        if (count > MC_LAYERS_JOINED)
            mc_close((int)fd);
        if (ret < 0)
            return ret;
    }
    return join_layers(fs, &them, count);
}

/* upperdir or workdir: NAME in a directory of ours, or a path of the user's. */
static long writable_layer(int fs, const char *key, int at, const char *name)
{
    char path[64];
    long fd = MC_CALL4(__NR_openat, at, name, MC_O_PATH | MC_O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    mc_fd_path(path, fd);
    return MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, key, path, 0);
}

static int starts_with_size(const char *option)
{
    return mc_same(option, "size=", 5) || mc_same(option, "nr_inodes=", 10);
}

/* The layer that is thrown away: a tmpfs that is mounted nowhere. size= and nr_inodes= of the options are its. */
static long scratch_tmpfs(const char *options, int64_t count)
{
    long fs = MC_CALL2(__NR_fsopen, "tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0)
        return fs;
    for (int64_t i = 0; i < count; i++, options += mc_strlen(options) + 1) {
        if (!starts_with_size(options))
            continue;
        long ret = mc_set_option((int)fs, options);
        if (ret < 0)
            return ret;
    }
    long tmp = mc_finish_mount((int)fs, 0);
    if (tmp < 0)
        return tmp;
    long ret = MC_CALL3(__NR_mkdirat, tmp, "upper", 0755);
    if (ret >= 0)
        ret = MC_CALL3(__NR_mkdirat, tmp, "work", 0755);
    return ret < 0 ? ret : tmp;
}

/* Those of the options that are the overlay's. */
static long overlay_options(int fs, const char *options, int64_t count)
{
    long ret = 0;
    for (int64_t i = 0; ret >= 0 && i < count; i++, options += mc_strlen(options) + 1)
        if (!starts_with_size(options))
            ret = mc_set_option(fs, options);
    return ret;
}

/* The overlay itself, its upper layer in the directory AT (or by the user's own paths). */
static long new_overlay(struct mc_machine *m, struct mc_op *op, long at, const char *upper, const char *work)
{
    long fs = MC_CALL2(__NR_fsopen, "overlay", FSOPEN_CLOEXEC);
    if (fs < 0)
        return fs;
    long ret = MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "source", "overlay", 0);
    if (ret >= 0)
        ret = lower_layers((int)fs, mc_text(m, op, 0), op->arg[1]);
    if (ret >= 0)
        ret = writable_layer((int)fs, "upperdir", (int)at, upper);
    if (ret >= 0)
        ret = writable_layer((int)fs, "workdir", (int)at, work);
    if (ret >= 0)
        ret = overlay_options((int)fs, mc_text(m, op, 3), op->arg[2]);
    if (ret < 0) {
        mc_close((int)fs);
        return ret;
    }
    return mc_finish_mount((int)fs, op->arg[3]);
}

/* Before Linux 6.15 a layer must be mounted somewhere (clone_private_mount): over "/", where no name leads, until the
 * overlay holds its own clone. */
static long overlay_while_attached(struct mc_machine *m, struct mc_op *op, long scratch)
{
    long ret = mc_move_inside(scratch, "/", 0);
    if (ret < 0)
        return ret;
    long tree = new_overlay(m, op, scratch, "upper", "work");
    ret = MC_CALL1(__NR_fchdir, scratch);
    if (ret >= 0)
        ret = MC_CALL2(__NR_umount2, ".", MC_MNT_DETACH);
    if (ret >= 0)
        ret = MC_CALL1(__NR_chdir, "/");
    return ret < 0 ? ret : tree;
}

/* The fd of handle number I of a list of handles. */
static int listed(const struct mc_machine *m, const struct mc_op *op, int text, int64_t i)
{
    int32_t slot;
    mc_copy(&slot, mc_text(m, op, text) + i * (int64_t)sizeof(slot), sizeof(slot));
    return mc_handle(m, slot);
}

/* The overlay of LAYERS lowers and of an upper and a work directory, all by descriptor. */
static long overlay_of(struct mc_machine *m, struct mc_op *op, int upper, int work)
{
    char text[32];
    struct layers them;
    them.length = 0;
    long fs = MC_CALL2(__NR_fsopen, "overlay", FSOPEN_CLOEXEC);
    if (fs < 0)
        return fs;
    long ret = MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "source", "overlay", 0);
    for (int64_t i = 0; ret >= 0 && i < op->arg[1]; i++)
        ret = add_layer((int)fs, &them, op->arg[1], listed(m, op, 0, i));
    if (ret >= 0)
        ret = join_layers((int)fs, &them, op->arg[1]);
    mc_fd_path(text, upper);
    if (ret >= 0)
        ret = MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "upperdir", text, 0);
    mc_fd_path(text, work);
    if (ret >= 0)
        ret = MC_CALL5(__NR_fsconfig, fs, FSCONFIG_SET_STRING, "workdir", text, 0);
    if (ret >= 0)
        ret = overlay_options((int)fs, mc_text(m, op, 2), op->arg[3]);
    if (ret < 0) {
        mc_close((int)fs);
        return ret;
    }
    return mc_finish_mount((int)fs, 0);
}

/* The directory NAME of the tmpfs SCRATCH, kept open until the overlay is made. */
static long scratch_directory(long scratch, const char *name)
{
    return MC_CALL4(__NR_openat, scratch, name, MC_O_PATH | MC_O_CLOEXEC, 0);
}

/* The topmost of the mounts over "/", which is TREE: umount2(2) takes what lies over a name, not the name's own. */
static long take_down(long tree)
{
    long ret = MC_CALL1(__NR_fchdir, tree);
    return ret < 0 ? ret : MC_CALL2(__NR_umount2, ".", MC_MNT_DETACH);
}

/* Layers that are trees of the parent's, id-mapped. A mount that hangs nowhere is judged by the user namespace of who
 * made it (clone_private_mount), so each hangs over "/", one over the other, until the overlay has clones of its own.
 */
long mc_op_overlay_trees(struct mc_machine *m, struct mc_op *op)
{
    long scratch = -1, upper, work, ret = 0;
    if (op->arg[1] < 1 || (op->arg[2] != 0 && op->arg[2] != 3))
        return -MC_EINVAL;
    if (!op->arg[2] && (scratch = scratch_tmpfs(mc_text(m, op, 2), op->arg[3])) < 0)
        return scratch;
    for (int64_t i = 0; ret >= 0 && i < op->arg[1]; i++)
        ret = mc_move_inside(listed(m, op, 0, i), "/", 0);
    if (ret >= 0)
        ret = mc_move_inside(op->arg[2] ? listed(m, op, 1, 0) : scratch, "/", 0);
    if (ret < 0)
        return ret;
    upper = op->arg[2] ? listed(m, op, 1, 1) : scratch_directory(scratch, "upper");
    work = op->arg[2] ? listed(m, op, 1, 2) : scratch_directory(scratch, "work");
    long tree = upper < 0 ? upper : work < 0 ? work : overlay_of(m, op, (int)upper, (int)work);
    ret = take_down(op->arg[2] ? listed(m, op, 1, 0) : scratch);
    for (int64_t i = op->arg[1]; ret >= 0 && i > 0; i--)
        ret = take_down(listed(m, op, 0, i - 1));
    if (ret >= 0)
        ret = MC_CALL1(__NR_chdir, "/");
    return ret < 0 ? ret : mc_take_slot(m, op->arg[0], tree);
}

long mc_op_overlay(struct mc_machine *m, struct mc_op *op)
{
    const char *upper = mc_text(m, op, 1);
    if (upper[0])
        return mc_take_slot(m, op->arg[0], new_overlay(m, op, AT_FDCWD, upper, mc_text(m, op, 2)));
    long scratch = scratch_tmpfs(mc_text(m, op, 3), op->arg[2]);
    if (scratch < 0)
        return scratch;
    long tree = new_overlay(m, op, scratch, "upper", "work");
    if (tree == -MC_EINVAL)
        tree = overlay_while_attached(m, op, scratch);
    mc_close((int)scratch);
    return mc_take_slot(m, op->arg[0], tree);
}

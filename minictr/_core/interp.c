/* The interpreter: one table from op kinds to functions, one loop that stamps each op. */
#include "machine.h"

// clang-format off
#define MC_OPS(X) \
    X(PDEATHSIG, pdeathsig) X(BARRIER, barrier) X(CGROUP_ENTER, cgroup_enter) X(SUBREAPER, subreaper) \
    X(SIGRESET, sigreset) \
    X(UNSHARE, unshare) X(SETNS, setns) X(SETNS_TIME, setns_time) X(ENTER_ROOT, enter_root) X(PROPAGATION, propagation) X(OPEN_TREE, open_tree) \
    X(FSMOUNT, fsmount) X(ADOPT, adopt) X(OVERLAY, overlay) \
    X(OVERLAY_TREES, overlay_trees) X(SETATTR, setattr) X(ROOT_ATTACH, root_attach) \
    X(PIVOT_ROOT, pivot_root) X(CHROOT, chroot) X(MOUNT, mount) X(ATTACH, attach) X(VERIFY_MOUNT, verify_mount) \
    X(MASK, mask) X(READONLY_PATH, readonly_path) X(REMOUNT, remount) X(MKDIR, mkdir) X(MKNOD, mknod) X(SYMLINK, symlink) \
    X(WRITE_FILE, write_file) X(BOOT_ID, boot_id) X(ETC_FILE, etc_file) \
    X(SETHOSTNAME, sethostname) X(SETDOMAINNAME, setdomainname) \
    X(LOOPBACK_UP, loopback_up) X(RLIMIT, rlimit) X(UMASK, umask) X(CHDIR, chdir) \
    X(PERSONALITY, personality) X(KEYRING, keyring) X(EXEC_LABEL, exec_label) X(SETSID, setsid) \
    X(CONSOLE, console) X(STDIO, stdio) \
    X(INIT, init) X(FORK, fork) X(SETGROUPS, setgroups) X(SETRESGID, setresgid) X(SETRESUID, setresuid) \
    X(KEEP_CAPS, keep_caps) X(BOUNDING, bounding) X(CAPSET, capset) X(AMBIENT, ambient) \
    X(SECUREBITS, securebits) X(NO_NEW_PRIVS, no_new_privs) X(LANDLOCK_RULESET, landlock_ruleset) X(LANDLOCK_PATH, landlock_path) \
    X(LANDLOCK_PORT, landlock_port) X(LANDLOCK_RESTRICT, landlock_restrict) X(SECCOMP, seccomp) \
    X(VERIFY_CAPS, verify_caps) X(VERIFY_IDS, verify_ids) X(VERIFY_LABEL, verify_label) \
    X(VERIFY_SECUREBITS, verify_securebits) X(VERIFY_NO_NEW_PRIVS, verify_no_new_privs) \
    X(VERIFY_NO_USERNS, verify_no_userns) \
    X(VERIFY_ROOT, verify_root) X(VERIFY_PATHS, verify_paths) \
    X(HOLD, hold) X(READY, ready) X(EXEC, exec)
// clang-format on

static mc_op_fn *const OPS[MC_OP_COUNT] = {
#define X(KIND, name) [MC_OP_##KIND] = mc_op_##name,
    MC_OPS(X)
#undef X
};

static int tolerated(const struct mc_op *op, long ret)
{
    for (int i = 0; i < MC_MAX_TOLERATE && op->tolerate[i]; i++)
        if (ret == -(long)op->tolerate[i])
            return 1;
    return 0;
}

/* After a program's filter is loaded the time may not be asked for any more: it is told by the cycle counter, at the
 * rate that it has had since the run began. */
struct mc_moment {
    uint64_t ns, cycles;
};

static struct mc_moment moment(void)
{
    struct mc_moment now = {mc_now(), mc_cycles()};
    return now;
}

static uint64_t after_filter(struct mc_moment begin, struct mc_moment before)
{
    uint64_t cycles = before.cycles - begin.cycles;
    return before.ns + (cycles ? (mc_cycles() - before.cycles) * (before.ns - begin.ns) / cycles : 0);
}

/* Run the ops from FIRST on; 0, or the -errno of the op that *m->current names. */
long mc_run(struct mc_machine *m, uint32_t first)
{
    struct mc_moment begin = moment(), before = begin;
    for (uint32_t i = first; i < m->n_ops; i++) {
        struct mc_op *op = &m->ops[i];
        long ret = m->mask_base >= 0 && op->kind != MC_OP_MASK ? mc_mask_release(m) : 0;
        if (ret < 0)
            return ret; /* *m->current still names the last mask */
        *m->current = i;
        if (op->kind >= MC_OP_COUNT)
            return -MC_EINVAL;
        mc_failed_nr = -1; /* none: 0 is read(2) on x86 */
        if (op->kind == MC_OP_SECCOMP)
            before = moment();
        ret = OPS[op->kind](m, op);
        op->ret = ret;
        if (op->kind == MC_OP_EXEC)
            return ret;
        op->end_ns = op->kind == MC_OP_SECCOMP ? after_filter(begin, before) : mc_now();
        if (ret < 0 && !tolerated(op, ret))
            return ret;
    }
    return m->mask_base >= 0 ? mc_mask_release(m) : 0;
}

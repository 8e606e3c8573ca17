/* Landlock: what a process may do to files, TCP ports and other processes, narrowed by itself. landlock(7).
 *
 * The structures are written here, for linux/landlock.h of the machine that compiles us may know less of them than the
 * kernel that runs us. The kernel takes a longer one from us as long as what it does not know is zero. */
#include "machine.h"

enum { RULE_PATH_BENEATH = 1, RULE_NET_PORT = 2 }; /* enum landlock_rule_type */

/* Rights that a file has; the kernel refuses all others (of what is in a directory) for what is no directory:
 * execute, write_file, read_file, truncate, ioctl_dev */
static const uint64_t OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;

struct ruleset_attr {
    uint64_t fs, net, scoped;
};

struct path_beneath {
    uint64_t rights;
    int32_t parent;
} __attribute__((packed));

struct net_port {
    uint64_t rights, port;
};

long mc_landlock_abi(void)
{
    return MC_CALL3(__NR_landlock_create_ruleset, 0, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
}

/* The descriptor closes on exec by itself. */
long mc_op_landlock_ruleset(struct mc_machine *m, struct mc_op *op)
{
    struct ruleset_attr attr = {(uint64_t)op->arg[1], (uint64_t)op->arg[2], (uint64_t)op->arg[3]};
    long fd = MC_CALL3(__NR_landlock_create_ruleset, &attr, sizeof(attr), 0);
    return mc_take_slot(m, op->arg[0], mc_above_stdio(fd));
}

long mc_op_landlock_path(struct mc_machine *m, struct mc_op *op)
{
    long path = mc_open_inside(mc_text(m, op, 0), MC_O_PATH, 0);
    if (path < 0)
        return path;
    struct path_beneath rule = {(uint64_t)op->arg[1], (int32_t)path};
    if ((op->arg[2] & MC_LANDLOCK_NARROW) && rule.rights & ~OF_FILES && !mc_is_directory((int)path))
        rule.rights &= OF_FILES;
    long ret = 0; /* nothing is left to allow: a rule without rights is an error to the kernel */
    if (rule.rights)
        ret = MC_CALL4(__NR_landlock_add_rule, mc_handle(m, op->arg[0]), RULE_PATH_BENEATH, &rule, 0);
    mc_close((int)path);
    return ret;
}

long mc_op_landlock_port(struct mc_machine *m, struct mc_op *op)
{
    struct net_port rule = {(uint64_t)op->arg[2], (uint64_t)op->arg[1]};
    return MC_CALL4(__NR_landlock_add_rule, mc_handle(m, op->arg[0]), RULE_NET_PORT, &rule, 0);
}

/* Nothing tells afterwards that a domain is in force but this call's zero, and what is denied from now on. */
long mc_op_landlock_restrict(struct mc_machine *m, struct mc_op *op)
{
    return MC_CALL2(__NR_landlock_restrict_self, mc_handle(m, op->arg[0]), op->arg[1]);
}

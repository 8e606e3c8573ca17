/* Identity, capabilities, no_new_privs, seccomp: each set, and each read back before exec. */
#include "machine.h"

/* capget(2) of PID (0: this thread): effective, permitted, inheritable. */
long mc_capget(int pid, uint64_t *sets)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, pid};
    struct __user_cap_data_struct data[2];
    mc_zero(data, sizeof(data));
    long ret = MC_CALL2(__NR_capget, &header, data);
    sets[0] = data[0].effective | (uint64_t)data[1].effective << 32;
    sets[1] = data[0].permitted | (uint64_t)data[1].permitted << 32;
    sets[2] = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
    return ret;
}

long mc_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };
    return MC_CALL2(__NR_capset, &header, data);
}

/* Whether CAP is in the bounding set; EINVAL beyond this kernel's last. What ends a loop is believed when said twice.
 */
static long is_bounding(int cap)
{
    long held = MC_CALL5(__NR_prctl, PR_CAPBSET_READ, cap, 0, 0, 0);
    return held == -MC_EINVAL ? MC_CALL5(__NR_prctl, PR_CAPBSET_READ, cap, 0, 0, 0) : held;
}

long mc_op_bounding(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    uint64_t keep = (uint64_t)op->arg[0];
    for (int cap = 0; cap < 64; cap++) {
        long held = is_bounding(cap);
        if (held == -MC_EINVAL)
            break; /* beyond this kernel's last */
        if (held < 0)
            return held;
        if (!held || keep >> cap & 1)
            continue;
        long ret = MC_CALL5(__NR_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0);
        if (ret < 0)
            return ret;
    }
    return 0;
}

long mc_op_keep_caps(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    return MC_CALL5(__NR_prctl, PR_SET_KEEPCAPS, op->arg[0], 0, 0, 0);
}

long mc_op_capset(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    return mc_capset((uint64_t)op->arg[0], (uint64_t)op->arg[1], (uint64_t)op->arg[2]);
}

long mc_op_ambient(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    uint64_t raise = (uint64_t)op->arg[0];
    long ret = MC_CALL5(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (int cap = 0; ret >= 0 && cap < 64; cap++)
        if (raise >> cap & 1)
            ret = MC_CALL5(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
    return ret;
}

/* Set the bits of arg[0], clear those of arg[1]. What holds already is not asked for: asking needs CAP_SETPCAP. */
long mc_op_securebits(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    long now = MC_CALL5(__NR_prctl, PR_GET_SECUREBITS, 0, 0, 0, 0);
    long wanted = (now & ~op->arg[1]) | op->arg[0];
    return now < 0 || wanted == now ? now : MC_CALL5(__NR_prctl, PR_SET_SECUREBITS, wanted, 0, 0, 0);
}

long mc_op_setgroups(struct mc_machine *m, struct mc_op *op)
{
    return MC_CALL2(__NR_setgroups, op->arg[0] / 4, mc_text(m, op, 0));
}

long mc_op_setresgid(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    return MC_CALL3(__NR_setresgid, op->arg[0], op->arg[0], op->arg[0]);
}

long mc_op_setresuid(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    return MC_CALL3(__NR_setresuid, op->arg[0], op->arg[0], op->arg[0]);
}

long mc_op_no_new_privs(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    return MC_CALL5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

#define MC_WAIT_KILLABLE_RECV 32L /* SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, linux/seccomp.h */

enum mc_seccomp_ask { MC_ASK_NOTHING, MC_ASK_MODE, MC_ASK_ERROR };

static long load_filter(const struct sock_fprog *program, long flags, int notifies)
{
    long ret = MC_CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
    if (ret == -MC_EINVAL && notifies) /* before Linux 5.19 a signal interrupts a call that is being decided */
        ret = MC_CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags & ~MC_WAIT_KILLABLE_RECV, program);
    if (notifies && ret >= 0 && ret <= 2)
        return -MC_EPERM; /* a standard stream is no listener: it was not done */
    return ret;
}

/* The listener goes to a socket: by this thread where the filter lets it, else by one that the filter does not hold. */
long mc_op_seccomp(struct mc_machine *m, struct mc_op *op)
{
    struct sock_fprog program;
    mc_zero(&program, sizeof(program));
    program.len = (unsigned short)((size_t)op->arg[0] / sizeof(struct sock_filter));
    program.filter = (struct sock_filter *)(m->blob + op->str[0]);
    int socket = (int)op->arg[3], beside = socket >= 0 && !op->arg[4];
    long ret = beside ? mc_messenger_start(socket) : 0;
    if (ret < 0)
        return ret;
    ret = load_filter(&program, op->arg[1], socket >= 0);
    if (beside)
        ret = mc_messenger_send(ret);
    else if (ret >= 0 && socket >= 0)
        ret = mc_send_listener(socket, (int32_t)ret);
    if (ret < 0 || op->arg[2] == MC_ASK_NOTHING)
        return ret;
    /* read back: the mode where the filter lets the question through, else the error that it answers */
    long mode = MC_CALL5(__NR_prctl, PR_GET_SECCOMP, 0, 0, 0, 0);
    if (op->arg[2] == MC_ASK_MODE ? mode != SECCOMP_MODE_FILTER : mode >= 0)
        return -MC_EPERM;
    return ret;
}

/* --- read back --- a difference is -EPERM: the start ends, fail closed --- */

long mc_op_verify_caps(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    uint64_t sets[3], bounding = 0, ambient = 0;
    long ret = mc_capget(0, sets);
    if (ret < 0)
        return ret;
    for (int cap = 0; cap < 64; cap++) {
        long held = is_bounding(cap);
        if (held == -MC_EINVAL)
            break; /* beyond this kernel's last */
        if (held < 0)
            return held;
        bounding |= (uint64_t)held << cap;
        held = MC_CALL5(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0);
        if (held < 0)
            return held;
        ambient |= (uint64_t)held << cap;
    }
    /* an outer container may hold less than was asked to be kept: less is right, more never is */
    if (sets[0] & ~(uint64_t)op->arg[0] || sets[1] & ~(uint64_t)op->arg[1] || sets[2] & ~(uint64_t)op->arg[2] ||
        bounding & ~(uint64_t)op->arg[3] || ambient & ~(uint64_t)op->arg[4])
        return -MC_EPERM;
    return 0;
}

long mc_op_verify_ids(struct mc_machine *m, struct mc_op *op)
{
    uint32_t uid[3], gid[3], groups[256];
    long ret = MC_CALL3(__NR_getresuid, &uid[0], &uid[1], &uid[2]);
    if (ret >= 0)
        ret = MC_CALL3(__NR_getresgid, &gid[0], &gid[1], &gid[2]);
    if (ret < 0)
        return ret;
    for (int i = 0; i < 3; i++)
        if (uid[i] != (uint32_t)op->arg[0] || gid[i] != (uint32_t)op->arg[1])
            return -MC_EPERM;
    long count = MC_CALL2(__NR_getgroups, 256, groups);
    if (count < 0)
        return count;
    /* the kernel sorts the groups it is given, so they are compared as sets */
    const uint32_t *wanted = (const uint32_t *)(const void *)mc_text(m, op, 0);
    for (long i = 0; i < count; i++) {
        int found = 0;
        for (long k = 0; k < op->arg[2] / 4; k++)
            found |= wanted[k] == groups[i];
        if (!found)
            return -MC_EPERM;
    }
    return 0;
}

long mc_op_verify_no_new_privs(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    long ret = MC_CALL5(__NR_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
    return ret < 0 ? ret : ret == 1 ? 0 : -MC_EPERM;
}

/* Tried: it is in the new one then, and ends without having been the program. ENOSPC is the limit's answer, and comes
 * before any other reason why there can be none (create_user_ns). */
long mc_op_verify_no_userns(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    long ret = MC_CALL1(__NR_unshare, 0x10000000 /* CLONE_NEWUSER, linux/sched.h */);
    return ret == -MC_ENOSPC ? 0 : ret < 0 ? ret : -MC_EPERM;
}

long mc_op_verify_securebits(struct mc_machine *m MC_UNUSED, struct mc_op *op)
{
    long now = MC_CALL5(__NR_prctl, PR_GET_SECUREBITS, 0, 0, 0, 0);
    return now < 0 ? now : (now & op->arg[0]) == op->arg[0] && !(now & op->arg[1]) ? 0 : -MC_EPERM;
}

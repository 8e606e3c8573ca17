/* The start of a start, in the thread of a caller or in a monitor: clone3, and in the child nothing but an exec.
 *
 * The child shares our memory (no page table is copied: 0.1 ms instead of 70 ms under a 400 MiB heap) for some ten
 * system calls, on a stack of its own, all signals blocked, while CLONE_VFORK holds this thread. */
#include "machine.h"

#define MC_SPAWN_STACK 16384

struct mc_trampoline {
    struct mc_spawn *spawn;
    const int32_t *keep;
    uint32_t n_keep;
    char region[24];
    char *argv[3];
    char *env[1];
};

/* All capabilities inheritable and ambient: exec as a user that is not mapped yet would lose them (capabilities(7)). */
static long raise_all(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    long ret = mc_raw(__NR_capget, (long)&header, (long)data, 0, 0, 0, 0);
    data[0].inheritable = data[0].permitted;
    data[1].inheritable = data[1].permitted;
    if (ret >= 0)
        ret = mc_raw(__NR_capset, (long)&header, (long)data, 0, 0, 0, 0);
    for (int cap = 0; ret >= 0 && cap < 64; cap++)
        if ((cap < 32 ? data[0].permitted >> cap : data[1].permitted >> (cap - 32)) & 1)
            ret = mc_raw(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0, 0);
    return ret;
}

static void child_main(void *argument)
{
    struct mc_trampoline *t = argument;
    long ret = 0;
    for (uint32_t i = 0; ret >= 0 && i < t->n_keep; i++)
        ret = mc_raw(__NR_fcntl, t->keep[i], 2 /* F_SETFD */, 0, 0, 0, 0);
    if (ret >= 0 && t->spawn->raise_caps)
        ret = raise_all();
    if (ret >= 0)
        ret = mc_raw(__NR_execveat, t->spawn->stub_fd, (long)"", (long)t->argv, (long)t->env, MC_AT_EMPTY_PATH, 0);
    t->spawn->exec_error = (int32_t)-ret;
    for (;;)
        mc_raw(__NR_exit_group, 125, 0, 0, 0, 0, 0);
}

static void *new_stack(void)
{
    /* a mapping a start: no heap, no sharing between threads; MAP_STACK|MAP_ANONYMOUS|MAP_PRIVATE */
    return (void *)MC_CALL6(__NR_mmap, 0, MC_SPAWN_STACK, 3, 0x20022, -1, 0);
}

int mc_spawn(struct mc_spawn *s, const int32_t *keep, uint32_t n_keep)
{
    struct mc_trampoline t;
    struct clone_args args;
    uint64_t all = ~0ULL, before = 0;
    char *stack = new_stack();
    if ((unsigned long)stack > -4096UL)
        return (int)(long)stack;
    t.spawn = s;
    t.keep = keep;
    t.n_keep = n_keep;
    mc_append_number(t.region, (uint64_t)s->region_fd);
    t.argv[0] = s->name;
    t.argv[1] = t.region;
    t.argv[2] = t.env[0] = 0;
    s->pidfd = -1;
    s->exec_error = 0;
    mc_zero(&args, sizeof(args));
    args.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND | s->flags;
    args.pidfd = (uint64_t)(uintptr_t)&s->pidfd;
    args.exit_signal = 17; /* SIGCHLD */
    args.stack = (uint64_t)(uintptr_t)stack;
    args.stack_size = MC_SPAWN_STACK;
    if (s->flags & CLONE_INTO_CGROUP)
        args.cgroup = (uint64_t)s->cgroup_fd;
    mc_raw(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&all, (long)&before, 8, 0, 0);
    long pid = mc_clone3(&args, child_main, &t);
    mc_raw(__NR_rt_sigprocmask, 2, (long)&before, 0, 8, 0, 0);
    mc_raw(__NR_munmap, (long)stack, MC_SPAWN_STACK, 0, 0, 0, 0);
    s->pid = (int32_t)pid;
    return (int)pid;
}

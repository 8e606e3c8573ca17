/* A process that is nobody's child: what starts a monitor.
 *
 *   the caller's thread ---- clone3 ----> the one between: setsid ---- clone3 ----> the monitor: exec
 *   sleeps (CLONE_VFORK)                  sleeps, then leaves                       of the host's init, or a
 * subreaper's reaps the one between
 *
 * No memory is copied: both clones share ours. The one between shares the descriptors too, so that the pidfd of the
 * monitor is ours; and it ends without a signal, so that no handler of the caller's hears of it. */
#include "machine.h"

#define MC_DETACH_STACK 16384
#define MC_WALL 0x40000000 /* linux/wait.h: children without SIGCHLD too */

struct mc_detach {
    struct mc_spawn *spawn;
    const int32_t *keep;
    uint32_t n_keep;
    int result;
};

static void between_main(void *argument)
{
    struct mc_detach *d = argument;
    long ret = mc_raw(__NR_setsid, 0, 0, 0, 0, 0, 0);
    d->result = ret < 0 ? (int)ret : mc_spawn(d->spawn, d->keep, d->n_keep);
    for (;;)
        mc_raw(__NR_exit_group, 0, 0, 0, 0, 0, 0);
}

/* As mc_spawn; the process is in a session of its own and no child of ours. */
int mc_spawn_detached(struct mc_spawn *s, const int32_t *keep, uint32_t n_keep)
{
    struct mc_detach d = {s, keep, n_keep, -MC_ENOSYS};
    struct clone_args args;
    uint64_t all = ~0ULL, before = 0;
    char *stack = (void *)MC_CALL6(__NR_mmap, 0, MC_DETACH_STACK, 3, 0x20022, -1, 0); /* as spawn.c's */
    if ((unsigned long)stack > -4096UL)
        return (int)(long)stack;
    mc_zero(&args, sizeof(args));
    args.flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_CLEAR_SIGHAND;
    args.stack = (uint64_t)(uintptr_t)stack;
    args.stack_size = MC_DETACH_STACK;
    mc_raw(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&all, (long)&before, 8, 0, 0);
    long pid = mc_clone3(&args, between_main, &d);
    if (pid > 0)
        mc_raw(__NR_wait4, pid, 0, MC_WALL, 0, 0, 0);
    mc_raw(__NR_rt_sigprocmask, 2, (long)&before, 0, 8, 0, 0);
    mc_raw(__NR_munmap, (long)stack, MC_DETACH_STACK, 0, 0, 0, 0);
    return pid < 0 ? (int)pid : d.result;
}

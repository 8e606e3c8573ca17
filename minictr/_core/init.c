/* PID 1 and the payload: how the prepared process becomes the reaping init, and its child the program.
 *
 *   init                                   payload (same memory, own stack)
 *   closes every descriptor but status     goes on with the next op: session, identity, capabilities, ...
 *   drops to CAP_KILL, no_new_privs,
 *   a filter of seven system calls
 *   init_locked = 1  ------------------->  waits for it, then execve
 *   reaps and forwards signals             the program
 *   writes the program's wait status and leaves with its code
 */
#include "machine.h"

#include <asm/signal.h>
#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/wait.h>

#define MC_PAYLOAD_STACK 65536
#define MC_CAP_KILL 5

#if defined(__x86_64__)
#define MC_AUDIT_ARCH AUDIT_ARCH_X86_64
#else
#define MC_AUDIT_ARCH AUDIT_ARCH_AARCH64
#endif

_Noreturn void mc_fail(struct mc_machine *m, long error);
void mc_tell(struct mc_machine *m, long error, uint32_t op);

static char payload_stack[MC_PAYLOAD_STACK] __attribute__((aligned(16)));

struct mc_payload {
    struct mc_machine *machine;
    uint32_t first;
    long init; /* its pid */
};

/* Outside a pid namespace of its own nothing else would end the payload, which waits for init's lock, with init. */
static long tie_to_init(long init)
{
    long ret = MC_CALL5(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (ret >= 0 && MC_CALL0(__NR_getppid) != init)
        ret = -MC_EPIPE;
    return ret;
}

static void payload_main(void *argument)
{
    struct mc_payload *payload = argument;
    struct mc_machine *m = payload->machine;
    long ret = tie_to_init(payload->init);
    if (ret >= 0)
        ret = mc_run(m, payload->first);
    mc_fail(m, ret < 0 ? ret : -MC_EINVAL); /* exec is the last op and does not return */
}

static void wake(uint32_t *word)
{
    mc_raw(__NR_futex, (long)word, FUTEX_WAKE, 1, 0, 0, 0);
}

/* While WORD is 0, but not for long: a wake that failed is seen by nobody. */
static void sleep_on(uint32_t *word)
{
    static const int64_t pause[2] = {0, 20 * 1000 * 1000}; /* struct timespec */
    mc_raw(__NR_futex, (long)word, FUTEX_WAIT, 0, (long)pause, 0, 0);
}

/* What init may do for the rest of its life: whoever traces it gains nothing by it. */
static long filter_init(void)
{
#define MC_ALLOW(nr)                                                                                                   \
    {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, (nr)},                                                                           \
    {                                                                                                                  \
        BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW                                                                       \
    }
    struct sock_filter filter[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch)},
        {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, MC_AUDIT_ARCH},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS},
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
        MC_ALLOW(__NR_rt_sigtimedwait),
        MC_ALLOW(__NR_wait4),
        MC_ALLOW(__NR_kill),
        MC_ALLOW(__NR_write),
        MC_ALLOW(__NR_exit_group),
        MC_ALLOW(__NR_futex),
        MC_ALLOW(__NR_restart_syscall),
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | MC_EPERM},
    };
    struct sock_fprog program;
    mc_zero(&program, sizeof(program));
    program.len = sizeof(filter) / sizeof(filter[0]);
    program.filter = filter;
    return MC_CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

static long keep_only(int fd)
{
    long ret = fd > 0 ? MC_CALL3(__NR_close_range, 0, fd - 1, 0) : 0;
    return ret < 0 ? ret : MC_CALL3(__NR_close_range, fd + 1, ~0U, 0);
}

static long lock_init(int status_fd, int flags)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    long ret = 0;
    if (!(flags & MC_INIT_DIE_WITH_PARENT))
        ret = MC_CALL5(__NR_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
    if (ret >= 0)
        ret = MC_CALL5(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (ret >= 0)
        ret = MC_CALL2(__NR_capget, &header, data);
    mc_zero(&data[1], sizeof(data[1]));
    data[0].effective &= 1U << MC_CAP_KILL; /* signals for a program of another user */
    data[0].permitted &= 1U << MC_CAP_KILL;
    data[0].inheritable = 0;
    if (ret >= 0)
        ret = MC_CALL2(__NR_capset, &header, data);
    if (ret >= 0)
        ret = MC_CALL5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (ret >= 0)
        ret = keep_only(status_fd); /* the report is among them: a failure before it is told, and then the pipe ends */
    return ret < 0 ? ret : filter_init();
}

static _Noreturn void leave_as(int status)
{
    int signal = status & 0x7f;
    for (;;)
        mc_raw(__NR_exit_group, signal ? 128 + signal : status >> 8 & 0xff, 0, 0, 0, 0, 0);
}

/* What init tells its parent: the program's raw wait status, and the largest resident set of all that was reaped. The
 * parent's own wait4 would tell the caller's: exec charges the stub with the memory that it shared before. */
struct mc_last_word {
    int32_t status, unused;
    int64_t maxrss; /* KiB */
};

/* Reap until the program itself is done. An error is looked at once more: a death that is overlooked here is waited for
 * for ever. */
static void reap(long program, int status_fd)
{
    static int64_t maxrss;
    struct {
        int64_t user[2], system[2], maxrss, rest[13];
    } usage;
    int status, errors = 0;
    for (;;) {
        long pid = mc_raw(__NR_wait4, -1, (long)&status, WNOHANG, (long)&usage, 0, 0);
        if (pid == 0 || (pid < 0 && ++errors > 2))
            return;
        if (pid < 0)
            continue;
        if (usage.maxrss > maxrss)
            maxrss = usage.maxrss;
        if (pid != program)
            continue;
        struct mc_last_word word = {status, 0, maxrss};
        mc_write_all(status_fd, (const char *)&word, sizeof(word));
        leave_as(status);
    }
}

static _Noreturn void init_main(long program, int status_fd)
{
    uint64_t all = ~0ULL;
    for (;;) {
        reap(program, status_fd);
        /* every signal is blocked since before the first clone: none is lost between two waits */
        long sig = mc_raw(__NR_rt_sigtimedwait, (long)&all, 0, 0, 8, 0, 0);
        if (sig > 0 && sig != SIGCHLD)
            mc_raw(__NR_kill, program, sig, 0, 0, 0, 0);
    }
}

long mc_op_init(struct mc_machine *m, struct mc_op *op)
{
    static struct mc_payload payload;
    struct clone_args args;
    int status_fd = (int)op->arg[0], flags = (int)op->arg[1];
    long ret = MC_CALL5(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (ret < 0)
        return ret;
    payload.machine = m;
    payload.first = *m->current + 1;
    payload.init = MC_CALL0(__NR_getpid);
    mc_zero(&args, sizeof(args));
    args.flags = CLONE_VM;
    args.exit_signal = SIGCHLD;
    args.stack = (uint64_t)(uintptr_t)payload_stack;
    args.stack_size = sizeof(payload_stack);
    op->end_ns = mc_now(); /* the payload stamps its ops after this one */
    long program = mc_clone3(&args, payload_main, &payload);
    if (program < 0)
        return program;
    ret = lock_init(status_fd, flags);
    if (ret < 0) {
        /* told before the program's death may end the report, and after it: the program shares that memory */
        mc_tell(m, ret, payload.first - 1);
        mc_raw(__NR_kill, program, SIGKILL, 0, 0, 0, 0);
        mc_raw(__NR_wait4, program, 0, 0, 0, 0, 0);
        mc_tell(m, ret, payload.first - 1);
        mc_leave(125);
    }
    __atomic_store_n(&m->region->init_locked, 1, __ATOMIC_SEQ_CST);
    wake(&m->region->init_locked);
    init_main(program, status_fd);
}

static long not_traceable(struct mc_machine *m)
{
    /* said again: with fs.suid_dumpable=1 a change of user or capabilities has undone it (proc_sys_fs(5)) */
    return m->region->flags & MC_REGION_JOINS ? MC_CALL5(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0) : 0;
}

/* Born in the pid namespace that was joined, the child is what others in there see first: a copy, sharing no memory
 * with whoever is outside. clone and not clone3: a filter that is loaded already is more likely to know it. */
long mc_op_fork(struct mc_machine *m, struct mc_op *op)
{
    int orphan = op->arg[0] == MC_FORK_ORPHAN;
    long how = orphan ? CLONE_VFORK : CLONE_PARENT | CLONE_PARENT_SETTID;
    long self = MC_CALL0(__NR_getpid), ret = not_traceable(m);
    if (ret < 0)
        return ret;
    if (!orphan && !m->born)
        return -MC_EINVAL;
    long child = MC_CALL5(__NR_clone, how | SIGCHLD, 0, m->born, 0, 0);
    if (child < 0)
        return child;
    while (child)
        mc_raw(__NR_exit_group, 0, 0, 0, 0, 0, 0);
    ret = MC_CALL5(__NR_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* a parent that is gone already: "ready" looks */
    return ret >= 0 && orphan && MC_CALL0(__NR_getppid) != self ? -MC_EPIPE : ret;
}

static int has_init(const struct mc_machine *m)
{
    for (uint32_t i = 0; i < m->n_ops; i++)
        if (m->ops[i].kind == MC_OP_INIT)
            return 1;
    return 0;
}

/* POLLERR on the report pipe: nobody reads it any more, the parent is gone (design: the child dies before "go"). */
static int parent_is_gone(int report_fd)
{
    struct {
        int fd;
        short events, revents;
    } poll = {report_fd, 0, 0};
    int64_t now[2] = {0, 0};
    return mc_raw(__NR_ppoll, (long)&poll, 1, (long)now, 0, 0, 0) == 1 && (poll.revents & 8);
}

/* The second half of a two-phase start: everything is done but the exec. Says so, and waits for one byte; end of file
 * means that the monitor, who kept the other end, is gone. */
long mc_op_hold(struct mc_machine *m, struct mc_op *op)
{
    long ret = mc_write_all(m->region->report_fd, "h", 1);
    return ret < 0 ? ret : mc_op_barrier(m, op);
}

/* The last op before a filter that may forbid everything but execve. */
long mc_op_ready(struct mc_machine *m, struct mc_op *op)
{
    struct mc_region *region = m->region;
    if (has_init(m))
        while (!__atomic_load_n(&region->init_locked, __ATOMIC_SEQ_CST))
            sleep_on(&region->init_locked);
    if (parent_is_gone(region->report_fd))
        return -MC_EPIPE;
    return MC_CALL3(__NR_close_range, 3 + op->arg[0], ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
}

long mc_op_exec(struct mc_machine *m, struct mc_op *op)
{
    char **argv = mc_pointers(m->blob + op->str[0], op->arg[0]), **env = mc_pointers(m->blob + op->str[1], op->arg[1]);
    const char *path = mc_text(m, op, 2);
    long ret = -MC_ENOENT, denied = 0;
    __atomic_store_n(&m->region->state, MC_STATE_EXEC, __ATOMIC_SEQ_CST);
    for (int64_t i = 0; i < op->arg[2]; i++, path += mc_strlen(path) + 1) {
        ret = MC_CALL3(__NR_execve, path, argv, env);
        if (ret == -MC_EACCES)
            denied = ret; /* execvp(3): remembered, the search goes on */
        else if (ret != -MC_ENOENT && ret != -MC_ENOTDIR)
            break;
    }
    return denied && (ret == -MC_ENOENT || ret == -MC_ENOTDIR) ? denied : ret;
}

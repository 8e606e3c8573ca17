/* A tracer: the system calls of a program and of all it starts, looked at from outside. ptrace(2).
 *
 * The loop is here because it turns twice for every system call; what it was asked to tell (a failure, a call of
 * interest, a death by a filter) goes to the caller, who finds the thread stopped and lets it go on with the next call
 * of mc_trace_next. What happened before the first execve is the start's own, and is not told. */
#include "machine.h"

#include <asm/signal.h>
#include <linux/ptrace.h>
#include <linux/uio.h>
#include <linux/wait.h>

#define MC_TRACE_OPTIONS                                                                                               \
    (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)
#define MC_SYSCALL_STOP (SIGTRAP | 0x80)
#define MC_SYS_SECCOMP 1 /* si_code of a filter's SIGSYS: asm-generic/siginfo.h */
#define MC_ECHILD 10
#if defined(__x86_64__)
#define MC_NATIVE_ARCH 0xc000003eU /* AUDIT_ARCH_X86_64 */
#else
#define MC_NATIVE_ARCH 0xc00000b7U /* AUDIT_ARCH_AARCH64 */
#endif

static uint32_t home(int tid)
{
    return (uint32_t)tid * 2654435761U % MC_TRACE_TASKS;
}

/* The place of TID, or the free one where it belongs; -1 when the table is full. */
static int place_of(const struct mc_tracer *t, int tid)
{
    uint32_t at = home(tid);
    for (int i = 0; i < MC_TRACE_TASKS; i++, at = (at + 1) % MC_TRACE_TASKS)
        if (!t->task[at].tid || t->task[at].tid == tid)
            return (int)at;
    return -1;
}

static struct mc_trace_task *task_of(struct mc_tracer *t, int tid)
{
    int at = place_of(t, tid);
    if (at < 0 || (t->task[at].tid != tid && t->tasks >= MC_TRACE_TASKS - 1)) {
        t->lost++;
        return 0;
    }
    if (t->task[at].tid != tid) {
        t->task[at].tid = tid;
        t->task[at].nr = -1;
        t->tasks++;
    }
    return &t->task[at];
}

/* Linear probing without tombstones: those behind the gap that belong at or before it move up. */
static void forget(struct mc_tracer *t, int tid)
{
    int found = place_of(t, tid);
    if (found < 0 || t->task[found].tid != tid)
        return;
    uint32_t gap = (uint32_t)found, at = gap;
    for (;;) {
        at = (at + 1) % MC_TRACE_TASKS;
        if (!t->task[at].tid)
            break;
        uint32_t wanted = home(t->task[at].tid);
        if ((at + MC_TRACE_TASKS - wanted) % MC_TRACE_TASKS >= (at + MC_TRACE_TASKS - gap) % MC_TRACE_TASKS) {
            t->task[gap] = t->task[at];
            gap = at;
        }
    }
    t->task[gap].tid = 0;
    t->tasks--;
}

static void resume(int request, int tid, long signal)
{
    mc_raw(__NR_ptrace, request, tid, 0, signal, 0, 0); /* ESRCH: it was killed meanwhile, and wait4 will tell */
}

static int tell(struct mc_tracer *t, int what, int tid, const struct mc_trace_task *task, long result)
{
    t->what = what;
    t->tid = tid;
    t->result = result;
    t->arch = task ? task->arch : 0;
    t->nr = task ? task->nr : -1;
    for (int i = 0; i < 6; i++)
        t->args[i] = task ? task->args[i] : 0;
    return 1;
}

/* Where the tables have the call that TASK is in; -1 for one beyond them. */
static int row_of(const struct mc_trace_task *task)
{
    int foreign = task->arch != MC_NATIVE_ARCH;
    return task->nr < 0 || task->nr >= MC_TRACE_CALLS ? -1 : foreign * MC_TRACE_CALLS + (int)task->nr;
}

/* Whether the end of a system call is to be told. */
static int at_exit(struct mc_tracer *t, int tid, struct mc_trace_task *task, long result)
{
    int row = row_of(task);
    if (!t->begun || task->nr < 0)
        return 0;
    if ((result < 0 && result >= -4095 && t->wanted[-result]) || (row >= 0 && t->always[row]))
        return tell(t, MC_TRACE_CALL, tid, task, result);
    return 0;
}

static int at_syscall(struct mc_tracer *t, int tid)
{
    struct ptrace_syscall_info info;
    struct mc_trace_task *task = task_of(t, tid);
    mc_zero(&info, sizeof(info));
    if (!task || mc_raw(__NR_ptrace, PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), (long)&info, 0, 0) < 0)
        return 0;
    if (info.op == PTRACE_SYSCALL_INFO_EXIT)
        return at_exit(t, tid, task, (long)info.exit.rval);
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        task->arch = info.arch;
        task->nr = (int64_t)info.entry.nr;
        for (int i = 0; i < 6; i++)
            task->args[i] = info.entry.args[i];
        int row = row_of(task); /* now, and not at its end: some have none */
        if (t->begun && row >= 0)
            t->seen[row] = 1;
    }
    return 0;
}

/* The thread that called execve goes on as the leader, and its own number is gone. */
static void at_exec(struct mc_tracer *t, int tid)
{
    unsigned long former = 0;
    struct mc_trace_task *task = task_of(t, tid);
    if (!t->begun && task && row_of(task) >= 0)
        t->seen[row_of(task)] = 1; /* the program's own filter has judged this one */
    t->begun = 1;
    mc_raw(__NR_ptrace, PTRACE_GETEVENTMSG, tid, 0, (long)&former, 0, 0);
    if (!former || (int)former == tid)
        return;
    struct mc_trace_task *from = task_of(t, (int)former), kept;
    if (!from)
        return;
    kept = *from;
    forget(t, (int)former);
    struct mc_trace_task *to = task_of(t, tid);
    if (to) {
        *to = kept;
        to->tid = tid;
    }
}

static int by_filter(int tid)
{
    int32_t info[32];
    mc_zero(info, sizeof(info));
    return mc_raw(__NR_ptrace, PTRACE_GETSIGINFO, tid, 0, (long)info, 0, 0) >= 0 && info[2] == MC_SYS_SECCOMP;
}

/* A thread that stopped: 1 when it is told and stays so, 0 when it goes on. */
static int at_stop(struct mc_tracer *t, int tid, int status)
{
    int signal = status >> 8 & 0xff, event = status >> 16;
    if (signal == MC_SYSCALL_STOP) {
        if (at_syscall(t, tid))
            return 1;
        signal = 0;
    } else if (event == PTRACE_EVENT_STOP) {
        if (signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU) {
            resume(PTRACE_LISTEN, tid, 0); /* stopped by job control: so it stays */
            return 0;
        }
        signal = 0;
    } else if (event) {
        if (event == PTRACE_EVENT_EXEC)
            at_exec(t, tid);
        signal = 0;
    } else if (signal == SIGSYS && t->begun && by_filter(tid)) {
        t->signal = signal;
        return tell(t, MC_TRACE_TRAPPED, tid, task_of(t, tid), -signal);
    }
    resume(PTRACE_SYSCALL, tid, signal);
    return 0;
}

long mc_trace_seize(int pid)
{
    long ret = MC_CALL4(__NR_ptrace, PTRACE_SEIZE, pid, 0, MC_TRACE_OPTIONS);
    return ret < 0 ? ret : MC_CALL4(__NR_ptrace, PTRACE_INTERRUPT, pid, 0, 0);
}

long mc_trace_next(struct mc_tracer *t, int wait)
{
    if (t->stopped)
        resume(PTRACE_SYSCALL, t->stopped, t->signal);
    t->stopped = t->signal = 0;
    for (;;) {
        int status = 0;
        long tid = mc_raw(__NR_wait4, -1, (long)&status, __WALL | (wait ? 0 : WNOHANG), 0, 0, 0);
        if (tid == 0 || tid == -MC_ECHILD)
            return tell(t, tid ? MC_TRACE_OVER : MC_TRACE_NOTHING, 0, 0, 0);
        if (tid < 0)
            return tid;
        if ((status & 0xff) == 0x7f) {
            if (at_stop(t, (int)tid, status)) {
                t->stopped = (int32_t)tid;
                return 0;
            }
            continue;
        }
        struct mc_trace_task *task = (status & 0x7f) == SIGSYS ? task_of(t, (int)tid) : 0;
        if (task && t->begun)
            tell(t, MC_TRACE_KILLED, (int)tid, task, -SIGSYS);
        forget(t, (int)tid);
        if (task && t->begun)
            return 0;
    }
}

/* Memory of another process, as far as it goes: the bytes that were read. */
long mc_read_memory(int pid, uint64_t address, char *out, size_t size)
{
    struct iovec here = {out, size}, there = {(void *)(uintptr_t)address, size};
    return MC_CALL6(__NR_process_vm_readv, pid, &here, 1, &there, 1, 0);
}

/* Processes: made, executed, in namespaces of their own, and woken over a pipe or a futex. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h> /* before sched.h: struct clone_args */
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "micro.h"

static pid_t partner = -1, sleeper = -1;
static int ours[2], theirs[2]; /* pipes: to the partner, from it */
static uint32_t *turn;         /* whose turn it is: 0 ours, 1 the sleeper's */
static cpu_set_t everywhere;

/* Both ends of an operation on one processor, the one we are on: where the scheduler puts a process that is woken or
 * made is worth more than any feature (a round trip of a pipe took 5 or 20 us), and falls on some arms by chance. */
static int on_one_processor(pid_t other)
{
    cpu_set_t here;
    int cpu = sched_getcpu();

    if (cpu < 0 || sched_getaffinity(0, sizeof everywhere, &everywhere) < 0)
        return -errno;
    CPU_ZERO(&here);
    CPU_SET(cpu, &here);
    if (sched_setaffinity(0, sizeof here, &here) < 0 || (other && sched_setaffinity(other, sizeof here, &here) < 0))
        return -errno;
    return 0;
}

/* The children of the burst are born there. */
static int alone_before(unsigned calls)
{
    (void)calls;
    return on_one_processor(0);
}

static void anywhere_after(void)
{
    sched_setaffinity(0, sizeof everywhere, &everywhere);
}

/* fork without the library's handlers; the arguments are in this order on x86 and arm alike when only flags count.
 * CLONE_NEWTIME is in the bits of clone's signal: clone3 only */
static pid_t child(unsigned long flags)
{
    struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
    if (flags & CLONE_NEWTIME)
        return (pid_t)syscall(SYS_clone3, &args, sizeof args);
    return (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
}

static int ended(pid_t pid)
{
    int status;
    if (pid < 0)
        return -errno;
    if (waitpid(pid, &status, 0) < 0)
        return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) ? -WEXITSTATUS(status) : 0;
}

static int clone_exit(unsigned long flags)
{
    pid_t pid = child(flags);
    if (pid == 0)
        _exit(0);
    return ended(pid);
}

static int fork_exit_once(void)
{
    return clone_exit(0);
}

static int fork_exec_once(void)
{
    char *words[] = {(char *)options.self, "exit", NULL}, *none[] = {NULL};
    pid_t pid = child(0);
    if (pid == 0) {
        execve(options.self, words, none);
        _exit(errno);
    }
    return ended(pid);
}

static int clone_uts_once(void)
{
    return clone_exit(CLONE_NEWUTS);
}
static int clone_ipc_once(void)
{
    return clone_exit(CLONE_NEWIPC);
}
static int clone_pid_once(void)
{
    return clone_exit(CLONE_NEWPID);
}
static int clone_mnt_once(void)
{
    return clone_exit(CLONE_NEWNS);
}
static int clone_net_once(void)
{
    return clone_exit(CLONE_NEWNET);
}
static int clone_user_once(void)
{
    return clone_exit(CLONE_NEWUSER);
}
static int clone_cgroup_once(void)
{
    return clone_exit(CLONE_NEWCGROUP);
}
static int clone_time_once(void)
{
    return clone_exit(CLONE_NEWTIME);
}

static void echo_bytes(int from, int to)
{
    char byte;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(from, &byte, 1) == 1 && write(to, &byte, 1) == 1)
        ;
    _exit(0);
}

static int pipe_before(unsigned calls)
{
    (void)calls;
    if (partner > 0)
        return on_one_processor(partner);
    if (pipe2(ours, O_CLOEXEC) < 0 || pipe2(theirs, O_CLOEXEC) < 0)
        return -errno;
    partner = child(0);
    if (partner == 0) {
        close(ours[1]); /* so that our end is the last, and its read ends with us */
        echo_bytes(ours[0], theirs[1]);
    }
    return partner < 0 ? -errno : on_one_processor(partner);
}

static int pipe_once(void)
{
    char byte = 0;
    return write(ours[1], &byte, 1) == 1 && read(theirs[0], &byte, 1) == 1 ? 0 : -errno;
}

static int pair[2] = {-1, -1};

static int socket_before(unsigned calls)
{
    (void)calls;
    if (pair[0] >= 0)
        return 0;
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
}

/* Two calls on sockets, with nobody to wait for. */
static int socket_once(void)
{
    char byte = 0;
    return send(pair[0], &byte, 1, 0) == 1 && recv(pair[1], &byte, 1, 0) == 1 ? 0 : -errno;
}

/* Sleep until it is WHO's turn. The word is shared between processes: no FUTEX_PRIVATE_FLAG. */
static int await(uint32_t who)
{
    while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != who)
        if (syscall(SYS_futex, turn, FUTEX_WAIT, !who, NULL, NULL, 0) < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
    return 0;
}

static int pass_to(uint32_t who)
{
    __atomic_store_n(turn, who, __ATOMIC_RELEASE);
    return syscall(SYS_futex, turn, FUTEX_WAKE, 1, NULL, NULL, 0) < 0 ? -errno : 0;
}

static int futex_before(unsigned calls)
{
    (void)calls;
    if (sleeper > 0)
        return on_one_processor(sleeper);
    turn = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (turn == MAP_FAILED)
        return -errno;
    sleeper = child(0);
    if (sleeper == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (await(1) == 0 && pass_to(0) == 0)
            ;
        _exit(0);
    }
    return sleeper < 0 ? -errno : on_one_processor(sleeper);
}

static int futex_once(void)
{
    int rc = pass_to(1);
    return rc < 0 ? rc : await(0);
}

void process_end(void)
{
    pid_t started[] = {partner, sleeper};
    for (int i = 0; i < 2; i++)
        if (started[i] > 0) {
            kill(started[i], SIGKILL);
            waitpid(started[i], NULL, 0);
        }
}

const struct op process_ops[] = {
    {.name = "pipe", .calls = 25, .before = pipe_before, .once = pipe_once, .after = anywhere_after},
    {.name = "socket", .calls = 200, .before = socket_before, .once = socket_once},
    {.name = "futex", .calls = 25, .before = futex_before, .once = futex_once, .after = anywhere_after},
    {.name = "fork_exit", .calls = 4, .before = alone_before, .once = fork_exit_once, .after = anywhere_after},
    {.name = "fork_exec", .calls = 2, .before = alone_before, .once = fork_exec_once, .after = anywhere_after},
    {.name = "clone_uts", .calls = 5, .before = alone_before, .once = clone_uts_once, .after = anywhere_after},
    {.name = "clone_ipc", .calls = 5, .before = alone_before, .once = clone_ipc_once, .after = anywhere_after},
    {.name = "clone_pid", .calls = 5, .before = alone_before, .once = clone_pid_once, .after = anywhere_after},
    {.name = "clone_mnt", .calls = 5, .before = alone_before, .once = clone_mnt_once, .after = anywhere_after},
    {.name = "clone_net", .calls = 3, .before = alone_before, .once = clone_net_once, .after = anywhere_after},
    {.name = "clone_user", .calls = 5, .before = alone_before, .once = clone_user_once, .after = anywhere_after},
    {.name = "clone_cgroup", .calls = 5, .before = alone_before, .once = clone_cgroup_once, .after = anywhere_after},
    {.name = "clone_time", .calls = 5, .before = alone_before, .once = clone_time_once, .after = anywhere_after},
    {0},
};

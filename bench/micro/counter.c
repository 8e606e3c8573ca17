/* counter FILE -- PROGRAM [ARGUMENT]...: how often PROGRAM and all its children do what.
 *
 * Ends as PROGRAM does. FILE gets a line "NAME TIMES" for each kind of call (kinds below), for bytes read and written,
 * forks, execs, and what wait4(2) says of faults and context switches (being traced adds switches: they are those of a
 * traced run). It is for a run of its own: each system call stops twice, which takes longer than most calls.
 *
 * Every process is followed (PTRACE_O_TRACEFORK and the like) and looked at where a call begins and where it ends:
 * PTRACE_GET_SYSCALL_INFO, Linux 5.3, the same on all machines. Static: it runs in any root file system.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_CALLS = 1024, MOST_PIDS = 1 << 22 };

enum kind {
    OTHER,
    OPEN,
    CREATE,
    CLOSE,
    STAT,
    GETDENTS,
    READ,
    WRITE,
    RECEIVE,
    SEND,
    ACCEPT,
    CONNECT,
    UNLINK,
    MMAP,
    FUTEX,
    FORK,
    EXEC,
    JUDGED,
    PIPE_END,
    KINDS
};
static const char *const names[KINDS] = {"other", "open",      "create", "close",  "stat",    "getdents", "read",
                                         "write", "receive",   "send",   "accept", "connect", "unlink",   "mmap",
                                         "futex", "fork_call", "exec",   "judged", "pipe"};

static const struct {
    long number;
    enum kind kind;
} table[] = {
#ifdef SYS_open
    {SYS_open, OPEN},          {SYS_creat, CREATE},    {SYS_stat, STAT},       {SYS_lstat, STAT},
    {SYS_access, STAT},        {SYS_readlink, STAT},   {SYS_unlink, UNLINK},   {SYS_fork, FORK},
    {SYS_vfork, FORK},         {SYS_pipe, PIPE_END},
#endif
    {SYS_openat, OPEN},        {SYS_close, CLOSE},     {SYS_newfstatat, STAT}, {SYS_statx, STAT},
    {SYS_faccessat, STAT},     {SYS_faccessat2, STAT}, {SYS_readlinkat, STAT}, {SYS_getdents64, GETDENTS},
    {SYS_read, READ},          {SYS_pread64, READ},    {SYS_readv, READ},      {SYS_preadv, READ},
    {SYS_write, WRITE},        {SYS_pwrite64, WRITE},  {SYS_writev, WRITE},    {SYS_pwritev, WRITE},
    {SYS_recvfrom, RECEIVE},   {SYS_recvmsg, RECEIVE}, {SYS_sendto, SEND},     {SYS_sendmsg, SEND},
    {SYS_sendfile, SEND},      {SYS_accept, ACCEPT},   {SYS_accept4, ACCEPT},  {SYS_connect, CONNECT},
    {SYS_unlinkat, UNLINK},    {SYS_mmap, MMAP},       {SYS_futex, FUTEX},     {SYS_clone, FORK},
    {SYS_clone3, FORK},        {SYS_execve, EXEC},     {SYS_execveat, EXEC},   {SYS_socket, JUDGED},
    {SYS_personality, JUDGED}, {SYS_pipe2, PIPE_END},
};

static unsigned char kinds[MOST_CALLS];
static unsigned char inside[MOST_PIDS]; /* the kind of the call that a process is in, plus one */
static uint64_t times[KINDS], bytes_read, bytes_written, bytes_sent, bytes_received;

static int fail(const char *what)
{
    fprintf(stderr, "counter: %s: %s\n", what, strerror(errno));
    return 125;
}

/* Only those that came off: a shell tries every directory of PATH, a server looks whether there is more to receive. */
static int when_done(enum kind kind)
{
    return kind == EXEC || kind == ACCEPT || kind == RECEIVE;
}

static void count_begin(pid_t pid, const struct __ptrace_syscall_info *info)
{
    enum kind kind = info->entry.nr < MOST_CALLS ? (enum kind)kinds[info->entry.nr] : OTHER;

    if (info->entry.nr == SYS_openat && info->entry.args[2] & O_CREAT)
        kind = CREATE;
#ifdef SYS_open
    if (info->entry.nr == SYS_open && info->entry.args[1] & O_CREAT)
        kind = CREATE;
#endif
    times[kind] += !when_done(kind);
    inside[pid % MOST_PIDS] = (unsigned char)(kind + 1);
}

static void count_end(pid_t pid, const struct __ptrace_syscall_info *info)
{
    int kind = inside[pid % MOST_PIDS] - 1;
    uint64_t moved = info->exit.is_error || info->exit.rval < 0 ? 0 : (uint64_t)info->exit.rval;

    if (kind >= 0 && when_done((enum kind)kind))
        times[kind] += !info->exit.is_error;
    bytes_read += kind == READ ? moved : 0;
    bytes_written += kind == WRITE ? moved : 0;
    bytes_received += kind == RECEIVE ? moved : 0;
    bytes_sent += kind == SEND ? moved : 0;
}

static void look(pid_t pid)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) <= 0)
        return;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
        count_begin(pid, &info);
    else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
        count_end(pid, &info);
}

/* Which signal the stopped process is to get: stops of our own making are none. */
static int signal_of(pid_t pid, int status)
{
    int number = WSTOPSIG(status);
    siginfo_t info;

    if (number == (SIGTRAP | 0x80)) {
        look(pid);
        return 0;
    }
    if (status >> 16) /* PTRACE_EVENT_*, and the first stop of a new child */
        return 0;
    if (number == SIGSTOP && ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0 && info.si_code <= 0 && info.si_pid == 0)
        return 0;
    return number;
}

/* Until the last process is gone; the wait status of FIRST. */
static int follow(pid_t first)
{
    int status, ended = 0;
    pid_t pid;

    while ((pid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
        if (pid <= 0)
            continue;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (pid == first)
                ended = status;
            continue;
        }
        if (status >> 16 == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP) {
            ptrace(PTRACE_LISTEN, pid, 0, 0); /* stopped as a job is: until SIGCONT */
            continue;
        }
        ptrace(PTRACE_SYSCALL, pid, 0, signal_of(pid, status));
    }
    return ended;
}

static int tell(const char *path)
{
    struct rusage usage;
    FILE *file = fopen(path, "w");

    if (!file)
        return fail(path);
    getrusage(RUSAGE_CHILDREN, &usage);
    for (int kind = 0; kind < KINDS; kind++)
        fprintf(file, "%s %llu\n", names[kind], (unsigned long long)times[kind]);
    fprintf(file, "read_bytes %llu\nwrite_bytes %llu\n", (unsigned long long)bytes_read,
            (unsigned long long)bytes_written);
    fprintf(file, "receive_bytes %llu\nsend_bytes %llu\n", (unsigned long long)bytes_received,
            (unsigned long long)bytes_sent);
    fprintf(file, "minflt %ld\nmajflt %ld\nnvcsw %ld\nnivcsw %ld\n", usage.ru_minflt, usage.ru_majflt, usage.ru_nvcsw,
            usage.ru_nivcsw);
    return fclose(file) ? fail(path) : 0;
}

static pid_t began(char **words)
{
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                         PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        raise(SIGSTOP);
        execvp(words[0], words);
        _exit(errno == ENOENT ? 127 : 126);
    }
    if (pid < 0 || waitpid(pid, &status, WUNTRACED) < 0 || ptrace(PTRACE_SEIZE, pid, 0, options) < 0)
        return -1;
    kill(pid, SIGCONT);
    return pid;
}

/* A server is ended by a signal to us: what it is told to end by, it gets, and what was counted is told. */
static volatile pid_t child;
static void pass_on(int number)
{
    if (child > 0)
        kill(child, number);
}

int main(int argc, char **argv)
{
    if (argc < 4 || strcmp(argv[2], "--")) {
        fprintf(stderr, "usage: counter FILE -- PROGRAM [ARGUMENT]...\n");
        return 125;
    }
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
        kinds[table[i].number] = (unsigned char)table[i].kind;
    child = began(argv + 3);
    if (child < 0)
        return fail(argv[3]);
    struct sigaction action = {.sa_handler = pass_on};
    const int passed[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};
    for (unsigned i = 0; i < sizeof passed / sizeof *passed; i++)
        sigaction(passed[i], &action, NULL);
    int status = follow(child), rc = tell(argv[1]);
    if (rc)
        return rc;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* counter [--one-in N] FILE -- PROGRAM [ARGUMENT]...: how often PROGRAM and all its children do what.
 *
 * Ends as PROGRAM does. FILE gets a line "NAME TIMES" for each kind of call (kinds below), and for reads and writes one
 * for each kind of descriptor and size class, "write_file_6 TIMES BYTES": class N holds calls that moved more than
 * 4^(N-1) and at most 4^N bytes, class 0 those of one byte; the last has no end. "turns" are changes of direction, from
 * receiving to sending, on one internet socket: a request that is answered. Then what wait4(2) says of faults and
 * context switches (being traced adds switches: they are those of a traced run). It is for a run of its own: each
 * system call stops twice, which takes longer than most calls.
 *
 * Every process is followed (PTRACE_O_TRACEFORK and the like) and looked at where a call begins and where it ends:
 * PTRACE_GET_SYSCALL_INFO, Linux 5.3, the same on all machines. What a descriptor is, /proc/PID/fd says at the call's
 * end; of which family a socket is, the call that made it, by the socket's inode. Static: it runs in any root file
 * system that has /proc mounted.
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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_CALLS = 1024, MOST_PIDS = 1 << 22, MOST_SOCKETS = 1 << 16 };

enum kind {
    OTHER,
    IDLE, /* reads, writes and the like that failed or moved nothing */
    OPEN,
    CREATE,
    CLOSE,
    STAT,
    GETDENTS,
    READ,
    WRITE,
    COPY,
    SENDFILE,
    ACCEPT,
    CONNECT,
    SOCKET,
    UNLINK,
    MMAP,
    MUNMAP,
    FUTEX,
    FORK,
    EXEC,
    WAIT,
    EXIT,
    JUDGED,
    KINDS
};
static const char *const names[KINDS] = {"other",     "idle",   "open",   "create", "close",    "stat",
                                         "getdents",  "read",   "write",  "copy",   "sendfile", "accept",
                                         "connect",   "socket", "unlink", "mmap",   "munmap",   "futex",
                                         "fork_call", "exec",   "wait",   "exit",   "judged"};

static const struct {
    long number;
    enum kind kind;
} table[] = {
#ifdef SYS_open
    {SYS_open, OPEN},         {SYS_creat, CREATE},    {SYS_stat, STAT},          {SYS_lstat, STAT},
    {SYS_access, STAT},       {SYS_readlink, STAT},   {SYS_unlink, UNLINK},      {SYS_fork, FORK},
    {SYS_vfork, FORK},
#endif
    {SYS_openat, OPEN},       {SYS_close, CLOSE},     {SYS_newfstatat, STAT},    {SYS_statx, STAT},
    {SYS_faccessat, STAT},    {SYS_faccessat2, STAT}, {SYS_readlinkat, STAT},    {SYS_getdents64, GETDENTS},
    {SYS_read, READ},         {SYS_pread64, READ},    {SYS_readv, READ},         {SYS_preadv, READ},
    {SYS_recvfrom, READ},     {SYS_recvmsg, READ},    {SYS_write, WRITE},        {SYS_pwrite64, WRITE},
    {SYS_writev, WRITE},      {SYS_pwritev, WRITE},   {SYS_sendto, WRITE},       {SYS_sendmsg, WRITE},
    {SYS_sendfile, SENDFILE}, {SYS_accept, ACCEPT},   {SYS_accept4, ACCEPT},     {SYS_copy_file_range, COPY},
    {SYS_connect, CONNECT},   {SYS_unlinkat, UNLINK}, {SYS_mmap, MMAP},          {SYS_munmap, MUNMAP},
    {SYS_futex, FUTEX},       {SYS_clone, FORK},      {SYS_clone3, FORK},        {SYS_execve, EXEC},
    {SYS_execveat, EXEC},     {SYS_wait4, WAIT},      {SYS_waitid, WAIT},        {SYS_exit, EXIT},
    {SYS_exit_group, EXIT},   {SYS_socket, SOCKET},   {SYS_personality, JUDGED},
};

/* What reads and writes move bytes through. LOCAL is any socket but those of the internet. */
enum end { FILE_END, PIPE_END, LOCAL_END, INET_END, OTHER_END, ENDS };
static const char *const ends[ENDS] = {"file", "pipe", "local", "inet", "else"};
enum { READS, WRITES, WAYS, CLASSES = 13 };
static const char *const ways[WAYS] = {"read", "write"};
static struct {
    uint64_t times, bytes;
} moves[WAYS][ENDS][CLASSES];

static unsigned char kinds[MOST_CALLS];
static struct {
    unsigned char kind; /* of the call that a process is in, plus one */
    int fd, source;     /* its descriptors, where it has any */
    unsigned weight;    /* how often it counts: 0 before it is known */
    int watched;        /* not at its calls: it is none of those drawn */
} inside[MOST_PIDS];
static uint64_t times[KINDS], turns, weight; /* weight: of the process that is looked at */
static unsigned one_in = 1;

/* By inode, which the kernel gives to one socket after the other; an old one makes room. */
static struct socket {
    uint64_t inode;
    int domain, way;
} sockets[MOST_SOCKETS];

static int fail(const char *what)
{
    fprintf(stderr, "counter: %s: %s\n", what, strerror(errno));
    return 125;
}

static int is(pid_t pid, int fd, struct stat *found)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    return fd < 0 ? -1 : stat(path, found);
}

static struct socket *socket_of(pid_t pid, int fd)
{
    struct stat found;
    static struct socket unknown;

    if (is(pid, fd, &found) < 0)
        return &unknown;
    struct socket *it = &sockets[found.st_ino % MOST_SOCKETS];
    if (it->inode != found.st_ino)
        *it = (struct socket){.inode = found.st_ino, .domain = AF_UNSPEC, .way = -1};
    return it;
}

static enum end end_of(pid_t pid, int fd, int way)
{
    struct stat found;

    if (is(pid, fd, &found) < 0)
        return OTHER_END;
    if (S_ISREG(found.st_mode))
        return FILE_END;
    if (S_ISFIFO(found.st_mode))
        return PIPE_END;
    if (!S_ISSOCK(found.st_mode))
        return OTHER_END;
    struct socket *it = socket_of(pid, fd);
    if (it->domain != AF_INET && it->domain != AF_INET6)
        return LOCAL_END;
    turns += it->way == READS && way == WRITES ? weight : 0;
    it->way = way;
    return INET_END;
}

static void moved(pid_t pid, int fd, int way, uint64_t bytes)
{
    int class = 0;
    enum end end = end_of(pid, fd, way);

    while (class < CLASSES - 1 && bytes > 1ULL << (2 * class))
        class ++;
    moves[way][end][class].times += weight;
    moves[way][end][class].bytes += weight * bytes;
}

static int has_end(enum kind kind)
{
    return kind == READ || kind == WRITE || kind == COPY || kind == SENDFILE || kind == EXEC || kind == ACCEPT;
}

static void count_begin(pid_t pid, const struct __ptrace_syscall_info *info)
{
    const uint64_t *words = info->entry.args;
    enum kind kind = info->entry.nr < MOST_CALLS ? (enum kind)kinds[info->entry.nr] : OTHER;

    if (info->entry.nr == SYS_openat && words[2] & O_CREAT)
        kind = CREATE;
#ifdef SYS_open
    if (info->entry.nr == SYS_open && words[1] & O_CREAT)
        kind = CREATE;
#endif
    if (!has_end(kind) && kind != FORK) /* forks and execs are told of all processes, by events */
        times[kind] += weight;
    inside[pid % MOST_PIDS].kind = (unsigned char)(kind + 1);
    inside[pid % MOST_PIDS].fd = (int)words[kind == COPY ? 2 : 0]; /* copy_file_range: where to */
    inside[pid % MOST_PIDS].source = kind == SOCKET ? (int)words[0] : kind == SENDFILE ? (int)words[1] : -1;
}

/* Only those that came off: a shell tries every directory of PATH, a server looks whether there is more to receive. */
static void count_end(pid_t pid, const struct __ptrace_syscall_info *info)
{
    int kind = inside[pid % MOST_PIDS].kind - 1, fd = inside[pid % MOST_PIDS].fd;
    int source = inside[pid % MOST_PIDS].source, failed = info->exit.is_error || info->exit.rval < 0;
    uint64_t bytes = failed ? 0 : (uint64_t)info->exit.rval;

    inside[pid % MOST_PIDS].kind = 0;
    if (kind == SOCKET && !failed)
        socket_of(pid, (int)bytes)->domain = source;
    if (kind < 0 || !has_end((enum kind)kind))
        return;
    if (failed || (!bytes && kind != EXEC && kind != ACCEPT)) {
        times[IDLE] += weight;
        return;
    }
    times[kind] += kind == EXEC ? 0 : weight;
    if (kind == ACCEPT)
        socket_of(pid, (int)bytes)->domain = socket_of(pid, fd)->domain;
    else if (kind == READ)
        moved(pid, fd, READS, bytes);
    else if (kind == WRITE || kind == COPY)
        moved(pid, fd, WRITES, bytes);
    else if (kind == SENDFILE) { /* read from the file; the socket's half is in its turns, and on the cable */
        moved(pid, source, READS, bytes);
        end_of(pid, fd, WRITES);
    }
}

static void look(pid_t pid)
{
    struct __ptrace_syscall_info info;

    weight = inside[pid % MOST_PIDS].weight;
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
    if (status >> 16) { /* PTRACE_EVENT_*, and the first stop of a new child */
        int event = status >> 16;
        times[FORK] += event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE;
        times[EXEC] += event == PTRACE_EVENT_EXEC;
        return 0;
    }
    if (number == SIGSTOP && ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0 && info.si_code <= 0 && info.si_pid == 0)
        return 0;
    return number;
}

/* Whether a process that was not seen before is one of those drawn: by xorshift64*, the same in every run. */
static void draw(pid_t pid, int first)
{
    static uint64_t state = 88172645463325252ULL;

    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    inside[pid % MOST_PIDS].watched = !first && (uint32_t)((state * 2685821657736338717ULL) >> 33) % one_in != 0;
    inside[pid % MOST_PIDS].weight = first ? 1 : one_in;
    inside[pid % MOST_PIDS].kind = 0;
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
            inside[pid % MOST_PIDS].weight = 0;
            continue;
        }
        if (!inside[pid % MOST_PIDS].weight)
            draw(pid, pid == first);
        if (status >> 16 == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP) {
            ptrace(PTRACE_LISTEN, pid, 0, 0); /* stopped as a job is: until SIGCONT */
            continue;
        }
        int number = signal_of(pid, status);
        ptrace(inside[pid % MOST_PIDS].watched ? PTRACE_CONT : PTRACE_SYSCALL, pid, 0, number);
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
    for (int at = 0; at < WAYS * ENDS * CLASSES; at++) {
        int way = at / (ENDS * CLASSES), end = at / CLASSES % ENDS, class = at % CLASSES;
        if (moves[way][end][class].times)
            fprintf(file, "%s_%s_%d %llu %llu\n", ways[way], ends[end], class,
                    (unsigned long long)moves[way][end][class].times, (unsigned long long)moves[way][end][class].bytes);
    }
    fprintf(file, "turns %llu\n", (unsigned long long)turns);
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
    if (argc > 2 && !strcmp(argv[1], "--one-in")) {
        one_in = (unsigned)strtoul(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    if (argc < 4 || strcmp(argv[2], "--") || !one_in) {
        fprintf(stderr, "usage: counter [--one-in N] FILE -- PROGRAM [ARGUMENT]...\n");
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

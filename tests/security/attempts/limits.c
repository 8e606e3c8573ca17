/* What a container can take away from its host. Each stops by itself at MOST=..., which is what "succeeded" means. */
#include "attempt.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB (1L << 20)
#define PAGE 4096

static long most;

/* COUNT of THINGS were had when errno came. */
_Noreturn static void ended(long count, const char *things)
{
    if (count >= most)
        succeeded("%ld %s, and no limit met", count, things);
    blocked_by("%s at %ld %s", strerrorname_np(errno), count, things);
}

static void as_many_descriptors_as_may_be(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

void try_processes(void)
{
    long count = 0;
    most = number("most", 1200);
    for (; count < most; count++) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid == 0) {
            pause();
            _exit(0);
        }
    }
    int why = errno;
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM); /* the group is this attempt's own */
    while (wait(0) > 0)
        ;
    errno = why;
    ended(count, "processes");
}

/* All of them fork, for a second; the limit must hold, and the first one still answer. */
void bomb_fork(void)
{
    pid_t first = getpid();
    volatile long *refused = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    signal(SIGTERM, SIG_DFL);
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        if (fork() < 0) {
            __atomic_add_fetch(refused, 1, __ATOMIC_RELAXED);
            usleep(1000);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - begin.tv_sec < 1);
    if (getpid() != first)
        for (;;)
            pause();
    if (*refused)
        blocked_by("%ld forks were refused", *refused);
    succeeded("no fork was refused");
}

/* A limit of descriptors holds for one process only: the next one goes on from there, and all stay until the end. */
static void open_terminals(volatile long *count)
{
    while (*count < most && posix_openpt(O_RDWR | O_NOCTTY) >= 0)
        ++*count;
    long before = *count;
    if (before >= most || errno != EMFILE)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        for (int fd = 3; fd < 65536; fd++)
            close(fd);
        errno = 0;
        open_terminals(count);
        _exit(errno);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    errno = WEXITSTATUS(status);
}

void try_terminals(void)
{
    volatile long *shared = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    most = number("most", 1100);
    as_many_descriptors_as_may_be();
    open_terminals(shared);
    long count = *shared;
    if (count == 0)
        blocked("/dev/ptmx");
    ended(count, "terminals");
}

void try_open_files(void)
{
    long count = 0;
    most = number("most", 2000);
    while (count < most && open("/dev/null", O_RDONLY) >= 0)
        count++;
    ended(count, "open files");
}

/* MOST in MiB; what is written is what counts. */
void try_shm(void)
{
    long count = 0;
    static char block[MIB];
    const char *path = "/dev/shm/attempt";
    most = number("most", 96);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == ENOENT)
        absent("no /dev/shm here");
    if (fd < 0)
        blocked("/dev/shm");
    unlink(path);
    memset(block, 1, sizeof(block));
    while (count < most && write(fd, block, sizeof(block)) == (ssize_t)sizeof(block))
        count++;
    ended(count, "MiB of /dev/shm");
}

static void inodes(const char *directory, const char *things)
{
    char path[64];
    long count = 0;
    snprintf(path, sizeof(path), "%s/attempt", directory);
    if (access(directory, F_OK) < 0)
        absent("no %s here", directory);
    if (mkdir(path, 0700) < 0 || chdir(path) < 0)
        blocked(directory);
    for (; count < most; count++) {
        snprintf(path, sizeof(path), "%ld", count);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            break;
        close(fd);
    }
    int why = errno;
    for (long i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%ld", i);
        unlink(path);
    }
    snprintf(path, sizeof(path), "%s/attempt", directory);
    rmdir(path);
    errno = why;
    ended(count, things);
}

void try_shm_inodes(void)
{
    most = number("most", 20000);
    inodes("/dev/shm", "files in /dev/shm");
}

void try_dev_inodes(void)
{
    most = number("most", 20000);
    inodes("/dev", "files in /dev");
}

/* MOST in MiB. A child takes them: at the limit of a group it is killed. */
void try_memory(void)
{
    most = number("most", 128);
    volatile long *count = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        for (; *count < most; ++*count) {
            char *memory = mmap(0, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (memory == MAP_FAILED)
                _exit(1);
            memset(memory, 1, MIB);
        }
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status))
        blocked_by("killed by SIG%s at %ld MiB", sigabbrev_np(WTERMSIG(status)), *count);
    if (WEXITSTATUS(status))
        blocked_by("ENOMEM at %ld MiB", *count);
    succeeded("%ld MiB, and no limit met", *count);
}

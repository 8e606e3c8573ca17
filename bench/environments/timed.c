// timed TOKEN HOLD COMMAND [ARG]...: runs COMMAND and says on stderr what it took. Static, the same bytes in every arm.
//
// Between its first instruction and the last, nothing but the command: the clock starts when the gate is open and stops
// when the command, not its orphans, has ended. With HOLD 1 it waits for SIGUSR1 at both ends, so that from outside its
// state and its cgroup can be read while they are there. TOKEN is how it is found in /proc. It may be PID 1: it hands
// TERM, INT, HUP and QUIT on to the command and reaps orphans. Its own end is the command's: the exit code, or 128+n.
// HOLD 1:N: it first puts N Landlock domains on itself, which allow everything and are asked about every file.
// Its name at the gate is "timed-held N": so many Landlock domains it is in, "-" where it may not find out.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NSEC 1000000000LL

static sigset_t ours, before;

static long long now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC_RAW, &at);
    return at.tv_sec * NSEC + at.tv_nsec;
}

static long long micros(struct timeval took)
{
    return took.tv_sec * 1000000LL + took.tv_usec;
}

// So many domains more: 0, or -1 with errno.
static int lock(int domains)
{
    enum { RIGHTS = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1 };
    struct landlock_ruleset_attr wanted = {.handled_access_fs = RIGHTS};
    struct landlock_path_beneath_attr all = {.allowed_access = RIGHTS, .parent_fd = open("/", O_PATH | O_CLOEXEC)};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &wanted, sizeof(wanted.handled_access_fs), 0);

    if (all.parent_fd < 0 || rules < 0)
        return -1;
    if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &all, 0) < 0)
        return -1;
    while (domains-- > 0)
        if (syscall(SYS_landlock_restrict_self, rules, 0) < 0)
            return -1;
    close(rules);
    return close(all.parent_fd);
}

// How many Landlock domains lie over this process, which the kernel shows nowhere: a child, where it does not matter,
// puts on as many more as it may, and LANDLOCK_MAX_NUM_LAYERS is 16. -1 when a filter or the kernel says no.
static int landlocked(void)
{
    struct landlock_ruleset_attr none = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK};
    int status, more, rules;
    pid_t pid = fork();

    if (pid == 0) {
        rules = (int)syscall(SYS_landlock_create_ruleset, &none, sizeof(none.handled_access_fs), 0);
        if (rules < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            _exit(255);
        for (more = 0; more <= 16 && syscall(SYS_landlock_restrict_self, rules, 0) == 0; more++)
            ;
        _exit(errno == E2BIG ? 16 - more : 255);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) > 16)
        return -1;
    return WEXITSTATUS(status);
}

// Whether it was opened; not when TERM came instead.
static int gate(const char *hold, int domains)
{
    sigset_t open;
    char name[16] = "timed-held -";

    if (*hold == '0')
        return 1;
    if (domains >= 0)
        snprintf(name, sizeof(name), "timed-held %u", (unsigned)domains % 100U);
    prctl(PR_SET_NAME, name); // from now on SIGUSR1 does not kill
    sigemptyset(&open);
    sigaddset(&open, SIGUSR1);
    sigaddset(&open, SIGTERM);
    return sigwaitinfo(&open, NULL) == SIGUSR1;
}

static void add(struct rusage *sum, const struct rusage *one)
{
    timeradd(&sum->ru_utime, &one->ru_utime, &sum->ru_utime);
    timeradd(&sum->ru_stime, &one->ru_stime, &sum->ru_stime);
    sum->ru_maxrss = one->ru_maxrss > sum->ru_maxrss ? one->ru_maxrss : sum->ru_maxrss;
    sum->ru_minflt += one->ru_minflt;
    sum->ru_majflt += one->ru_majflt;
    sum->ru_inblock += one->ru_inblock;
    sum->ru_oublock += one->ru_oublock;
    sum->ru_nvcsw += one->ru_nvcsw;
    sum->ru_nivcsw += one->ru_nivcsw;
}

// Wait for the command, reaping what else is a child of ours by then: its wait status.
static int wait_for(pid_t command, struct rusage *sum)
{
    struct rusage one;
    int status, number;
    pid_t pid;

    for (;;) {
        number = sigwaitinfo(&ours, NULL);
        if (number != SIGCHLD && number != SIGUSR1 && number > 0)
            kill(command, number);
        while ((pid = wait4(-1, &status, WNOHANG, &one)) > 0) {
            add(sum, &one);
            if (pid == command)
                return status;
        }
    }
}

int main(int argc, char **argv)
{
    static const int handled[] = {SIGCHLD, SIGUSR1, SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    struct rusage sum = {0};
    long long start, wall;
    int status;
    pid_t pid;

    if (argc < 4 || (argv[2][0] != '0' && argv[2][0] != '1') || (argv[2][1] && argv[2][1] != ':')) {
        fprintf(stderr, "usage: timed TOKEN 0|1[:DOMAINS] COMMAND [ARG]...\n");
        return 125;
    }
    if (argv[2][1] && lock(atoi(argv[2] + 2)) < 0) {
        fprintf(stderr, "timed: %s Landlock domains: %s\n", argv[2] + 2, strerror(errno));
        return 125;
    }
    sigemptyset(&ours);
    for (size_t at = 0; at < sizeof(handled) / sizeof(handled[0]); at++)
        sigaddset(&ours, handled[at]);
    prctl(PR_SET_CHILD_SUBREAPER, 1);       // as PID 1 is: its orphans are counted and found in every arm
    sigprocmask(SIG_BLOCK, &ours, &before); // blocked, and so not lost: also for PID 1
    if (!gate(argv[2], argv[2][0] == '1' ? landlocked() : -1))
        return 128 + SIGTERM;
    start = now();
    pid = fork();
    if (pid == 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        execvp(argv[3], argv + 3);
        fprintf(stderr, "timed: %s: %s\n", argv[3], strerror(errno));
        _exit(errno == ENOENT ? 127 : 126);
    }
    if (pid < 0) {
        fprintf(stderr, "timed: fork: %s\n", strerror(errno));
        return 125;
    }
    status = wait_for(pid, &sum);
    wall = now() - start;
    fprintf(stderr,
            "\n@minictr-bench {\"wall_ns\":%lld,\"user_us\":%lld,\"system_us\":%lld,\"maxrss_kib\":%ld,\"minflt\":%ld,"
            "\"majflt\":%ld,\"inblock\":%ld,\"oublock\":%ld,\"nvcsw\":%ld,\"nivcsw\":%ld}\n",
            wall, micros(sum.ru_utime), micros(sum.ru_stime), sum.ru_maxrss, sum.ru_minflt, sum.ru_majflt,
            sum.ru_inblock, sum.ru_oublock, sum.ru_nvcsw, sum.ru_nivcsw);
    gate(argv[2], -1);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

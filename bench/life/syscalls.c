/* syscalls BURSTS CALLS: what one system call takes, in nanoseconds.
 *
 * A line for each kind: "NAME MINIMUM MEDIAN", over BURSTS bursts of CALLS calls each, the kinds in turn. Raw calls,
 * so that no library answers in the kernel's place.
 *   getppid      no arguments, allowed by every policy whatever they are
 *   personality  its argument is looked at by policies like Docker's: the filter runs at each call
 *   open+close   two calls that do some work: what share of real work a filter is
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { KINDS = 3, MOST = 1000 };
static const char *const names[KINDS] = {"getppid", "personality", "open+close"};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double burst(int kind, int calls)
{
    double begin = now();
    for (int i = 0; i < calls; i++) {
        if (kind == 0)
            syscall(SYS_getppid);
        else if (kind == 1)
            syscall(SYS_personality, 0xffffffffUL); /* asks, changes nothing */
        else
            syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, "/", O_PATH));
    }
    return (now() - begin) / calls;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int bursts = argc > 1 ? atoi(argv[1]) : 0, calls = argc > 2 ? atoi(argv[2]) : 0;
    static double took[KINDS][MOST];

    if (bursts < 1 || bursts > MOST || calls < 1)
        return 2;
    for (int i = 0; i < bursts; i++)
        for (int kind = 0; kind < KINDS; kind++)
            took[kind][i] = burst(kind, calls);
    for (int kind = 0; kind < KINDS; kind++) {
        qsort(took[kind], (size_t)bursts, sizeof(double), compare);
        printf("%s %.2f %.2f\n", names[kind], took[kind][0], took[kind][bursts / 2]);
    }
    return 0;
}

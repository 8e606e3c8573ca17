/* The monitor of a detached container: a static program without libc, the container's parent for all its life.
 *
 * It keeps the container's ends of pipes or terminal, writes the log, answers clients, and when the container has ended
 * writes down how and hands over to the exit command. docs/monitor.md says who dies when. */
#define MC_STATIC 1

#include "static.c"

#include "text.c"

#include "process.c"

#include "messages.c"

#include "spawn.c"

#include "monitor_log.c"

#include "monitor_streams.c"

#include "monitor_clients.c"

#include "monitor_control.c"

#include "monitor_exit.c"

#define MC_SIGNALFD_SIZE 128 /* struct signalfd_siginfo */

/* What is waited for; each client after these. */
enum mc_wait { WAIT_CONTROL, WAIT_LISTEN, WAIT_SIGNALS, WAIT_REPORT, WAIT_INPUT, WAIT_STREAM, WAIT_CLIENT = 7 };

static struct mc_watch watch;

/* The wish in the memory file FD; a negative errno as a pointer where it cannot be mapped. */
static long map_wish(int fd)
{
    long head = MC_CALL6(__NR_mmap, 0, 4096, 1, 2, fd, 0);
    if ((unsigned long)head > -4096UL)
        return head;
    const struct mc_monitor *wish = (const struct mc_monitor *)head;
    if (wish->magic != MC_MONITOR_MAGIC || wish->version != MC_MONITOR_VERSION)
        return -MC_EINVAL;
    size_t size = wish->size;
    mc_raw(__NR_munmap, head, 4096, 0, 0, 0, 0);
    return MC_CALL6(__NR_mmap, 0, size, 3 /* rw */, 2 /* MAP_PRIVATE */, fd, 0);
}

/* The starter is told why, and undoes the start; a container that was cloned goes. */
static _Noreturn void give_up(long error)
{
    if (watch.pid > 0) {
        mc_raw(__NR_pidfd_send_signal, watch.pidfd, SIGKILL, 0, 0, 0, 0);
        mc_raw(__NR_wait4, watch.pid, 0, 0, 0, 0, 0);
    }
    mc_monitor_failed(&watch, error, 'p');
    mc_leave(125);
}

static uint32_t insert(int32_t *list, uint32_t n, int32_t fd)
{
    uint32_t i = n;
    if (fd < 0)
        return n;
    for (; i > 0 && list[i - 1] > fd; i--)
        list[i] = list[i - 1];
    list[i] = fd;
    return n + 1;
}

/* Close what is neither ours nor, while the container is not cloned yet, its. */
static long keep_listed(const struct mc_watch *w, int is_cloned)
{
    const struct mc_monitor *wish = w->wish;
    int32_t list[MC_FD_COUNT + MC_MAX_FINALS + MC_MAX_KEEP + 6];
    uint32_t n = 0;
    for (int i = 0; i < MC_FD_COUNT; i++)
        n = insert(list, n, wish->fd[i]);
    for (uint32_t i = 0; i < wish->n_finals && i < MC_MAX_FINALS; i++)
        n = insert(list, n, wish->finals[i].fd);
    if (is_cloned) {
        n = insert(list, n, w->pidfd);
        n = insert(list, n, w->signals);
    } else {
        for (uint32_t i = 0; i < wish->n_keep && i < MC_MAX_KEEP; i++)
            n = insert(list, n, wish->keep[i]);
        n = insert(list, n, wish->spawn.stub_fd);
        n = insert(list, n, wish->spawn.region_fd);
        n = insert(list, n, wish->spawn.flags & CLONE_INTO_CGROUP ? wish->spawn.cgroup_fd : -1);
        n = insert(list, n, wish->pidns_fd);
    }
    return mc_close_others(list, n);
}

/* All signals wait; the two that mean something are read from a descriptor. SIGCHLD must not be ignored, or the
 * container's wait status would be lost: an exec keeps what the starter ignored. */
static long take_signals(struct mc_watch *w)
{
    uint64_t all = ~0ULL, wanted = 1ULL << (SIGCHLD - 1) | 1ULL << (SIGTERM - 1);
    long ret = MC_CALL4(__NR_rt_sigprocmask, SIG_SETMASK, &all, 0, 8);
    if (ret >= 0)
        ret = mc_reset_signals(0 /* SIG_DFL */);
    if (ret >= 0)
        ret = MC_CALL4(__NR_signalfd4, -1, &wanted, 8, MC_O_NONBLOCK | MC_O_CLOEXEC);
    w->signals = (int32_t)ret;
    return ret;
}

static void prepare(struct mc_watch *w, struct mc_monitor *wish)
{
    for (int i = 0; i < MC_MAX_CLIENTS; i++)
        w->client[i].fd = -1;
    w->wish = wish;
    w->fd = wish->fd;
    w->control = wish->fd[MC_FD_CONTROL];
    w->listen = wish->fd[MC_FD_LISTEN];
    w->input = wish->fd[MC_FD_STDIN];
    w->terminal = w->slave = w->pidfd = w->signals = -1;
    w->hold[0] = w->hold[1] = w->hold[2] = -1;
    w->stream[0].fd = wish->fd[MC_FD_STDOUT];
    w->stream[0].kind = 'o';
    w->stream[1].fd = wish->fd[MC_FD_STDERR];
    w->stream[1].kind = 'r';
    w->log.fd = wish->fd[MC_FD_LOG];
    w->log.directory = wish->fd[MC_FD_DIRECTORY];
    w->log.files = wish->log_files ? wish->log_files : 1;
    w->log.size = (uint64_t)(w->log.fd < 0 ? 0 : mc_raw(__NR_lseek, w->log.fd, 0, 2 /* SEEK_END */, 0, 0, 0));
    w->log.max = wish->log_max;
    for (int i = MC_FD_STDIN; i <= MC_FD_STDERR; i++)
        if (wish->fd[i] >= 0) /* our end alone: the container has another */
            mc_raw(__NR_fcntl, wish->fd[i], 4 /* F_SETFL */, MC_O_NONBLOCK, 0, 0, 0);
}

/* /dev/null as 0, 1 and 2. The container may want the starter's: until it is cloned only free numbers are taken, lest
 * a descriptor of ours become one of the three. */
static long fill_stdio(const struct mc_watch *w, int is_cloned)
{
    long ret = 0;
    for (int fd = 0; ret >= 0 && fd < 3; fd++)
        if (is_cloned || mc_raw(__NR_fcntl, fd, 1 /* F_GETFD */, 0, 0, 0, 0) < 0)
            ret = MC_CALL3(__NR_dup3, w->fd[MC_FD_NULL], fd, 0);
    return ret;
}

/* A daemon's place: after the clone, for the container starts as the starter would have started it. */
static long settle(struct mc_watch *w)
{
    long ret = keep_listed(w, 1);
    mc_raw(__NR_umask, 077, 0, 0, 0, 0, 0);
    if (ret >= 0)
        ret = MC_CALL1(__NR_chdir, "/");
    return ret < 0 ? ret : fill_stdio(w, 1);
}

static void on_signal(struct mc_watch *w)
{
    char information[MC_SIGNALFD_SIZE];
    while (mc_raw(__NR_read, w->signals, (long)information, sizeof(information), 0, 0, 0) > 0) {
        uint32_t signal;
        mc_copy(&signal, information, sizeof(signal));
        if (signal == SIGTERM && !w->reaped && w->wish->stop_signal)
            mc_raw(__NR_pidfd_send_signal, w->pidfd, w->wish->stop_signal, 0, 0, 0, 0);
    }
    mc_monitor_reap(w);
}

/* The report pipe of a held start has ended: the program runs, or is dead. Its life is counted from here. */
static void on_started(struct mc_watch *w)
{
    for (int i = 0; i < 3; i++) {
        mc_close(w->hold[i]);
        w->hold[i] = -1;
    }
    w->began = mc_now();
}

static void want(struct mc_poll *p, int32_t fd, int is_wanted, short events)
{
    p->fd = is_wanted ? fd : -1; /* a closed end is told whether it was asked for or not: not at all, then */
    p->events = events;
    p->revents = 0;
}

/* Fill the list; when to look again though nothing happened. */
static uint64_t list_wanted(const struct mc_watch *w, struct mc_poll *p)
{
    uint64_t now = mc_now(), next = w->reaped && w->committed && w->control < 0 ? w->drained : MC_NEVER;
    int is_busy = mc_clients_busy(w), has_input = w->input_from < w->input_to;
    want(&p[WAIT_CONTROL], w->control, 1, MC_POLLIN);
    want(&p[WAIT_LISTEN], w->listen, now >= w->listen_again, MC_POLLIN);
    want(&p[WAIT_SIGNALS], w->signals, 1, MC_POLLIN);
    want(&p[WAIT_REPORT], w->hold[0], 1, 0);
    want(&p[WAIT_INPUT], w->input, has_input, MC_POLLOUT);
    if (now < w->listen_again && w->listen_again < next)
        next = w->listen_again;
    for (int i = 0; i < 2; i++) {
        const struct mc_stream *s = &w->stream[i];
        want(&p[WAIT_STREAM + i], s->fd, !is_busy && now >= s->resume, MC_POLLIN);
        if (s->fd >= 0 && now < s->resume && s->resume < next)
            next = s->resume;
        if (s->fd >= 0 && w->reaped && !is_busy)
            next = now; /* what is there, and no more */
    }
    for (int i = 0; i < MC_MAX_CLIENTS; i++) {
        const struct mc_client *c = &w->client[i];
        short events = (short)((has_input ? 0 : MC_POLLIN) | (c->pending ? MC_POLLOUT : 0));
        want(&p[WAIT_CLIENT + i], c->fd, events != 0, events);
        if (c->fd >= 0 && c->deadline < next)
            next = c->deadline;
    }
    return next;
}

static void wait_for(struct mc_poll *p, uint64_t next)
{
    uint64_t now = mc_now(), left = next > now ? next - now : 0;
    int64_t timeout[2] = {(int64_t)(left / MC_SECOND), (int64_t)(left % MC_SECOND)};
    mc_raw(__NR_ppoll, (long)p, WAIT_CLIENT + MC_MAX_CLIENTS, next == MC_NEVER ? 0 : (long)timeout, 0, 0, 0);
}

/* One round: wait, then whatever is ready. */
static void turn(struct mc_watch *w)
{
    struct mc_poll p[WAIT_CLIENT + MC_MAX_CLIENTS];
    wait_for(p, list_wanted(w, p));
    mc_clients_late(w, mc_now());
    if (p[WAIT_CONTROL].revents)
        mc_monitor_command(w);
    if (p[WAIT_REPORT].revents)
        on_started(w);
    if (p[WAIT_SIGNALS].revents)
        on_signal(w);
    if (p[WAIT_INPUT].revents)
        mc_input_write(w);
    for (int i = 0; i < MC_MAX_CLIENTS; i++) {
        struct mc_client *c = &w->client[i];
        short ready = p[WAIT_CLIENT + i].revents;
        if (c->fd < 0 || c->fd != p[WAIT_CLIENT + i].fd || !ready)
            continue;
        if (c->pending && ready & MC_POLLOUT)
            mc_clients_retry(w, c);
        if (c->fd >= 0 && ready & ~MC_POLLOUT && w->input_from >= w->input_to)
            mc_clients_take(w, c);
    }
    if (p[WAIT_LISTEN].revents)
        mc_clients_accept(w);
    for (int i = 0; i < 2; i++) {
        struct mc_stream *s = &w->stream[i];
        if (s->fd >= 0 && !mc_clients_busy(w) && (p[WAIT_STREAM + i].revents || w->reaped))
            mc_stream_read(w, s);
    }
}

static int is_finished(const struct mc_watch *w)
{
    if (!w->reaped)
        return 0;
    /* while the starter is there it may undo the start: it has the first word about a program that did not run */
    return w->dismissed || w->abandoned || (w->committed && w->control < 0 && mc_streams_done(w));
}

/* argv[1]: the number of the descriptor of struct mc_monitor. */
_Noreturn void mc_main(long *stack)
{
    char **argv = (char **)(stack + 1);
    if (stack[0] < 2)
        mc_leave(125);
    int wish_fd = mc_number(argv[1]);
    long mapped = map_wish(wish_fd);
    if ((unsigned long)mapped > -4096UL) {
        size_t at = offsetof(struct mc_monitor, fd) + MC_FD_CONTROL * sizeof(int32_t);
        mc_raw(__NR_pread64, wish_fd, (long)&watch.control, sizeof(watch.control), (long)at, 0, 0);
        give_up(mapped);
    }
    struct mc_monitor *wish = (struct mc_monitor *)mapped;
    mc_zero(argv[1], mc_strlen(argv[1])); /* ps shows the name alone */
    mc_raw(__NR_prctl, PR_SET_NAME, (long)"minictr-mon", 0, 0, 0, 0);
    long ret = 0;
    for (int i = 0; i < MC_FD_COUNT; i++) {
        long fd = wish->fd[i] < 0 ? -1 : mc_above_stdio(wish->fd[i]);
        if (wish->fd[i] >= 0 && fd < 0)
            ret = fd;
        wish->fd[i] = (int32_t)(fd < 0 ? -1 : fd);
    }
    prepare(&watch, wish);
    /* orphans of a container without a pid namespace and without init become ours, not the host's */
    mc_raw(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, 0);
    if (ret >= 0)
        ret = keep_listed(&watch, 0);
    if (ret >= 0)
        ret = fill_stdio(&watch, 0);
    if (ret >= 0)
        ret = MC_CALL3(__NR_close_range, 0, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
    if (ret >= 0)
        ret = take_signals(&watch);
    if (ret < 0)
        give_up(ret);
    if (mc_monitor_begin(&watch) < 0)
        mc_leave(125); /* told by itself */
    ret = settle(&watch);
    if (ret < 0)
        give_up(ret);
    while (!is_finished(&watch))
        turn(&watch);
    mc_monitor_finish(&watch);
}

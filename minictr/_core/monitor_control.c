/* The starter: the process that made the monitor, and speaks for the container until it is committed. */
#include "monitor.h"

#include <asm/signal.h>

/* One packet; once more where that fails, for what is not heard is waited for. A starter that is gone is seen as the
 * end of its socket. */
static long tell_starter(const struct mc_watch *w, const char *packet, size_t length, const int32_t *fd)
{
    int flags = MC_MSG_DONTWAIT | MC_MSG_NOSIGNAL;
    long ret = mc_send(w->control, packet, length, fd, fd ? 1 : 0, flags);
    return ret < 0 ? mc_send(w->control, packet, length, fd, fd ? 1 : 0, flags) : ret;
}

void mc_monitor_answer(struct mc_watch *w, char kind, int32_t value)
{
    char packet[5] = {kind};
    mc_copy(packet + 1, &value, sizeof(value));
    tell_starter(w, packet, sizeof(packet), 0);
}

/* "f", errno, and what failed: 'p' preparation, 'n' setns, 'c' clone3, 'e' the exec of the stub. */
long mc_monitor_failed(struct mc_watch *w, long error, char what)
{
    char packet[6] = {'f', 0, 0, 0, 0, what};
    int32_t number = (int32_t)-error;
    mc_copy(packet + 1, &number, sizeof(number));
    tell_starter(w, packet, sizeof(packet), 0);
    return error;
}

/* Children are born in the pid namespace FD; or in our own again. */
static long children_in(int fd)
{
    return MC_CALL2(__NR_setns, fd, CLONE_NEWPID);
}

static long clone_container(struct mc_watch *w, char *what)
{
    struct mc_monitor *wish = w->wish;
    long own = -1, ret = 0;
    *what = 'n';
    if (wish->pidns_fd >= 0) {
        own = MC_CALL4(__NR_openat, AT_FDCWD, "/proc/self/ns/pid", MC_O_CLOEXEC, 0);
        ret = own < 0 ? own : children_in(wish->pidns_fd);
    }
    if (ret >= 0) {
        *what = 'c';
        ret = mc_spawn(&wish->spawn, wish->keep, wish->n_keep);
    }
    if (own >= 0) {
        children_in((int)own);
        mc_close((int)own);
    }
    return ret;
}

/* Clone the container and tell the starter: "p", its pid, its pidfd. */
long mc_monitor_begin(struct mc_watch *w)
{
    struct mc_spawn *s = &w->wish->spawn;
    char what = 0, packet[5] = {'p'};
    long pid = clone_container(w, &what);
    if (pid < 0)
        return mc_monitor_failed(w, pid, what);
    w->began = mc_now();
    w->pid = pid;
    w->pidfd = s->pidfd;
    if (s->exec_error) {
        mc_raw(__NR_wait4, pid, 0, 0, 0, 0, 0);
        return mc_monitor_failed(w, -s->exec_error, 'e');
    }
    mc_copy(packet + 1, &s->pid, sizeof(s->pid));
    tell_starter(w, packet, sizeof(packet), &s->pidfd);
    return 0;
}

static void close_control(struct mc_watch *w)
{
    mc_close(w->control);
    w->control = -1;
}

/* From here on the container is nobody's but ours. */
static void commit(struct mc_watch *w)
{
    if (w->refused) {
        mc_monitor_answer(w, 'f', (int32_t)w->refused);
        return;
    }
    w->committed = 1;
    tell_starter(w, "c", 1, 0);
}

static void end_container(const struct mc_watch *w)
{
    if (!w->reaped)
        mc_raw(__NR_pidfd_send_signal, w->pidfd, SIGKILL, 0, 0, 0, 0);
}

/* Nobody answers for the container: it goes. */
void mc_monitor_abandon(struct mc_watch *w)
{
    w->abandoned = 1;
    end_container(w);
    close_control(w);
}

/* One message of the starter's. The end of its socket before "c" is its death: the container goes with it. After "c"
 * it is the starter's farewell, until which it may still undo the start. */
void mc_monitor_command(struct mc_watch *w)
{
    char kind = 0;
    int32_t fds[3];
    long n = mc_receive(w->control, &kind, 1, fds, 3, MC_MSG_DONTWAIT);
    if (n == -MC_EAGAIN || n == -MC_EINTR)
        return;
    if (n == -MC_ENOMEM && !w->refused) { /* it is there yet, and taken in the next round */
        w->refused = MC_ENOMEM;
        return;
    }
    if (w->refused == MC_ENOMEM)
        w->refused = 0;
    if (n == -MC_EMFILE) { /* it was said, and could not be taken: the commit is refused */
        w->refused = MC_EMFILE;
        return;
    }
    if (n <= 0 && (w->committed || w->dismissed)) {
        close_control(w);
    } else if (n <= 0) {
        mc_monitor_abandon(w);
    } else if (kind == 'm' && fds[0] >= 0) {
        mc_terminal_take(w, fds[0]);
    } else if (kind == 'h' && fds[2] >= 0) {
        mc_copy(w->hold, fds, sizeof(w->hold));
    } else if (kind == 'c') {
        commit(w);
    } else if (kind == 'q') {
        w->dismissed = 1;
        end_container(w);
    }
}

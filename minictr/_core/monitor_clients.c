/* Clients of the attach socket: who shows the output, who types, who starts what is held.
 *
 * A packet of output is in hand until every attached client has taken it; until then the container is not read, so it
 * waits as it would for a slow terminal. Who does not take one for ten seconds is dropped. */
#include "monitor.h"

#define MC_SOL_SOCKET 1 /* asm-generic/socket.h */
#define MC_SO_PEERCRED 17
#define MC_TIOCSWINSZ 0x5414
#define MC_REFUSED 'f'

void mc_clients_drop(struct mc_client *c)
{
    mc_close(c->fd);
    mc_zero(c, sizeof(*c));
    c->fd = -1;
}

static void say(struct mc_client *c, const char *data, size_t length, const int32_t *fds, uint32_t n_fds)
{
    if (mc_send(c->fd, data, length, fds, n_fds, MC_MSG_DONTWAIT | MC_MSG_NOSIGNAL) < 0)
        mc_clients_drop(c);
}

static void say_number(struct mc_client *c, char kind, int32_t number)
{
    char packet[5] = {kind};
    mc_copy(packet + 1, &number, sizeof(number));
    say(c, packet, sizeof(packet), 0, 0);
}

/* Ours, or root's: whoever else was let into the directory has no business here. */
static int is_ours(int fd)
{
    struct {
        int32_t pid;
        uint32_t uid, gid;
    } peer = {0, ~0U, ~0U};
    uint32_t size = sizeof(peer);
    if (mc_raw(__NR_getsockopt, fd, MC_SOL_SOCKET, MC_SO_PEERCRED, (long)&peer, (long)&size, 0) < 0)
        return 0;
    return peer.uid == 0 || peer.uid == (uint32_t)mc_raw(__NR_getuid, 0, 0, 0, 0, 0, 0);
}

void mc_clients_accept(struct mc_watch *w)
{
    struct mc_client *c = w->client, extra;
    long fd = mc_raw(__NR_accept4, w->listen, 0, 0, MC_O_CLOEXEC | MC_O_NONBLOCK, 0, 0);
    if (fd < 0) {
        w->listen_again = mc_now() + MC_PAUSE; /* out of descriptors or memory, and still readable */
        return;
    }
    while (c < w->client + MC_MAX_CLIENTS && c->fd >= 0)
        c++;
    int is_full = c == w->client + MC_MAX_CLIENTS;
    if (is_full)
        c = &extra;
    mc_zero(c, sizeof(*c));
    c->fd = (int32_t)fd;
    c->deadline = mc_now() + MC_PATIENCE;
    if (is_full)
        say_number(c, MC_REFUSED, MC_EBUSY);
    if (c->fd >= 0 && (is_full || !is_ours(c->fd)))
        mc_clients_drop(c);
}

int mc_clients_busy(const struct mc_watch *w)
{
    for (int i = 0; i < MC_MAX_CLIENTS; i++)
        if (w->client[i].pending)
            return 1;
    return 0;
}

void mc_clients_retry(struct mc_watch *w, struct mc_client *c)
{
    long n = mc_send(c->fd, w->output_packet, w->output, 0, 0, MC_MSG_DONTWAIT | MC_MSG_NOSIGNAL);
    if (n == -MC_EAGAIN) {
        if (!c->pending)
            c->deadline = mc_now() + MC_PATIENCE;
        c->pending = 1;
    } else if (n < 0) {
        mc_clients_drop(c);
    } else {
        c->pending = 0;
        c->deadline = MC_NEVER;
    }
}

/* The packet in hand to everybody. */
void mc_clients_output(struct mc_watch *w)
{
    for (int i = 0; i < MC_MAX_CLIENTS; i++)
        if (w->client[i].fd >= 0 && w->client[i].attached)
            mc_clients_retry(w, &w->client[i]);
}

static void attach(struct mc_watch *w, struct mc_client *c, int flags)
{
    char answer[2] = {'k', (char)((w->terminal >= 0 ? MC_ATTACH_TERMINAL : 0) | (w->input >= 0 ? MC_ATTACH_STDIN : 0) |
                                  (w->hold[2] >= 0 ? MC_ATTACH_HELD : 0))};
    c->attached = 1;
    c->may_write = flags & MC_ATTACH_STDIN;
    c->deadline = MC_NEVER;
    say(c, answer, sizeof(answer), 0, 0);
}

/* Both ends of the report stay open here until the program runs: a client that dies before it wrote the byte leaves
 * the container held, and another may start it. */
static void start(struct mc_watch *w, struct mc_client *c)
{
    if (w->hold[2] < 0)
        say_number(c, MC_REFUSED, MC_EALREADY);
    else
        say(c, "s", 1, w->hold, 3);
}

static void resize(const struct mc_watch *w, const char *sizes)
{
    uint16_t size[4] = {0, 0, 0, 0};
    mc_copy(size, sizes, 4);
    if (w->terminal >= 0)
        mc_raw(__NR_ioctl, w->terminal, MC_TIOCSWINSZ, (long)size, 0, 0, 0);
}

static void deliver(struct mc_watch *w, const char *number)
{
    int32_t signal;
    mc_copy(&signal, number, sizeof(signal));
    if (!w->reaped && w->pidfd >= 0)
        mc_raw(__NR_pidfd_send_signal, w->pidfd, signal, 0, 0, 0, 0);
}

/* One packet of a client. No input waits to be written, so the buffer is free. */
void mc_clients_take(struct mc_watch *w, struct mc_client *c)
{
    char *p = w->input_packet;
    long n =
        mc_raw(__NR_recvfrom, c->fd, (long)p, sizeof(w->input_packet), MC_MSG_DONTWAIT | 0x20 /* MSG_TRUNC */, 0, 0);
    if (n == -MC_EAGAIN || n == -MC_EINTR)
        return;
    if (n <= 0 || n > (long)sizeof(w->input_packet)) {
        mc_clients_drop(c);
        return;
    }
    if (p[0] == 'a' && n == 2) {
        attach(w, c, p[1]);
    } else if (p[0] == 's' && n == 1) {
        start(w, c);
    } else if (p[0] == 'w' && n == 5) {
        resize(w, p + 1);
    } else if (p[0] == 'g' && n == 5) {
        deliver(w, p + 1);
    } else if (p[0] == 'i' && c->may_write) {
        w->input_from = 1;
        w->input_to = (size_t)n;
        mc_input_write(w);
    } else if (p[0] == 'e' && c->may_write) {
        mc_input_end(w);
    }
}

void mc_clients_late(struct mc_watch *w, uint64_t now)
{
    for (int i = 0; i < MC_MAX_CLIENTS; i++)
        if (w->client[i].fd >= 0 && w->client[i].deadline <= now)
            mc_clients_drop(&w->client[i]);
}

/* The raw wait status to all who are there. */
void mc_clients_exit(struct mc_watch *w)
{
    for (int i = 0; i < MC_MAX_CLIENTS; i++)
        if (w->client[i].fd >= 0)
            say_number(&w->client[i], 'x', w->status);
}

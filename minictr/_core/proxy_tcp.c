/* Connections: what comes from one side goes to the other through a pipe, by splice(2), and is never copied to us.
 *
 * Of each way so much is under way as a pipe holds: it is filled when it is empty, so who cannot write holds back who
 * would send. The end of one way is passed on when all before it was, and the other way goes on; a reset is passed on
 * as one. */
#include "proxy.h"

#define MC_CHUNK_SPLICED (1 << 20)
#define MC_ROUNDS 16      /* then the others have their turn */
#define MC_SPLICE_FLAGS 3 /* SPLICE_F_MOVE | SPLICE_F_NONBLOCK */
#define MC_SPARE_PIPES 32

struct mc_way {
    int32_t in, out; /* of the pipe, -1 before the first byte */
    uint32_t held;
    uint8_t ended, passed; /* the source said so; the other side was told */
};

struct mc_line {
    int32_t fd[2];        /* client, server */
    struct mc_way way[2]; /* from fd[i] */
    uint32_t generation;
    uint32_t next; /* free places */
    uint8_t connected;
    uint8_t known[2];   /* to epoll */
    uint32_t wanted[2]; /* events */
};

static struct mc_line line[MC_PROXY_LINES];
static uint32_t free_line = MC_NOBODY, n_lines; /* places that ended, and how many were ever taken */
static int32_t spare[MC_SPARE_PIPES][2];
static uint32_t n_spare;

static long open_pipe(struct mc_way *w)
{
    int32_t ends[2];
    if (n_spare) {
        n_spare--;
        w->out = spare[n_spare][0];
        w->in = spare[n_spare][1];
        return 0;
    }
    long ret = MC_CALL2(__NR_pipe2, ends, MC_SOCK_FLAGS);
    if (ret >= 0) {
        w->out = ends[0];
        w->in = ends[1];
    }
    return ret;
}

static void close_pipe(struct mc_way *w)
{
    if (w->in < 0)
        return;
    if (!w->held && n_spare < MC_SPARE_PIPES) {
        spare[n_spare][0] = w->out;
        spare[n_spare++][1] = w->in;
    } else {
        mc_close(w->in);
        mc_close(w->out);
    }
    w->in = w->out = -1;
}

/* The line's place is free. IS_RESET: both sides are told that something was lost. */
static void end_line(struct mc_line *l, int is_reset)
{
    int32_t linger[2] = {1, 0};
    for (int i = 0; i < 2; i++) {
        if (l->fd[i] >= 0) {
            if (is_reset)
                mc_raw(__NR_setsockopt, l->fd[i], MC_SOL_SOCKET, MC_SO_LINGER, (long)linger, sizeof(linger), 0);
            mc_close(l->fd[i]);
        }
        close_pipe(&l->way[i]);
    }
    l->generation++;
    l->next = free_line;
    free_line = (uint32_t)(l - line);
    mc_relay.lines--;
    if (mc_relay.is_paused)
        mc_proxy_pause(0);
}

/* Whether the way is still good; a negative errno where it broke. */
static long pump(struct mc_line *l, int from)
{
    struct mc_way *w = &l->way[from];
    if (w->in < 0 && !w->passed) {
        long ret = open_pipe(w);
        if (ret < 0)
            return ret;
    }
    for (int round = 0; round < MC_ROUNDS && !w->passed; round++) {
        if (!w->held && !w->ended) {
            long n = MC_CALL6(__NR_splice, l->fd[from], 0, w->in, 0, MC_CHUNK_SPLICED, MC_SPLICE_FLAGS);
            if (n == -MC_EAGAIN || n == -MC_EINTR)
                return 0;
            if (n < 0)
                return n;
            w->held = (uint32_t)n;
            w->ended = n == 0;
        }
        if (w->held) {
            long n = MC_CALL6(__NR_splice, w->out, 0, l->fd[!from], 0, w->held, MC_SPLICE_FLAGS);
            if (n == -MC_EAGAIN || n == -MC_EINTR)
                return 0;
            if (n < 0)
                return n;
            w->held -= (uint32_t)n;
        } else if (w->ended) {
            long ret = MC_CALL2(__NR_shutdown, l->fd[!from], 1 /* SHUT_WR */);
            w->passed = 1;
            close_pipe(w);
            return ret;
        }
    }
    return 0;
}

/* What of FD[I] is waited for. One that has nothing more to say, and was told that we have not either, would only
 * tell us so for ever. */
static long want(struct mc_line *l, int i)
{
    const struct mc_way *from = &l->way[i], *to = &l->way[!i];
    uint32_t events = 0;
    if (!l->connected)
        events = i ? EPOLLOUT : 0;
    else if (!from->held && !from->ended)
        events = EPOLLIN;
    if (to->held)
        events |= EPOLLOUT;
    int is_known = events || !to->passed;
    if (is_known == l->known[i] && events == l->wanted[i])
        return 0;
    int op = !l->known[i] ? EPOLL_CTL_ADD : is_known ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
    uint64_t key = mc_proxy_key(i ? PROXY_SERVER : PROXY_CLIENT, l->generation, (uint32_t)(l - line));
    if (!is_known && !l->known[i])
        return 0;
    l->known[i] = (uint8_t)is_known;
    l->wanted[i] = events;
    return mc_proxy_watch(op, l->fd[i], events, key);
}

static void go_on(struct mc_line *l)
{
    long ret = 0;
    if (l->connected) {
        ret = pump(l, 0);
        if (ret >= 0)
            ret = pump(l, 1);
        if (ret >= 0 && l->way[0].passed && l->way[1].passed) {
            end_line(l, 0);
            return;
        }
    }
    if (ret >= 0)
        ret = want(l, 0);
    if (ret >= 0)
        ret = want(l, 1);
    if (ret < 0)
        end_line(l, 1);
}

/* CLIENT has come by PORT. */
static void begin_line(uint32_t port, int32_t client)
{
    const struct mc_proxy_port *p = &mc_relay.port[port];
    struct mc_line *l = &line[free_line == MC_NOBODY ? n_lines++ : free_line];
    struct mc_address to;
    uint32_t generation = l->generation;
    if (free_line != MC_NOBODY)
        free_line = l->next;
    mc_relay.lines++;
    mc_zero(l, sizeof(*l));
    l->generation = generation;
    l->way[0].in = l->way[1].in = -1;
    l->fd[0] = client;
    l->fd[1] = (int32_t)MC_CALL3(__NR_socket, p->to_family, MC_STREAM | MC_SOCK_FLAGS, MC_TCP);
    if (l->fd[1] < 0) {
        end_line(l, 1);
        return;
    }
    for (int i = 0; i < 2; i++) {
        mc_proxy_option(l->fd[i], MC_TCP, 1 /* TCP_NODELAY */, 1);
        mc_proxy_option(l->fd[i], MC_SOL_SOCKET, MC_SO_KEEPALIVE, 1);
    }
    uint32_t length = mc_proxy_address(&to, p->to_family, p->to, p->to_port);
    long ret = MC_CALL3(__NR_connect, l->fd[1], &to, length);
    l->connected = ret == 0;
    if (ret < 0 && ret != -MC_EINPROGRESS)
        end_line(l, 1);
    else
        go_on(l);
}

void mc_lines_accept(uint32_t port)
{
    for (int i = 0; i < MC_PROXY_BATCH; i++) {
        if (mc_relay.lines >= mc_relay.most) {
            mc_proxy_pause(1);
            return;
        }
        long fd = MC_CALL4(__NR_accept4, mc_relay.listener[port], 0, 0, MC_SOCK_FLAGS);
        if (fd == -MC_EMFILE || fd == -MC_ENFILE || fd == -MC_ENOMEM || fd == -105 /* ENOBUFS */)
            mc_proxy_pause(1);
        if (fd == -MC_EAGAIN || fd == -MC_EMFILE || fd == -MC_ENFILE || fd == -MC_ENOMEM || fd == -105)
            return;
        if (fd >= 0) /* else it was gone again */
            begin_line(port, (int32_t)fd);
    }
}

/* Whether the server has answered, and well. */
static int is_connected(const struct mc_line *l)
{
    int32_t error = 0, length = sizeof(error);
    long ret = MC_CALL5(__NR_getsockopt, l->fd[1], MC_SOL_SOCKET, MC_SO_ERROR, &error, &length);
    return ret >= 0 && !error;
}

void mc_lines_event(enum mc_proxy_kind kind, uint32_t generation, uint32_t place, uint32_t events)
{
    struct mc_line *l = &line[place];
    if (place >= MC_PROXY_LINES || (l->generation & 0xffffff) != generation)
        return; /* it ended by another event of this round */
    if (events & EPOLLERR) {
        end_line(l, 1);
        return;
    }
    if (!l->connected) {
        if (kind == PROXY_CLIENT || !is_connected(l)) {
            end_line(l, 1);
            return;
        }
        l->connected = 1;
    }
    go_on(l);
}

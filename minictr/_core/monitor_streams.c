/* The container's output, read once and given to the log and to every client; and its input. */
#include "monitor.h"

#define MC_TIOCGPTPEER 0x5441
#define MC_TCGETS 0x5401
#define MC_VEOF 4 /* asm-generic/termbits.h */
#define MC_TERMINAL_REST (1 << 20)

static void close_stream(struct mc_stream *s, int is_terminal)
{
    if (!is_terminal) /* the master is also the input, and belongs to the watch */
        mc_close(s->fd);
    s->fd = -1;
}

/* No slave of the terminal is open: the last one was closed, or hung up as getty and systemd do (vhangup(2)). Ours is
 * opened anew, for whoever opens the terminal next is to be heard. */
static void reopen_slave(struct mc_watch *w)
{
    if (w->slave >= 0)
        mc_close(w->slave);
    w->slave =
        (int32_t)mc_raw(__NR_ioctl, w->terminal, MC_TIOCGPTPEER, MC_O_RDWR | MC_O_NOCTTY | MC_O_CLOEXEC, 0, 0, 0);
}

/* The pty's master: output, input and window size from now on. */
void mc_terminal_take(struct mc_watch *w, int32_t master)
{
    w->terminal = w->input = w->stream[0].fd = master;
    mc_raw(__NR_fcntl, master, 4 /* F_SETFL */, MC_O_RDWR | MC_O_NONBLOCK, 0, 0, 0);
    reopen_slave(w);
}

/* Nothing to be had at the moment; after the container's end that is all there was. */
static void nothing(struct mc_watch *w, struct mc_stream *s, int is_terminal, long why)
{
    if (w->reaped || (!is_terminal && why != -MC_EAGAIN)) {
        close_stream(s, is_terminal);
    } else if (why != -MC_EAGAIN) {
        s->resume = mc_now() + MC_PAUSE;
        reopen_slave(w);
    }
}

/* One read: the packet in hand. */
void mc_stream_read(struct mc_watch *w, struct mc_stream *s)
{
    int is_terminal = s->fd == w->terminal;
    size_t most = w->reaped && s->left < MC_CHUNK ? s->left : MC_CHUNK;
    long n = most ? mc_raw(__NR_read, s->fd, (long)(w->output_packet + 1), (long)most, 0, 0, 0) : 0;
    if (n == -MC_EINTR)
        return;
    if (n <= 0) {
        nothing(w, s, is_terminal, n);
        return;
    }
    if (w->reaped)
        s->left -= (size_t)n;
    mc_log_output(&w->log, s->kind, w->output_packet + 1, (size_t)n);
    w->output_packet[0] = s->kind;
    w->output = (size_t)n + 1;
    mc_clients_output(w);
}

/* The container has ended: what is in the pipes by now is still taken. Not to their end: without a pid namespace
 * somebody may live on and hold them, and nobody knows for how long. */
void mc_stream_last(struct mc_watch *w)
{
    for (int i = 0; i < 2; i++) {
        struct mc_stream *s = &w->stream[i];
        int32_t there = 0;
        s->resume = 0;
        s->left = MC_TERMINAL_REST;
        if (s->fd >= 0 && s->fd != w->terminal && mc_raw(__NR_ioctl, s->fd, MC_FIONREAD, (long)&there, 0, 0, 0) >= 0)
            s->left = (uint64_t)there;
    }
    w->drained = mc_now() + MC_PATIENCE;
}

int mc_streams_done(const struct mc_watch *w)
{
    return (w->stream[0].fd < 0 && w->stream[1].fd < 0 && !mc_clients_busy(w)) || mc_now() >= w->drained;
}

static void close_input(struct mc_watch *w)
{
    if (w->input >= 0 && w->input != w->terminal)
        mc_close(w->input);
    w->input = -1;
}

/* As much as the container takes now; the rest stays, and no client is asked for more. */
void mc_input_write(struct mc_watch *w)
{
    while (w->input_from < w->input_to) {
        long n = w->input < 0 ? -MC_EPIPE
                              : mc_raw(__NR_write, w->input, (long)(w->input_packet + w->input_from),
                                       (long)(w->input_to - w->input_from), 0, 0, 0);
        if (n == -MC_EAGAIN)
            return;
        if (n <= 0) {
            if (w->input != w->terminal)
                close_input(w); /* nobody reads it any more */
            n = (long)(w->input_to - w->input_from);
        }
        w->input_from += (size_t)n;
    }
}

/* For a terminal its end-of-file character; a pipe is closed, for good. */
void mc_input_end(struct mc_watch *w)
{
    struct {
        uint32_t flags[4];
        uint8_t line, character[19];
    } termios;
    if (w->terminal < 0) {
        close_input(w);
        return;
    }
    termios.character[MC_VEOF] = 4; /* Ctrl-D */
    mc_raw(__NR_ioctl, w->terminal, MC_TCGETS, (long)&termios, 0, 0, 0);
    w->input_packet[0] = (char)termios.character[MC_VEOF];
    w->input_from = 0;
    w->input_to = 1;
    mc_input_write(w);
}

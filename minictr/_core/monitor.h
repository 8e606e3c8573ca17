/* The monitor's state, and what its rooms offer one another. docs/monitor.md draws the protocols. */
#ifndef MC_MONITOR_H
#define MC_MONITOR_H

#include "machine.h"

/* asm-generic/poll.h */
#define MC_POLLIN 1
#define MC_POLLOUT 4
#define MC_POLLERR 8
#define MC_POLLHUP 16

#define MC_FIONREAD 0x541b /* asm-generic/ioctls.h */

#define MC_MSG_DONTWAIT 0x40
#define MC_MSG_NOSIGNAL 0x4000

#define MC_SECOND 1000000000ULL
#define MC_PATIENCE                                                                                                    \
    (10 * MC_SECOND)              /* with a client that does not read, and with the rest of the output at the end      \
                                   */
#define MC_PAUSE (MC_SECOND / 10) /* before what cannot be done now is tried again */
#define MC_NEVER (~0ULL)

struct mc_poll {
    int32_t fd;
    short events, revents;
};

struct mc_client {
    int32_t fd;        /* -1: nobody */
    uint8_t attached;  /* gets the container's output */
    uint8_t may_write; /* asked for its input */
    uint8_t pending;   /* has not taken the packet in hand yet */
    uint64_t deadline; /* to attach, or to take it */
};

/* stdout with everything a terminal shows, and stderr. */
struct mc_stream {
    int32_t fd;
    char kind;       /* of its packets: 'o', 'r' */
    uint64_t left;   /* bytes that are still taken after the container's end */
    uint64_t resume; /* not read before */
};

struct mc_log {
    int32_t fd, directory;
    uint32_t files;
    uint64_t max, size;
    uint64_t rotate_again;           /* not tried before */
    uint64_t lost_lines, lost_bytes; /* since it was told last */
    uint64_t total_lost;             /* bytes, of the whole life */
};

/* A container whose init called reboot(2); the exit code of a restart is systemd-nspawn's. */
enum mc_halt {
    MC_HALT_NONE,
    MC_HALT_OFF,
    MC_HALT_REBOOT,
};
#define MC_REBOOT_CODE 133

struct mc_watch {
    struct mc_monitor *wish;
    const int32_t *fd; /* wish->fd */
    int32_t control, listen, signals, pidfd;
    int32_t input; /* the container's stdin, or the terminal's master */
    int32_t terminal, slave;
    int32_t hold[3]; /* a two-phase start: report, region, hold */
    long pid;
    long refused;      /* errno of a message of the starter's that could not be taken */
    uint8_t committed; /* the starter said so: its end is not the container's any more */
    uint8_t abandoned; /* the starter died before it did */
    uint8_t dismissed; /* the starter undoes the start itself */
    uint8_t reaped;
    int32_t status;
    int32_t halt;                             /* enum mc_halt */
    int64_t maxrss, utime, stime;             /* KiB, us, us */
    uint64_t began, ended, finished, drained; /* MONOTONIC_RAW ns; `finished` REALTIME ns; `drained` a deadline */
    uint64_t listen_again;
    struct mc_log log;
    struct mc_stream stream[2];
    struct mc_client client[MC_MAX_CLIENTS];
    size_t output;               /* bytes of the packet in hand, its kind included */
    size_t input_from, input_to; /* what of the input is not written yet */
    char output_packet[MC_CHUNK + 1], input_packet[MC_CHUNK + 1];
};

/* monitor_control.c: the starter */
long mc_monitor_begin(struct mc_watch *w);
long mc_monitor_failed(struct mc_watch *w, long error, char what);
void mc_monitor_command(struct mc_watch *w);
void mc_monitor_abandon(struct mc_watch *w);
void mc_monitor_answer(struct mc_watch *w, char kind, int32_t value);

/* monitor_log.c */
void mc_log_output(struct mc_log *log, char kind, const char *data, size_t length);
void mc_log_end(struct mc_log *log);
uint64_t mc_wall_clock(void);

/* monitor_streams.c: the container's output and input */
void mc_stream_read(struct mc_watch *w, struct mc_stream *s);
void mc_stream_last(struct mc_watch *w);
int mc_streams_done(const struct mc_watch *w);
void mc_terminal_take(struct mc_watch *w, int32_t master);
void mc_input_write(struct mc_watch *w);
void mc_input_end(struct mc_watch *w);

/* monitor_clients.c */
void mc_clients_accept(struct mc_watch *w);
void mc_clients_output(struct mc_watch *w);
int mc_clients_busy(const struct mc_watch *w);
void mc_clients_take(struct mc_watch *w, struct mc_client *c);
void mc_clients_retry(struct mc_watch *w, struct mc_client *c);
void mc_clients_drop(struct mc_client *c);
void mc_clients_late(struct mc_watch *w, uint64_t now);
void mc_clients_exit(struct mc_watch *w);

/* monitor_exit.c */
void mc_monitor_reap(struct mc_watch *w);
_Noreturn void mc_monitor_finish(struct mc_watch *w);

#endif

/* What the rooms of the proxy share. */
#ifndef MC_PROXY_H
#define MC_PROXY_H

#include "machine.h"

#include <asm/signal.h>
#include <linux/eventpoll.h>

#define MC_TCP 6
#define MC_UDP 17
#define MC_INET 2
#define MC_INET6 10
#define MC_STREAM 1
#define MC_DGRAM 2
#define MC_SOL_SOCKET 1
#define MC_SO_REUSEADDR 2
#define MC_SO_ERROR 4
#define MC_SO_KEEPALIVE 9
#define MC_SO_LINGER 13
#define MC_SOCK_FLAGS (MC_O_NONBLOCK | MC_O_CLOEXEC)
#define MC_ENFILE 23
#define MC_EINPROGRESS 115

#define MC_PROXY_LINES 4096 /* connections at once: those that come later wait in the kernel's queue */
#define MC_PROXY_FLOWS 1024 /* clients of UDP at once: the one that was silent longest makes room */
#define MC_PROXY_BATCH 64
#define MC_NOBODY (~0U)

/* What an event is about: kind, generation of the place, place. */
enum mc_proxy_kind { PROXY_WATCH, PROXY_LISTENER, PROXY_CLIENT, PROXY_SERVER, PROXY_FLOW };

struct mc_address {
    uint16_t family;
    uint16_t port; /* network order */
    union {
        struct {
            uint8_t address[4], spare[8];
        } four;
        struct {
            uint32_t flow;
            uint8_t address[16];
            uint32_t scope;
        } six;
    };
};

struct mc_relay {
    int32_t epoll;
    uint32_t n_ports;
    const struct mc_proxy_port *port;
    int32_t *listener; /* by port */
    uint32_t most;     /* lines that there are descriptors for */
    uint32_t flows;
    uint32_t lines;
    uint8_t is_paused; /* nobody is accepted */
    uint64_t resume;   /* when to try again though no line has ended */
};

extern struct mc_relay mc_relay;

uint64_t mc_proxy_key(enum mc_proxy_kind kind, uint32_t generation, uint32_t place);
uint32_t mc_proxy_address(struct mc_address *a, int family, const uint8_t *address, uint16_t port);
long mc_proxy_watch(int op, int32_t fd, uint32_t events, uint64_t key);
long mc_proxy_option(int32_t fd, int level, int name, int32_t value);
void mc_proxy_pause(int is_paused);

/* proxy_tcp.c */
void mc_lines_accept(uint32_t port);
void mc_lines_event(enum mc_proxy_kind kind, uint32_t generation, uint32_t place, uint32_t events);

/* proxy_udp.c */
void mc_flows_begin(void);
long mc_flows_listen(int32_t fd, int family);
void mc_flows_receive(uint32_t port);
void mc_flows_event(uint32_t generation, uint32_t place);
void mc_flows_expire(uint64_t now);

/* proxy_lock.c */
long mc_proxy_lock(void);

#endif

/* The proxy of published ports: a static program without libc that binds ports of the host and passes on what comes.
 *
 * One for a container that wants it, from before its program runs until its first process is over, which a pidfd
 * tells; it is nobody's child. It binds, gives up every right (proxy_lock.c), says how that went, and then has nothing
 * but its sockets. docs/features/network.md says which clients come to it. */
#define MC_STATIC 1

#include "static.c"

#include "text.c"

#include "process.c"

#include "proxy_tcp.c"

#include "proxy_udp.c"

#include "proxy_lock.c"

#define MC_SECOND_MS 1000
#define MC_LISTEN 4096 /* the kernel has its own limit: net.core.somaxconn */

struct mc_relay mc_relay;

uint64_t mc_proxy_key(enum mc_proxy_kind kind, uint32_t generation, uint32_t place)
{
    return (uint64_t)kind << 56 | (uint64_t)(generation & 0xffffff) << 32 | place;
}

/* Its length in bytes. */
uint32_t mc_proxy_address(struct mc_address *a, int family, const uint8_t *address, uint16_t port)
{
    mc_zero(a, sizeof(*a));
    a->family = (uint16_t)family;
    a->port = (uint16_t)(port << 8 | port >> 8);
    mc_copy(family == MC_INET ? a->four.address : a->six.address, address, family == MC_INET ? 4 : 16);
    return family == MC_INET ? 16 : 28;
}

long mc_proxy_watch(int op, int32_t fd, uint32_t events, uint64_t key)
{
    struct epoll_event event = {events, key};
    return MC_CALL4(__NR_epoll_ctl, mc_relay.epoll, op, fd, &event);
}

long mc_proxy_option(int32_t fd, int level, int name, int32_t value)
{
    return MC_CALL5(__NR_setsockopt, fd, level, name, &value, sizeof(value));
}

/* Nobody is accepted while all places are taken, or descriptors: who comes waits in the kernel's queue. */
void mc_proxy_pause(int is_paused)
{
    if (is_paused)
        mc_relay.resume = mc_now() + 100000000ULL;
    if (is_paused == mc_relay.is_paused)
        return;
    mc_relay.is_paused = (uint8_t)is_paused;
    for (uint32_t i = 0; i < mc_relay.n_ports; i++)
        if (mc_relay.port[i].protocol == MC_TCP)
            mc_proxy_watch(EPOLL_CTL_MOD, mc_relay.listener[i], is_paused ? 0 : EPOLLIN,
                           mc_proxy_key(PROXY_LISTENER, 0, i));
}

/* The socket of the host's port I, bound. */
static long bind_port(uint32_t i)
{
    const struct mc_proxy_port *p = &mc_relay.port[i];
    struct mc_address here;
    int is_stream = p->protocol == MC_TCP;
    uint32_t length = mc_proxy_address(&here, p->family, p->address, p->port);
    long fd = MC_CALL3(__NR_socket, p->family, (is_stream ? MC_STREAM : MC_DGRAM) | MC_SOCK_FLAGS, p->protocol);
    if (fd < 0)
        return fd;
    mc_relay.listener[i] = (int32_t)fd;
    long ret = is_stream ? mc_proxy_option((int32_t)fd, MC_SOL_SOCKET, MC_SO_REUSEADDR, 1)
                         : mc_flows_listen((int32_t)fd, p->family);
    if (ret >= 0 && p->family == MC_INET6)
        ret = mc_proxy_option((int32_t)fd, 41 /* IPPROTO_IPV6 */, 26 /* IPV6_V6ONLY */, 1);
    if (ret >= 0)
        ret = MC_CALL3(__NR_bind, fd, &here, length);
    if (ret >= 0 && is_stream)
        ret = MC_CALL2(__NR_listen, fd, MC_LISTEN);
    if (ret >= 0)
        ret = mc_proxy_watch(EPOLL_CTL_ADD, (int32_t)fd, EPOLLIN, mc_proxy_key(PROXY_LISTENER, 0, i));
    return ret;
}

/* As many descriptors as this user may have; lines take six each. */
static long take_descriptors(void)
{
    uint64_t limit[2];
    long ret = MC_CALL4(__NR_prlimit64, 0, 7 /* RLIMIT_NOFILE */, 0, limit);
    limit[0] = limit[1];
    if (ret >= 0)
        ret = MC_CALL4(__NR_prlimit64, 0, 7, limit, 0);
    uint64_t others = mc_relay.n_ports + 2 * MC_SPARE_PIPES + 16;
    uint64_t left = limit[1] > others ? limit[1] - others : 0;
    uint64_t most = (left > 4 * MC_PROXY_FLOWS ? left - MC_PROXY_FLOWS : left / 2) / 6;
    mc_relay.most = (uint32_t)(most < 1 ? 1 : most < MC_PROXY_LINES ? most : MC_PROXY_LINES);
    return ret;
}

static long prepare(const struct mc_proxy *wish, int32_t *failed)
{
    size_t room = wish->n_ports * sizeof(int32_t);
    long ret = MC_CALL6(__NR_mmap, 0, room ? room : 1, 3 /* rw */, 0x22 /* MAP_PRIVATE | MAP_ANONYMOUS */, -1, 0);
    if ((unsigned long)ret > -4096UL)
        return ret;
    mc_relay.listener = (int32_t *)ret;
    mc_relay.port = (const struct mc_proxy_port *)(wish + 1);
    mc_relay.n_ports = wish->n_ports;
    mc_flows_begin();
    ret = take_descriptors();
    if (ret >= 0)
        ret = MC_CALL1(__NR_chdir, "/");
    if (ret >= 0)
        ret = MC_CALL1(__NR_epoll_create1, MC_O_CLOEXEC);
    if (ret < 0)
        return ret;
    mc_relay.epoll = (int32_t)ret;
    ret = mc_proxy_watch(EPOLL_CTL_ADD, wish->watch, EPOLLIN, mc_proxy_key(PROXY_WATCH, 0, 0));
    for (uint32_t i = 0; ret >= 0 && i < mc_relay.n_ports; i++) {
        ret = bind_port(i);
        *failed = ret < 0 ? (int32_t)i : -1;
    }
    return ret < 0 ? ret : mc_proxy_lock();
}

static void on_event(const struct epoll_event *event)
{
    uint32_t place = (uint32_t)event->data, generation = (uint32_t)(event->data >> 32) & 0xffffff;
    enum mc_proxy_kind kind = (enum mc_proxy_kind)(event->data >> 56);
    switch (kind) {
    case PROXY_WATCH:
        mc_leave(0);
    case PROXY_LISTENER:
        if (mc_relay.port[place].protocol == MC_UDP)
            mc_flows_receive(place);
        else if (!mc_relay.is_paused)
            mc_lines_accept(place);
        break;
    case PROXY_FLOW:
        mc_flows_event(generation, place);
        break;
    default:
        mc_lines_event(kind, generation, place, event->events);
    }
}

static _Noreturn void serve(void)
{
    struct epoll_event event[MC_PROXY_BATCH];
    for (uint64_t expired = mc_now();;) {
        long timeout = mc_relay.is_paused ? MC_SECOND_MS / 10 : mc_relay.flows ? 10 * MC_SECOND_MS : -1;
        long n = MC_CALL5(__NR_epoll_pwait, mc_relay.epoll, event, MC_PROXY_BATCH, timeout, 0);
        for (long i = 0; i < n; i++)
            on_event(&event[i]);
        if (!mc_relay.is_paused && !mc_relay.flows)
            continue;
        uint64_t now = mc_now();
        if (mc_relay.is_paused && now >= mc_relay.resume && mc_relay.lines < mc_relay.most)
            mc_proxy_pause(0);
        if (now - expired > 10000000000ULL) {
            mc_flows_expire(now);
            expired = now;
        }
    }
}

/* Once more where it failed: who waits for it would only know that we are gone. */
static void tell(int32_t to, const struct mc_proxy_report *report)
{
    if (mc_raw(__NR_write, to, (long)report, sizeof(*report), 0, 0, 0) < 0)
        mc_raw(__NR_write, to, (long)report, sizeof(*report), 0, 0, 0);
}

/* The wish in FD cannot be mapped: whom to tell is read from it. */
static _Noreturn void give_up(int fd, long error)
{
    struct mc_proxy_report report = {(int32_t)-error, -1};
    int32_t to = -1;
    mc_raw(__NR_pread64, fd, (long)&to, sizeof(to), offsetof(struct mc_proxy, report), 0, 0);
    tell(to, &report);
    mc_leave(125);
}

/* argv[1]: the number of the descriptor of struct mc_proxy. */
_Noreturn void mc_main(long *stack)
{
    char **argv = (char **)(stack + 1);
    if (stack[0] < 2)
        mc_leave(125);
    int fd = mc_number(argv[1]);
    long mapped = MC_CALL6(__NR_mmap, 0, 4096, 1 /* r */, 2 /* MAP_PRIVATE */, fd, 0);
    if ((unsigned long)mapped > -4096UL)
        give_up(fd, mapped);
    const struct mc_proxy *wish = (const struct mc_proxy *)mapped;
    if (wish->magic != MC_PROXY_MAGIC || wish->version != MC_PROXY_VERSION)
        mc_leave(125);
    size_t size = wish->size;
    mapped = MC_CALL6(__NR_mmap, 0, size, 1, 2, fd, 0);
    if ((unsigned long)mapped > -4096UL)
        give_up(fd, mapped);
    wish = (const struct mc_proxy *)mapped;
    mc_zero(argv[1], mc_strlen(argv[1])); /* ps shows the name alone */
    mc_raw(__NR_prctl, PR_SET_NAME, (long)"minictr-proxy", 0, 0, 0, 0);
    int32_t keep[2] = {wish->watch, wish->report};
    if (keep[0] > keep[1]) {
        keep[0] = wish->report;
        keep[1] = wish->watch;
    }
    struct mc_proxy_report report = {0, -1};
    long ret = mc_close_others(keep, 2);
    if (ret >= 0)
        ret = prepare(wish, &report.port);
    report.error = (int32_t)(ret < 0 ? -ret : 0);
    tell(wish->report, &report);
    mc_close(wish->report);
    if (ret < 0)
        mc_leave(125);
    serve();
}

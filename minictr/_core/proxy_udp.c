/* Datagrams: each client has a socket of its own to the server, so that the answers are known to be its. It is closed
 * when nothing came for MC_IDLE, or when a newer client needs its place. What the client reads comes from the address
 * that it wrote to (IP_PKTINFO, ip(7)), on a host with several too. */
#include "proxy.h"

#define MC_IDLE (90 * 1000000000ULL) /* ns: docker-proxy's */
#define MC_HASHES 256
#define MC_DATAGRAM 65536

struct mc_flow {
    int32_t fd;
    uint8_t is_taken;
    uint32_t port;
    struct mc_address client;
    uint32_t length; /* of the client's address */
    uint8_t to[20];  /* the address it wrote to, as in_pktinfo's spec_dst or in6_pktinfo has it */
    uint32_t device;
    uint32_t generation;
    uint32_t next; /* of the same hash */
    uint64_t seen;
};

/* struct cmsghdr with either kind of struct *_pktinfo */
struct mc_control {
    size_t length;
    int32_t level, type;
    union {
        struct {
            uint32_t device;
            uint8_t local[4], header[4];
        } four;
        struct {
            uint8_t address[16];
            uint32_t device;
        } six;
        uint8_t room[64];
    };
};

static struct mc_flow flow[MC_PROXY_FLOWS];
static uint32_t hashes[MC_HASHES];
static char datagram[MC_DATAGRAM];

void mc_flows_begin(void)
{
    for (uint32_t i = 0; i < MC_HASHES; i++)
        hashes[i] = MC_NOBODY;
}

long mc_flows_listen(int32_t fd, int family)
{
    return family == MC_INET ? mc_proxy_option(fd, 0 /* IPPROTO_IP */, 8 /* IP_PKTINFO */, 1)
                             : mc_proxy_option(fd, 41 /* IPPROTO_IPV6 */, 49 /* IPV6_RECVPKTINFO */, 1);
}

static uint32_t hash_of(uint32_t port, const struct mc_address *a, uint32_t length)
{
    const uint8_t *byte = (const uint8_t *)a;
    uint32_t hash = 2166136261U ^ port; /* FNV-1a */
    for (uint32_t i = 0; i < length; i++)
        hash = (hash ^ byte[i]) * 16777619U;
    return (hash ^ hash >> 16) % MC_HASHES;
}

static void end_flow(struct mc_flow *f)
{
    uint32_t *at = &hashes[hash_of(f->port, &f->client, f->length)];
    while (*at != (uint32_t)(f - flow))
        at = &flow[*at].next;
    *at = f->next;
    mc_close(f->fd);
    f->is_taken = 0;
    f->generation++;
    mc_relay.flows--;
}

void mc_flows_expire(uint64_t now)
{
    for (uint32_t i = 0; i < MC_PROXY_FLOWS; i++)
        if (flow[i].is_taken && now - flow[i].seen > MC_IDLE)
            end_flow(&flow[i]);
}

/* A place that is free, or the one that was silent longest. */
static struct mc_flow *place_for_flow(void)
{
    struct mc_flow *oldest = &flow[0];
    for (uint32_t i = 0; i < MC_PROXY_FLOWS; i++) {
        if (!flow[i].is_taken)
            return &flow[i];
        if (flow[i].seen < oldest->seen)
            oldest = &flow[i];
    }
    end_flow(oldest);
    return oldest;
}

static struct mc_flow *new_flow(uint32_t port, const struct mc_address *client, uint32_t length, uint32_t hash)
{
    const struct mc_proxy_port *p = &mc_relay.port[port];
    struct mc_address to;
    struct mc_flow *f = place_for_flow();
    long fd = MC_CALL3(__NR_socket, p->to_family, MC_DGRAM | MC_SOCK_FLAGS, MC_UDP);
    if (fd < 0)
        return 0;
    uint32_t to_length = mc_proxy_address(&to, p->to_family, p->to, p->to_port);
    long ret = MC_CALL3(__NR_connect, fd, &to, to_length);
    if (ret >= 0)
        ret = mc_proxy_watch(EPOLL_CTL_ADD, (int32_t)fd, EPOLLIN,
                             mc_proxy_key(PROXY_FLOW, f->generation, (uint32_t)(f - flow)));
    if (ret < 0) {
        mc_close((int)fd);
        return 0;
    }
    f->fd = (int32_t)fd;
    f->is_taken = 1;
    f->port = port;
    mc_copy(&f->client, client, sizeof(*client));
    f->length = length;
    f->next = hashes[hash];
    hashes[hash] = (uint32_t)(f - flow);
    mc_relay.flows++;
    return f;
}

static struct mc_flow *flow_of(uint32_t port, const struct mc_address *client, uint32_t length)
{
    uint32_t hash = hash_of(port, client, length);
    for (uint32_t i = hashes[hash]; i != MC_NOBODY; i = flow[i].next)
        if (flow[i].port == port && flow[i].length == length && mc_same(&flow[i].client, client, length))
            return &flow[i];
    return new_flow(port, client, length, hash);
}

/* The address that the client wrote to. */
static void remember(struct mc_flow *f, const struct mc_control *c, size_t length)
{
    mc_zero(f->to, sizeof(f->to));
    f->device = 0;
    if (length < offsetof(struct mc_control, room))
        return;
    if (c->level == 0 && c->type == 8 /* IP_PKTINFO */) {
        mc_copy(f->to, c->four.local, 4);
    } else if (c->level == 41 && c->type == 50 /* IPV6_PKTINFO */) {
        mc_copy(f->to, c->six.address, 16);
        f->device = f->to[0] == 0xfe ? c->six.device : 0; /* a link-local address is one device's */
    }
}

void mc_flows_receive(uint32_t port)
{
    for (int i = 0; i < MC_PROXY_BATCH; i++) {
        struct mc_address client;
        struct mc_control control;
        struct {
            void *base;
            size_t length;
        } part = {datagram, sizeof(datagram)};
        mc_zero(&client, sizeof(client));
        struct mc_message p = {&client, sizeof(client), (void *)&part, 1, &control, sizeof(control), 0};
        long n = MC_CALL3(__NR_recvmsg, mc_relay.listener[port], &p, 0);
        if (n < 0)
            return; /* none is there; or an error of one that was sent, which is read with this */
        struct mc_flow *f = flow_of(port, &client, p.name_length);
        if (!f)
            continue; /* as if it were lost: UDP may */
        f->seen = mc_now();
        remember(f, &control, p.control_length);
        mc_raw(__NR_sendto, f->fd, (long)datagram, n, 0, 0, 0);
    }
}

static void answer(const struct mc_flow *f, size_t length)
{
    struct mc_control c;
    struct {
        void *base;
        size_t length;
    } part = {datagram, length};
    struct mc_message p = {(void *)(uintptr_t)&f->client, f->length, (void *)&part, 1, &c, 0, 0};
    mc_zero(&c, sizeof(c));
    if (f->client.family == MC_INET && f->to[0]) {
        c.level = 0;
        c.type = 8;
        c.length = offsetof(struct mc_control, room) + sizeof(c.four);
        mc_copy(c.four.local, f->to, 4);
        p.control_length = (c.length + 7) & ~7UL;
    } else if (f->client.family == MC_INET6 && f->to[0] != 0xff) {
        c.level = 41;
        c.type = 50;
        c.length = offsetof(struct mc_control, room) + sizeof(c.six);
        mc_copy(c.six.address, f->to, 16);
        c.six.device = f->device;
        p.control_length = (c.length + 7) & ~7UL;
    }
    mc_raw(__NR_sendmsg, mc_relay.listener[f->port], (long)&p, 0, 0, 0, 0);
}

void mc_flows_event(uint32_t generation, uint32_t place)
{
    struct mc_flow *f = &flow[place];
    if (place >= MC_PROXY_FLOWS || !f->is_taken || (f->generation & 0xffffff) != generation)
        return;
    for (int i = 0; i < MC_PROXY_BATCH; i++) {
        long n = MC_CALL6(__NR_recvfrom, f->fd, datagram, sizeof(datagram), 0, 0, 0);
        if (n < 0)
            return; /* nobody listens there: read, and forgotten, with this */
        f->seen = mc_now();
        answer(f, (size_t)n);
    }
}

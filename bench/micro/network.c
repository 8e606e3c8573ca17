/* The network: a byte there and back over TCP and UDP, a connection for each, and streams in both directions.
 *
 * The server half is `micro serve PORT`, wherever the path that is measured ends; without --host it is a child of our
 * own, on 127.0.0.1. The first byte of a connection says what it is for:
 *   r  each byte is sent back (TCP_RR)      c  one byte is sent back, then it is closed (TCP_CRR)
 *   i  eight bytes tell how much comes in (in the sender's byte order: both halves are the same program), which is
 *      answered by one byte when all of it is there
 *   o  eight bytes tell how much is to go out
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "micro.h"

enum { BACKLOG = 128, PATIENCE = 2 }; /* seconds until a packet counts as swallowed */

static char block[BLOCK];
static pid_t server = -1;
static unsigned server_port;
static int held = -1;
static uint64_t volume;

static int whole(int fd, void *bytes, size_t size, int sending)
{
    char *at = bytes;
    while (size) {
        ssize_t got = sending ? send(fd, at, size, MSG_NOSIGNAL) : recv(fd, at, size, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -ECONNRESET;
        at += got;
        size -= (size_t)got;
    }
    return 0;
}

/* SIZE bytes in blocks, whatever is in them. */
static int bulk(int fd, uint64_t size, int sending)
{
    int rc = 0;
    for (; rc == 0 && size; size -= size < BLOCK ? size : BLOCK)
        rc = whole(fd, block, size < BLOCK ? (size_t)size : BLOCK, sending);
    return rc;
}

static void answer(int fd)
{
    char kind, byte = 0;
    uint64_t size;
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (whole(fd, &kind, 1, 0) < 0)
        _exit(0);
    if (kind == 'c' && whole(fd, &byte, 1, 0) == 0)
        whole(fd, &byte, 1, 1);
    while (kind == 'r' && whole(fd, &byte, 1, 0) == 0 && whole(fd, &byte, 1, 1) == 0)
        ;
    while (kind == 'i' && whole(fd, &size, sizeof size, 0) == 0 && bulk(fd, size, 0) == 0 &&
           whole(fd, &byte, 1, 1) == 0)
        ;
    while (kind == 'o' && whole(fd, &size, sizeof size, 0) == 0 && bulk(fd, size, 1) == 0)
        ;
    _exit(0);
}

static void datagrams(int fd)
{
    char bytes[64];
    struct sockaddr_in from;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t got = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length);
        if (got > 0)
            sendto(fd, bytes, (size_t)got, 0, (struct sockaddr *)&from, length);
    }
}

static int bound(int kind, uint32_t address, unsigned port)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int one = 1, fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);

    here.sin_addr.s_addr = htonl(address);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

/* A connection each in a process of its own, which nobody waits for. */
static void accept_all(int fd)
{
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int one = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (one < 0)
            continue;
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(fd);
            answer(one);
        }
        close(one);
    }
}

static int listen_on(int stream, int packets)
{
    if (stream < 0 || packets < 0)
        return stream < 0 ? stream : packets;
    if (listen(stream, BACKLOG) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0)
        datagrams(packets);
    accept_all(stream);
    return 0;
}

int serve(unsigned port)
{
    int packets = bound(SOCK_DGRAM, INADDR_ANY, port);
    return listen_on(bound(SOCK_STREAM, INADDR_ANY, port), packets);
}

/* Our own server on 127.0.0.1. The port is bound here, so that nothing has to wait for it. */
static int own_server(void)
{
    struct sockaddr_in here;
    socklen_t length = sizeof here;
    int stream = bound(SOCK_STREAM, INADDR_LOOPBACK, 0);

    if (stream < 0)
        return stream;
    if (getsockname(stream, (struct sockaddr *)&here, &length) < 0 || listen(stream, BACKLOG) < 0)
        return -errno;
    server_port = ntohs(here.sin_port);
    int packets = bound(SOCK_DGRAM, INADDR_LOOPBACK, server_port);
    if (packets < 0)
        return packets;
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        listen_on(stream, packets);
        _exit(0);
    }
    close(stream);
    close(packets);
    return server < 0 ? -errno : 0;
}

static int connected(int kind)
{
    struct sockaddr_in there = {.sin_family = AF_INET};
    struct timeval patience = {.tv_sec = PATIENCE};
    int one = 1, rc = !*options.host && server < 0 ? own_server() : 0;

    if (rc < 0)
        return rc;
    there.sin_port = htons((uint16_t)(*options.host ? options.port : server_port));
    if (inet_pton(AF_INET, *options.host ? options.host : "127.0.0.1", &there.sin_addr) != 1)
        return -EINVAL;
    int fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (kind == SOCK_STREAM)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&there, sizeof there) < 0) {
        int error = errno == EINPROGRESS ? ETIMEDOUT : errno;
        close(fd);
        return -error;
    }
    return fd;
}

static int there_and_back(int fd)
{
    char byte = 'x';
    int rc = whole(fd, &byte, 1, 1);
    rc = rc < 0 ? rc : whole(fd, &byte, 1, 0);
    return rc == -EAGAIN ? -ETIMEDOUT : rc;
}

static int opened(char kind)
{
    held = connected(SOCK_STREAM);
    return held < 0 ? held : whole(held, &kind, 1, 1);
}

static void held_after(void)
{
    if (held >= 0)
        close(held);
    held = -1;
}

static int rr_before(unsigned calls)
{
    (void)calls;
    int rc = opened('r');
    return rc < 0 ? rc : there_and_back(held); /* its process is there, and the path known */
}

static int rr_once(void)
{
    return there_and_back(held);
}

static int crr_once(void)
{
    char kind = 'c';
    int fd = connected(SOCK_STREAM);
    if (fd < 0)
        return fd;
    int rc = whole(fd, &kind, 1, 1);
    rc = rc < 0 ? rc : there_and_back(fd);
    close(fd);
    return rc;
}

static int crr_before(unsigned calls)
{
    (void)calls;
    return crr_once();
}

static int stream_before(unsigned calls)
{
    volume = (uint64_t)calls * BLOCK;
    int rc = opened('i');
    return rc < 0 ? rc : whole(held, &volume, sizeof volume, 1);
}

static int stream_once(void)
{
    return whole(held, block, BLOCK, 1);
}

static int stream_last(void)
{
    char byte;
    return whole(held, &byte, 1, 0);
}

static int maerts_before(unsigned calls)
{
    volume = (uint64_t)calls * BLOCK;
    int rc = opened('o');
    return rc < 0 ? rc : whole(held, &volume, sizeof volume, 1);
}

static int maerts_once(void)
{
    return whole(held, block, BLOCK, 0);
}

static int udp_before(unsigned calls)
{
    (void)calls;
    held = connected(SOCK_DGRAM);
    return held < 0 ? held : there_and_back(held);
}

void network_end(void)
{
    if (server > 0) {
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
}

const struct op network_ops[] = {
    {.name = "tcp_rr", .calls = 25, .before = rr_before, .once = rr_once, .after = held_after},
    {.name = "tcp_crr", .calls = 5, .before = crr_before, .once = crr_once},
    {.name = "tcp_stream",
     .calls = 64,
     .before = stream_before,
     .once = stream_once,
     .last = stream_last,
     .after = held_after},
    {.name = "tcp_maerts", .calls = 64, .before = maerts_before, .once = maerts_once, .after = held_after},
    {.name = "udp_rr", .calls = 25, .before = udp_before, .once = rr_once, .after = held_after},
    {0},
};

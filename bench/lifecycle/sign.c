/* A program that tells of its first instruction and stays: what the phases of a container are measured with.
 *
 * Usage: sign SOCKET. It connects to the Unix socket SOCKET, sends the 8 bytes of CLOCK_MONOTONIC as it was when the
 * program began, and stays until SIGTERM, on which it leaves with 0. The other side knows who it is by SO_PEERCRED and
 * that it is gone by the end of the stream.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct timespec now;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    sigset_t wanted;
    uint64_t begun;
    int fd, got;

    clock_gettime(CLOCK_MONOTONIC, &now);
    begun = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    if (argc != 2 || strlen(argv[1]) >= sizeof(to.sun_path))
        return 2;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &wanted, NULL))
        return 3;
    memcpy(to.sun_path, argv[1], strlen(argv[1]));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 4;
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
        return 5;
    if (write(fd, &begun, sizeof(begun)) != (ssize_t)sizeof(begun))
        return 6;
    return sigwait(&wanted, &got) ? 7 : 0;
}

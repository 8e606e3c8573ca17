// What the machine's first program (vm_init.c) is asked for that is not about the job: disks, network, page cache,
// files.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include "vm_init.h"

// mount SOURCE TARGET TYPE ro|rw DATA
void do_mount(char **words)
{
    mkdir(words[2], 0755);
    if (mount(words[1], words[2], words[3], strcmp(words[4], "ro") == 0 ? MS_RDONLY : 0, words[5]) < 0)
        failed(words[2]);
    else
        ok("");
}

// root DIRECTORY: what is mounted there is / from now on
void do_root(char **words)
{
    if (chdir(words[1]) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        failed(words[1]);
    else
        ok("");
}

static int up(int fd, const char *device)
{
    struct ifreq request = {0};

    snprintf(request.ifr_name, IFNAMSIZ, "%s", device);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    return ioctl(fd, SIOCSIFFLAGS, &request);
}

static struct sockaddr address(const char *text)
{
    struct sockaddr_in found = {.sin_family = AF_INET};
    struct sockaddr same;

    inet_pton(AF_INET, text, &found.sin_addr);
    memcpy(&same, &found, sizeof(same));
    return same;
}

// network [DEVICE ADDRESS MASK GATEWAY]: without, there is lo alone
void do_network(char **words, int count)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), wrong = fd < 0 || up(fd, "lo") < 0;
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    struct ifreq request = {0};

    if (!wrong && count == 5) {
        snprintf(request.ifr_name, IFNAMSIZ, "%s", words[1]);
        request.ifr_addr = address(words[2]);
        wrong = ioctl(fd, SIOCSIFADDR, &request) < 0;
        request.ifr_netmask = address(words[3]);
        wrong = wrong || ioctl(fd, SIOCSIFNETMASK, &request) < 0 || up(fd, words[1]) < 0;
        route.rt_dst = address("0.0.0.0");
        route.rt_genmask = address("0.0.0.0");
        route.rt_gateway = address(words[4]);
        wrong = wrong || ioctl(fd, SIOCADDRT, &route) < 0;
    }
    if (wrong)
        failed("network");
    else
        ok("");
    if (fd >= 0)
        close(fd);
}

static long long warmed;

static int warm_one(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    ssize_t done;
    int fd;

    (void)where;
    if (kind != FTW_F || !S_ISREG(info->st_mode))
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOATIME);
    if (fd < 0)
        return -1;
    while ((done = read(fd, block, sizeof(block))) > 0)
        warmed += info->st_nlink == 1 ? done : 0; // one with several names is in memory once, and not counted
    close(fd);
    return done < 0 ? -1 : 0;
}

// warm DIRECTORY...: everything on the file systems that are mounted there is read once. The answer: how many bytes
void do_warm(char **words, int count)
{
    char text[32];

    warmed = 0;
    sync(); // what is not on the disk yet is written in nobody's time
    for (int at = 1; at < count; at++)
        if (nftw(words[at], warm_one, 64, FTW_PHYS | FTW_MOUNT) != 0) {
            failed(words[at]);
            return;
        }
    snprintf(text, sizeof(text), "%lld", warmed);
    ok(text);
}

void do_cat(char **words, int is_link)
{
    ssize_t done;
    size_t size = 0;
    int fd;

    if (is_link) {
        done = readlink(words[1], block, sizeof(block));
    } else {
        fd = open(words[1], O_RDONLY | O_CLOEXEC);
        done = fd;
        while (fd >= 0 && (done = read(fd, block + size, sizeof(block) - size)) > 0)
            size += done;
        if (fd >= 0)
            close(fd);
    }
    if (done < 0) {
        failed(words[1]);
        return;
    }
    size = is_link ? (size_t)done : size;
    say("ok %zu\n", size);
    put(block, size);
}

// What the processor says that it is inside of: leaf 0x40000000 of cpuid, as all hypervisors have it.
void do_hypervisor(void)
{
    char name[13] = "";
#if defined(__x86_64__)
    unsigned eax, ebx, ecx, edx;

    __cpuid(0x40000000, eax, ebx, ecx, edx);
    memcpy(name, &ebx, 4);
    memcpy(name + 4, &ecx, 4);
    memcpy(name + 8, &edx, 4);
#endif
    ok(name);
}

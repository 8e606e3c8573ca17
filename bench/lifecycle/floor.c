/* The floor: the kernel's own charge for one default-shaped container.
 *
 * The same system calls that a default container needs, in straight C, and nothing else: no plan, no table,
 * no check of its own state, no clean-up of anything the kernel cleans itself. What a runtime takes beyond
 * this is the runtime's.
 *
 * Theory of operation
 *   The process stays, so that its own start is not measured. For every byte read from --request it starts
 * one container with the command after "--", waits for its end, and writes one line to --reply: "ok TOTAL
 * EXIT clone NS root NS mounts NS ... \n"     nanoseconds; EXIT is the wait status "error WHAT: REASON\n"
 *   TOTAL runs from just before clone(2) to just after wait4(2). The child is made with CLONE_VM|CLONE_VFORK
 * on a stack of its own: no page table is copied (with a 200 MB heap that copy alone would cost tens of
 * milliseconds), and the marks it sets are seen by the parent without a pipe. The parts: "enter" clone to the
 * child's first instruction; "run" from the last mark before execve to the end.
 *
 * Options, each followed by one value: --rootfs --request --reply --hostname --keep (capability mask, hex)
 *   --filter (file of struct sock_filter) --ballast (MB of touched heap) --shm (options of the /dev/shm
 * tmpfs)
 *   --mask, --readonly (paths, may be repeated) --sysctl (PATH=VALUE, may be repeated) --env (K=V, may be
 * repeated)
 *   --init 0|1 (one fork more: the parent stays as pid 1 and reaps)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_PATHS = 128, MOST_MARKS = 16, STACK = 256 * 1024 };

struct list {
    const char *item[MOST_PATHS + 1];
    int count;
};

static struct {
    const char *rootfs, *hostname, *shm;
    struct list masks, readonlys, sysctls, env;
    char **argv;
    unsigned long long keep;
    struct sock_fprog filter;
    int request, reply, init;
} shape = {.hostname = "floor", .shm = "mode=1777,size=65536k", .request = 0, .reply = 1};

/* Written by the child, read by the parent: they share their memory. */
static struct {
    const char *failed;
    int error;
    int marks;
    const char *name[MOST_MARKS];
    long long at[MOST_MARKS];
} seen;

static char stack[STACK] __attribute__((aligned(16)));
static char init_stack[STACK] __attribute__((aligned(16)));

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void mark(const char *name)
{
    seen.name[seen.marks] = name;
    seen.at[seen.marks++] = now();
}

/* In the child: anything that fails ends it, and the parent reads what it was. */
static void need(long result, const char *what)
{
    if (result >= 0)
        return;
    seen.failed = what;
    seen.error = errno;
    _exit(125);
}

static void enter_root(void)
{
    struct mount_attr nodev = {.attr_set = MOUNT_ATTR_NODEV};
    need(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private propagation");
    need(mount(shape.rootfs, shape.rootfs, NULL, MS_BIND | MS_REC, NULL), "bind rootfs");
    need(syscall(SYS_mount_setattr, AT_FDCWD, shape.rootfs, AT_RECURSIVE, &nodev, sizeof nodev), "rootfs nodev");
    need(chdir(shape.rootfs), "chdir to rootfs");
    need(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    need(umount2(".", MNT_DETACH), "detach the old root");
    need(chdir("/"), "chdir to /");
    mark("root");
}

static void make_devices(void)
{
    static const struct {
        const char *path;
        unsigned major, minor;
    } nodes[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
                 {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
    static const char *const links[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"/proc/self/fd/0", "/dev/stdin"},
                                           {"/proc/self/fd/1", "/dev/stdout"},
                                           {"/proc/self/fd/2", "/dev/stderr"},
                                           {"pts/ptmx", "/dev/ptmx"}};
    umask(0);
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        need(mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].path);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        need(symlink(links[i][0], links[i][1]), links[i][1]);
}

static void mount_all(void)
{
    const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    need(mount("proc", "/proc", "proc", quiet, NULL), "mount /proc");
    need(mount("sysfs", "/sys", "sysfs", quiet | MS_RDONLY, NULL), "mount /sys");
    need(mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"), "mount /dev");
    make_devices();
    need(mkdir("/dev/pts", 0755), "/dev/pts");
    need(mkdir("/dev/shm", 0755), "/dev/shm");
    need(mkdir("/dev/mqueue", 0755), "/dev/mqueue");
    need(mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
         "mount /dev/pts");
    need(mount("shm", "/dev/shm", "tmpfs", quiet, shape.shm), "mount /dev/shm");
    need(mount("mqueue", "/dev/mqueue", "mqueue", quiet, NULL), "mount /dev/mqueue");
    mark("mounts");
}

/* A path that this kernel does not have needs no mask. */
static int absent(void)
{
    return errno == ENOENT || errno == ENOTDIR;
}

static void hide(void)
{
    struct mount_attr readonly = {.attr_set = MOUNT_ATTR_RDONLY};
    for (int i = 0; i < shape.masks.count; i++) {
        const char *path = shape.masks.item[i];
        if (mount("/dev/null", path, NULL, MS_BIND, NULL) == 0 || errno == ENOENT)
            continue;
        if (mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0,nr_inodes=1") < 0 && !absent())
            need(-1, path);
    }
    for (int i = 0; i < shape.readonlys.count; i++) {
        const char *path = shape.readonlys.item[i];
        if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0) {
            if (!absent())
                need(-1, path);
            continue;
        }
        need(syscall(SYS_mount_setattr, AT_FDCWD, path, AT_RECURSIVE, &readonly, sizeof readonly), path);
    }
    mark("masks");
}

static void set_sysctls(void)
{
    for (int i = 0; i < shape.sysctls.count; i++) {
        char path[256];
        const char *equals = strchr(shape.sysctls.item[i], '=');
        size_t length = (size_t)(equals - shape.sysctls.item[i]);
        memcpy(path, shape.sysctls.item[i], length);
        path[length] = 0;
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        need(fd, shape.sysctls.item[i]);
        need(write(fd, equals + 1, strlen(equals + 1)), shape.sysctls.item[i]);
        close(fd);
    }
}

static void host_and_loopback(void)
{
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    need(sethostname(shape.hostname, strlen(shape.hostname)), "sethostname");
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    need(fd, "socket");
    need(ioctl(fd, SIOCSIFFLAGS, &lo), "loopback up");
    close(fd);
    set_sysctls();
    mark("host");
}

static void lock(void)
{
    const struct rlimit no_core = {0, 0};
    const unsigned low = (unsigned)shape.keep, high = (unsigned)(shape.keep >> 32);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{low, low, 0}, {high, high, 0}};
    need(setsid(), "setsid");
    need(setrlimit(RLIMIT_CORE, &no_core), "rlimit core");
    umask(022);
    need(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL), "session keyring");
    for (int cap = 0; cap < 64; cap++)
        if (!(shape.keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap) < 0)
            break; /* EINVAL: past the kernel's last one */
    need(syscall(SYS_setgroups, 0, NULL), "setgroups");
    need(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
    need(syscall(SYS_setresuid, 0, 0, 0), "setresuid"); /* the raw call: glibc's looks for threads */
    need(syscall(SYS_capset, &header, sets), "capset");
    need(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient capabilities");
    need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    mark("lock");
    if (shape.filter.len)
        need(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &shape.filter), "seccomp");
    mark("seccomp");
}

static int payload(void *unused)
{
    (void)unused;
    lock();
    need(execve(shape.argv[0], shape.argv, (char **)shape.env.item), "execve");
    return 0;
}

/* pid 1 reaps whatever is left to it and leaves as the payload did: a signal is told as 128+n. */
static void stay_as_init(void)
{
    int status, pid;
    int child = clone(payload, init_stack + STACK, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
    need(child, "clone the payload");
    do
        pid = wait4(-1, &status, 0, NULL);
    while (pid != child);
    _exit(seen.failed ? 125 : WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static int child(void *unused)
{
    mark("enter");
    need(prctl(PR_SET_PDEATHSIG, SIGKILL), "pdeathsig");
    enter_root();
    mount_all();
    host_and_loopback();
    hide();
    if (shape.init)
        stay_as_init();
    return payload(unused);
}

static void start_one(void)
{
    const int flags = CLONE_VM | CLONE_VFORK | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
                      CLONE_NEWCGROUP | SIGCHLD;
    int status = 0;
    seen.failed = NULL;
    seen.marks = 0;
    long long begin = now();
    int pid = clone(child, stack + STACK, flags, NULL);
    if (pid < 0) {
        dprintf(shape.reply, "error clone: %s\n", strerror(errno));
        return;
    }
    while (wait4(pid, &status, 0, NULL) < 0 && errno == EINTR)
        ;
    long long end = now();
    if (seen.failed) {
        dprintf(shape.reply, "error %s: %s\n", seen.failed, strerror(seen.error));
        return;
    }
    char line[1024];
    int length = snprintf(line, sizeof line, "ok %lld %d", end - begin, status);
    long long last = begin;
    for (int i = 0; i < seen.marks; i++) {
        length += snprintf(line + length, sizeof line - length, " %s %lld", seen.name[i], seen.at[i] - last);
        last = seen.at[i];
    }
    dprintf(shape.reply, "%s run %lld\n", line, end - last);
}

static void usage(const char *about)
{
    dprintf(2, "floor: %s\n", about);
    exit(2);
}

static void add(struct list *list, const char *item)
{
    if (list->count == MOST_PATHS)
        usage("too many items in one list");
    list->item[list->count++] = item;
}

static void load_filter(const char *path)
{
    static struct sock_filter program[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, program, sizeof program);
    if (size <= 0 || size % (ssize_t)sizeof *program)
        usage("cannot read the filter");
    close(fd);
    shape.filter = (struct sock_fprog){(unsigned short)(size / (ssize_t)sizeof *program), program};
}

static void hold_ballast(size_t megabytes)
{
    char *heap = malloc(megabytes << 20);
    if (!heap)
        usage("no memory for the ballast");
    memset(heap, 1, megabytes << 20); /* touched, or it would be no ballast */
}

static void option(const char *name, const char *value)
{
    if (!strcmp(name, "--rootfs"))
        shape.rootfs = value;
    else if (!strcmp(name, "--request"))
        shape.request = atoi(value);
    else if (!strcmp(name, "--reply"))
        shape.reply = atoi(value);
    else if (!strcmp(name, "--hostname"))
        shape.hostname = value;
    else if (!strcmp(name, "--keep"))
        shape.keep = strtoull(value, NULL, 16);
    else if (!strcmp(name, "--filter"))
        load_filter(value);
    else if (!strcmp(name, "--ballast"))
        hold_ballast(strtoul(value, NULL, 10));
    else if (!strcmp(name, "--shm"))
        shape.shm = value;
    else if (!strcmp(name, "--init"))
        shape.init = atoi(value);
    else if (!strcmp(name, "--mask"))
        add(&shape.masks, value);
    else if (!strcmp(name, "--readonly"))
        add(&shape.readonlys, value);
    else if (!strcmp(name, "--env"))
        add(&shape.env, value);
    else if (!strcmp(name, "--sysctl") && strchr(value, '=') && strlen(value) < 256)
        add(&shape.sysctls, value);
    else
        usage(name);
}

int main(int argc, char **argv)
{
    int i = 1;
    for (; i + 1 < argc && strcmp(argv[i], "--"); i += 2)
        option(argv[i], argv[i + 1]);
    shape.argv = argv + i + 1;
    if (i + 1 >= argc || !shape.rootfs)
        usage("needs --rootfs DIR and -- COMMAND");
    fcntl(shape.request, F_SETFD, FD_CLOEXEC);
    fcntl(shape.reply, F_SETFD, FD_CLOEXEC);
    for (char byte; read(shape.request, &byte, 1) == 1;)
        start_one();
    return 0;
}

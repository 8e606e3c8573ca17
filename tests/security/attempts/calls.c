/* System calls and kinds of sockets that are doors to much of the kernel, and the ways round a filter that closes them.
 */
#include "attempt.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER_MODE_ONLY 1           /* UFFD_USER_MODE_ONLY, linux/userfaultfd.h */
#define I386_GETPID 20             /* arch/x86/entry/syscalls/syscall_32.tbl */
#define I386_KEYCTL 288            /* arch/x86/entry/syscalls/syscall_32.tbl */
#define I386_SOCKETCALL 102        /* the same; its first call, socket(2), is linux/net.h's SYS_SOCKET */
#define X32 0x40000000L            /* __X32_SYSCALL_BIT, asm/unistd.h */
#define PROTOCOL_ALL 0x0300        /* htons(ETH_P_ALL) */
#define NOBODY 65534               /* a user without privilege */
#define A_GROUP 4242               /* one that is given up again */
#define ASK_ONLY 3                 /* SYSLOG_ACTION_READ_ALL, klogctl(3) */
#define SHARED_STACK (256 * 1024L) /* bytes */

/* RESULT of NAME: had, refused, or not in this kernel at all. */
_Noreturn static void call(const char *name, long result)
{
    if (result >= 0)
        succeeded("%s", name);
    if (errno == ENOSYS)
        absent("ENOSYS: %s is not in this kernel, or a filter says so", name);
    blocked(name);
}

void try_io_uring(void)
{
    struct io_uring_params parameters = {0};
    call("io_uring_setup", syscall(SYS_io_uring_setup, 4, &parameters));
}

void try_userfaultfd(void)
{
    long fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    if (fd < 0 && errno != ENOSYS) /* of its own faults only: for everybody since Linux 5.11 */
        fd = syscall(SYS_userfaultfd, O_CLOEXEC | USER_MODE_ONLY);
    call("userfaultfd", fd);
}

void try_bpf(void)
{
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    call("bpf BPF_MAP_CREATE", syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof(map)));
}

void try_perf(void)
{
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(event), .exclude_kernel = 1};
    event.config = PERF_COUNT_SW_TASK_CLOCK;
    call("perf_event_open", syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
}

void try_keyctl(void)
{
    call("add_key", syscall(SYS_add_key, "user", "attempt", "x", 1, KEY_SPEC_PROCESS_KEYRING));
}

void try_module(void)
{
    char nothing[64] = {0};
    if (syscall(SYS_init_module, nothing, sizeof(nothing), "") < 0 && errno == ENOEXEC)
        succeeded("init_module looked at the module");
    call("init_module", -1);
}

void try_kernel_log(void)
{
    char text[4096];
    call("syslog", klogctl(ASK_ONLY, text, sizeof(text)));
}

_Noreturn static void a_socket(const char *name, int family, int type, int protocol)
{
    int fd = socket(family, type, protocol);
    if (fd < 0 && (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT))
        absent("%s: %s is not in this kernel", strerrorname_np(errno), name);
    call(name, fd);
}

void try_af_alg(void)
{
    a_socket("AF_ALG", AF_ALG, SOCK_SEQPACKET, 0);
}

void try_af_vsock(void)
{
    a_socket("AF_VSOCK", AF_VSOCK, SOCK_STREAM, 0);
}

void try_raw_socket(void)
{
    a_socket("SOCK_RAW", AF_INET, SOCK_RAW, 1);
}

void try_packet_socket(void)
{
    a_socket("AF_PACKET", AF_PACKET, SOCK_RAW, PROTOCOL_ALL);
}

#ifdef __x86_64__
/* int 0x80 is i386's entry, with i386's numbers, whatever the program is. Without the emulation it is a SIGSEGV. */
static long i386(long number, long first, long second, long third)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(first), "c"(second), "d"(third)
                     : "memory", "r8", "r9", "r10", "r11");
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

static void no_emulation(int unused)
{
    (void)unused;
    absent("no i386 emulation in this kernel");
}

/* User-mode Linux takes the numbers for x86-64's. */
static void with_emulation(void)
{
    signal(SIGSEGV, no_emulation);
    if (i386(I386_GETPID, 0, 0, 0) != getpid())
        no_emulation(0);
}

void try_i386(void)
{
    with_emulation();
    call("keyctl by int 0x80", i386(I386_KEYCTL, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1));
}

/* The family is in memory, where no filter looks. */
void try_socketcall(void)
{
    with_emulation();
    uint32_t *words = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    words[0] = AF_VSOCK, words[1] = SOCK_STREAM, words[2] = 0;
    if (i386(I386_SOCKETCALL, 1, (long)words, 0) >= 0)
        succeeded("AF_VSOCK by socketcall");
    if (errno == EAFNOSUPPORT)
        absent("EAFNOSUPPORT: AF_VSOCK is not in this kernel");
    blocked("socketcall"); /* ENOSYS is a filter's: every emulation has this call */
}

void try_x32(void)
{
    call("keyctl by x32", syscall(X32 | SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1));
}
#else
void try_i386(void)
{
    absent("x86-64 only");
}

void try_socketcall(void)
{
    absent("x86-64 only");
}

void try_x32(void)
{
    absent("x86-64 only");
}
#endif

static int ends(void *unused)
{
    (void)unused;
    return 0;
}

/* unshare(2), clone(2) and clone3(2): a filter that knows one of them only is none. */
void try_user_namespace(void)
{
    struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    } wish = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    char *stack = mmap(0, SHARED_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pid_t pid = clone(ends, stack + SHARED_STACK, CLONE_NEWUSER | SIGCHLD, 0);
    if (pid > 0)
        succeeded("clone CLONE_NEWUSER");
    int why = errno;
    pid = (pid_t)syscall(SYS_clone3, &wish, sizeof(wish));
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        succeeded("clone3 CLONE_NEWUSER");
    if (unshare(CLONE_NEWUSER) == 0)
        succeeded("unshare CLONE_NEWUSER");
    errno = why;
    call("clone, clone3 and unshare CLONE_NEWUSER", -1);
}

/* An ordinary user with a group that only takes access away, who gives that group up in a namespace of his own. */
void try_setgroups(void)
{
    gid_t group = A_GROUP;
    char row[32];
    if (number("here", 0)) { /* in the namespace that the container itself has */
        if (setgroups(0, 0) < 0)
            blocked("setgroups");
        succeeded("a group was given up");
    }
    if (geteuid() == 0 &&
        (setgroups(1, &group) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0))
        absent("%s: cannot become an ordinary user first", strerrorname_np(errno));
    prctl(PR_SET_DUMPABLE, 1); /* what changed its user may not open its own gid_map */
    int length = snprintf(row, sizeof(row), "0 %d 1", (int)getegid());
    if (unshare(CLONE_NEWUSER) < 0)
        blocked("unshare CLONE_NEWUSER");
    int fd = open("/proc/self/gid_map", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, row, (size_t)length) < 0)
        blocked("gid_map, with setgroups(2) still allowed");
    if (setgroups(0, 0) < 0)
        blocked("setgroups");
    succeeded("a group was given up");
}

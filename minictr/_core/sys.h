/* Raw system calls. Between clone and execve nothing of libc may run (its errno and TLS are the parent's, or do not
 * exist at all in the static stub), so this header is all there is. Every call returns >= 0 or -errno. */
#ifndef MC_SYS_H
#define MC_SYS_H

#include <asm/unistd.h>
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/types.h>
#include <stddef.h>
#include <stdint.h>

#ifdef MC_STATIC
#define MC_THREAD
#else
#define MC_THREAD __thread
#endif

/* The number of the system call that failed last, for the report. */
extern MC_THREAD int mc_failed_nr;

static inline long mc_raw(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#else
#error "minictr's core knows x86_64 and aarch64"
#endif
}

static inline long mc_call(long nr, long a, long b, long c, long d, long e, long f)
{
    long ret = mc_raw(nr, a, b, c, d, e, f);
    if (ret < 0)
        mc_failed_nr = (int)nr;
    return ret;
}

#define MC_CALL6(nr, a, b, c, d, e, f) mc_call(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define MC_CALL5(nr, a, b, c, d, e) MC_CALL6(nr, a, b, c, d, e, 0)
#define MC_CALL4(nr, a, b, c, d) MC_CALL6(nr, a, b, c, d, 0, 0)
#define MC_CALL3(nr, a, b, c) MC_CALL6(nr, a, b, c, 0, 0, 0)
#define MC_CALL2(nr, a, b) MC_CALL6(nr, a, b, 0, 0, 0, 0)
#define MC_CALL1(nr, a) MC_CALL6(nr, a, 0, 0, 0, 0, 0)
#define MC_CALL0(nr) MC_CALL6(nr, 0, 0, 0, 0, 0, 0)

/* clone3(2) or clone(2), whose child calls fn(arg) on the stack it was given, which must not return. */
static inline long mc_clone_call(long nr, long a, long b, long c, void (*fn)(void *), void *arg)
{
#if defined(__x86_64__)
    long ret;
    register void (*r12)(void *) __asm__("r12") = fn;
    register void *r13 __asm__("r13") = arg;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "mov %%r13, %%rdi\n\t"
                     "call *%%r12\n\t"
                     "ud2\n"
                     "1:"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r12), "r"(r13)
                     : "rcx", "r11", "memory");
    return ret;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register void (*x9)(void *) __asm__("x9") = fn;
    register void *x10 __asm__("x10") = arg;
    __asm__ volatile("svc 0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x0, x10\n\t"
                     "blr x9\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x9), "r"(x10)
                     : "memory");
    return x0;
#endif
}

/* clone3(2) with a stack of its own; the parent gets the pid.
 *
 * In a container of docker or of ours clone3 "does not exist" (its flags are in memory, where no filter looks).
 * clone(2) does the same without CLONE_CLEAR_SIGHAND: callers have all signals blocked, and the child executes. What
 * clone cannot be told (a cgroup, a time namespace) stays refused. */
static inline long mc_clone3(struct clone_args *args, void (*fn)(void *), void *arg)
{
    long nr = __NR_clone3, ret = mc_clone_call(nr, (long)args, sizeof(*args), 0, fn, arg);
    uint64_t flags = args->flags & ~CLONE_CLEAR_SIGHAND;
    if (ret == -38 /* ENOSYS */ && !(flags >> 32) && !(flags & CSIGNAL)) {
        nr = __NR_clone;
        ret = mc_clone_call(nr, (long)(flags | args->exit_signal), (long)(args->stack + args->stack_size),
                            (long)args->pidfd, fn, arg);
    }
    if (ret < 0)
        mc_failed_nr = (int)nr;
    return ret;
}

/* What libc's fcntl.h and sys/mount.h would give. asm-generic and x86 agree on O_DIRECTORY, arm64 does not. */
#define MC_O_WRONLY 01
#define MC_O_RDWR 02
#define MC_O_CREAT 0100
#define MC_O_EXCL 0200
#define MC_O_NOCTTY 0400
#define MC_O_TRUNC 01000
#define MC_O_APPEND 02000
#define MC_O_NONBLOCK 04000
#define MC_O_CLOEXEC 02000000
#define MC_O_PATH 010000000
#if defined(__aarch64__)
#define MC_O_DIRECTORY 040000
#define MC_O_NOFOLLOW 0100000
#else
#define MC_O_DIRECTORY 0200000
#define MC_O_NOFOLLOW 0400000
#endif
#define MC_AT_EMPTY_PATH 0x1000
#define MC_AT_RECURSIVE 0x8000
#define MC_F_DUPFD_CLOEXEC 1030
#define MC_MNT_DETACH 2

/* Small words that have no header of their own without libc. */
#define MC_EPERM 1
#define MC_ENOENT 2
#define MC_EINTR 4
#define MC_EIO 5
#define MC_EAGAIN 11
#define MC_EACCES 13
#define MC_EBUSY 16
#define MC_EEXIST 17
#define MC_EXDEV 18
#define MC_ENODEV 19
#define MC_ENOTDIR 20
#define MC_ENOMEM 12
#define MC_EINVAL 22
#define MC_EMFILE 24
#define MC_ENOSPC 28
#define MC_EPIPE 32
#define MC_ENAMETOOLONG 36
#define MC_ENOSYS 38
#define MC_ELOOP 40
#define MC_EALREADY 114
#define MC_ESTALE 116
#define MC_EMEDIUMTYPE 124

/* A counter that needs no system call: the one clock that a program's own filter cannot forbid. */
static inline uint64_t mc_cycles(void)
{
#if defined(__x86_64__)
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high)::"memory");
    return low | (uint64_t)high << 32;
#elif defined(__aarch64__)
    uint64_t count;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0" : "=r"(count)::"memory");
    return count;
#endif
}

/* While another thread is waited for without a system call. */
static inline void mc_pause(void)
{
#if defined(__x86_64__)
    __asm__ volatile("pause" ::: "memory");
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

/* Not through mc_call: a close never replaces the name of the call that failed before it. */
static inline long mc_close(int fd)
{
    return mc_raw(__NR_close, fd, 0, 0, 0, 0, 0);
}

#endif

/* What a proxy gives up once its sockets are bound: all capabilities, the way to more of them, and every system call
 * that passing bytes on does not take. Another call ends it. */
#include "proxy.h"

#include <linux/audit.h>

#if defined(__x86_64__)
#define MC_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MC_ARCH AUDIT_ARCH_AARCH64
#endif
#define MC_ARGUMENT0 offsetof(struct seccomp_data, args)

static const int allowed[] = {
    __NR_epoll_pwait, __NR_splice,     __NR_accept4, __NR_connect,       __NR_epoll_ctl,  __NR_close,
    __NR_shutdown,    __NR_recvmsg,    __NR_sendmsg, __NR_sendto,        __NR_recvfrom,   __NR_pipe2,
    __NR_setsockopt,  __NR_getsockopt, __NR_write,   __NR_clock_gettime, __NR_exit_group,
};
#define MC_ALLOWED (sizeof(allowed) / sizeof(*allowed))

static struct sock_filter rule[MC_ALLOWED + 9];

static void put(uint32_t *n, uint16_t code, uint8_t yes, uint8_t no, uint32_t value)
{
    struct sock_filter f = {code, yes, no, value};
    rule[(*n)++] = f;
}

/* Sockets of IPv4 and IPv6 alone; the rest by number. */
static uint32_t program(void)
{
    uint32_t n = 0;
    put(&n, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
    put(&n, BPF_JMP | BPF_JEQ | BPF_K, 0, MC_ALLOWED + 5, MC_ARCH);
    put(&n, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    put(&n, BPF_JMP | BPF_JEQ | BPF_K, 0, 3, __NR_socket);
    put(&n, BPF_LD | BPF_W | BPF_ABS, 0, 0, MC_ARGUMENT0);
    put(&n, BPF_JMP | BPF_JEQ | BPF_K, MC_ALLOWED + 2, 0, MC_INET);
    put(&n, BPF_JMP | BPF_JEQ | BPF_K, MC_ALLOWED + 1, MC_ALLOWED, MC_INET6);
    for (uint32_t i = 0; i < MC_ALLOWED; i++)
        put(&n, BPF_JMP | BPF_JEQ | BPF_K, (uint8_t)(MC_ALLOWED - i), 0, (uint32_t)allowed[i]);
    put(&n, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS);
    put(&n, BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
    return n;
}

long mc_proxy_lock(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    struct sock_fprog filter = {(unsigned short)program(), rule};
    mc_zero(data, sizeof(data));
    long ret = MC_CALL5(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (ret >= 0)
        ret = MC_CALL5(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (ret >= 0)
        ret = MC_CALL2(__NR_capset, &header, data);
    if (ret >= 0)
        ret = MC_CALL5(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (ret >= 0)
        ret = MC_CALL3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
    return ret;
}

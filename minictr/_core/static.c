/* What a program without libc needs to begin and to end. Only the stub and the monitor are made with it. */
#include "machine.h"

#ifndef MC_HOSTED /* a test builds the monitor with libc, and sanitizers, around it */

/* gcc may call these by name for assignments of structs and arrays */
void *memcpy(void *to, const void *from, size_t n)
{
    mc_copy(to, from, n);
    return to;
}

void *memset(void *at, int value, size_t n)
{
    char *d = at;
    while (n--)
        *d++ = (char)value;
    return at;
}
#endif

_Noreturn void mc_leave(int code)
{
    for (;;)
        mc_raw(__NR_exit_group, code, 0, 0, 0, 0, 0);
}

int mc_number(const char *text)
{
    int value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + (*text++ - '0');
    return value;
}

#ifndef MC_HOSTED
/* The kernel's start of a program: STACK holds argc, argv, environ. */
__asm__(".globl _start\n"
        "_start:\n"
#if defined(__x86_64__)
        "xor %ebp, %ebp\n"
        "mov %rsp, %rdi\n"
        "and $-16, %rsp\n"
        "call mc_main\n"
        "ud2\n"
#elif defined(__aarch64__)
        "mov x29, xzr\n"
        "mov x0, sp\n"
        "bl mc_main\n"
        "brk #1\n"
#endif
);
#endif

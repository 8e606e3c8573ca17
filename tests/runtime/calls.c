/* calls ABI NUMBER ARG...: one system call by number, and what came of it. ABI is 64, 32 (int $0x80) or x32 (the bit).
 * An argument "@1,2,3" is the address of an array of 32-bit words, as socketcall(2) wants it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint32_t words[16]; /* below 4 GB: the program is linked static and not position-independent */

static long argument(char *text)
{
    if (*text != '@')
        return (long)strtoull(text, 0, 0);
    int count = 0;
    for (char *word = strtok(text + 1, ","); word && count < 16; word = strtok(0, ","))
        words[count++] = (uint32_t)strtoul(word, 0, 0);
    return (long)(uintptr_t)words;
}

static long call64(long number, const long *a)
{
    long ret;
    register long r10 __asm__("r10") = a[3];
    register long r8 __asm__("r8") = a[4];
    register long r9 __asm__("r9") = a[5];
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(number), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

static long call32(long number, const long *a)
{
    int ret;
    __asm__ volatile("int $0x80"
                     : "=a"(ret)
                     : "a"((int)number), "b"((int)a[0]), "c"((int)a[1]), "d"((int)a[2]), "S"((int)a[3]), "D"((int)a[4])
                     : "r8", "r9", "r10", "r11", "memory");
    return ret;
}

int main(int argc, char **argv)
{
    long a[6] = {0};
    if (argc < 3 || argc > 9)
        return 2;
    long number = strtol(argv[2], 0, 0);
    for (int i = 3; i < argc; i++)
        a[i - 3] = argument(argv[i]);
    int x32 = !strcmp(argv[1], "x32");
    long ret = !strcmp(argv[1], "32") ? call32(number, a) : call64(x32 ? number | 0x40000000 : number, a);
    printf("%ld\n", ret < 0 ? ret : 0);
    return 0;
}

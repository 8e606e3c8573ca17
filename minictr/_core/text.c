/* What libc's string.h would give, were there a libc between clone and execve. */
#include "machine.h"

size_t mc_strlen(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

void mc_copy(void *to, const void *from, size_t n)
{
    char *d = to;
    const char *s = from;
    while (n--)
        *d++ = *s++;
}

void mc_zero(void *at, size_t n)
{
    char *d = at;
    while (n--)
        *d++ = 0;
}

int mc_same(const void *a, const void *b, size_t n)
{
    const char *x = a, *y = b;
    while (n--)
        if (*x++ != *y++)
            return 0;
    return 1;
}

/* TEXT at TO, without its end; the place behind it. */
char *mc_append(char *to, const char *text)
{
    while (*text)
        *to++ = *text++;
    return to;
}

size_t mc_append_number(char *to, uint64_t value)
{
    char digits[20];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    for (size_t i = 0; i < n; i++)
        to[i] = digits[n - 1 - i];
    to[n] = 0;
    return n;
}

const char *mc_text(const struct mc_machine *m, const struct mc_op *op, int index)
{
    return m->blob + op->str[index];
}

/* What the stub, the monitor and the extension have in common: the clock, whole writes, descriptors, signals. */
#include "machine.h"

#include <asm/signal.h>

MC_THREAD int mc_failed_nr;

uint64_t mc_moved;

uint64_t mc_clock(int clock)
{
    int64_t now[2] = {0, 0};
    mc_raw(__NR_clock_gettime, clock, (long)now, 0, 0, 0, 0);
    return (uint64_t)now[0] * 1000000000ULL + (uint64_t)now[1];
}

uint64_t mc_now(void)
{
    return mc_clock(MC_MONOTONIC_RAW) - mc_moved;
}

long mc_write_all(int fd, const char *data, size_t length)
{
    size_t done = 0;
    while (done < length) {
        long n = MC_CALL3(__NR_write, fd, data + done, length - done);
        if (n == -MC_EINTR)
            continue;
        if (n <= 0)
            return n ? n : -MC_EIO;
        done += (size_t)n;
    }
    return 0;
}

/* FD moved above the standard streams, which are going to be replaced and whose numbers may be free until then. */
long mc_above_stdio(long fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    long high = MC_CALL3(__NR_fcntl, fd, MC_F_DUPFD_CLOEXEC, 3);
    mc_close((int)fd);
    return high;
}

/* Everything that is not in KEEP, which ascends, is closed: by the gaps between its entries. */
long mc_close_others(const int32_t *keep, uint32_t n_keep)
{
    long first = 0, ret = 0;
    for (uint32_t i = 0; ret >= 0 && i < n_keep; i++) {
        if (keep[i] > first)
            ret = MC_CALL3(__NR_close_range, first, keep[i] - 1, 0);
        first = keep[i] + 1;
    }
    return ret < 0 ? ret : MC_CALL3(__NR_close_range, first, ~0U, 0);
}

/* Every signal to HANDLER, SIG_DFL or SIG_IGN; the latter also drops what is pending (signal(7)). */
long mc_reset_signals(long handler)
{
    struct {
        long handler, flags, restorer;
        uint64_t mask;
    } action = {handler, 0, 0, 0};
    for (int sig = 1; sig <= 64; sig++) {
        long ret = sig == SIGKILL || sig == SIGSTOP ? 0 : MC_CALL4(__NR_rt_sigaction, sig, &action, 0, 8);
        if (ret < 0)
            return ret;
    }
    return 0;
}

/* A packed list of COUNT strings becomes the array of pointers that execve wants. The parent left room for it, eight
 * bytes an entry and one more, before the strings. */
char **mc_pointers(char *packed, int64_t count)
{
    char **array = (char **)(void *)packed;
    char *text = packed + ((size_t)count + 1) * sizeof(char *);
    for (int64_t i = 0; i < count; i++, text += mc_strlen(text) + 1)
        array[i] = text;
    array[count] = 0;
    return array;
}

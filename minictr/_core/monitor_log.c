/* The log: one line of it for each line of output, and one for what a read ended in the midst of.
 *
 *   2026-11-24T07:55:28.123456789Z stdout F a whole line
 *   2026-11-24T07:55:28.123456789Z stderr P the beginning of one
 *
 * The format of Kubernetes' CRI, as conmon and containerd write it. Nothing is kept back until a line is complete: a
 * prompt is in the log while it is on the screen, and the end of the monitor loses nothing. The container never waits
 * for a disk: what cannot be written is counted, and told in a line of the stream "minictr" when there is room again.
 */
#include "monitor.h"

#define MC_BATCH 32 /* lines a writev(2) */
#define MC_STAMP 30 /* "2026-11-24T07:55:28.123456789Z" */

struct mc_vector {
    const void *base;
    size_t length;
};

struct mc_batch {
    struct mc_vector part[3 * MC_BATCH + 1];
    uint32_t n_parts, lines;
    size_t bytes, content;
    char notice[192];
    int has_notice;
};

uint64_t mc_wall_clock(void)
{
    int64_t now[2] = {0, 0};
    mc_raw(__NR_clock_gettime, MC_REALTIME, (long)now, 0, 0, 0, 0);
    return (uint64_t)now[0] * MC_SECOND + (uint64_t)now[1];
}

static char *digits(char *to, uint64_t value, int n)
{
    for (int i = n - 1; i >= 0; i--, value /= 10)
        to[i] = (char)('0' + value % 10);
    return to + n;
}

/* RFC 3339 in UTC with nanoseconds. The date is counted from March, so that the leap day is the last of its year. */
static void stamp(char *to, uint64_t ns)
{
    uint64_t seconds = ns / MC_SECOND, days = seconds / 86400 + 719468, second = seconds % 86400;
    uint64_t era = days / 146097, day = days % 146097;
    uint64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    uint64_t of_year = day - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
    uint64_t shown = month < 10 ? month + 3 : month - 9;
    to = digits(to, year + era * 400 + (shown <= 2), 4);
    *to++ = '-';
    to = digits(to, shown, 2);
    *to++ = '-';
    to = digits(to, of_year - (153 * month + 2) / 5 + 1, 2);
    *to++ = 'T';
    to = digits(to, second / 3600, 2);
    *to++ = ':';
    to = digits(to, second / 60 % 60, 2);
    *to++ = ':';
    to = digits(to, second % 60, 2);
    *to++ = '.';
    to = digits(to, ns % MC_SECOND, 9);
    *to = 'Z';
}

/* "log" or "log.N". */
static const char *file_name(char *to, uint64_t number)
{
    mc_copy(to, "log", 4);
    if (number) {
        to[3] = '.';
        mc_append_number(to + 4, number);
    }
    return to;
}

static void move(const struct mc_log *log, const char *from, const char *to)
{
    mc_raw(__NR_renameat2, log->directory, (long)from, log->directory, (long)to, 0, 0);
}

/* The new file first: without it the old one is written on. Then log.1 becomes log.2 and so on, the oldest lost. */
static void rotate(struct mc_log *log)
{
    char from[32], to[32];
    if (log->rotate_again && mc_now() < log->rotate_again)
        return;
    long fd = mc_raw(__NR_openat, log->directory, (long)"log.new",
                     MC_O_WRONLY | MC_O_CREAT | MC_O_TRUNC | MC_O_APPEND | MC_O_CLOEXEC, 0600, 0, 0);
    if (fd < 0) {
        log->rotate_again = mc_now() + MC_SECOND;
        return;
    }
    for (uint32_t i = log->files - 1; i > 0; i--)
        move(log, file_name(from, i - 1), file_name(to, i));
    move(log, "log.new", "log");
    mc_close(log->fd);
    log->fd = (int32_t)fd;
    log->size = 0;
}

/* Whole, or not at all: what a full disk took in part is cut off again. */
static int write_parts(struct mc_log *log, const struct mc_vector *part, uint32_t n_parts, size_t bytes)
{
    long n = mc_raw(__NR_writev, log->fd, (long)part, n_parts, 0, 0, 0);
    if (n == (long)bytes) {
        log->size += bytes;
        return 1;
    }
    long end = mc_raw(__NR_lseek, log->fd, 0, 2 /* SEEK_END */, 0, 0, 0);
    if (n > 0 && end >= n)
        mc_raw(__NR_ftruncate, log->fd, end - n, 0, 0, 0, 0);
    return 0;
}

static void add(struct mc_batch *b, const void *base, size_t length)
{
    b->part[b->n_parts].base = base;
    b->part[b->n_parts++].length = length;
    b->bytes += length;
}

/* A new batch. What was lost before is told in front of it, so once, when there is room for both. */
static void begin(const struct mc_log *log, struct mc_batch *b)
{
    char *end = b->notice + MC_STAMP;
    b->n_parts = b->lines = 0;
    b->bytes = b->content = 0;
    b->has_notice = log->lost_lines != 0;
    if (!b->has_notice)
        return;
    stamp(b->notice, mc_wall_clock());
    end = mc_append(end, " minictr F ");
    end += mc_append_number(end, log->lost_lines);
    end = mc_append(end, " lines (");
    end += mc_append_number(end, log->lost_bytes);
    end = mc_append(end, " bytes) of output could not be logged\n");
    add(b, b->notice, (size_t)(end - b->notice));
}

static void flush(struct mc_log *log, struct mc_batch *b)
{
    if (b->n_parts && !write_parts(log, b->part, b->n_parts, b->bytes)) {
        log->lost_lines += b->lines;
        log->lost_bytes += b->content;
        log->total_lost += b->content;
    } else if (b->has_notice) {
        log->lost_lines = log->lost_bytes = 0;
    }
    begin(log, b);
}

/* DATA of one read, with its newlines. KIND: 'o' or 'r'. */
void mc_log_output(struct mc_log *log, char kind, const char *data, size_t length)
{
    char head[MC_STAMP + 10];
    char part_head[MC_STAMP + 10];
    struct mc_batch b;
    if (log->fd < 0)
        return;
    stamp(head, mc_wall_clock());
    mc_copy(head + MC_STAMP, kind == 'o' ? " stdout F " : " stderr F ", 10);
    mc_copy(part_head, head, sizeof(head));
    part_head[MC_STAMP + 8] = 'P';
    begin(log, &b);
    while (length) {
        size_t n = 0;
        while (n < length && data[n] != '\n')
            n++;
        int whole = n < length;
        n += (size_t)whole;
        size_t entry = sizeof(head) + n + !whole;
        if (log->max && log->size + b.bytes + entry > log->max && log->size + b.bytes) {
            if (b.lines)
                flush(log, &b);
            rotate(log);
        }
        add(&b, whole ? head : part_head, sizeof(head));
        add(&b, data, n);
        if (!whole)
            add(&b, "\n", 1);
        b.content += n;
        if (++b.lines == MC_BATCH)
            flush(log, &b);
        data += n;
        length -= n;
    }
    if (b.lines)
        flush(log, &b);
}

void mc_log_end(struct mc_log *log)
{
    struct mc_batch b;
    begin(log, &b);
    if (log->fd >= 0 && b.has_notice)
        flush(log, &b);
}

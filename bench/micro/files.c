/* Files: looked up, opened, listed, made and removed, written to, and written to for the first time.
 *
 * Under overlayfs the first write to a file of a lower layer copies all of it up. The file must therefore be one that
 * nobody has opened for writing in this container: data/lower/SIZE/0, 1, 2 ... are taken one after the other, and when
 * none is left the operation has no further burst. One byte is written over itself, so that a file system without a
 * layer, where the same bytes are used again by the next arm, keeps what it had.
 *
 * append_* is what programs do: a new file that grows by each call, so that pages are found, charged and filled.
 * write_1 writes over one byte that is in memory. Reading goes on through a file from its beginning.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "micro.h"

static char path[4096];

static int page_path(unsigned calls)
{
    (void)calls;
    snprintf(path, sizeof path, "%s/page", options.data);
    return 0;
}

static int open_close_once(void)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 || close(fd) < 0 ? -errno : 0;
}

static int held = -1;

static void held_after(void)
{
    if (held >= 0)
        close(held);
    held = -1;
}

static int read_before(unsigned calls)
{
    (void)calls;
    snprintf(path, sizeof path, "%s/mapped", options.data);
    held = open(path, O_RDONLY | O_CLOEXEC);
    return held < 0 ? -errno : 0;
}

static int through(size_t size)
{
    static char bytes[BLOCK];
    ssize_t got = read(held, bytes, size);

    if (got == 0 && lseek(held, 0, SEEK_SET) == 0) /* the end: from the beginning again */
        got = read(held, bytes, size);
    return got < 0 ? -errno : 0;
}

static int read_1_once(void)
{
    return through(1);
}

static int read_4k_once(void)
{
    return through(4096);
}

static int read_64k_once(void)
{
    return through(BLOCK);
}

static int deep_before(unsigned calls)
{
    (void)calls;
    int at = snprintf(path, sizeof path, "%s/deep", options.data);
    for (int i = 0; i < DEPTH; i++)
        at += snprintf(path + at, sizeof path - (size_t)at, "/%d", i);
    return 0;
}

static int stat_once(void)
{
    struct stat found;
    return stat(path, &found) < 0 ? -errno : 0;
}

static int hundred_before(unsigned calls)
{
    (void)calls;
    snprintf(path, sizeof path, "%s/hundred", options.data);
    return 0;
}

static int readdir_once(void)
{
    static char entries[16384];
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long got = fd < 0 ? -1 : 1, error;

    while (got > 0)
        got = syscall(SYS_getdents64, fd, entries, sizeof entries);
    error = errno;
    if (fd >= 0)
        close(fd);
    return got < 0 ? -(int)error : 0;
}

static int made_before(unsigned calls)
{
    (void)calls;
    snprintf(path, sizeof path, "%s/made-%d", options.scratch, (int)getpid());
    return 0;
}

static int create_unlink_once(void)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 || close(fd) < 0 || unlink(path) < 0 ? -errno : 0;
}

static int write_before(unsigned calls)
{
    made_before(calls);
    held = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (held < 0 || unlink(path) < 0 || pwrite(held, "", 1, 0) < 0)
        return -errno;
    return 0;
}

static int write_once(void)
{
    return pwrite(held, "", 1, 0) < 0 ? -errno : 0;
}

static int append_before(unsigned calls)
{
    made_before(calls);
    held = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return held < 0 || unlink(path) < 0 ? -errno : 0;
}

static int append(size_t size)
{
    static char bytes[BLOCK];
    return write(held, bytes, size) < 0 ? -errno : 0;
}

static int append_1_once(void)
{
    return append(1);
}

static int append_4k_once(void)
{
    return append(4096);
}

static int append_64k_once(void)
{
    return append(BLOCK);
}

static const char *const sizes[] = {"4k", "64k", "1m", "16m", "64m"};
static unsigned next[sizeof sizes / sizeof *sizes];

/* The next file of that size that was not written to. */
static int lower_before(int size)
{
    snprintf(path, sizeof path, "%s/lower/%s/%u", options.data, sizes[size], next[size]++);
    return 0;
}

static int first_write_once(void)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || pwrite(fd, "L", 1, 0) < 0 || close(fd) < 0 ? -errno : 0;
}

static int lower_4k(unsigned calls)
{
    (void)calls;
    return lower_before(0);
}
static int lower_64k(unsigned calls)
{
    (void)calls;
    return lower_before(1);
}
static int lower_1m(unsigned calls)
{
    (void)calls;
    return lower_before(2);
}
static int lower_16m(unsigned calls)
{
    (void)calls;
    return lower_before(3);
}
static int lower_64m(unsigned calls)
{
    (void)calls;
    return lower_before(4);
}

/* The bursts of copyup_* are the files that bench/micro/program.py makes (LOWER). */
const struct op files_ops[] = {
    {.name = "open_close", .calls = 200, .before = page_path, .once = open_close_once},
    {.name = "stat_deep", .calls = 200, .before = deep_before, .once = stat_once},
    {.name = "readdir", .calls = 20, .before = hundred_before, .once = readdir_once},
    {.name = "create_unlink", .calls = 10, .before = made_before, .once = create_unlink_once},
    {.name = "read_1", .calls = 500, .before = read_before, .once = read_1_once, .after = held_after},
    {.name = "read_4k", .calls = 500, .before = read_before, .once = read_4k_once, .after = held_after},
    {.name = "read_64k", .calls = 50, .before = read_before, .once = read_64k_once, .after = held_after},
    {.name = "write_1", .calls = 500, .before = write_before, .once = write_once, .after = held_after},
    {.name = "append_1", .calls = 500, .before = append_before, .once = append_1_once, .after = held_after},
    {.name = "append_4k", .calls = 200, .before = append_before, .once = append_4k_once, .after = held_after},
    {.name = "append_64k", .calls = 20, .before = append_before, .once = append_64k_once, .after = held_after},
    {.name = "copyup_4k", .calls = 1, .bursts = 16, .before = lower_4k, .once = first_write_once},
    {.name = "copyup_64k", .calls = 1, .bursts = 8, .before = lower_64k, .once = first_write_once},
    {.name = "copyup_1m", .calls = 1, .bursts = 4, .before = lower_1m, .once = first_write_once},
    {.name = "copyup_16m", .calls = 1, .bursts = 2, .before = lower_16m, .once = first_write_once},
    {.name = "copyup_64m", .calls = 1, .bursts = 1, .before = lower_64m, .once = first_write_once},
    {0},
};

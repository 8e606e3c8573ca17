/* Memory: a page touched for the first time, of nobody's and of a file's, and a mapping made and removed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include "micro.h"

static unsigned char *area;
static size_t length, at, step;
static volatile unsigned char seen; /* so that a read is not left out */

/* As much as CALLS of SIZE bytes. */
static int mapped(unsigned calls, size_t size, int flags, int fd)
{
    step = size;
    length = step * calls;
    at = 0;
    void *found = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (found == MAP_FAILED) {
        area = NULL;
        return -errno;
    }
    area = found;
    madvise(area, length, MADV_NOHUGEPAGE); /* a fault a page; kernels without huge pages say EINVAL, and have none */
    return 0;
}

static int anonymous_before(unsigned calls)
{
    return mapped(calls, (size_t)sysconf(_SC_PAGESIZE), MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int touch(void)
{
    area[at] = 1;
    at += step;
    return 0;
}

/* Reads of pages that are in the page cache already. A fault maps what is cached of the 64 KiB around it
 * (fault_around_bytes), so one a block: a minor fault each. */
static int file_before(unsigned calls)
{
    static char bytes[BLOCK];
    int rc, fd = open(below(options.data, "mapped"), O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    for (unsigned i = 0; i < calls; i++)
        if (pread(fd, bytes, sizeof bytes, (off_t)i * BLOCK) < BLOCK) {
            close(fd);
            return -EIO; /* beyond its end a look would be a SIGBUS */
        }
    rc = mapped(calls, BLOCK, MAP_PRIVATE, fd);
    close(fd);
    return rc;
}

static int look(void)
{
    seen = area[at];
    at += step;
    return 0;
}

static void unmap_after(void)
{
    if (area)
        munmap(area, length);
    area = NULL;
}

static int mmap_once(void)
{
    void *found = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return found == MAP_FAILED || munmap(found, BLOCK) < 0 ? -errno : 0;
}

const struct op memory_ops[] = {
    {.name = "fault_anon", .calls = 256, .before = anonymous_before, .once = touch, .after = unmap_after},
    {.name = "fault_file", .calls = 64, .before = file_before, .once = look, .after = unmap_after},
    {.name = "mmap", .calls = 100, .once = mmap_once},
    {0},
};

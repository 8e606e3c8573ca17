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
static size_t length, at, page;
static volatile unsigned char seen; /* so that a read is not left out */

static int mapped(unsigned calls, int flags, int fd)
{
    page = (size_t)sysconf(_SC_PAGESIZE);
    length = page * calls;
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
    return mapped(calls, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int touch(void)
{
    area[at] = 1;
    at += page;
    return 0;
}

/* Reads of pages that are in the page cache already: a minor fault each, which MADV_RANDOM keeps from mapping the
 * neighbours as well (fault-around). */
static int file_before(unsigned calls)
{
    int fd = open(below(options.data, "mapped"), O_RDONLY | O_CLOEXEC);
    int rc;

    if (fd < 0)
        return -errno;
    page = (size_t)sysconf(_SC_PAGESIZE);
    static char bytes[4096];
    for (size_t offset = 0; offset < page * calls; offset += sizeof bytes)
        if (pread(fd, bytes, sizeof bytes, (off_t)offset) < 0)
            break;
    rc = mapped(calls, MAP_PRIVATE, fd);
    close(fd);
    if (rc == 0)
        madvise(area, length, MADV_RANDOM);
    return rc;
}

static int look(void)
{
    seen = area[at];
    at += page;
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
    {.name = "fault_file", .calls = 256, .before = file_before, .once = look, .after = unmap_after},
    {.name = "mmap", .calls = 100, .once = mmap_once},
    {0},
};

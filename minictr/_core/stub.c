/* The static program that prepares a container, and stays as its init. No libc, no heap, one sealed memory file:
 * /proc/self/exe is that file, so the runtime on the host cannot be reached or written through it (CVE-2019-5736). */
#define MC_STUB 1

#include "text.c"

#include "paths.c"

#include "ops_mount.c"

#include "ops_mask.c"

#include "ops_overlay.c"

#include "ops_file.c"

#include "ops_process.c"

#include "ops_privilege.c"

#include "interp.c"

#include "init.c"

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

static int32_t stub_slots[MC_MAX_SLOTS];
static struct mc_machine machine;

static _Noreturn void leave(int code)
{
    for (;;)
        mc_raw(__NR_exit_group, code, 0, 0, 0, 0, 0);
}

/* Everything that is not in the region's list is closed, by the gaps between its ascending entries. */
static long close_others(const struct mc_region *region)
{
    long first = 0, ret = 0;
    for (uint32_t i = 0; ret >= 0 && i < region->n_keep && i < MC_MAX_KEEP; i++) {
        int32_t fd = region->keep[i];
        if (fd > first)
            ret = MC_CALL3(__NR_close_range, first, fd - 1, 0);
        first = fd + 1;
    }
    return ret < 0 ? ret : MC_CALL3(__NR_close_range, first, ~0U, 0);
}

static struct mc_region *map_region(int fd)
{
    struct mc_region *header = (void *)MC_CALL6(__NR_mmap, 0, 4096, 3, 1, fd, 0);
    if ((unsigned long)header > -4096UL || header->magic != MC_REGION_MAGIC || header->version != MC_REGION_VERSION)
        return 0;
    size_t size = header->size;
    mc_raw(__NR_munmap, (long)header, 4096, 0, 0, 0, 0);
    struct mc_region *region = (void *)MC_CALL6(__NR_mmap, 0, size, 3 /* rw */, 1 /* MAP_SHARED */, fd, 0);
    return (unsigned long)region > -4096UL ? 0 : region;
}

/* A fork tells the child's pid to our parent where the child cannot: whoever gets hold of the child names no other. */
static int32_t *map_born(int fd, uint32_t size)
{
    long behind = ((long)size + MC_BORN_ALIGN - 1) / MC_BORN_ALIGN * MC_BORN_ALIGN;
    long page = MC_CALL6(__NR_mmap, 0, 4096, 3, 1 /* MAP_SHARED */, fd, behind);
    if ((unsigned long)page > -4096UL || MC_CALL3(__NR_madvise, page, 4096, 10 /* MADV_DONTFORK */) < 0)
        return 0;
    return (int32_t *)page;
}

_Noreturn void mc_fail(struct mc_machine *m, long error)
{
    m->region->error = (int32_t)-error;
    m->region->failed_nr = mc_failed_nr;
    __atomic_store_n(&m->region->state, MC_STATE_FAILED, __ATOMIC_SEQ_CST);
    leave(125);
}

static int number(const char *text)
{
    int value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + (*text++ - '0');
    return value;
}

/* The kernel's start of a program: argc, argv[0], argv[1] = the number of the region's descriptor. */
__attribute__((used)) static _Noreturn void stub_main(long *stack)
{
    char **argv = (char **)(stack + 1);
    if (stack[0] < 2)
        leave(125);
    int region_fd = number(argv[1]);
    struct mc_region *region = map_region(region_fd);
    if (!region)
        leave(125);
    machine.born = region->flags & MC_REGION_FORKS ? map_born(region_fd, region->size) : 0;
    mc_close(region_fd);
    mc_zero(argv[1], mc_strlen(argv[1])); /* ps shows "minictr-init" alone */
    mc_raw(__NR_prctl, PR_SET_NAME, (long)"minictr-init", 0, 0, 0, 0);
    for (int i = 0; i < MC_MAX_SLOTS; i++)
        stub_slots[i] = -1;
    machine.region = region;
    machine.ops = (struct mc_op *)(region + 1);
    machine.n_ops = region->n_ops;
    machine.blob = (char *)region + region->blob_offset;
    machine.slots = stub_slots;
    machine.current = &region->current;
    machine.mask_base = -1;
    region->start_ns = mc_now();
    long ret = region->flags & MC_REGION_JOINS ? MC_CALL5(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0) : 0;
    if (ret >= 0)
        ret = close_others(region);
    if (ret >= 0)
        ret = mc_write_all(region->report_fd, "r", 1); /* ready: our /proc files belong to our user from now on */
    if (ret >= 0)
        ret = mc_run(&machine, 0);
    mc_fail(&machine, ret < 0 ? ret : -MC_EINVAL);
}

__asm__(".globl _start\n"
        "_start:\n"
#if defined(__x86_64__)
        "xor %ebp, %ebp\n"
        "mov %rsp, %rdi\n"
        "and $-16, %rsp\n"
        "call stub_main\n"
        "ud2\n"
#elif defined(__aarch64__)
        "mov x29, xzr\n"
        "mov x0, sp\n"
        "bl stub_main\n"
        "brk #1\n"
#endif
);

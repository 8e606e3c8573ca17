/* The static program that prepares a container, and stays as its init. No libc, no heap, one sealed memory file:
 * /proc/self/exe is that file, so the runtime on the host cannot be reached or written through it (CVE-2019-5736). */
#define MC_STATIC 1

#include "static.c"

#include "text.c"

#include "process.c"

#include "messages.c"

#include "listener.c"

#include "paths.c"

#include "ops_mount.c"

#include "ops_mask.c"

#include "ops_overlay.c"

#include "ops_file.c"
#include "ops_names.c"

#include "ops_process.c"

#include "ops_privilege.c"

#include "ops_landlock.c"
#include "ops_label.c"

#include "interp.c"

#include "init.c"

static int32_t stub_slots[MC_MAX_SLOTS];
static struct mc_machine machine;

/* Leaves with the errno where there is no region to tell it in (diagnose.py). */
static struct mc_region *map_region(int fd)
{
    long header = MC_CALL6(__NR_mmap, 0, 4096, 3, 1, fd, 0);
    if ((unsigned long)header > -4096UL)
        mc_leave((int)-header);
    struct mc_region *region = (struct mc_region *)header;
    if (region->magic != MC_REGION_MAGIC || region->version != MC_REGION_VERSION)
        mc_leave(MC_EINVAL);
    size_t size = region->size;
    mc_raw(__NR_munmap, header, 4096, 0, 0, 0, 0);
    header = MC_CALL6(__NR_mmap, 0, size, 3 /* rw */, 1 /* MAP_SHARED */, fd, 0);
    if ((unsigned long)header > -4096UL)
        mc_leave((int)-header);
    return (struct mc_region *)header;
}

/* A fork tells the child's pid to our parent where the child cannot: whoever gets hold of the child names no other. */
static int32_t *map_born(int fd, uint32_t size)
{
    long behind = ((long)size + MC_BORN_ALIGN - 1) / MC_BORN_ALIGN * MC_BORN_ALIGN;
    long page = MC_CALL6(__NR_mmap, 0, 4096, 3, 1 /* MAP_SHARED */, fd, behind);
    long ret = (unsigned long)page > -4096UL ? page : MC_CALL3(__NR_madvise, page, 4096, 10 /* MADV_DONTFORK */);
    if (ret < 0)
        mc_leave((int)-ret);
    return (int32_t *)page;
}

/* What failed, and which op it was a part of, to the region. */
void mc_tell(struct mc_machine *m, long error, uint32_t op)
{
    *m->current = op;
    m->region->error = (int32_t)-error;
    m->region->failed_nr = mc_failed_nr;
    __atomic_store_n(&m->region->state, MC_STATE_FAILED, __ATOMIC_SEQ_CST);
}

_Noreturn void mc_fail(struct mc_machine *m, long error)
{
    mc_tell(m, error, *m->current);
    mc_leave(125);
}

/* The kernel's start of a program: argc, argv[0], argv[1] = the number of the region's descriptor. */
_Noreturn void mc_main(long *stack)
{
    char **argv = (char **)(stack + 1);
    if (stack[0] < 2)
        mc_leave(125);
    int region_fd = mc_number(argv[1]);
    struct mc_region *region = map_region(region_fd);
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
        ret = mc_close_others(region->keep, region->n_keep < MC_MAX_KEEP ? region->n_keep : MC_MAX_KEEP);
    if (ret >= 0)
        ret = mc_write_all(region->report_fd, "r", 1); /* ready: our /proc files belong to our user from now on */
    if (ret >= 0)
        ret = mc_run(&machine, 0);
    mc_fail(&machine, ret < 0 ? ret : -MC_EINVAL);
}

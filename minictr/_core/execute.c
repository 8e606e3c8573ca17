/* The interpreter in a caller's thread: the functions with plain arguments of minictr.kernel stand on it. */
#include "machine.h"

int mc_execute(struct mc_op *ops, uint32_t n_ops, char *blob, int32_t *slots, uint32_t *failed, int32_t *failed_nr)
{
    volatile uint32_t current = 0;
    struct mc_machine m;
    mc_zero(&m, sizeof(m));
    m.ops = ops;
    m.n_ops = n_ops;
    m.blob = blob;
    m.slots = slots;
    m.current = &current;
    m.mask_base = -1;
    long ret = mc_run(&m, 0);
    *failed = current;
    *failed_nr = mc_failed_nr;
    return (int)ret;
}

/* A caller's thread cannot become an init or the program: those ops belong to the stub. */
long mc_messenger_start(int socket MC_UNUSED)
{
    return -MC_EINVAL;
}

long mc_messenger_send(long listener MC_UNUSED)
{
    return -MC_EINVAL;
}

long mc_op_init(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    return -MC_EINVAL;
}

long mc_op_hold(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    return -MC_EINVAL;
}

long mc_op_fork(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    return -MC_EINVAL;
}

long mc_op_ready(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    return -MC_EINVAL;
}

long mc_op_exec(struct mc_machine *m MC_UNUSED, struct mc_op *op MC_UNUSED)
{
    return -MC_EINVAL;
}

/* The label that a security module (AppArmor, SELinux) gives the program at its execve: set, and read back.
 *
 * It is written through procfs before the root changes, where no image can have put anything in the way. Nothing of
 * that write is lost on the way to execve: the label is of the task, and a fork takes it along. */
#include "machine.h"

#include <linux/magic.h>

#define MC_LABEL_MAX 4096 /* a page: proc_pid_attr_write() takes no more, fs/proc/base.c */

static long must_be_procfs(long fd)
{
    long fs[25];
    mc_zero(fs, sizeof(fs));
    long ret = MC_CALL2(__NR_fstatfs, fd, fs);
    return ret >= 0 && fs[0] != PROC_SUPER_MAGIC ? -MC_EMEDIUMTYPE : ret;
}

/* This thread's own attribute of MODULE. The way begins in /proc itself, which must be a procfs, and crosses no mount:
 * what lies over /proc or a part of it gets no label written (CVE-2019-16884, CVE-2019-19921), nor does it lead the
 * write to another file of procfs (CVE-2025-52881). thread-self is procfs' own link, and no other can be met. */
static long open_attribute(const char *module, uint64_t flags)
{
    struct open_how how;
    mc_zero(&how, sizeof(how));
    how.flags = flags | MC_O_CLOEXEC;
    how.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
    /* attr/exec is whose module comes first; AppArmor has one of its own since Linux 5.8 */
    const char *path = mc_same(module, "apparmor", 9) ? "thread-self/attr/apparmor/exec" : "thread-self/attr/exec";
    long proc = mc_open_inside("/proc", MC_O_PATH | MC_O_DIRECTORY, MC_NOFOLLOW);
    if (proc < 0)
        return proc;
    long fd = must_be_procfs(proc);
    if (fd >= 0)
        fd = MC_CALL4(__NR_openat2, proc, path, &how, sizeof(how));
    mc_close((int)proc);
    if (fd < 0)
        return fd;
    long ret = must_be_procfs(fd);
    if (ret < 0)
        mc_close((int)fd);
    return ret < 0 ? ret : fd;
}

/* " (enforce)" and the like: what AppArmor says behind a name. */
static int is_mode(const char *text, size_t n)
{
    if (n < 4 || text[0] != ' ' || text[1] != '(' || text[n - 1] != ')')
        return 0;
    for (size_t i = 2; i < n - 1; i++)
        if (text[i] < 'a' || text[i] > 'z')
            return 0;
    return 1;
}

/* Whether what FD reads is LABEL; a difference is -EPERM. */
static long compare(long fd, const char *label)
{
    char text[MC_LABEL_MAX];
    size_t wanted = mc_strlen(label);
    long n = MC_CALL4(__NR_pread64, fd, text, sizeof(text), 0);
    if (n < 0)
        return n;
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == 0))
        n--;
    size_t length = (size_t)n;
    if (length < wanted || !mc_same(text, label, wanted))
        return -MC_EPERM;
    return length == wanted || is_mode(text + wanted, length - wanted) ? 0 : -MC_EPERM;
}

long mc_op_exec_label(struct mc_machine *m, struct mc_op *op)
{
    const char *order = mc_text(m, op, 1);
    size_t length = mc_strlen(order);
    long fd = open_attribute(mc_text(m, op, 0), MC_O_RDWR);
    mc_root_changes(); /* the root that this path began in is not kept for the ops inside the next one */
    if (fd < 0)
        return fd;
    long ret = MC_CALL3(__NR_write, fd, order, length); /* one write is one order */
    if (ret >= 0)
        ret = (size_t)ret == length ? compare(fd, mc_text(m, op, 2)) : -MC_EIO;
    mc_close((int)fd);
    return ret;
}

/* The container's own procfs is good enough to read: at worst it refuses a start. */
long mc_op_verify_label(struct mc_machine *m, struct mc_op *op)
{
    long fd = open_attribute(mc_text(m, op, 0), 0);
    if (fd < 0)
        return fd;
    long ret = compare(fd, mc_text(m, op, 1));
    mc_close((int)fd);
    return ret;
}

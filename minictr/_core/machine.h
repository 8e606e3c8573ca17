/* The interpreter's state, and what its rooms offer one another. */
#ifndef MC_MACHINE_H
#define MC_MACHINE_H

#include "sys.h"

#include "core.h"

struct mc_machine {
    struct mc_op *ops;
    uint32_t n_ops;
    char *blob;
    int32_t *slots;             /* handles by number: descriptors, -1 when empty */
    struct mc_region *region;   /* NULL when a caller's thread runs the ops (kernel.ops.execute) */
    volatile uint32_t *current; /* index of the op being done */
    int32_t *born;              /* where a fork tells the child's pid; NULL in a start that joins nothing */
    int mask_over_root;         /* the base lies over "/" until the last mask of the run */
    int mask_base;              /* a private read-only tmpfs that masks are cut from, or -1 */
};

#define MC_UNUSED __attribute__((unused))

/* text.c: what libc's string.h would give */
size_t mc_strlen(const char *text);
void mc_copy(void *to, const void *from, size_t n);
void mc_zero(void *at, size_t n);
int mc_same(const void *a, const void *b, size_t n);
char *mc_append(char *to, const char *text);
size_t mc_append_number(char *to, uint64_t value);
const char *mc_text(const struct mc_machine *m, const struct mc_op *op, int index);

/* static.c: programs without libc; mc_main is theirs */
_Noreturn void mc_leave(int code);
_Noreturn void mc_main(long *stack);
int mc_number(const char *text);

/* process.c: what the stub, the monitor and the extension have in common */
enum { MC_REALTIME = 0, MC_MONOTONIC_RAW = 4 }; /* linux/time.h */
uint64_t mc_now(void);
uint64_t mc_clock(int clock);
extern uint64_t mc_moved; /* by how much the time namespace this process entered moves CLOCK_MONOTONIC_RAW */
long mc_above_stdio(long fd);
long mc_write_all(int fd, const char *data, size_t length);
long mc_close_others(const int32_t *keep, uint32_t n_keep);
long mc_reset_signals(long handler);
char **mc_pointers(char *packed, int64_t count);

/* messages.c: packets with descriptors */
long mc_send(int socket, const void *data, size_t length, const int32_t *fds, uint32_t n_fds, int flags);
long mc_send_listener(int socket, int32_t listener);
long mc_receive(int socket, void *data, size_t length, int32_t *fds, uint32_t n_fds, int flags);

/* listener.c: of a stub only */
long mc_messenger_start(int socket);
long mc_messenger_send(long listener);

/* paths.c: paths inside the root, never through a magic link */
void mc_root_changes(void);
long mc_open_inside(const char *path, uint64_t flags, int path_flags);
long mc_mount_point(const char *path, int path_flags);
long mc_parent_inside(const char *path, const char **last);
long mc_is_directory(int fd);
long mc_open_if_there(const char *path);

/* ops_mount.c */
int mc_handle(const struct mc_machine *m, int64_t slot);
long mc_take_slot(struct mc_machine *m, int64_t slot, long fd);
long mc_set_option(int fs, const char *option);
long mc_finish_mount(int fs, int64_t attr);
long mc_new_mount(const char *fstype, const char *options, int64_t count, int64_t attr);
long mc_set_attributes(int fd, int flags, uint64_t set, uint64_t clear, uint64_t propagation, int userns);
long mc_move_onto(int tree, int target);
long mc_move_inside(long tree, const char *path, int path_flags);

/* ops_overlay.c */
size_t mc_fd_path(char *to, long fd);

/* struct statfs of asm-generic/statfs.h, whose two ints of fsid fill a long on every 64-bit machine */
struct mc_statfs {
    long type, bsize, blocks, bfree, bavail, files, ffree, fsid, namelen, frsize, flags;
    long rest[14];
};

/* interp.c */
typedef long mc_op_fn(struct mc_machine *m, struct mc_op *op);
long mc_run(struct mc_machine *m, uint32_t first);

/* one function an op; the table in interp.c names them all */
mc_op_fn mc_op_pdeathsig, mc_op_barrier, mc_op_cgroup_enter, mc_op_subreaper, mc_op_sigreset;
mc_op_fn mc_op_unshare, mc_op_setns, mc_op_setns_time, mc_op_enter_root;
mc_op_fn mc_op_propagation, mc_op_open_tree, mc_op_fsmount, mc_op_adopt, mc_op_overlay, mc_op_setattr;
mc_op_fn mc_op_overlay_trees, mc_op_verify_no_userns;
mc_op_fn mc_op_root_attach, mc_op_pivot_root, mc_op_chroot;
mc_op_fn mc_op_mount, mc_op_attach, mc_op_verify_mount, mc_op_mask, mc_op_readonly_path, mc_op_remount;
mc_op_fn mc_op_mkdir, mc_op_mknod, mc_op_symlink, mc_op_write_file, mc_op_boot_id, mc_op_etc_file;
mc_op_fn mc_op_sethostname, mc_op_setdomainname, mc_op_loopback_up;
mc_op_fn mc_op_rlimit, mc_op_umask, mc_op_chdir, mc_op_personality, mc_op_keyring, mc_op_setsid;
mc_op_fn mc_op_console, mc_op_stdio, mc_op_init, mc_op_fork;
mc_op_fn mc_op_setgroups, mc_op_setresgid, mc_op_setresuid, mc_op_keep_caps, mc_op_bounding, mc_op_capset;
mc_op_fn mc_op_ambient, mc_op_securebits, mc_op_no_new_privs, mc_op_seccomp;
mc_op_fn mc_op_landlock_ruleset, mc_op_landlock_path, mc_op_landlock_port, mc_op_landlock_restrict;
mc_op_fn mc_op_verify_caps, mc_op_verify_ids, mc_op_verify_securebits, mc_op_verify_no_new_privs, mc_op_verify_root,
    mc_op_verify_paths;
mc_op_fn mc_op_exec_label, mc_op_verify_label;
mc_op_fn mc_op_hold, mc_op_ready, mc_op_exec;

long mc_mask_release(struct mc_machine *m);

/* struct msghdr, of sendmsg(2) and recvmsg(2) */
struct mc_message {
    void *name;
    uint32_t name_length;
    struct {
        void *base;
        size_t length;
    } * data;
    size_t data_count;
    void *control;
    size_t control_length;
    int flags;
};

#endif

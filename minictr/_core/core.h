/* The face of the C core: this file is the cffi cdef, so it holds declarations only, no includes and no macros.
 *
 * A start is a flat array of operations ("ops") with one blob for strings and bytes, in a memory file ("region") that
 * the parent fills, the child interprets and stamps, and the parent reads back. See docs/how-a-container-starts.md. */

enum mc_op_kind {
    MC_OP_PDEATHSIG,
    MC_OP_BARRIER,
    MC_OP_CGROUP_ENTER,
    MC_OP_SUBREAPER,
    MC_OP_SIGRESET,
    MC_OP_UNSHARE,
    MC_OP_SETNS,
    MC_OP_SETNS_TIME,
    MC_OP_ENTER_ROOT,
    MC_OP_PROPAGATION,
    MC_OP_OPEN_TREE,
    MC_OP_FSMOUNT,
    MC_OP_ADOPT,
    MC_OP_OVERLAY,
    MC_OP_OVERLAY_TREES,
    MC_OP_SETATTR,
    MC_OP_ROOT_ATTACH,
    MC_OP_PIVOT_ROOT,
    MC_OP_CHROOT,
    MC_OP_MOUNT,
    MC_OP_ATTACH,
    MC_OP_VERIFY_MOUNT,
    MC_OP_MASK,
    MC_OP_READONLY_PATH,
    MC_OP_REMOUNT,
    MC_OP_MKDIR,
    MC_OP_MKNOD,
    MC_OP_SYMLINK,
    MC_OP_WRITE_FILE,
    MC_OP_BOOT_ID,
    MC_OP_ETC_FILE,
    MC_OP_SETHOSTNAME,
    MC_OP_SETDOMAINNAME,
    MC_OP_LOOPBACK_UP,
    MC_OP_RLIMIT,
    MC_OP_UMASK,
    MC_OP_CHDIR,
    MC_OP_PERSONALITY,
    MC_OP_KEYRING,
    MC_OP_EXEC_LABEL,
    MC_OP_SETSID,
    MC_OP_CONSOLE,
    MC_OP_STDIO,
    MC_OP_INIT,
    MC_OP_FORK,
    MC_OP_SETGROUPS,
    MC_OP_SETRESGID,
    MC_OP_SETRESUID,
    MC_OP_KEEP_CAPS,
    MC_OP_BOUNDING,
    MC_OP_CAPSET,
    MC_OP_AMBIENT,
    MC_OP_SECUREBITS,
    MC_OP_NO_NEW_PRIVS,
    MC_OP_LANDLOCK_RULESET,
    MC_OP_LANDLOCK_PATH,
    MC_OP_LANDLOCK_PORT,
    MC_OP_LANDLOCK_RESTRICT,
    MC_OP_SECCOMP,
    MC_OP_VERIFY_CAPS,
    MC_OP_VERIFY_IDS,
    MC_OP_VERIFY_LABEL,
    MC_OP_VERIFY_SECUREBITS,
    MC_OP_VERIFY_NO_NEW_PRIVS,
    MC_OP_VERIFY_NO_USERNS,
    MC_OP_VERIFY_ROOT,
    MC_OP_VERIFY_PATHS,
    MC_OP_HOLD,
    MC_OP_READY,
    MC_OP_EXEC,
    MC_OP_COUNT
};

enum mc_limit { MC_MAX_ARGS = 6, MC_MAX_STRS = 4, MC_MAX_SLOTS = 64, MC_MAX_KEEP = 96, MC_MAX_TOLERATE = 4 };

enum mc_region_mark { MC_REGION_MAGIC = 0x6d637472, MC_REGION_VERSION = 1 };

/* How far the child got: what the parent reads when the report pipe ends. */
enum mc_state { MC_STATE_RUNNING, MC_STATE_EXEC, MC_STATE_FAILED };

/* The start joins namespaces that others are in: not traceable from its first instruction (CVE-2016-9962). It goes on
 * in a child born in a joined pid namespace: there is a page behind the region (enum mc_born). */
enum mc_region_flag { MC_REGION_JOINS = 1, MC_REGION_FORKS = 2 };

/* flags of mount, attach, remount and chdir */
enum mc_path_flag { MC_MKDIR = 1, MC_MKFILE = 2, MC_RECURSIVE = 4, MC_NOFOLLOW = 8 };

/* flags of etc_file: the descriptor is a mount, and goes there itself; nothing may be made in this root */
enum mc_etc_flag { MC_ETC_TREE = 1, MC_ETC_SEALED = 2 };

/* flags of init: keep the parent death signal; fork with a copy of the memory (a new time namespace needs it) */
enum mc_init_flag { MC_INIT_DIE_WITH_PARENT = 1 };

/* flags of fork: the child's parent is ours (CLONE_PARENT); or nobody, as we leave when it runs */
enum mc_fork_flag { MC_FORK_SIBLING = 1, MC_FORK_ORPHAN = 2 };

/* Where a fork tells the child's pid: behind the region, at the next multiple of this, in a page that the child has not
 */
enum mc_born { MC_BORN_ALIGN = 65536 };

/* flags of landlock_path: rights that only a directory has are left out for anything else */
enum mc_landlock_flag { MC_LANDLOCK_NARROW = 1 };

/* flags of console */
enum mc_console_flag { MC_CONSOLE_BIND = 1 };

struct mc_op {
    uint32_t kind;
    uint8_t tolerate[4]; /* errno values that count as done; 0 ends the list */
    int64_t arg[6];
    uint32_t str[4]; /* offsets into the blob; offset 0 is the empty string */
    int64_t ret;     /* what the operation returned: >= 0, or -errno */
    uint64_t end_ns; /* CLOCK_MONOTONIC_RAW when it was done; 0: not reached */
};

struct mc_region {
    uint32_t magic;
    uint32_t version;
    uint32_t n_ops;
    uint32_t blob_offset;
    int32_t report_fd;
    uint32_t n_keep;
    /* written by the child */
    uint32_t state;
    uint32_t current; /* the op being done */
    int32_t error;
    int32_t failed_nr;    /* the system call that failed last */
    uint32_t init_locked; /* futex: the payload waits for it before exec */
    uint32_t size;        /* bytes of the whole region, written by the parent */
    uint64_t start_ns;
    uint32_t flags; /* enum mc_region_flag, written by the parent */
    uint32_t unused;
    int32_t keep[96]; /* descriptors the child needs, ascending; all others are closed at once */
};

struct mc_spawn {
    uint64_t flags;    /* CLONE_NEW* and CLONE_INTO_CGROUP */
    int32_t cgroup_fd; /* with CLONE_INTO_CGROUP */
    int32_t stub_fd;   /* the sealed memory file with the static program */
    int32_t region_fd;
    int32_t raise_caps; /* in a new user namespace: carry the full set across the exec of the stub */
    int32_t pid;        /* out */
    int32_t pidfd;      /* out */
    int32_t exec_error; /* out: errno of the exec of the stub */
    char name[64];      /* argv[0] */
};

enum mc_monitor_mark { MC_MONITOR_MAGIC = 0x6d636d6f, MC_MONITOR_VERSION = 1 };

enum mc_monitor_limit { MC_MAX_CLIENTS = 16, MC_MAX_FINALS = 64, MC_CHUNK = 16384, MC_EXIT_RECORD = 256 };

/* The monitor's own descriptors; -1 where there is none. */
enum mc_monitor_fd {
    MC_FD_CONTROL, /* SOCK_SEQPACKET to the starter, until the commit */
    MC_FD_LISTEN,  /* SOCK_SEQPACKET, listening: clients */
    MC_FD_STDIN,   /* our ends of the container's pipes */
    MC_FD_STDOUT,
    MC_FD_STDERR,
    MC_FD_STATUS,    /* init's last word */
    MC_FD_DIRECTORY, /* the container's state directory: rotation and final copies happen in it */
    MC_FD_LOCK,      /* a flock'd open file that is held until the container has ended */
    MC_FD_LOG,
    MC_FD_EXIT, /* the exit record, 256 bytes that are there already */
    MC_FD_EVENTS,
    MC_FD_NULL, /* /dev/null */
    MC_FD_COUNT
};

/* flags of a client's "a", and of the monitor's answer */
enum mc_attach_flag { MC_ATTACH_STDIN = 1, MC_ATTACH_TERMINAL = 2, MC_ATTACH_HELD = 4 };

/* A file to be copied when the container has ended: NAME below the directory FD, to TARGET below the state directory.
 */
struct mc_final {
    int32_t fd;
    uint32_t name, target; /* offsets from the beginning of struct mc_monitor */
};

/* All that a monitor is told, in a memory file; strings stand behind it. See docs/monitor.md. */
struct mc_monitor {
    uint32_t magic;
    uint32_t version;
    uint32_t size;        /* bytes of the whole */
    uint32_t stop_signal; /* what SIGTERM to the monitor is for the container; 0: nothing */
    struct mc_spawn spawn;
    int32_t pidns_fd;                  /* the container is born in this pid namespace, or -1 */
    int32_t fd[12];                    /* by enum mc_monitor_fd */
    uint32_t log_files;                /* how many there may be, the current one included */
    uint64_t log_max;                  /* bytes of a log file; 0: no limit */
    uint32_t event;                    /* offset of the beginning of the die event, up to its action */
    uint32_t argv, n_argv, env, n_env; /* the exit command; packed as for the op exec */
    uint32_t n_finals;
    struct mc_final finals[64];
    uint32_t n_keep;
    int32_t keep[96]; /* what the stub keeps */
};

enum mc_proxy_mark { MC_PROXY_MAGIC = 0x6d637078, MC_PROXY_VERSION = 1 };

/* One socket of the host, and where it leads. */
struct mc_proxy_port {
    uint8_t protocol;          /* IPPROTO_TCP, IPPROTO_UDP */
    uint8_t family, to_family; /* AF_INET, AF_INET6 */
    uint8_t spare;
    uint16_t port, to_port;
    uint8_t address[16], to[16];
};

/* All that a proxy is told, in a memory file; its ports stand behind it. See proxy.c. */
struct mc_proxy {
    uint32_t magic;
    uint32_t version;
    uint32_t size;    /* bytes of the whole */
    uint32_t n_ports; /* struct mc_proxy_port */
    int32_t watch;    /* a pidfd of the container's first process */
    int32_t report;   /* a pipe: how it went */
};

/* What it says once: errno 0, or what failed, and of which port. */
struct mc_proxy_report {
    int32_t error, port;
};

enum mc_trace_limit { MC_TRACE_CALLS = 1024, MC_TRACE_ERRNOS = 4096, MC_TRACE_TASKS = 16384 };

enum mc_trace_what {
    MC_TRACE_NOTHING, /* nobody has stopped */
    MC_TRACE_OVER,    /* nobody is left */
    MC_TRACE_CALL,    /* a system call ended; the thread is stopped */
    MC_TRACE_TRAPPED, /* a filter answered it by SIGSYS; the thread is stopped */
    MC_TRACE_KILLED   /* a filter killed at it */
};

struct mc_trace_task {
    int32_t tid; /* 0: free */
    uint32_t arch;
    int64_t nr; /* the system call that it entered last, -1: none yet */
    uint64_t args[6];
};

/* A tracer and what it was asked to tell; see trace.c. Tables by number have the native calls first, then those of
 * another architecture (i386). */
struct mc_tracer {
    uint8_t wanted[4096]; /* by errno: a call that failed so is told */
    uint8_t always[2048]; /* by number: it is told whether it failed or not */
    uint8_t seen[2048];   /* out: it was called by the program */
    uint32_t begun;       /* out: the first execve is done */
    uint32_t tasks;       /* out: threads that are known */
    uint32_t lost;        /* out: how often a thread had no place in the table */
    int32_t stopped, signal;
    /* what is told */
    int32_t what, tid;
    uint32_t arch;
    int64_t nr, result; /* of a system call: >= 0 or -errno */
    uint64_t args[6];
    struct mc_trace_task task[16384];
};

/* All of these return >= 0 or -errno, and never touch errno. */
int mc_spawn(struct mc_spawn *s, const int32_t *keep, uint32_t n_keep);
int mc_spawn_detached(struct mc_spawn *s, const int32_t *keep, uint32_t n_keep);
int mc_execute(struct mc_op *ops, uint32_t n_ops, char *blob, int32_t *slots, uint32_t *failed, int32_t *failed_nr);
const char *mc_syscall_name(int nr);
const unsigned char *mc_stub(void);
size_t mc_stub_size(void);
const unsigned char *mc_monitor_program(void);
size_t mc_monitor_program_size(void);
const unsigned char *mc_proxy_program(void);
size_t mc_proxy_program_size(void);

long mc_unshare(uint64_t flags);
long mc_setns(int fd, int nstype);
long mc_pidfd_open(int pid, unsigned int flags);
long mc_pidfd_send_signal(int pidfd, int sig, unsigned int flags);
long mc_pidfd_getfd(int pidfd, int fd, unsigned int flags);
long mc_close_range(unsigned int first, unsigned int last, unsigned int flags);
long mc_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
long mc_open_tree(int dirfd, const char *path, unsigned int flags);
long mc_move_mount(int from, const char *from_path, int to, const char *to_path, unsigned int flags);
long mc_mount(const char *source, const char *target, const char *fstype, uint64_t flags, const char *data);
long mc_umount2(const char *target, int flags);
long mc_pivot_root(const char *new_root, const char *put_old);
long mc_fsopen(const char *fstype, unsigned int flags);
long mc_fsconfig(int fd, unsigned int cmd, const char *key, const char *value, int aux);
long mc_fsmount(int fd, unsigned int flags, unsigned int attr);
long mc_mount_setattr(int dirfd, const char *path, unsigned int flags, uint64_t set, uint64_t clear,
                      uint64_t propagation, int userns_fd);
long mc_capget(int pid, uint64_t *sets); /* effective, permitted, inheritable */
long mc_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable);
long mc_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
long mc_seccomp(unsigned int operation, unsigned int flags, const char *program, uint32_t length);
long mc_notif_sizes(uint16_t *sizes);
long mc_landlock_abi(void);
long mc_sethostname(const char *name, size_t length);
long mc_setdomainname(const char *name, size_t length);
long mc_keyctl(int operation, const char *name);
long mc_personality(unsigned long persona);
long mc_setgroups(const char *groups, size_t count);
long mc_setfsids(unsigned int uid, unsigned int gid); /* of the calling thread; see calls.c */
long mc_fstatfs_type(int fd);                         /* f_type: *_MAGIC of linux/magic.h */
long mc_bpf(int cmd, const char *attr, unsigned int size);
long mc_read_files(int dirfd, const char *names, char *out, size_t size); /* see calls.c */
long mc_inotify_init1(int flags);
long mc_inotify_add_watch(int fd, const char *path, uint32_t mask);
long mc_trace_seize(int pid);
long mc_trace_next(struct mc_tracer *t, int wait);
long mc_read_memory(int pid, uint64_t address, char *out, size_t size);

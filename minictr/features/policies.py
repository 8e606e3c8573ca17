"""The ready-made policies, as data: Docker's default, minictr's own, LXC's deny list. Pure.

What Docker allows is listed here by what the calls do, for the architectures that minictr runs on; it was compared call
by call with moby/profiles (seccomp/default_linux.go, July 2026). A digest of this file is part of the cache's keys
(``CONTENT`` in features/seccomp.py).
"""

from __future__ import annotations

import os

from minictr.errors import SpecError
from minictr.features.capabilities import CAPABILITIES, normal
from minictr.features.filter_parts import ALLOW, KILL, Action, Condition, Rule
from minictr.features.filters import native_arches
from minictr.features.profiles import DOCKER_CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["default", "docker", "lxc", "strict"]

EPERM, ENOSYS, EACCES = Action("errno", 1), Action("errno", 38), Action("errno", 13)

ALWAYS = """
accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
send sendmmsg sendmsg sendto setsockopt shutdown socketpair
access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd getdents getdents64 lchown lchown32 link linkat lstat lstat64
mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 readlink readlinkat rename renameat
renameat2 rmdir stat stat64 statfs statfs64 statx symlink symlinkat truncate truncate64 umask unlink unlinkat utime
utimensat utimensat_time64 utimes listmount statmount
fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr lremovexattr
lsetxattr removexattr removexattrat setxattr setxattrat
_llseek cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 fallocate fcntl fcntl64
fdatasync flock fsync ftruncate ftruncate64 ioctl lseek pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read
readahead readv sendfile sendfile64 splice sync sync_file_range syncfs tee vmsplice write writev
_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 pselect6
pselect6_time64 select
io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages
ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
execve execveat exit exit_group fork pidfd_open pidfd_send_signal process_mrelease vfork wait4 waitid waitpid
futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area restart_syscall rseq
set_robust_list set_thread_area set_tid_address uretprobe
kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask sigreturn tgkill tkill
adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
timerfd_gettime64 timerfd_settime timerfd_settime64 times
getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getresgid
getresgid32 getresuid getresuid32 getsid gettid getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
setgroups setgroups32 setpgid setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setsid
setuid setuid32
capget capset landlock_add_rule landlock_create_ruleset landlock_restrict_self prctl seccomp
getcpu getpriority getrandom getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield setpriority
setrlimit sysinfo ugetrlimit uname
"""
# Before 4.8 a tracer could change a call after the filter had judged it
SINCE_4_8 = "process_vm_readv process_vm_writev ptrace"
OF_ARCH = {
    "x86_64": "arch_prctl modify_ldt",
    "x86": "modify_ldt",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "ppc64le": "sync_file_range2 swapcontext",
    "s390x": "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
    "riscv64": "riscv_flush_icache riscv_hwprobe",
}
OF_CAPABILITY = {
    "DAC_READ_SEARCH": "open_by_handle_at",
    "SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr"
        " lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl"
        " quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module init_module finit_module",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "SYS_RAWIO": "iopl ioperm",
    "SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "SYS_TTY_CONFIG": "vhangup",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
}
# personality(2): Linux, BSD, and both with uname 2.6; 0xffffffff asks only
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}, linux/sched.h
NAMESPACE_FLAGS = 0x7E020000
# linux/socket.h. Docker: all that kernels still have but AF_ALG (38, the kernel's cryptography, CVE-2026-31431) and
# AF_VSOCK (40, hypervisors, in no namespace); AF_DECnet 12, ECONET 19, ATMSVC 20, IRDA 23, WANPIPE 25, ISDN 34 and CAIF
# 37 are gone from them
BELOW, FAMILIES = (
    12,
    (13, 14, 15, 16, 17, 18, 21, 22, 24, 26, 27, 28, 29, 30, 31, 32, 33, 35, 36, 39, 41, 42, 43, 44, 45),
)
SYS_SOCKET = 1  # socketcall(2): its first argument says which call is meant, linux/net.h
ON_32_BITS = frozenset({"x86", "s390", "mips", "mipsel", "ppc", "parisc"})  # architectures with socketcall
# lxc: config/templates/common.seccomp, and src/lxc/seccomp.c for reject_force_umount
LXC_DENIED = "kexec_load open_by_handle_at init_module finit_module delete_module"
MNT_FORCE = 1
STRICT = "read write exit exit_group rt_sigreturn sigreturn execve"


def docker(cls: Any, caps: Iterable[str] | None, kernel: tuple[int, int] | None) -> Any:
    """Docker's policy for CAPS on KERNEL, x32 included, as Docker has it."""
    arches = native_arches()
    arches = (*arches, "x32") if arches[0] == "x86_64" else arches
    rules = (*_rules(arches[0], caps, kernel), Rule(("socketcall",), ALLOW))
    return cls(EPERM, rules, arches, Action("kill_thread"), ENOSYS, lenient=True, name="docker")


def default(cls: Any, caps: Iterable[str] | None, kernel: tuple[int, int] | None) -> Any:
    """Docker's rules with x32 refused, as by a kernel without it, and no way round the families of sockets.

    socketcall(2) has its family in memory, where no filter looks: so it makes no sockets. musl asks socket(2) first;
    glibc's i386 programs do not, and have no network but what is handed to them: policy ``docker`` lets them.
    """
    arches = native_arches()
    rules = [*_rules(arches[0], caps, kernel)]
    if not ON_32_BITS.isdisjoint(arches):
        rules += [Rule(("socketcall",), ALLOW), Rule(("socketcall",), ENOSYS, (Condition(0, "==", SYS_SOCKET),))]
    return cls(EPERM, tuple(rules), arches, ENOSYS, ENOSYS, lenient=True, name="default")


def _rules(arch: str, caps: Iterable[str] | None, kernel: tuple[int, int] | None) -> tuple[Rule, ...]:
    held = DOCKER_CAPABILITIES if caps is None else normal(tuple(caps), "seccomp: capabilities")
    allowed = ALWAYS.split()
    if (kernel or running_kernel()) >= (4, 8):
        allowed += SINCE_4_8.split()
    allowed += OF_ARCH.get(arch, "").split()
    for capability in CAPABILITIES:
        if capability in held:
            allowed += OF_CAPABILITY.get(capability, "").split()
    rules = [Rule(("socket",), ALLOW, (Condition(0, "<", BELOW),))]
    rules += [Rule(("socket",), ALLOW, (Condition(0, "==", family),)) for family in FAMILIES]
    rules += [Rule(("personality",), ALLOW, (Condition(0, "==", persona),)) for persona in PERSONALITIES]
    if "SYS_ADMIN" not in held:
        flags = 1 if arch == "s390x" else 0  # clone(2): its arguments are the other way round there
        rules.append(Rule(("clone",), ALLOW, (Condition(flags, "&", 0, NAMESPACE_FLAGS),)))
        rules.append(Rule(("clone3",), ENOSYS))  # its flags are in memory; C libraries then use clone
    return (Rule(tuple(allowed), ALLOW), *rules)


def lxc(cls: Any) -> Any:
    """LXC's common deny list, umount -f included."""
    arches = native_arches()
    arches = (*arches, "x32") if arches[0] == "x86_64" else arches
    rules = (
        Rule(("umount2",), EACCES, (Condition(1, "&", MNT_FORCE, MNT_FORCE),)),
        Rule(tuple(LXC_DENIED.split()), EPERM),
    )
    return cls(ALLOW, rules, arches, name="lxc")


def strict(cls: Any) -> Any:
    """Mode 1's four calls, and execve and exit_group."""
    return cls(KILL, (Rule(tuple(STRICT.split()), ALLOW),), name="strict")


def running_kernel() -> tuple[int, int]:
    """(6, 18) of this machine."""
    release = os.uname().release.split("-")[0].split(".")
    numbers = [int(part) for part in release[:2] if part.isdecimal()]
    if len(numbers) != 2:
        raise SpecError(
            f"seccomp: the kernel's release {os.uname().release!r} has no number: give kernel=(MAJOR, MINOR)"
        )
    return numbers[0], numbers[1]

"""Which calls of a start are made to fail, and with what: an errno that the man page of that very call has.

Every call that a start made is a point. Where a call is made more than once its errnos take turns.
"""

from __future__ import annotations

from collections.abc import Iterable

from onecall import Call, Point

__all__ = ["NOISE", "failures", "kills", "spread"]

# They have no way to fail (exit(2), umask(2), getpid(2), a clock that is there), or only one that is a mistake of the
# caller's (sigaction(2): EFAULT, EINVAL). They are points for SIGKILL.
UNFAILING = frozenset(
    "rt_sigaction rt_sigprocmask setitimer getresuid getresgid getgroups uname"
    " exit exit_group rt_sigreturn getpid getppid gettid getuid geteuid getgid getegid umask sched_yield clock_gettime"
    " restart_syscall set_tid_address set_robust_list rseq getsid getpgrp getpgid alarm".split()
)
# A failing close has closed (close(2), "Dealing with error returns"): it is made, and then said to have failed.
LATE = frozenset({"close"})

# What Go's scheduler and allocator do as they please: no two starts have the same number of them.
NOISE = frozenset(
    "futex nanosleep clock_nanosleep madvise sched_yield epoll_pwait epoll_wait mmap munmap mprotect tgkill gettid"
    " getpid rt_sigreturn rt_sigprocmask rt_sigaction sigaltstack sched_getaffinity timer_create timer_settime"
    " timer_delete restart_syscall exit exit_group set_robust_list rseq mincore brk arch_prctl clone getrandom".split()
)

_GROUPS = {
    "open openat openat2 open_tree": "EACCES EMFILE ENOENT ENOMEM",
    "stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat": "EACCES ENOMEM ENOENT",
    "fstat fstatfs statfs": "EIO ENOMEM",
    "read pread64 readv preadv": "EIO EINTR",
    "write pwrite64 writev pwritev": "ENOSPC EIO",
    "close": "EIO EINTR",
    "close_range": "ENOMEM EMFILE",
    "lseek": "ESPIPE EINVAL",
    "ioctl": "EIO ENOTTY EPERM",
    "getdents64": "EIO ENOMEM",
    "mkdir mkdirat symlink symlinkat mknod mknodat link linkat": "ENOSPC EACCES EROFS",
    "rmdir": "EBUSY EACCES EIO",
    "unlink unlinkat": "EACCES EIO EROFS",
    "rename renameat renameat2": "ENOSPC EIO EACCES",
    "chmod fchmod fchmodat chown fchown fchownat lchown utimensat": "EPERM EROFS",
    "ftruncate fallocate fsync fdatasync": "EIO ENOSPC",
    "setxattr getxattr fsetxattr fgetxattr lgetxattr": "ENOSPC EOPNOTSUPP EPERM",
    "flock": "ENOLCK EINTR",
    "mmap mremap brk munmap mprotect madvise": "ENOMEM",
    "fcntl": "EPERM EMFILE EAGAIN",
    "pipe pipe2 socketpair dup dup2 dup3 eventfd2 epoll_create1 signalfd4 timerfd_create": "EMFILE ENFILE",
    "inotify_init1 inotify_add_watch": "EMFILE ENOSPC",
    "memfd_create": "EMFILE ENOMEM",
    "socket": "EMFILE EACCES EAFNOSUPPORT",
    "bind": "EADDRINUSE ENOSPC EACCES",
    "listen": "EADDRINUSE",
    "connect": "ECONNREFUSED EACCES",
    "accept accept4": "EMFILE ECONNABORTED",
    "sendmsg sendto": "ENOBUFS EPIPE",
    "recvmsg recvfrom": "ENOMEM ECONNRESET",
    "getsockopt setsockopt getsockname getpeername shutdown": "ENOBUFS",
    "poll ppoll select pselect6 epoll_ctl epoll_pwait": "ENOMEM EINTR",
    "clone clone3 fork vfork": "EAGAIN ENOMEM",
    "execve execveat": "EACCES ENOMEM ETXTBSY",
    "wait4 waitid": "EINTR ECHILD",
    "kill tgkill pidfd_send_signal": "EPERM",
    "pidfd_open pidfd_getfd": "EMFILE ENOMEM",
    "prctl arch_prctl personality": "EPERM EINVAL",
    "sigaltstack timer_settime sched_getaffinity": "EINVAL",
    "rt_sigtimedwait nanosleep clock_nanosleep": "EINTR",
    "futex": "EAGAIN",
    "getrandom": "ENOSYS EINTR",
    "unshare setns": "EPERM ENOMEM ENOSPC",
    "mount umount2": "EPERM EBUSY",
    "mount_setattr": "EPERM EINVAL",
    "fsopen": "EPERM ENODEV EMFILE",
    "fsconfig": "EINVAL EBUSY",
    "fsmount move_mount": "EPERM ENOMEM EBUSY",
    "pivot_root chroot": "EPERM EBUSY",
    "chdir fchdir": "EACCES EIO",
    "getcwd": "ENOENT ENOMEM",
    "sethostname setdomainname setsid setpgid": "EPERM",
    "capget capset": "EPERM",
    "setgroups setresuid setresgid setuid setgid setfsuid setfsgid": "EPERM ENOMEM",
    "sysinfo times getrusage": "EFAULT",
    "prlimit64 setrlimit getrlimit setpriority getpriority ioprio_set sched_setattr": "EPERM",
    "keyctl add_key": "EDQUOT ENOSYS",
    "seccomp bpf": "ENOMEM EINVAL EACCES",
    "landlock_create_ruleset landlock_add_rule landlock_restrict_self": "EPERM ENOMEM EINVAL",
}
ERRNOS = {name: tuple(errors.split()) for names, errors in _GROUPS.items() for name in names.split()}


def failures(made: Iterable[Call]) -> list[Point]:
    """A point for each of MADE that can fail. KeyError for a call that the table has no errno for."""
    usable = [call for call in made if call.name not in UNFAILING]
    unknown = sorted({call.name for call in usable} - set(ERRNOS))
    if unknown:
        raise KeyError(f"no errno in the table for: {', '.join(unknown)}")
    found = []
    for turn, call in enumerate(usable):
        errors = ERRNOS[call.name]
        found.append(Point(call, errors[turn % len(errors)], call.name in LATE))
    return found


def kills(made: Iterable[Call]) -> list[Point]:
    """A point for each of MADE at which its process can be killed."""
    return [Point(call, "") for call in made]


def spread(found: list[Point], number: int) -> list[Point]:
    """About NUMBER of them: each kind of call of each process once, as far as there is room, and the rest evenly."""
    first: dict[tuple[int, str], Point] = {}
    for point in found:
        first.setdefault((point.call.process, point.call.name), point)
    chosen = list(first.values())
    chosen = chosen[:: max(1, -(-len(chosen) // max(1, number * 2 // 3)))]
    others = [point for point in found if point not in chosen]
    room = max(1, number - len(chosen))
    return [*chosen, *others[:: max(1, len(others) // room)][:room]]

"""What the arguments of system calls mean, for those that are often denied, or that name a path. syscalls(2).

A shape has one word for each argument: ``path`` (by the current directory), ``dirfd`` with the ``at`` that follows,
``fd``, ``int``, ``hex``, ``oct``, ``str``, ``flags`` (of open), ``how`` (struct open_how), ``addr``, ``-`` (not told).
A trailing ``!`` on a path: a link at its end is meant itself. What is not here is told as numbers.
"""

from __future__ import annotations

import os

__all__ = ["CREATES", "FORKS", "OPENS", "PATHS", "REMOVES", "SHAPES", "open_words", "rights_of"]

_TABLE = """
open path flags oct
openat dirfd at flags oct
openat2 dirfd at how
creat path oct
access path int
faccessat dirfd at int
faccessat2 dirfd at int hex
stat path
lstat path!
stat64 path
lstat64 path!
newfstatat dirfd at
fstatat64 dirfd at
statx dirfd at
statfs path
readlink path!
readlinkat dirfd at!
execve path
execveat dirfd at
chdir path
fchdir fd
chroot path
mkdir path oct
mkdirat dirfd at oct
rmdir path!
unlink path!
unlinkat dirfd at! hex
rename path! path!
renameat dirfd at! dirfd at!
renameat2 dirfd at! dirfd at! hex
link path! path!
linkat dirfd at! dirfd at! hex
symlink str path!
symlinkat str dirfd at!
mknod path! oct hex
mknodat dirfd at! oct hex
chmod path oct
fchmod fd oct
fchmodat dirfd at oct
fchmodat2 dirfd at oct hex
chown path int int
chown32 path int int
lchown path! int int
lchown32 path! int int
fchown fd int int
fchown32 fd int int
fchownat dirfd at int int hex
utime path
utimes path
utimensat dirfd at
truncate path int
truncate64 path int
setxattr path str
lsetxattr path! str
removexattr path str
lremovexattr path! str
mount str path str hex
umount2 path hex
umount path
pivot_root path path
swapon path hex
swapoff path
acct path
open_tree dirfd at hex
mount_setattr dirfd at hex
fspick dirfd at hex
name_to_handle_at dirfd at
open_by_handle_at fd - hex
inotify_add_watch fd path hex
socket int int int
bind fd addr
connect fd addr
sendto fd - int hex
setsockopt fd int int
ioctl fd hex
fcntl fd int
kill int int
tkill int int
tgkill int int int
pidfd_open int hex
pidfd_send_signal fd int
pidfd_getfd fd int
ptrace int int
process_vm_readv int
process_vm_writev int
sethostname str
setdomainname str
setuid int
setgid int
setreuid int int
setregid int int
setresuid int int int
setresgid int int int
setfsuid int
setfsgid int
setgroups int
capset -
unshare hex
setns fd hex
clone hex
clone3 -
personality hex
prctl int hex hex
keyctl int
add_key str str
request_key str str
bpf int
perf_event_open -
userfaultfd hex
io_uring_setup int
reboot hex hex hex
syslog int
settimeofday -
clock_settime int
clock_adjtime int
adjtimex -
setpriority int int int
sched_setscheduler int int
sched_setaffinity int
setrlimit int
prlimit64 int int
ioprio_set int int int
mlock - int
mlockall hex
iopl int
ioperm int int int
init_module - int str
finit_module fd str
delete_module str
fsopen str hex
fsmount fd hex
fsconfig fd int str
move_mount fd at fd at
quotactl hex str
landlock_create_ruleset -
seccomp int hex
"""
SHAPES = {words[0]: tuple(words[1:]) for words in (line.split() for line in _TABLE.strip().splitlines())}
PATHS = frozenset(
    name for name, shape in SHAPES.items() if any(word.rstrip("!") in ("path", "at", "fd") for word in shape)
)
FORKS = frozenset(("fork", "vfork", "clone", "clone3"))
OPENS = frozenset(("open", "openat", "openat2", "creat"))
# name -> Landlock's right over the directory that its last path is in
CREATES = {"mkdir": "make_dir", "mkdirat": "make_dir", "symlink": "make_sym", "symlinkat": "make_sym"}
REMOVES = frozenset(("rmdir", "unlink", "unlinkat"))
RENAMES = frozenset(("rename", "renameat", "renameat2", "link", "linkat"))
_NODES = {0o020000: "make_char", 0o060000: "make_block", 0o010000: "make_fifo", 0o140000: "make_sock"}
AT_REMOVEDIR = 0x200  # linux/fcntl.h
_FLAGS = ("CREAT", "EXCL", "TRUNC", "APPEND", "DIRECTORY", "NOFOLLOW", "PATH", "TMPFILE")


def open_words(flags: int) -> str:
    """``O_WRONLY|O_CREAT``, without what does not matter for a denial."""
    words = [("O_RDONLY", "O_WRONLY", "O_RDWR", "3")[flags & 3]]
    for name in _FLAGS:
        bit = getattr(os, f"O_{name}", 0)
        if bit and flags & bit == bit and not (name == "DIRECTORY" and flags & os.O_TMPFILE == os.O_TMPFILE):
            words.append(f"O_{name}")
    return "|".join(words)


def rights_of(call: str, args: tuple[int, ...], flags: int, is_dir: bool, there: bool) -> tuple[str, tuple[str, ...]]:
    """What Landlock asks for before CALL is done: ("self" or "parent", rights). ("", ()) for what it does not judge.

    FLAGS: of an open. IS_DIR and THERE: of what its (last) path names. landlock(7), security/landlock/fs.c.
    """
    if call in OPENS:
        return _open_rights(flags, is_dir, there)
    if call in ("execve", "execveat"):
        return "self", ("execute", "read_file")
    if call in CREATES:
        return "parent", (CREATES[call],)
    if call in ("mknod", "mknodat"):
        mode = args[1 if call == "mknod" else 2] & 0o170000
        return "parent", (_NODES.get(mode, "make_reg"),)
    if call in REMOVES:
        directory = call == "rmdir" or (call == "unlinkat" and bool(args[2] & AT_REMOVEDIR))
        return "parent", ("remove_dir" if directory else "remove_file",)
    if call in RENAMES:
        made = "make_dir" if is_dir else "make_reg"
        return "parent", (made,) if call.startswith("link") else (made, "remove_dir" if is_dir else "remove_file")
    if call in ("truncate", "truncate64"):
        return "self", ("truncate",)
    return "", ()


def _open_rights(flags: int, is_dir: bool, there: bool) -> tuple[str, tuple[str, ...]]:
    if flags & getattr(os, "O_PATH", 0):
        return "", ()
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        return "self", ("make_reg", "write_file")
    rights = ["read_dir" if is_dir else "read_file"] if flags & 3 in (0, 2) else []
    rights += ["write_file"] if flags & 3 in (1, 2) else []
    rights += ["truncate"] if flags & os.O_TRUNC else []
    if flags & os.O_CREAT and not there:
        return "parent", ("make_reg", *rights)
    return "self", tuple(rights)

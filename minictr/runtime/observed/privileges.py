"""Which capability a system call needs, and whether it needed one, by what was seen. capabilities(7).

Pure. A row says what the kernel asks ``capable()`` for before it fails with the errno; a condition looks at arguments
and owners where a call needs none in most cases.
"""

from __future__ import annotations

from minictr.kernel.users import id_inside
from minictr.runtime.observed.facts import signed
from minictr.runtime.observed.permissions import owns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Fact = dict[str, Any]

__all__ = ["GLOBAL", "OF_FILES", "TABLE", "needed"]

EPERM, EACCES, ENOMEM = 1, 13, 12
_TABLE = """
SYS_ADMIN mount umount2 umount pivot_root sethostname setdomainname swapon swapoff fsopen fsconfig fsmount move_mount
SYS_ADMIN open_tree fspick mount_setattr quotactl unshare setns clone fanotify_init lookup_dcookie
SYS_CHROOT chroot
SYS_TIME settimeofday clock_settime adjtimex clock_adjtime stime
SYS_MODULE init_module finit_module delete_module
SYS_BOOT reboot kexec_load kexec_file_load
SYS_NICE setpriority nice sched_setscheduler sched_setparam sched_setattr sched_setaffinity ioprio_set migrate_pages
SYS_RESOURCE setrlimit prlimit64
SYS_RAWIO iopl ioperm
SYS_PTRACE ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp
SYS_PACCT acct
SYS_TTY_CONFIG vhangup
SYSLOG syslog
SETPCAP capset
BPF bpf
PERFMON perf_event_open
DAC_READ_SEARCH open_by_handle_at
IPC_LOCK mlock mlock2 mlockall
MKNOD mknod mknodat
CHOWN chown lchown fchown fchownat chown32 lchown32 fchown32
FOWNER chmod fchmod fchmodat fchmodat2 utimensat utime utimes
SETUID setuid setreuid setresuid setfsuid setuid32 setreuid32 setresuid32
SETGID setgid setregid setresgid setfsgid setgroups setgid32 setregid32 setresgid32 setgroups32
KILL kill tkill tgkill pidfd_send_signal
NET_BIND_SERVICE bind
NET_RAW socket
NET_ADMIN setsockopt ioctl
SETFCAP setxattr lsetxattr fsetxattr
"""
TABLE = {call: row.split()[0] for row in _TABLE.strip().splitlines() for call in row.split()[1:]}
# asked for in the host's user namespace: one of a container's own gives it to nobody
GLOBAL = frozenset("SYS_TIME SYS_MODULE SYS_BOOT SYS_RAWIO SYS_PACCT SYS_TTY_CONFIG SYSLOG MKNOD PERFMON".split())
GLOBAL |= {"BPF", "DAC_READ_SEARCH", "SYS_RESOURCE", "SYS_NICE", "IPC_LOCK"}
OF_FILES = frozenset(("CHOWN", "FOWNER", "SETFCAP"))  # count on files whose owner the user namespace knows
CLONE_NEWUSER, NAMESPACES = 0x10000000, 0x7E020080  # linux/sched.h: all of CLONE_NEW*, user included
S_IFMT, NODES = 0o170000, (0o020000, 0o060000)
AF_PACKET, SOCK_RAW = 17, 3
AF_INET = (2, 10)
SIOCSIF = range(0x8910, 0x8950)  # linux/sockios.h: what sets up an interface
SO_DEBUG, SO_PRIORITY, SO_MARK, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 1, 12, 36, 32, 33
SOL_SOCKET = 1


def needed(row: Fact, who: Fact) -> str:
    """The capability without which the call of ROW fails for WHO; "" where none is, or none is known."""
    call, args, errno = row["call"], row["args"], row["errno"]
    name = TABLE.get(call, "")
    if not name or errno not in (0, EPERM, EACCES):
        return ""
    if errno == EACCES and call not in ("bind", "setpriority"):
        return ""
    condition = _CONDITIONS.get(name)
    return name if condition is None or condition(call, args, row, who) else ""


def _new_namespace(call: str, args: list[int], _row: Fact, _who: Fact) -> bool:
    """A user namespace needs nothing, and what is made together with it belongs to it."""
    if call not in ("unshare", "clone"):
        return True
    return bool(args[0] & NAMESPACES) and not args[0] & CLONE_NEWUSER


def _not_the_owner(_call: str, _args: list[int], row: Fact, who: Fact) -> bool:
    return any(place.get("there") and not owns(who, place) for place in row["places"])


def _gives_away(call: str, args: list[int], row: Fact, who: Fact) -> bool:
    """Anybody may give an own file to an own group, and "change" an owner to what it is."""
    uid, gid = args[2 if call == "fchownat" else 1], args[3 if call == "fchownat" else 2]
    for place in row["places"]:
        if not place.get("there"):
            continue
        if signed(uid) != -1 and (id_inside(who["uid_map"], place["uid"]) != uid or not owns(who, place)):
            return True
        groups = [id_inside(who["gid_map"], number) for number in (*who["gids"], *who["groups"])]
        if signed(gid) != -1 and (gid not in groups or not owns(who, place)):
            return True
    return False


def _a_device(call: str, args: list[int], _row: Fact, _who: Fact) -> bool:
    return args[2 if call == "mknodat" else 1] & S_IFMT in NODES


def _another(ids: str) -> Any:
    def condition(call: str, args: list[int], _row: Fact, who: Fact) -> bool:
        if call.startswith("setgroups"):
            return True
        count = 3 if "res" in call else 2 if call.startswith("setre") else 1
        own = [id_inside(who[f"{ids}_map"], number) for number in who[f"{ids}s"]]
        return any(signed(value) != -1 and value not in own for value in args[:count])

    return condition


def _of_another(call: str, _args: list[int], row: Fact, who: Fact) -> bool:
    """kill(2): the sender's real or effective uid is the target's real or saved one."""
    owner = row["extra"].get("owner")
    return owner is not None and not {who["uids"][0], who["uids"][1]} & {owner[0], owner[2]}


def _low_port(_call: str, _args: list[int], row: Fact, _who: Fact) -> bool:
    return row["extra"].get("family") in AF_INET and 0 < row["extra"].get("port", 0) < 1024


def _raw(_call: str, args: list[int], _row: Fact, _who: Fact) -> bool:
    return args[0] == AF_PACKET or (args[0] in AF_INET and args[1] & 0xF == SOCK_RAW)


def _of_the_network(call: str, args: list[int], _row: Fact, _who: Fact) -> bool:
    if call == "ioctl":
        return args[1] in SIOCSIF and args[1] % 2 == 0 and args[1] not in (0x8910, 0x8912)
    options = (SO_DEBUG, SO_PRIORITY, SO_MARK, SO_SNDBUFFORCE, SO_RCVBUFFORCE)
    return args[1] == SOL_SOCKET and args[2] in options


def _file_capability(_call: str, _args: list[int], row: Fact, _who: Fact) -> bool:
    return "security.capability" in row["told"]


def _prlimit(call: str, args: list[int], _row: Fact, _who: Fact) -> bool:
    return call == "setrlimit" or args[2] != 0


_CONDITIONS: dict[str, Any] = {
    "SYS_ADMIN": _new_namespace,
    "SYS_RESOURCE": _prlimit,
    "CHOWN": _gives_away,
    "FOWNER": _not_the_owner,
    "MKNOD": _a_device,
    "SETUID": _another("uid"),
    "SETGID": _another("gid"),
    "KILL": _of_another,
    "NET_BIND_SERVICE": _low_port,
    "NET_RAW": _raw,
    "NET_ADMIN": _of_the_network,
    "SETFCAP": _file_capability,
}

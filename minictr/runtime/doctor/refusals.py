"""Who refused: told by what was answered and by what stands around this process.

| word | who it is |
|---|---|
| ``kernel`` | it has no such thing, or it was built or booted without it |
| ``sysctl NAME`` | a switch or a limit of this host |
| ``seccomp filter`` | the filter of an outer container answers the call before the kernel does |
| ``capability NAME`` | an outer container took it from root |
| ``user`` | this user is not root |
| ``mount`` | a mount on top of /proc or /sys, or a read-only or nosuid one |
| ``delegation`` | a cgroup that is not given to this user, or not with this controller |
| ``LSM NAME`` | a security module that confines this process |
| ``package NAME`` | a program that is not installed |
| ``outside`` | none of these: an outer container or a security module that does not show itself |
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.kernel.surroundings import Surroundings
    from minictr.steps import Support

__all__ = ["cure", "refused_by"]

EPERM, ENOENT, EACCES, EINVAL, ENODEV, EROFS, ENOSYS, EOPNOTSUPP = 1, 2, 13, 22, 19, 30, 38, 95
REFUSED = (EPERM, EACCES)
ABSENT = (0, EINVAL, ENODEV, ENOENT, ENOSYS, EOPNOTSUPP)

# group -> the capability without which root is refused; by feature where it is another one
WANTED = {"namespaces": "SYS_ADMIN", "files": "SYS_ADMIN", "network": "NET_ADMIN", "limits": "SYS_ADMIN"}
OWN = {
    "dev": "MKNOD",
    "device": "MKNOD",
    "chroot": "SYS_CHROOT",
    "capabilities": "SETPCAP",
    "securebits": "SETPCAP",
    "user": "SETUID",
    "tty": "SYS_ADMIN",
    "boot_id": "SYS_ADMIN",
    "sysctl": "NET_ADMIN",
    "disable_userns": "SYS_RESOURCE",
    "devices": "BPF",
}
# group -> the calls that its features are made of
CALLS = {
    "namespaces": ("clone3", "unshare", "setns"),
    "files": ("mount", "fsopen", "move_mount", "open_tree", "mount_setattr", "pivot_root", "umount2", "openat2"),
    "network": ("unshare", "setns"),
    "privilege": ("seccomp", "landlock_create_ruleset", "prctl"),
    "process": ("keyctl", "personality", "sethostname", "prctl"),
    "limits": ("bpf", "openat2"),
    "ids": ("clone3", "unshare", "setns"),
    "start": ("memfd_create", "execveat", "close_range", "pidfd_open", "pidfd_send_signal", "clone3"),
}
NAMESPACES = ("clone3", "unshare")  # what every trial in namespaces of its own begins with
OWN_CALLS = {"keyring": ("keyctl",), "personality": ("personality",)}
MASKS = ("proc", "sysfs", "boot_id")


def refused_by(found: Support, group: str, name: str, around: Surroundings) -> str:
    """Who refused NAME of GROUP, which FOUND says cannot be had; one of the words above."""
    if sysctl := _after(found.cure, "sysctl "):
        return f"sysctl {sysctl.partition('=')[0]}"
    if package := _after(found.cure, "apt-get install ") or _after(found.cure, "install "):
        return f"package {package}"
    stopped = _stopped(group, name, around)
    if group == "ids" and not found.errno:
        return "delegation"
    if found.errno in ABSENT:
        return "seccomp filter" if found.errno == ENOSYS and stopped and around.filters else "kernel"
    if found.errno == EROFS:
        return "mount"
    if found.errno not in REFUSED:
        return ""
    if stopped and around.filters:
        return "seccomp filter"
    return _privilege(group, name, around)


def cure(found: Support, group: str, name: str, who: str, around: Surroundings) -> str:
    """What helps against WHO: the command where one is known, else what FOUND says."""
    if who == "seccomp filter":
        calls = " ".join(_stopped(group, name, around))
        return f"let the outer container's filter allow {calls} (docker run --security-opt seccomp=FILE)"
    kind, _, wanted = who.partition(" ")
    if kind == "capability":
        return f"let the outer container keep it (docker run --cap-add {wanted}), or add the userns feature"
    return found.cure


def _stopped(group: str, name: str, around: Surroundings) -> list[str]:
    """Calls that a trial of NAME makes and that somebody answers before the kernel. Some are refused for their
    arguments only, and so not found by harmless ones."""
    own = OWN_CALLS.get(name, ())
    calls = own or (*NAMESPACES, *CALLS.get(group, ()))
    return [call for call in dict.fromkeys(calls) if call in around.refused] or list(own)


def _privilege(group: str, name: str, around: Surroundings) -> str:
    wanted = OWN.get(name, WANTED.get(group, ""))
    if group == "limits" and around.uid:
        return "delegation"
    if around.uid:
        return f"LSM {around.label}" if around.confined else "user"
    if wanted and wanted not in around.effective:
        return f"capability {wanted}"
    if name in MASKS:
        return "mount"
    if around.confined:
        return f"LSM {around.label}"
    return "delegation" if group == "limits" else "outside"


def _after(text: str, word: str) -> str:
    """The word that follows WORD in TEXT."""
    _, there, rest = text.partition(word)
    return rest.split()[0].strip(",;") if there and rest.split() else ""

"""Which layer denied a call. Each judge looks at evidence of its own, and says nothing where it has none.

The order is the kernel's: the filter judges before anything is done, then mounts and modes, then the hooks (device
groups, Landlock, security modules). What no judge explains is "unknown", and told so.
"""

from __future__ import annotations

import os

from minictr.kernel.users import id_inside
from minictr.runtime.observed import landlockjudge, permissions, privileges
from minictr.runtime.observed.calls import CREATES, FORKS, OPENS, REMOVES, RENAMES
from minictr.runtime.observed.case import Case, Found
from minictr.runtime.observed.permissions import READ, SEARCH, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Fact = dict[str, Any]

__all__ = ["judged"]

EPERM, ENOENT, EACCES, EAGAIN, EXDEV, EROFS, ENOSPC = 1, 2, 13, 11, 18, 30, 28
CLONE_NEWUSER = 0x10000000  # linux/sched.h
ACCESS_MODE = {"access": 1, "faccessat": 2, "faccessat2": 2}
FREE = ("", "unconfined", "kernel")  # labels that confine nobody
SYSTEMPATHS = "--security-opt systempaths=unconfined"


def judged(case: Case) -> Found | None:
    """The first judge's word; "unknown" where none has one; None for what is no denial at all."""
    if case.row["how"] != "call" or case.errno not in (EPERM, EACCES, EROFS):
        others = (by_filter, disabled_userns, masked, pids_limit, landlock_moves)
        return next((found for judge in others if (found := judge(case))), None)
    for judge in JUDGES:
        found = judge(case)
        if found is not None:
            return found
    return Found("unknown", "no layer of minictr's explains it; the program, or what is outside of it, may")


def by_filter(case: Case) -> Found | None:
    told = case.judge.explain(case.row)
    return None if told is None else Found("seccomp", *told)


def disabled_userns(case: Case) -> Found | None:
    """The feature's own filter, or the limit of the container's user namespace."""
    asked = case.call in ("unshare", "clone") and case.row["args"][0] & CLONE_NEWUSER
    if case.feature("disable_userns") is None or case.errno not in (EPERM, ENOSPC) or not asked:
        return None
    return Found("disable_userns", "no user namespace can be made inside", "--without disable_userns")


def masked(case: Case) -> Found | None:
    """Something read-only and empty lies over it, or over a directory on the way."""
    feature = case.feature("masked_paths")
    if feature is None or case.errno not in (0, ENOENT, EROFS, EACCES, EPERM):
        return None
    for place in case.places:
        for path in feature.paths:
            name = place.get("real") or place["path"]
            if (name == path or name.startswith(path + "/")) and _mounted_on(place, path):
                return Found("masked path", f"{path} is hidden: what lies over it is empty and read-only", SYSTEMPATHS)
    return None


def _mounted_on(place: Fact, path: str) -> bool:
    return bool(place.get("mount", {}).get("target") == path)


def readonly_mount(case: Case) -> Found | None:
    if case.errno != EROFS:
        return None
    for place in case.places:
        mount = place.get("mount", {})
        if "ro" in mount.get("options", ()):
            return Found(
                "read-only mount", f"{mount['target']} ({mount['fstype']}) is mounted ro", writable(case, mount)
            )
        if "ro" in mount.get("super", ()):
            return Found("read-only mount", f"the file system of {mount['target']} ({mount['fstype']}) is ro itself")
    return None


def writable(case: Case, mount: Fact) -> str:
    """The option that would make MOUNT writable."""
    target = mount["target"]
    readonly = case.feature("readonly_paths")
    if readonly is not None and target in readonly.paths:
        return SYSTEMPATHS
    if target == "/" and case.feature("readonly") is not None:
        path = case.places[0]["path"]
        return f"leave --read-only out, or --tmpfs {os.path.dirname(path) or path}"
    for feature in case.spec.features:
        bind: Any = feature
        if feature.name == "bind" and bind.target == target and bind.readonly:
            return f"-v {bind.source}:{target}"
    return "--privileged" if target.startswith("/sys") else ""


def mount_options(case: Case) -> Found | None:
    """noexec and nodev, which are EACCES."""
    if case.errno != EACCES:
        return None
    for place in case.places:
        mount, kind = place.get("mount", {}), place.get("kind", "")
        for option, calls in (("noexec", ("execve", "execveat")), ("nodev", OPENS)):
            if option not in mount.get("options", ()) or case.call not in calls:
                continue
            if option == "noexec" or kind[:2] in ("c ", "b "):
                return Found("mount option", f"{mount['target']} is mounted {option}", nodev_cure(case, mount, option))
    return None


def nodev_cure(case: Case, mount: dict[str, Any], option: str) -> str:
    """What lets device nodes be opened, where it is the feature ``nodev`` that does not."""
    if option != "nodev" or case.feature("nodev") is None or mount["fstype"] == "tmpfs":
        return ""
    return "--without nodev"


def modes(case: Case) -> Found | None:
    """Owner, group and mode; for root in its namespace it is the capability that is missing."""
    if case.errno != EACCES or not case.who:
        return None
    wanted, parent = wants(case)
    for place in case.places:
        found = permissions.refusal(case.who, place, wanted, parent)
        if found is None:
            continue
        told = f"{found.path}: mode {found.mode:04o}, owner {found.owner}"
        if found.unmapped:
            return Found("user namespace", f"{told}, who is nobody in this user namespace: no capability counts")
        if permissions.is_root(case.who) and found.caps:
            missing = " or ".join(f"CAP_{name}" for name in found.caps)
            return Found("capability", f"{told}; {missing} is missing to {found.what} it", granted(case, found.caps[0]))
        uid = id_inside(case.who["uid_map"], case.who["uids"][3])
        return Found("file permissions", f"{told}; the program is uid {uid} and may not {found.what} it")
    return None


def wants(case: Case) -> tuple[int, int]:
    """What a call wants of the file itself, and of the directory it is in."""
    call, args = case.call, case.row["args"]
    if call in OPENS:
        there = all(place.get("there") for place in case.places)
        bits = (READ, WRITE, READ | WRITE, READ | WRITE)[case.flags & 3] | (WRITE if case.flags & os.O_TRUNC else 0)
        return bits, 0 if there or not case.flags & os.O_CREAT else WRITE
    if call in ACCESS_MODE:
        return args[ACCESS_MODE[call]] & 7, 0
    if call in ("execve", "execveat", "chdir", "fchdir", "chroot"):
        return SEARCH, 0
    if call in REMOVES or call in RENAMES or call in CREATES or call.startswith("mknod"):
        return 0, WRITE
    if call in ("truncate", "truncate64", "connect") or "xattr" in call:
        return WRITE, 0
    return (READ, 0) if call == "inotify_add_watch" else (0, 0)


def capability(case: Case) -> Found | None:
    """The call asks for a capability that the caller has not; or has in its own user namespace alone."""
    if not case.who:
        return None
    name = privileges.needed(case.row, case.who)
    if not name:
        return sticky(case)
    if not permissions.holds(case.who, name):
        return Found("capability", f"CAP_{name} is missing", granted(case, name))
    if not case.who["initial"] and name in privileges.GLOBAL:
        return Found("user namespace", f"CAP_{name} is wanted in the host's user namespace", "--userns host")
    for place in case.places if name in privileges.OF_FILES else ():
        if place.get("there") and not permissions.mapped(case.who, place):
            why = f"{place['path']}: its owner is nobody in this user namespace: no capability counts"
            return Found("user namespace", why)
    return None


def granted(case: Case, name: str) -> str:
    """The option that gives the capability: what is kept already is given to root alone, and may be given up."""
    feature = case.feature("capabilities")
    add = f"--cap-add {name}" if feature is not None and name not in feature.bounding else ""
    if permissions.is_root(case.who):
        return add
    return f"-u 0 {add}".rstrip()


def sticky(case: Case) -> Found | None:
    """In a directory with the sticky bit the owners alone remove and rename. inode(7)."""
    if case.errno != EPERM or (case.call not in REMOVES and not case.call.startswith("rename")):
        return None
    for place in case.places:
        parent = place["dirs"][-1] if place.get("dirs") else None
        if parent is None or not place.get("there") or not parent["mode"] & 0o1000:
            continue
        if not permissions.owns(case.who, parent) and not permissions.owns(case.who, place):
            told = f"{parent['path']} has the sticky bit, and neither it nor the file is the program's"
            if permissions.is_root(case.who) and not permissions.holds(case.who, "FOWNER"):
                return Found("capability", f"{told}; CAP_FOWNER is missing", granted(case, "FOWNER"))
            return Found("file permissions", told)
    return None


def devices(case: Case) -> Found | None:
    """The group's list of devices, asked for the numbers of the node."""
    feature = case.feature("devices")
    if feature is None or not feature.rules or case.errno != EPERM:
        return None
    if case.call in ("mknod", "mknodat"):
        place = 1 if case.call == "mknod" else 2
        mode, number = case.row["args"][place], case.row["args"][place + 1]
        kind = {0o020000: "c", 0o060000: "b"}.get(mode & 0o170000, "")
        node, wanted = (kind, os.major(number), os.minor(number)), "m"
    elif case.call in OPENS and case.places and case.places[0].get("kind", "")[:2] in ("c ", "b "):
        kind, _, numbers = case.places[0]["kind"].partition(" ")
        major, _, minor = numbers.partition(":")
        node, wanted = (kind, int(major), int(minor)), ("r", "w", "rw", "rw")[case.flags & 3]
    else:
        return None
    lacking = "".join(letter for letter in wanted if not device_allowed(feature.rules, *node, letter))
    if not node[0] or not lacking:
        return None
    told = f"{node[0]} {node[1]}:{node[2]}"
    path = case.places[0]["path"] if case.places else ""
    cure = f"--device-cgroup-rule '{told} {wanted}'"
    if case.call in OPENS and path.startswith("/dev/"):
        cure = f"--device {path}, or {cure}"
    return Found("cgroup devices", f"no rule of its list allows {lacking} of {told}", cure)


def device_allowed(rules: Any, kind: str, major: int, minor: int, letter: str) -> bool:
    """What a list of :class:`minictr.features.cgroup_devices.Devices` says: the last rule that fits decides."""
    for allow, of, high, low, access in reversed(rules):
        if of in (kind, "a") and high in (-1, major) and low in (-1, minor) and letter in access:
            return bool(allow)
    return False


def landlock(case: Case) -> Found | None:
    """The rules of the ruleset, asked for the right that the call needs."""
    feature = case.feature("landlock")
    if feature is None:
        return None
    return (
        landlockjudge.of_files(case, feature)
        or landlockjudge.of_mounts(case, feature)
        or landlockjudge.of_network(case, feature)
        or landlockjudge.of_scopes(case, feature)
    )


def landlock_moves(case: Case) -> Found | None:
    """A rename or link into another directory: EXDEV is what Landlock says, and what another file system says."""
    if case.errno != EXDEV or case.call not in RENAMES or case.feature("landlock") is None:
        return None
    mounts = {place.get("mount", {}).get("target") for place in case.places}
    parents = {place["dirs"][-1]["path"] for place in case.places if place.get("dirs")}
    if len(mounts) != 1 or len(parents) < 2 or "refer" not in case.feature("landlock").denied:
        return None
    told = "refer is not allowed in both directories"
    return Found("landlock", told, " ".join(f"--rw {path}" for path in sorted(parents)))


def security_module(case: Case) -> Found | None:
    """A label that confines, where nothing else explains a refusal: the module's own log has the proof."""
    label = case.who.get("label", "")
    if label.split(" ")[0] in FREE or ":unconfined_t:" in label or "(unconfined)" in label:
        return None
    why = f"nothing else explains it, and its label is {label}: the module's log (audit) has the rule"
    return Found("lsm", why, "--security-opt apparmor=..., label=...")


def pids_limit(case: Case) -> Found | None:
    if case.errno != EAGAIN or case.call not in FORKS:
        return None
    feature = case.feature("pids")
    if case.pids_hits:
        most = getattr(feature, "max", None)
        return Found("cgroup pids", f"at its limit of {most} processes and threads", "--pids-limit N")
    return Found("unknown", "no hit of the group's limit is counted; RLIMIT_NPROC, or a limit outside", "")


JUDGES = (
    by_filter,
    disabled_userns,
    masked,
    readonly_mount,
    modes,
    mount_options,
    capability,
    devices,
    landlock,
    security_module,
)

"""What is tried beside single features: each way gives checks, and leaves nothing."""

from __future__ import annotations

import fcntl
import os
import resource
import sys
import tempfile

from minictr.errors import MinictrError, StepFailed, Unsupported
from minictr.kernel import delegated, procfs
from minictr.runtime.doctor import PROFILE, Check, user_needs_namespace
from minictr.runtime.doctor.refusals import cure, refused_by
from minictr.steps import Support

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from minictr.kernel.surroundings import Surroundings
    from minictr.runtime.result import Result

    Way = Callable[[Surroundings], Iterator[Check]]

__all__ = ["WAYS", "host"]

INDISPENSABLE = {"mnt", "pivot_root", "userns"}  # a start without these is another thing
IDS = 65536  # what an ordinary image's files need
FEW = 1024  # descriptors; a container takes some ten of its caller
# program -> Debian's package, and who asks for it; none of them is needed by the default profile
PROGRAMS = {
    "nft": ("nftables", "conntrack, nat and published ports"),
    "newuidmap": ("uidmap", "more than one user in an ordinary user's container"),
    "newgidmap": ("uidmap", "more than one group in an ordinary user's container"),
    "pasta": ("passt", "an ordinary user's way to the network"),
    "mmdebstrap": ("mmdebstrap", "minictr rootfs debian"),
    "apparmor_parser": ("apparmor", "loading AppArmor profiles, where AppArmor is live"),
}
SWITCHES = (  # a switch of this host, its value when closed, one that opens it, what a closed one lets fail
    ("user/max_user_namespaces", "0", "10000", "user namespaces"),
    ("user/max_mnt_namespaces", "0", "10000", "containers at all"),
    ("user/max_pid_namespaces", "0", "10000", "pid namespaces"),
    ("user/max_net_namespaces", "0", "10000", "networks of their own"),
    ("vm/memfd_noexec", "2", "1", "containers at all: the first program of each is a sealed memory file"),
)


def host() -> dict[str, Any]:
    """The kernel, and where its cgroups are."""
    from minictr import __version__
    from minictr.kernel.cgroup_places import hierarchies

    versions = {hierarchy.version for hierarchy in hierarchies() if hierarchy.mount}
    cgroups = {frozenset({1, 2}): "hybrid", frozenset({1}): "v1", frozenset({2}): "v2"}
    name = os.uname()
    return {
        "minictr": __version__,
        "kernel": f"{name.sysname} {name.release}",
        "machine": name.machine,
        "python": ".".join(map(str, sys.version_info[:3])),
        "cgroups": cgroups.get(frozenset(versions), "none"),
    }


def asked(group: str, name: str, around: Surroundings, act: Callable[[], str], *, needed: bool = False) -> Check:
    """What ACT does, as a check: its words, or why it could not."""
    try:
        return Check(group, name, True, act(), needed=needed)
    except Unsupported as err:
        found = Support(False, err.reason, err.cure)
    except StepFailed as err:
        number = err.errno or 0
        found = Support(False, f"{err.what}: {os.strerror(number)}" if number else err.what, err.cure, number)
    except MinictrError as err:
        found = Support(False, str(err))
    except OSError as err:
        found = Support(False, f"{err.filename or name}: {os.strerror(err.errno or 0)}", "", err.errno or 0)
    who = refused_by(found, group, name, around)
    return Check(group, name, False, found.reason, cure(found, group, name, who, around), who, found.errno, needed)


def ids(around: Surroundings) -> Iterator[Check]:
    """Whether a container can have users of its own: ids that nobody else has, in a map that takes."""
    if around.uid:
        yield asked("ids", "subordinate ids", around, _delegated)
    else:
        yield asked("ids", "userns auto", around, _range)


def _range() -> str:
    from minictr.kernel import subids, users

    taken = subids.taken()
    firsts = {kind: subids.free_range(subids.configured(kind), taken[kind], IDS) for kind in ("uid", "gid")}
    for kind, first in firsts.items():
        if first < 0:
            more = f"give more of them to the user 'containers' in /etc/sub{kind}"
            raise Unsupported("userns", f"no {IDS} {kind}s in a row are free", more)
    maps = {f"{kind}_map": f"0 {first} {IDS}\n" for kind, first in firsts.items()}
    users.user_namespace(**maps).close()
    return f"{IDS} from {firsts['uid']}"


def _delegated() -> str:
    from minictr.kernel import users

    maps = {}
    for kind in ("uid", "gid"):
        rows = delegated.rows_of(kind, IDS)
        maps[f"{kind}_map"] = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in rows)
    users.user_namespace(**maps).close()
    return f"{sum(int(line.split()[2]) for line in maps['uid_map'].splitlines())} users"


def state(around: Surroundings) -> Iterator[Check]:
    """Whether what runs can be written down: a file, and a lock on it, where the state directory is or would be."""
    yield asked("start", "state directory", around, _state, needed=True)


def _state() -> str:
    from minictr.kernel.idmap import file_system_of
    from minictr.runtime.store import Store, root_path

    path = place = root_path()
    if os.path.isdir(path):
        Store(path).ensure()  # says whose it is
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(b"0")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return f"{path}, {file_system_of(place)}"


def room(_around: Surroundings) -> Iterator[Check]:
    """Limits of this host that let nothing through, or little."""
    for path, closed, opened, what in SWITCHES:
        name = path.replace("/", ".")
        try:
            value = procfs.read("sys", path).strip()
        except StepFailed:
            continue  # this kernel has no such limit
        works = value != closed
        if works:
            yield Check("room", name, True, value)
        else:
            yield Check("room", name, False, f"{value}: no {what}", f"sysctl {name}={opened}", f"sysctl {name}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    more = "" if soft >= FEW else f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}"
    yield Check("room", "open files", True, f"{soft}, at most {hard}", more)
    terminals = [procfs.read("sys", f"kernel/pty/{name}").strip() for name in ("nr", "max")]
    yield Check("room", "terminals", True, f"{terminals[0]} of {terminals[1]}")


def programs(around: Surroundings) -> Iterator[Check]:
    """Programs of others that some features need, and the one library."""
    yield asked("programs", "libseccomp", around, _libseccomp, needed=True)
    for program, (package, what) in PROGRAMS.items():
        if program == "apparmor_parser" and "apparmor" not in around.modules:
            continue
        path = delegated.find(program) or delegated.find(f"../sbin/{program}")
        if not path:
            yield Check("programs", program, False, f"for {what}", f"apt-get install {package}", f"package {package}")
            continue
        words, helps, who = _powerless(path, around) if program.startswith("new") else ("", "", "")
        yield Check("programs", program, not words, words or path, helps, who)


def _libseccomp() -> str:
    from minictr.kernel.seccomp_library import known

    return "" if known("execve") else "it does not know execve"


def _powerless(path: str, around: Surroundings) -> tuple[str, str, str]:
    """Why newuidmap would start without the privilege of its file, the cure, and who it is; "" when it would not."""
    if not around.uid:
        return "", "", ""
    if around.no_new_privs:
        return f"{path} gets no privilege: this process has no_new_privs", "start it from one that has not", "outside"
    if os.statvfs(path).f_flag & os.ST_NOSUID:
        return f"{path} gets no privilege: its mount is nosuid", "mount -o remount,suid it", "mount"
    from minictr.kernel.file_capabilities import get

    stat = os.stat(path)
    if stat.st_mode & 0o4000 or get(path):
        return "", "", ""
    return f"{path} has neither the set-user-ID bit nor capabilities", f"chmod u+s {path}", "package uidmap"


def start(around: Surroundings) -> Iterator[Check]:
    """A whole container of the default profile, but for features that cannot be had: /bin/true in a root made of this
    host's own files."""
    yield asked("start", f"a container, profile {PROFILE}", around, lambda: _started(around), needed=True)


def _started(around: Surroundings) -> str:
    from minictr.features import PROFILES
    from minictr.features.namespaces import UserNamespace
    from minictr.images.minimal import minimal
    from minictr.runtime.container import Container
    from minictr.runtime.effort import best_effort

    features = PROFILES[PROFILE]
    if user_needs_namespace(around):
        features = (*features, UserNamespace())
    with tempfile.TemporaryDirectory(prefix="minictr-doctor-") as directory:
        os.chmod(directory, 0o755)
        root = minimal(os.path.join(directory, "root"), ["true"]).directory

        def run(out: tuple[str, ...]) -> Result:
            return Container(root, features=features).without(*out).run(["true"], timeout=30)

        result, left = best_effort(run, sorted({feature.name for feature in features} - INDISPENSABLE))
    if result.returncode:
        raise StepFailed(f"run true in a container: exit code {result.returncode}", 0)
    more = " in a user namespace" if user_needs_namespace(around) else ""
    more += f" without {', '.join(item.name for item in left)}" if left else ""
    return f"true ran{more}, {result.elapsed * 1000:.1f} ms"


WAYS: tuple[tuple[str, Way], ...] = (
    ("ids", ids),
    ("room", room),
    ("programs", programs),
    ("the state directory", state),
    ("a whole container", start),
)

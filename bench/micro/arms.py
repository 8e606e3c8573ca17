"""The arms of the micro tier, and which of them a whole container is made of.

An arm is one step over another, so that what a feature costs is the difference of two arms that differ in it alone.
``bare`` is the chroot of bench/environments/bare.py; ``chroot``, ``mnt`` and ``root`` are minictr's way to a root of
its own, one call after the other; nearly all single features stand on ``root``. Every job has a network namespace of
its own, the bare one too; the rungs of the network are an experiment by itself, ``micro/lan``, whose client is on
another machine (bench/lan.py).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import minictr as mc
from bench.attribution import Part
from bench.lifecycle import bpf
from bench.samples import AGAIN, BARE

LAN = "lan"
IDS = 100_000  # the first id of this machine for users of the arms with a user namespace
LAYERS = (8, 13, 32)  # 13 go into one option of the mount; more need Linux 6.5, and where it is older that is told
RULES = (50, 100, 200, 300)
ARGUMENT_RULES = 50
LANDLOCKED = (1, 4, 16)  # 16 is the kernel's limit
# The wall of conntrack lets in answers and published ports: so a port is published first
LADDER = ("host", "veth", "bridge", "bridge_netfilter", "publish", "conntrack", "nat")
CONTROLLERS = ("memory", "cpu", "cpuset", "pids", "io", "freezer", "devices")
WHOLE = "*"  # after an arm's name: what was measured of it in both experiments


@dataclasses.dataclass(frozen=True)
class Wish:
    """One arm. ``features`` None: the environment's own. ``words``: for the program. ``percent``: of calls in a burst.

    ``copyups``: first writes are measured; elsewhere they are writes like others, and cost a new copy of the files.
    """

    name: str
    over: str
    group: str
    features: tuple[mc.Feature, ...] | None = None
    environment: str = "minictr"
    overlay: bool = False
    owner: int = 0
    data: str = "image"
    rungs: tuple[str, ...] = ()
    lan: bool = False
    notifies: bool = False
    words: tuple[str, ...] = ()
    percent: int = 100
    copyups: bool = False
    refused: str = ""

    @property
    def experiment(self) -> str:
        return f"micro/{LAN}" if self.lan else "micro"

    @property
    def key(self) -> str:
        """As costs are kept by: bench/micro/closing.py."""
        return f"{LAN}:{self.name}" if self.lan else self.name


# A session in each, as bare has one: with sched_autogroup_enabled a session is a scheduling group of its own, which on
# a busy machine was 300 us of a round trip here, and would be taken for the root's
SESSION = mc.Session()
ROOT = (mc.MountNamespace(), mc.PivotRoot(), mc.Env(), SESSION)


def rooted(name: str, group: str, *features: mc.Feature, over: str = "root", **more: Any) -> Wish:
    """ROOT and FEATURES, those of the same name instead of its own."""
    return Wish(name, over, group, mc.Container("/", features=ROOT).with_(*features).features, **more)


def bares() -> list[Wish]:
    pairs = ((BARE, BARE), (AGAIN, BARE))
    return [Wish(name, over, "bare", environment=name, copyups=True) for name, over in pairs] + [
        Wish(name, over, "network", environment=name, lan=True) for name, over in pairs
    ]


def roots(layers: Mapping[int, Sequence[str]]) -> list[Wish]:
    """From the chroot to a layered root. LAYERS: how many in all -> the directories below the root."""
    found = [
        Wish("chroot", BARE, "root", (*mc.profiles.BARE, SESSION)),
        Wish("mnt", "chroot", "root", (mc.MountNamespace(), mc.Chroot(), mc.Env(), SESSION)),
        rooted("root", "root", over="mnt", copyups=True),
        rooted("nodev", "root", mc.NoDev()),
        rooted("volume", "root", data="volume"),
        rooted("overlay-1", "root", mc.Overlay(), overlay=True, copyups=True),
    ]
    for count in LAYERS:
        name = f"overlay-{count}"
        overlay = mc.Overlay(lower=tuple(layers.get(count, ())))
        found.append(rooted(name, "root", overlay, over="overlay-1", overlay=True, copyups=True))
    maps = ((0, IDS, 65536),)
    userns = mc.UserNamespace(uid_map=maps, gid_map=maps)
    found.append(rooted("userns", "root", userns, owner=IDS))
    return [*found, rooted("idmap", "root", userns, mc.Idmap(), over="userns")]


def singles() -> list[Wish]:
    """Namespaces, mounts, privilege and control groups, each alone."""
    proc = (mc.PidNamespace(), mc.Proc(), mc.Sysfs())
    masks = tuple(one for one in mc.profiles.DOCKER if one.name in ("masked_paths", "readonly_paths"))
    caps = next(one for one in mc.profiles.DOCKER if one.name == "capabilities")
    groups = [one for one in mc.profiles.DOCKER if one.name in CONTROLLERS]
    return [
        rooted("pid", "namespace", mc.PidNamespace()),
        rooted("ipc", "namespace", mc.IpcNamespace()),
        rooted("uts", "namespace", mc.UtsNamespace()),
        rooted("cgroupns", "namespace", mc.CgroupNamespace()),
        rooted("proc", "mounts", *proc, over="pid"),
        rooted("masks", "mounts", *proc, *masks, over="proc"),
        rooted("capabilities", "privilege", caps),
        rooted("no_new_privs", "privilege", mc.NoNewPrivs()),
        rooted("landlock", "privilege", mc.NoNewPrivs(), mc.Landlock(rw=("/",)), over="no_new_privs"),
        *(
            rooted(
                f"landlock-{count}", "privilege", mc.NoNewPrivs(), over="no_new_privs", words=("--landlock", str(count))
            )
            for count in LANDLOCKED
        ),
        *(rooted(one.name, "cgroup", one) for one in groups),
        rooted("cgroups", "cgroup", *groups),
        *(rooted(one.NAME, "cgroup", one()) for one in (mc.Hugetlb, mc.Rdma, mc.Misc)),  # in no profile
    ]


def seccomps() -> list[Wish]:
    """Filters: everything allowed by one instruction, policies, long ones, and the answers that cost most."""
    allow = bpf.encode([(bpf.RETURN, 0, 0, bpf.ALLOW)])
    everything = mc.SeccompFilter("allow")
    rules = functools.reduce(
        lambda made, number: made.deny("personality", when=(0, "==", 0x1000 + number)),
        range(ARGUMENT_RULES),
        everything,
    )
    found = [rooted("seccomp-1", "seccomp", mc.Seccomp(allow, source="allow all"))]
    found += [rooted(f"seccomp-{name}", "seccomp", mc.Seccomp(name)) for name in ("default", "docker", "lxc")]
    for count in RULES:
        for shape, make in (("linear", bpf.straight), ("tree", bpf.tree)):
            program = mc.Seccomp(make(count), source=f"{count} instructions, {shape}")
            found.append(rooted(f"seccomp-{count}-{shape}", "seccomp", program))
    return [
        *found,
        rooted("seccomp-arguments", "seccomp", mc.Seccomp(rules), over="seccomp-1"),
        rooted("seccomp-log", "seccomp", mc.Seccomp(everything.log("personality")), over="seccomp-1", percent=5),
        rooted(
            "seccomp-notify",
            "seccomp",
            mc.Seccomp(everything.notify("personality")),
            over="seccomp-1",
            percent=5,
            notifies=True,
        ),
    ]


def rungs() -> list[Wish]:
    """The network, each rung the ones below it and one more; the client is on another machine."""
    found = []
    for place, name in enumerate(LADDER):
        wanted = LADDER[1 : place + 1]
        below = LADDER[place - 1] if place else BARE
        found.append(rooted(name, "network", over=below, rungs=wanted, lan=True))
    return found


def wholes() -> list[Wish]:
    """Whole containers: minictr's profiles, LXC, Docker."""
    return [
        Wish(name, BARE, "whole", environment=name, lan=lan, copyups=not lan)
        for name in WHOLES
        for lan in (False, True)
    ]


WHOLES = ("minictr", "minictr-lxc", "minictr-docker", "lxc", "docker")
GROUPS = ("bare", "root", "namespace", "mounts", "privilege", "cgroup", "seccomp", "network", "whole")


def every(layers: Mapping[int, Sequence[str]] = {}) -> list[Wish]:
    """All of them. LAYERS as for :func:`roots`; without any, an arm with more layers is as one with one."""
    return [*bares(), *roots(layers), *singles(), *seccomps(), *rungs(), *wholes()]


def chosen(wishes: Sequence[Wish], words: Sequence[str]) -> list[Wish]:
    """Those named by WORDS (arms or groups; none: all), what they stand on, and the two bare ones of each experiment.

    Raises ValueError for a word that is neither.
    """
    names = {wish.name for wish in wishes}
    unknown = [word for word in words if word not in names and word not in GROUPS]
    if unknown:
        raise ValueError(f"no arm or group {', '.join(unknown)}; groups: {', '.join(GROUPS)}; --list names the arms")
    by_key = {(wish.lan, wish.name): wish for wish in wishes}
    keep = [wish for wish in wishes if not words or wish.name in words or wish.group in words]
    for wish in keep:  # grows while it is gone through: what an arm stands on may stand on something itself
        below = by_key[wish.lan, wish.over]
        keep += [below] if below not in keep else []
    lans = {wish.lan for wish in keep}
    keep += [by_key[lan, name] for lan in lans for name in (BARE, AGAIN) if by_key[lan, name] not in keep]
    return [wish for wish in wishes if wish in keep]


# --- what a container is made of ---

BOTTOM = ("chroot", "mnt", "root")
NAMESPACES = ("pid", "ipc", "uts", "cgroupns", "proc")
MADE_OF = {
    "minictr": (*NAMESPACES, "masks", "nodev", "capabilities", "no_new_privs", "seccomp-default", "pids"),
    "docker": (*NAMESPACES, "masks", "capabilities", "seccomp-docker", "cgroups", "overlay-1"),
    "lxc": (*NAMESPACES, "capabilities", "seccomp-lxc", "cgroups"),
}
NETWORKS = {
    "minictr": ("veth", "bridge", "publish", "conntrack", "nat"),
    "docker": ("veth", "bridge", "bridge_netfilter", "publish", "conntrack", "nat"),
    "lxc": ("veth", "bridge", "nat"),
}
LIKE = {"minictr-docker": "docker", "minictr-lxc": "lxc", "docker-volume": "docker"}


def parts(arm: str, *, lan: bool) -> list[Part]:
    """The features that the whole container ARM is made of, each an arm over another; [] when nobody has said.

    LAN: its workload is reached over the network, so the rungs of that are parts too.
    """
    kind = LIKE.get(arm, arm)
    if kind not in MADE_OF:
        return []
    table = {wish.key: wish for wish in every()}
    names = (*BOTTOM, *MADE_OF[kind])
    if arm == "docker-volume":
        names = (*(name for name in names if name != "overlay-1"), "volume")
    found = [Part(name, name, table[name].over) for name in names]
    if lan:
        for rung in ("host", *NETWORKS[kind]):  # each over the one right below it in the ladder that was measured
            found.append(Part(rung, f"{LAN}:{rung}", f"{LAN}:{table[f'{LAN}:{rung}'].over}"))
    return found


def whole(arm: str) -> Part:
    """ARM at once, over bare: of both experiments."""
    return Part(arm, arm + WHOLE, BARE + WHOLE)


def wholes_of(arm: str) -> list[Part]:
    """What the sum of ARM's parts is held against: ARM itself at once, and minictr rebuilt from the same features."""
    kind = LIKE.get(arm, arm)
    measured = (name for name in (kind if arm == "docker-volume" else arm, f"minictr-{kind}") if name in WHOLES)
    return [whole(name) for name in dict.fromkeys(measured)]


CLOSED = ("minictr", "docker", "lxc")  # containers that `bench all` times and explains


def answering() -> list[str]:
    """The arms that the tables of CLOSED need, as words of :func:`chosen`: what they are made of, their rungs, and each
    of them at once. What all stand on (``root``, which is a group's name as well) comes with them."""
    found = [part.feature for kind in CLOSED for part in (*parts(kind, lan=True), *wholes_of(kind))]
    return [name for name in dict.fromkeys(found) if name not in GROUPS]

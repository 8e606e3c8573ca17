"""From design words to containers: what is on in a row becomes the features, the layer and the network of one arm.

A word is the name of a feature of minictr, ``overlay``, or a rung of the network (``veth``, ``bridge``, ...). A factor
is a word or a group of them; off is absence. A row that cannot be a container is refused by what minictr says of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import minictr as mc
from bench.design import Factors, grounded
from bench.environments import ours
from bench.micro import arms

# Every arm has a network of its own (the rungs are words), its environment, and a session as bare has (micro/arms.py)
FIXED = ("net", "loopback", "env", "session")
OVERLAY = "overlay"
# The factor of the 2x2: the whole path to a published port (cable, bridge, wall, NAT), or the machine's own network
PATH = "network"
ORDER = arms.LADDER  # of the rungs
TARGETS: Mapping[str, tuple[str, bool, tuple[str, ...]]] = {
    # --to -> (profile, a layer on top of the root, the network's rungs)
    "default": ("default", False, ours.OWN_RUNGS),
    "docker": ("docker", True, ours.DOCKER_RUNGS),
    "lxc": ("lxc", False, ours.LXC_RUNGS),
}
ENVIRONMENT = {"default": "minictr", "docker": "minictr-docker", "lxc": "minictr-lxc"}  # the same, as bench run has it
GROUPS: Mapping[str, tuple[str, ...]] = {
    "root": ("mnt", "pivot_root", "nodev"),
    OVERLAY: (OVERLAY,),
    "namespaces": ("pid", "ipc", "uts", "cgroupns"),
    "mounts": ("proc", "sysfs", "dev", "devpts", "shm", "mqueue"),
    "masks": ("masked_paths", "readonly_paths"),
    "process": ("hostname", "sysctl", "umask", "rlimits", "keyring", "boot_id", "init"),
    "names": ("hosts", "resolv_conf", "hostname_file"),
    "privilege": ("user", "capabilities", "no_new_privs"),
    "seccomp": ("seccomp",),
    "cgroups": ("memory", "cpu", "cpuset", "pids", "io", "freezer", "devices", "named_cgroup", "cgroupfs"),
    "cable": ("veth", "bridge"),
    "firewall": ("bridge_netfilter", "conntrack", "nat", "publish"),
}


def _any_below(paths: Iterable[str], top: str) -> bool:
    return any(path.startswith(f"{top}/") for path in paths)


class WordError(ValueError):
    """A word that the target does not have: one line with those it has."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What is taken apart. ``lan``: its workload is reached over the network, so its rungs are words as well."""

    name: str
    features: tuple[Any, ...]
    overlay: bool
    rungs: tuple[str, ...]

    @classmethod
    def of(cls, name: str, *, lan: bool) -> Target:
        profile, overlay, rungs = TARGETS[name]
        wanted = tuple(sorted(rungs, key=ORDER.index)) if lan else ()
        return cls(name, tuple(mc.Container("/", features=profile).features), overlay, wanted)

    @property
    def words(self) -> tuple[str, ...]:
        """Every word, in the order a person meets them."""
        own = [one.name for one in self.features if one.name not in FIXED]
        return tuple(dict.fromkeys([*own, *([OVERLAY] if self.overlay else []), *self.rungs]))

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """What each word stands on, as minictr's features say; rungs on the cable; the network's sysctls on that."""
        found = {
            one.name: tuple(name for name, _ in one.NEEDS if name not in FIXED)
            for one in self.features
            if one.name not in FIXED
        }
        for one in self.features:  # paths below /proc and /sys can be hidden only where these are
            paths = getattr(one, "paths", ()) if one.name in GROUPS["masks"] else ()
            below = tuple(name for name, top in (("proc", "/proc"), ("sysfs", "/sys")) if _any_below(paths, top))
            found[one.name] = (*found.get(one.name, ()), *below)
        if self.overlay:
            found[OVERLAY] = ("mnt",)
        found |= {rung: ("veth",) for rung in self.rungs if rung != "veth"}
        if "bridge_netfilter" in self.rungs:
            found["bridge_netfilter"] = ("veth", "bridge")
        if "conntrack" in self.rungs and "publish" in self.rungs:
            found["conntrack"] = ("veth", "publish")  # no client comes through that wall but by a published port
        if self.rungs and "sysctl" in found:
            found["sysctl"] = (*found["sysctl"], "veth")  # without a cable the machine's own network is used
        return {name: on for name, on in found.items() if on}

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group -> its words that this target has."""
        mine = {name: tuple(word for word in words if word in self.words) for name, words in GROUPS.items()}
        return {name: words for name, words in mine.items() if words}

    def factors(self, text: str) -> list[str]:
        """``a,b`` as factors, words or groups; "" is every word. Raises WordError."""
        wished = [word for word in text.split(",") if word] or list(self.words)
        known = {*self.words, *self.groups()}
        unknown = [word for word in wished if word not in known]
        if unknown:
            raise WordError(
                f"{self.name} has no feature {', '.join(unknown)}; it has {', '.join(self.words)}; "
                f"groups: {', '.join(self.groups())}"
            )
        return wished

    def spelled(self, on: Iterable[str]) -> Factors:
        """The words of factors."""
        groups = self.groups()
        return frozenset(word for name in on for word in ((name,) if name in self.words else groups.get(name, (name,))))

    def needs_of(self, factors: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """What factors, and words that are in none, stand on: each ground by the factor that it is in, if any."""
        factor_of = {word: name for name in factors for word in self.spelled([name])}
        found: dict[str, dict[str, None]] = {}
        for word, ground in self.needs.items():
            mine = factor_of.get(word, word)
            found.setdefault(mine, {}).update({factor_of.get(other, other): None for other in ground})
        return {name: tuple(other for other in ground if other != name) for name, ground in found.items()}

    def group_needs(self, factors: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """factor -> factors that it stands on, by whatever words lie between."""
        needs = self.needs_of(factors)
        found = {}
        for name in factors:
            ground = grounded(frozenset([name]), needs)
            found[name] = tuple(other for other in factors if other != name and other in ground)
        return {name: on for name, on in found.items() if on}

    def container(self, on: Factors, rootfs: str = "/") -> tuple[mc.Container, bool, tuple[str, ...]]:
        """(container, overlay, rungs) of the words ON. Raises SpecError when there is no such container."""
        words = self.spelled(on)
        kept = [one for one in self.features if one.name in words or one.name in FIXED]
        if "pivot_root" not in words:
            kept.append(mc.Chroot())
        box = mc.Container(rootfs, features=kept)
        return box, OVERLAY in words, tuple(rung for rung in self.rungs if rung in words)

    def possible(self, on: Factors) -> str:
        """Why there is no container with the words ON; "" when there is."""
        words = self.spelled(on)
        for name in sorted(words):
            for ground in self.needs.get(name, ()):
                if ground not in words:
                    return f"{name} needs {ground}, which is not in this row"
        try:
            box, _, _ = self.container(on)
            box.plan(["true"])
        except mc.SpecError as err:
            return str(err)
        return ""

"""``minictr doctor``: performs what the runtime does, as this user on this kernel, and says who refuses what.

``ways`` is what is tried beside the features themselves: ids, the state directory, room, programs, a whole start.
``refusals`` names who refused. Nothing is left of it.
"""

from __future__ import annotations

import os

from minictr.errors import errno_name
from minictr.kernel.surroundings import Surroundings, surroundings
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from minictr.steps import Support

__all__ = ["Check", "Checkup", "doctor"]

# feature, or module of minictr.features -> heading; all others are limits of a cgroup
GROUPS = {
    "namespaces": "namespaces",
    "disable_userns": "namespaces",
    "rootfs": "files",
    "mounts": "files",
    "masks": "files",
    "cgroupfs": "files",
    "process": "process",
    "users": "privilege",
    "capabilities": "privilege",
    "seccomp": "privilege",
    "landlock": "privilege",
    "lsm": "privilege",
    "network": "network",
    "device": "files",  # a node; its cgroup rule goes with it
}
LIMITS = "limits"
PROFILE = "default"


class Check(Value):
    """One thing that was tried. ``needed``: whether containers of the profile ``default`` cannot do without it.

    ``works`` with a ``cure``: on a condition. ``refused_by``: see :mod:`minictr.runtime.doctor.refusals`. ``errno``:
    the kernel's answer, 0 where it has none.
    """

    group: str
    name: str
    works: bool
    told: str = ""
    cure: str = ""
    refused_by: str = ""
    errno: int = 0
    needed: bool = False


class Checkup(Value):
    """All that was tried. True: containers of the profile ``default`` run here, and one did.

    ``profiles``: name -> the features of that profile that cannot be had. ``around``: who and what surrounds us.
    """

    host: dict[str, Any]
    around: Surroundings
    profiles: dict[str, tuple[str, ...]]
    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return all(check.works for check in self.checks if check.needed)

    def document(self) -> dict[str, Any]:
        """As JSON: objects, lists, texts and numbers only."""
        return {
            "ok": bool(self),
            "host": self.host,
            "user": {name: _plain(getattr(self.around, name)) for name in self.around._fields},
            "profiles": {name: {"ok": not gone, "missing": list(gone)} for name, gone in self.profiles.items()},
            "checks": [_row(check) for check in self.checks],
        }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _row(check: Check) -> dict[str, Any]:
    row = {name: getattr(check, name) for name in check._fields}
    return {**row, "errno": errno_name(check.errno) if check.errno else ""}


def doctor(progress: Callable[[str], object] = len) -> Checkup:
    """Try everything, in one to three seconds. PROGRESS is given a few words before each part. Raises MinictrError
    only where not even trying is possible: no /proc, no child can be made."""
    from minictr.features import PROFILES
    from minictr.runtime.doctor import ways
    from minictr.runtime.support import supports

    progress("what surrounds this process")
    around = surroundings()
    progress("features")
    found = supports()
    profiles = {
        name: tuple(dict.fromkeys(feature.name for feature in features if not found[feature.name]))
        for name, features in PROFILES.items()
    }
    checks = [*_features(found, around)]
    for words, way in ways.WAYS:
        progress(words)
        checks += way(around)
    return Checkup(ways.host(), around, profiles, tuple(checks))


def _features(found: dict[str, Support], around: Surroundings) -> Iterator[Check]:
    """One check a feature, grouped as the registry's modules are."""
    from minictr.features import PROFILES, REGISTRY
    from minictr.runtime.doctor.refusals import cure, refused_by

    needed = {feature.name for feature in PROFILES[PROFILE]}
    rows = []
    for name, cls in REGISTRY.items():
        group = GROUPS.get(name) or GROUPS.get(cls.__module__.rpartition(".")[2], LIMITS)
        answer = found[name]
        who = "" if answer else refused_by(answer, group, name, around)
        helps = cure(answer, group, name, who, around)
        rows.append(Check(group, name, answer.ok, answer.reason, helps, who, answer.errno, name in needed))
    order = [*dict.fromkeys(GROUPS.values()), LIMITS]
    yield from sorted(rows, key=lambda row: order.index(row.group))


def user_needs_namespace(around: Surroundings) -> bool:
    """Whether this user's containers need the feature ``userns``: without CAP_SYS_ADMIN nothing can be mounted."""
    return "SYS_ADMIN" not in around.effective or os.geteuid() != 0

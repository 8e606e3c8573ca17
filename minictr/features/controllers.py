"""What the features of control groups have in common, and the two that are hardly more: ``pids`` and ``freezer``.

Apart from :mod:`minictr.features.cgroups`, which has those with settings of their own, for every start by the default
profile has ``pids``. None stands for "not written", -1 for "no limit". cgroups(7).
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import frozen, integer, sequence, shown, size
from minictr.features.namespaces import LEASED
from minictr.steps import PREPARE, SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, ClassVar

    Settings = tuple[tuple[str, Any], ...]

UNLIMITED = -1


def limit(value: object, what: str, *, low: int = 0) -> int | None:
    """Bytes from a size, -1 from ``"max"``, ``"unlimited"`` or -1, None as it is."""
    if value is None:
        return None
    if value in ("max", "unlimited", "-1") or (value == UNLIMITED and not isinstance(value, (bool, float))):
        return UNLIMITED
    return size(value, what, low=low)


def count(value: object, what: str, low: int, high: int) -> int | None:
    """A whole number between LOW and HIGH, None as it is."""
    return None if value is None else integer(value, what, low, high)


def truth(value: object, what: str) -> bool | None:
    """True, False, None as it is."""
    if value is not None and not isinstance(value, bool):
        raise SpecError(f"{what}: {shown(value)} is not True or False")
    return value


def pairs(value: object, what: str) -> tuple[tuple[Any, Any], ...]:
    """Rows of two from a mapping, or from a tuple of such rows; no first half twice."""
    listed = value.items() if isinstance(value, dict) else sequence(value, what)
    rows = tuple(sequence(row, f"{what} row") for row in listed)
    for row in rows:
        if len(row) != 2:
            raise SpecError(f"{what}: {shown(row)} is not two things, a name and its value")
        if sum(other[0] == row[0] for other in rows) > 1:
            raise SpecError(f"{what}: {shown(row[0])} is given twice")
    return rows


def said(**settings: Any) -> Settings:
    """The settings that are not None, as the hand takes them; truth as 1 and 0."""
    return tuple(
        (name, int(value) if isinstance(value, bool) else value)
        for name, value in settings.items()
        if value is not None
    )


def told(value: object) -> str:
    """A setting in words, for the plan."""
    if value == UNLIMITED:
        return "unlimited"
    if isinstance(value, tuple):
        return "+".join(":".join(map(str, item)) if isinstance(item, tuple) else str(item) for item in value)
    return str(value)


def owner_of_groups(ctx: Context) -> tuple[int, ...]:
    """Root of a user namespace of the container's own, as (uid, gid) outside, where it may make groups below
    (cgroupfs "rw"); () for who makes them."""
    user, shown = ctx.get("userns"), ctx.get("cgroupfs")
    if user is None or user.join or shown is None or shown.mode != "rw":
        return ()
    if user.auto:
        return LEASED
    ids = tuple(outside for rows in (user.uid_map, user.gid_map) for inside, outside, _ in rows if inside == 0)
    return ids if len(ids) == 2 else ()


class Controller(Feature):
    """What all controllers have in common: a group of the container's own, made before it and entered first of all.

    The child enters by writing to a descriptor that the parent opened (v1), or is born inside (v2): nothing the
    container does is ever counted elsewhere.
    """

    CONTROLLERS: ClassVar[tuple[str, ...]] = ()  # the kernel's words; NAME where it is empty

    def settings(self) -> Settings:
        """What is written into the group: (name, value), names as in ``minictr.kernel.cgroups``."""
        return ()

    def controllers(self) -> tuple[str, ...]:
        """The controllers this wish needs a group of."""
        return self.CONTROLLERS or (self.NAME,)

    def steps(self, ctx: Context) -> Iterator[Step]:
        where, callers, owner = ctx.get("cgroup_parent"), ctx.get("cgroup"), owner_of_groups(ctx)
        for position, controller in enumerate(self.controllers()):
            settings = () if position else self.settings()
            about = ", ".join((controller, *(f"{name} {told(value)}" for name, value in settings)))
            parent = where.path if where is not None else callers.parent_of(controller) if callers else ""
            args: dict[str, Any] = {"controller": controller, "parent": parent, "settings": settings, "owner": owner}
            yield self.step("cgroup", PREPARE, about, undo="rmdir", **args)
            yield self.step("cgroup_enter", SETUP, controller, fd=f"cgroup:{controller}")


class Pids(Controller):
    """How many processes and threads there may be at once, -1 for no limit. Linux 4.3 (v1), 4.5 (v2); pids.max."""

    NAME = "pids"
    SUMMARY = "how many processes and threads there may be at once"

    max: int | str | None = None

    def check(self) -> None:
        frozen(self, "max", UNLIMITED if self.max in ("max", "unlimited") else self.max)
        if self.max != UNLIMITED:
            count(self.max, "pids max", 1, 1 << 22)  # PID_MAX_LIMIT, linux/threads.h

    def settings(self) -> Settings:
        return said(max=self.max)


class Freezer(Controller):
    """A group that can be frozen as a whole: pause. Linux 2.6.28 (v1), 5.2 (v2: every group can)."""

    NAME = "freezer"
    SUMMARY = "can be frozen and thawed as a whole"


def wanted_controllers(ctx: Context) -> tuple[str, ...]:
    """Every controller that some feature of the spec needs a group of, in order."""
    return tuple(
        controller
        for feature in ctx.features
        if isinstance(feature, Controller)
        for controller in feature.controllers()
    )

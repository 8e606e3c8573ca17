"""What truly confines a process: read back from the kernel, compared, and asserted. docs/features/isolation.md.

>>> found = mc.isolation(process)
>>> found.capabilities.effective, found.seccomp.filters, found.limits["memory.max"]
>>> found.diff(mc.isolation(other))
>>> found.assert_at_least("default")            # raises WeakerIsolation, naming every point
"""

from __future__ import annotations

import os

from minictr.errors import SpecError, StepFailed, WeakerIsolation
from minictr.features.profiles import DEFAULT_MASKED, DOCKER_READONLY
from minictr.kernel.isolation import read_isolation
from minictr.kernel.isolation_target import PARENT, Target
from minictr.kernel.isolation_values import Reading
from minictr.runtime.instance import Instance
from minictr.runtime.isolation_order import flat, told_apart, weaker
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Protocol

    from minictr.steps import Feature

    class HasPid(Protocol):
        """A process object: minictr's, subprocess's, psutil's."""

        @property
        def pid(self) -> int: ...


__all__ = ["Difference", "Isolation", "isolation", "program_of"]

ESRCH = 3


class Difference(Value):
    """One field in which two processes differ: its dotted name, and both values, None for what cannot be read."""

    name: str
    mine: Any
    other: Any


class Isolation(Reading):
    """What confines one process, as the kernel told it; fields: :class:`~minictr.kernel.isolation_values.Reading`.

    A field that could not be read is None, and ``unknown`` tells why.
    """

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON: stable names, tuples as lists."""
        from minictr.runtime.inspect import plain

        found: dict[str, Any] = plain(self)
        return found

    def diff(self, other: Isolation, *, identity: bool = False) -> tuple[Difference, ...]:
        """The fields that differ. ``identity``: also those that tell one process from its equal: pid, start, numbers of
        namespaces, paths of cgroups."""
        mine, its = flat(self), flat(other)
        return tuple(
            Difference(name, mine.get(name), its.get(name))
            for name in dict.fromkeys((*mine, *its))
            if mine.get(name) != its.get(name) and (identity or not told_apart(name))
        )

    def assert_at_least(self, wanted: Isolation | str | Iterable[Feature]) -> None:
        """Raise :class:`minictr.WeakerIsolation`, naming each point, where this confines less than WANTED.

        WANTED: another process's isolation, the name of a profile, or features. What cannot be read counts as weaker:
        it is asserted, and not known to hold. The order of each field: docs/features/isolation.md.
        """
        if isinstance(wanted, Isolation):
            rows = {name: value for name, value in flat(wanted).items() if not told_apart(name)}
            for name in ("masked", "readonly"):  # what else is hidden depends on what the root holds
                rows[name] = rows[name] and tuple(path for path in rows[name] if path.startswith(("/proc", "/sys")))
        else:
            from minictr.features import PROFILES
            from minictr.runtime.isolation_wanted import rows_of

            if isinstance(wanted, str) and wanted not in PROFILES:
                raise SpecError(f"profile {wanted!r} is not one of {', '.join(PROFILES)}")
            rows = rows_of(PROFILES[wanted] if isinstance(wanted, str) else tuple(wanted))
        points = weaker(self, rows)
        if points:
            raise WeakerIsolation(f"process {self.pid} ({self.command})", points)

    def __repr__(self) -> str:
        own = [kind for kind, one in self.namespaces.items() if one is not None and one.own]
        words = [
            f"own {' '.join(own) or 'nothing'}",
            f"uid {self.user.uid}",
            f"{len(self.capabilities.effective)} capabilities",
            *(["no_new_privs"] if self.no_new_privs else []),
            f"seccomp {self.seccomp.mode}",
            *([f"{len(self.masked)} masked"] if self.masked is not None else []),
        ]
        return f"<Isolation of {self.pid} {self.command}: {', '.join(words)}>"


def isolation(target: int | HasPid | Instance = 0, *, paths: Sequence[str] = ()) -> Isolation:
    """What confines TARGET: a process id (of anybody's; 0 is this process), a process object, or a container.

    Of a container of minictr, or a :class:`minictr.Process`, it is the program's, not its init's. ``paths``: files
    looked at besides the usual ways to the kernel. Raises SpecError for a kernel thread, StepFailed (ESRCH) for a
    process that is gone or a zombie, WrongStatus for a container that does not run.

    >>> mc.isolation(os.getpid()).namespaces["net"].own
    False
    """
    from minictr.runtime.process import Process

    if isinstance(target, Instance):
        target.must_be("created", "running", "paused", verb="isolation of")
        pid, start, behind = target.process.pid, target.process.start, "init" in target.state.spec.names
    elif isinstance(target, Process):
        if target.returncode is not None:
            raise StepFailed(f"process {target.pid}", ESRCH, cure="it is over")
        pid, start, behind = target.pid, 0, target.behind_init  # not reaped: its number is no other's
    else:
        pid, start, behind = target if isinstance(target, int) else target.pid, 0, False
    if behind:
        pid, start = program_of(pid, start)
    looked_at = (*DEFAULT_MASKED, *DOCKER_READONLY, *paths)
    return Isolation(**read_isolation(pid, start=start, paths=looked_at))


def program_of(pid: int, start: int = 0) -> tuple[int, int]:
    """(pid, start) of the program of which PID is minictr's init: its eldest child. StepFailed: ESRCH, it is gone."""
    with Target(pid, start) as first:
        children = _children(first)
        first.check()
    if not children:
        raise StepFailed(f"the program of process {pid}", ESRCH, cure="it has just ended")
    return children[0][1], children[0][0]


def _children(first: Target) -> list[tuple[int, int]]:
    """(start, pid) of the children of FIRST, the eldest first. Those that were orphaned came later."""
    try:
        names = first.text(f"task/{first.pid}/children").split()  # CONFIG_PROC_CHILDREN
    except OSError:
        names = []
    found = _born_of(first, names)
    return found or _born_of(first, filter(str.isdecimal, os.listdir("/proc")))


def _born_of(first: Target, names: Iterable[str]) -> list[tuple[int, int]]:
    found = []
    for name in names:
        try:
            with Target(int(name)) as other:
                if other.stat()[PARENT] == str(first.pid):
                    found.append((other.start, other.pid))
        except (SpecError, OSError):
            continue  # it has ended, or is the kernel's
    return sorted(found)


def by_word(word: str) -> Isolation:
    """The isolation of WORD as a person says it: a process id, or the name or id of a container."""
    if word.isascii() and word.isdecimal():
        return isolation(int(word)) if int(word) else _no_process(word)
    from minictr.runtime.instance import find

    return isolation(find(word))


def _no_process(word: str) -> Isolation:
    raise SpecError(f"process {word}: a process id is a number, 1 or more")

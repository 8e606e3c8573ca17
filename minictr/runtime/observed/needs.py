"""What a program needed, from what was seen of it: system calls, capabilities, rights over paths, ports.

Pure. "Sure" is a capability without which a call that was done would have failed; "maybe" is one that the call asks for
in some cases, where the moment after it no longer tells which.
"""

from __future__ import annotations

import os

from minictr.features.capabilities import NUMBERS
from minictr.rights import READ
from minictr.runtime.observed import permissions, privileges
from minictr.runtime.observed.calls import OPENS, RENAMES, rights_of
from minictr.runtime.observed.case import Case
from minictr.runtime.observed.facts import AF_INET, AF_INET6, signed
from minictr.runtime.observed.layers import wants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Fact = dict[str, Any]

__all__ = ["capabilities_of", "ports_of", "rights_over"]

DAC = ("DAC_OVERRIDE", "DAC_READ_SEARCH")
# asked for in some cases only, that arguments do not tell, or that the moment after it does not
UNSURE = frozenset("SYS_NICE SYS_RESOURCE NET_BIND_SERVICE NET_ADMIN IPC_LOCK SYS_PTRACE BPF PERFMON SETPCAP".split())
UNSURE |= {"SETUID", "SETGID", "CHOWN"}
SETS_IDS = frozenset(name for name, cap in privileges.TABLE.items() if cap in ("SETUID", "SETGID", "CHOWN"))


def capabilities_of(case: Case) -> Iterator[tuple[str, bool]]:
    """(capability, whether it is sure) of a call that was done."""
    who = case.who
    if not who or case.errno:
        return
    name = privileges.TABLE.get(case.call, "")
    if name and permissions.holds(who, name):
        if privileges.needed(case.row, who):
            yield name, name not in UNSURE
        elif case.call in SETS_IDS and any(signed(value) not in (-1, 0) for value in case.row["args"][:3]):
            yield name, False  # the ids it had before are not known any more
    bare = {**who, "caps": who["caps"] & ~mask(DAC)}
    wanted, parent = wants(case)
    for place in case.places:
        found = permissions.refusal(bare, place, wanted, parent)
        if found is not None:
            yield from ((name, True) for name in found.caps[:1] if permissions.holds(who, name))
            if not permissions.holds(who, found.caps[0]) and len(found.caps) > 1:
                yield found.caps[1], True


def mask(names: tuple[str, ...]) -> int:
    return sum(1 << NUMBERS[name] for name in names)


def rights_over(case: Case) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(path, Landlock's rights over it) of a call that was done, or that Landlock denied."""
    call = case.call
    for place in case.places:
        real = place.get("real") or place["path"]
        if not real.startswith("/") or real.startswith("/memfd:") or real.endswith(" (deleted)"):
            continue
        kind, there = place.get("kind", ""), bool(place.get("there"))
        where, rights = rights_of(call, tuple(case.row["args"]), case.flags, kind == "dir", there)
        parent = place["dirs"][-1]["real"] if place.get("dirs") else None
        if where == "self" and there:
            yield real, rights
        elif where == "parent" and parent is not None:
            yield parent, (*rights, "refer") if call in RENAMES else rights
        makes = call in OPENS and case.flags & os.O_CREAT and kind == "file"
        if makes and parent is not None:
            yield parent, ("make_reg",)  # whether it was there before is not known: the next time it may not be


def ports_of(case: Case) -> tuple[str, int] | None:
    """("bind" or "connect", port) of an address of IP."""
    extra = case.row["extra"]
    if case.call not in ("bind", "connect") or extra.get("family") not in (AF_INET, AF_INET6):
        return None
    return case.call, int(extra.get("port", 0))


def reads(rights: set[str]) -> bool:
    """Whether ``--ro`` gives them all."""
    return rights <= set(READ)

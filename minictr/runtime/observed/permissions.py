"""The kernel's check of modes and owners, done once more on what was seen. inode_permission in fs/namei.c.

Pure: the facts are those of :mod:`minictr.runtime.observed.facts`. Ids are the host's; a map tells those inside.
"""

from __future__ import annotations

from minictr.features.capabilities import NUMBERS
from minictr.kernel.users import id_inside
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Fact = dict[str, Any]

__all__ = ["READ", "SEARCH", "WRITE", "Refusal", "holds", "is_root", "mapped", "owns", "refusal"]

READ, WRITE, SEARCH = 4, 2, 1  # MAY_READ, MAY_WRITE, MAY_EXEC
WORDS = {READ: "read", WRITE: "write", SEARCH: "search", READ | WRITE: "read and write"}


class Refusal(Value):
    """What a mode refuses: ``what`` at ``path``, whose mode and owner (inside) are these. ``caps``: any of them would
    have let it through; ``unmapped``: none would, for the owner is nobody in the user namespace."""

    path: str
    what: str
    mode: int
    owner: str
    caps: tuple[str, ...]
    unmapped: bool = False


def holds(who: Fact, name: str) -> bool:
    """Whether NAME is in its effective set."""
    return bool(who.get("caps", 0) >> NUMBERS[name] & 1)


def mapped(who: Fact, node: Fact) -> bool:
    """Whether the owner and the group of NODE are somebody in the user namespace: else no capability counts on it."""
    return id_inside(who["uid_map"], node["uid"]) is not None and id_inside(who["gid_map"], node["gid"]) is not None


def is_root(who: Fact) -> bool:
    return id_inside(who["uid_map"], who["uids"][1]) == 0


def owns(who: Fact, node: Fact) -> bool:
    return bool(who["uids"][3] == node["uid"])


def allowed(who: Fact, node: Fact, wanted: int) -> bool:
    """Whether the mode of NODE alone lets WHO do WANTED."""
    if owns(who, node):
        bits = node["mode"] >> 6
    elif node["gid"] == who["gids"][3] or node["gid"] in who["groups"]:
        bits = node["mode"] >> 3
    else:
        bits = node["mode"]
    return not wanted & ~int(bits) & 7


def overriding(node: Fact, wanted: int, *, directory: bool) -> tuple[str, ...]:
    """The capabilities that do without the mode: capable_wrt_inode_uidgid in generic_permission."""
    if wanted & WRITE:
        return ("DAC_OVERRIDE",)
    if directory or wanted == READ:
        return ("DAC_READ_SEARCH", "DAC_OVERRIDE")
    return ("DAC_OVERRIDE",) if node["mode"] & 0o111 else ()


def refusal(who: Fact, place: Fact, wanted: int, parent: int = 0) -> Refusal | None:
    """What on the way to PLACE refuses WHO: searching a directory, PARENT bits in the last one, WANTED on itself.

    None: modes let it through, or a list (ACL) is in the way, which is not looked into.
    """
    dirs = place.get("dirs", [])
    steps = [(node, SEARCH, True) for node in dirs]
    if parent and dirs:
        steps.append((dirs[-1], parent, True))
    if wanted and place.get("there"):
        steps.append((place, wanted, place["kind"] == "dir"))
    for node, bits, directory in steps:
        if node.get("acl"):
            return None
        if allowed(who, node, bits):
            continue
        caps, known = overriding(node, bits, directory=directory), mapped(who, node)
        if known and any(holds(who, name) for name in caps):
            continue
        owner = id_inside(who["uid_map"], node["uid"])
        told = str(owner) if owner is not None else f"{node['uid']} of the host"
        what = "execute" if bits == SEARCH and not directory else WORDS.get(bits, "use")
        return Refusal(node["path"], what, node["mode"], told, caps, not known)
    return None

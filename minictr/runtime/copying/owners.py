"""Whose a copied file is, and what privilege it may carry: ids, set-ID bits, capabilities, access lists.

Three rules, one for each way a file can go. Inside numbers are what a program in the container sees; the id map of its
user namespace turns them into the host's.
"""

from __future__ import annotations

import os
import stat
import struct

from minictr.errors import SpecError
from minictr.images.tree import Meta
from minictr.kernel.file_capabilities import ATTRIBUTE as CAPABILITY
from minictr.kernel.file_capabilities import REVISION_2, REVISION_3, REVISION_MASK, SIZES
from minictr.kernel.users import id_inside, id_outside
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from minictr.runtime.copying.walk import Entry

    Row = tuple[int, int, int]
    Rule = Callable[["Entry"], Meta]

NOBODY = 65534  # what the kernel shows for an id without a row: /proc/sys/kernel/overflowuid
ACL = "system.posix_acl_"
V2_SIZE = SIZES[2]  # revision 3 has the id of the user namespace's root after it
ID_MAX = 0xFFFFFFFE


class IdMap(Value):
    """The id maps of a container's user namespace: rows (first inside, first outside, count), user_namespaces(7).

    ``IdMap()`` has no rows: every id is itself, as without a user namespace.
    """

    uid: tuple[Row, ...] = ()
    gid: tuple[Row, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.uid or self.gid)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The host's numbers of inside ids. Raises SpecError for one that has no row."""
        return _outside(self.uid, uid, "user"), _outside(self.gid, gid, "group")

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """The inside numbers of the host's ids; nobody's for one that has no row."""
        return _inside(self.uid, uid), _inside(self.gid, gid)


NO_MAP = IdMap()


def _outside(rows: tuple[Row, ...], number: int, kind: str) -> int:
    found = id_outside(rows, number) if rows else number
    if found is not None:
        return found
    cure = "without -a everything becomes root's of the container"
    raise SpecError(f"{kind} {number} does not exist in the container's user namespace: {cure}")


def _inside(rows: tuple[Row, ...], number: int) -> int:
    found = id_inside(rows, number) if rows else number
    return NOBODY if found is None else found


def inward(id_map: IdMap, *, archive: bool) -> Rule:
    """From the host into a container: root's, or with ARCHIVE the owner of the same number.

    A set-ID bit stays where the id that it gives stays: root's programs remain root's, alice's do not become root's.
    Capabilities stay, and are the container's own: revision 3 where it has a user namespace.
    """
    root, group = id_map.outside(0, 0)

    def rule(entry: Entry) -> Meta:
        was = entry.stat
        mode = stat.S_IMODE(was.st_mode)
        if archive:
            uid, gid = id_map.outside(was.st_uid, was.st_gid)
        else:
            uid, gid = root, group
            mode = without_foreign_bits(was.st_mode, was.st_uid == 0, was.st_gid == 0)
        kept = [
            (name, capability(value, root) if name == CAPABILITY and id_map else value)
            for name, value in entry.xattrs
            if not name.startswith(ACL) or (archive and not id_map)
        ]
        return Meta(mode, uid, gid, was.st_mtime_ns, tuple(kept))

    return rule


def outward(id_map: IdMap, *, archive: bool) -> Rule:
    """From a container to the host: the caller's, or with ARCHIVE the owner of the same number.

    A container's files are not trusted: what gives privilege (set-ID bits, capabilities) goes out with ARCHIVE only.
    """
    me, mine = os.geteuid(), os.getegid()

    def rule(entry: Entry) -> Meta:
        was = entry.stat
        if archive:
            uid, gid = id_map.inside(was.st_uid, was.st_gid)
            return Meta(stat.S_IMODE(was.st_mode), uid, gid, was.st_mtime_ns, _carried(entry, id_map))
        kept = tuple(row for row in entry.xattrs if row[0] != CAPABILITY and not row[0].startswith(ACL))
        return Meta(without_foreign_bits(was.st_mode, False, False), me, mine, was.st_mtime_ns, kept)

    return rule


def recorded(id_map: IdMap) -> Rule:
    """Into an archive or a layer: inside numbers, and everything else as it is."""

    def rule(entry: Entry) -> Meta:
        was = entry.stat
        uid, gid = id_map.inside(was.st_uid, was.st_gid)
        return Meta(stat.S_IMODE(was.st_mode), uid, gid, was.st_mtime_ns, _carried(entry, id_map))

    return rule


def unpacked(id_map: IdMap) -> Callable[[Meta], Meta]:
    """Out of an archive into a container: its numbers are inside ones."""
    root, _ = id_map.outside(0, 0)

    def rule(meta: Meta) -> Meta:
        uid, gid = id_map.outside(meta.uid, meta.gid)
        kept = tuple(
            (name, capability(value, root) if name == CAPABILITY else value)
            for name, value in meta.xattrs
            if not name.startswith(ACL)  # its ids would need the map too
        )
        return meta.replace(uid=uid, gid=gid, xattrs=kept)

    return rule if id_map else lambda meta: meta


def _carried(entry: Entry, id_map: IdMap) -> tuple[tuple[str, bytes], ...]:
    if not id_map:
        return entry.xattrs
    return tuple(
        (name, capability(value, 0) if name == CAPABILITY else value)
        for name, value in entry.xattrs
        if not name.startswith(ACL)
    )


def without_foreign_bits(mode: int, user: bool, group: bool) -> int:
    """The permission bits of MODE; set-user-ID only if USER, set-group-ID of a program only if GROUP."""
    kept = stat.S_IMODE(mode)
    if not user:
        kept &= ~stat.S_ISUID
    if not group and not stat.S_ISDIR(mode):  # of a directory it says whose new files are, and gives nothing
        kept &= ~stat.S_ISGID
    return kept


def capability(value: bytes, root: int) -> bytes:
    """A security.capability attribute that counts where ROOT is user 0: revision 3, or 2 for the host's own.

    linux/capability.h, struct vfs_ns_cap_data; Linux 4.14. What is no such attribute stays as it is: the kernel refuses
    it.
    """
    if len(value) < V2_SIZE:
        return value
    (magic,) = struct.unpack_from("<I", value)
    if magic & REVISION_MASK not in (REVISION_2, REVISION_3):
        return value
    head = struct.pack("<I", magic & ~REVISION_MASK | (REVISION_3 if root else REVISION_2))
    return head + value[4:V2_SIZE] + (struct.pack("<I", root) if root else b"")

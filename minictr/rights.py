"""Landlock's rights by name: their bits, and the ABI of the kernel that first denies them. linux/landlock.h.

One table for the wish (:mod:`minictr.features.landlock`) and for the hands (:mod:`minictr.kernel.landlock`). Names are
the kernel's, in lower case, without their prefix; ``read-file`` as setpriv(1) writes it is the same as ``read_file``.
"""

from __future__ import annotations

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Table = Mapping[str, tuple[int, int]]

__all__ = ["ACCESS", "LINUX", "LOG_ABI", "NETWORK", "OF_FILES", "READ", "SCOPES", "abi_of", "bits", "names", "normal"]

# name -> (number of the bit, ABI)
ACCESS: dict[str, tuple[int, int]] = {  # LANDLOCK_ACCESS_FS_*
    "execute": (0, 1),
    "write_file": (1, 1),
    "read_file": (2, 1),
    "read_dir": (3, 1),
    "remove_dir": (4, 1),
    "remove_file": (5, 1),
    "make_char": (6, 1),
    "make_dir": (7, 1),
    "make_reg": (8, 1),
    "make_sock": (9, 1),
    "make_fifo": (10, 1),
    "make_block": (11, 1),
    "make_sym": (12, 1),
    "refer": (13, 2),  # link and rename into another directory: without it the kernel denies that always
    "truncate": (14, 3),
    "ioctl_dev": (15, 5),
}
NETWORK: dict[str, tuple[int, int]] = {"bind_tcp": (0, 4), "connect_tcp": (1, 4)}  # LANDLOCK_ACCESS_NET_*
SCOPES: dict[str, tuple[int, int]] = {"abstract_unix_socket": (0, 6), "signal": (1, 6)}  # LANDLOCK_SCOPE_*
LOG_ABI = 7  # flags of landlock_restrict_self(2)
# ABI -> the kernel that brought it
LINUX = {1: "5.13", 2: "5.19", 3: "6.2", 4: "6.7", 5: "6.10", 6: "6.12", 7: "6.15"}

READ = ("execute", "read_file", "read_dir")  # LL_FS_RO of the kernel's samples/landlock/sandboxer.c
OF_FILES = ("execute", "write_file", "read_file", "truncate", "ioctl_dev")  # all others are of what is in a directory


def normal(wanted: object, table: Table, what: str) -> tuple[str, ...]:
    """WANTED in the table's order, each once. Raises SpecError for a word that is not in it."""
    if not isinstance(wanted, (tuple, list, set, frozenset)):
        raise SpecError(f"{what}: {wanted!r} is not a tuple of names")
    found = set()
    for name in wanted:
        word = name.replace("-", "_") if isinstance(name, str) else name
        if word not in table:
            raise SpecError(f"{what}: {name!r} is not one of {', '.join(table)}")
        found.add(word)
    return tuple(name for name in table if name in found)


def bits(wanted: Iterable[str], table: Table) -> int:
    """The mask of names that are in TABLE."""
    mask = 0
    for name in wanted:
        mask |= 1 << table[name][0]
    return mask


def names(mask: int, table: Table) -> tuple[str, ...]:
    """The names of a mask."""
    return tuple(name for name, (bit, _) in table.items() if mask >> bit & 1)


def abi_of(name: str) -> int:
    """The ABI that a right, a scope or ``log`` needs."""
    for table in (ACCESS, NETWORK, SCOPES):
        if name in table:
            return table[name][1]
    return LOG_ABI

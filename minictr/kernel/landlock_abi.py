"""How much of Landlock this kernel has: a part of ``kernel.landlock``, by itself because starts ask it."""

from __future__ import annotations

from minictr.errors import StepFailed
from minictr.kernel.core import lib
from minictr.rights import LINUX, abi_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["abi", "lacking"]

EPERM, ENOSYS, EOPNOTSUPP = 1, 38, 95
_CURES = {
    ENOSYS: "needs Linux 5.13 with CONFIG_SECURITY_LANDLOCK; an outer container's seccomp filter may hide it",
    EPERM: "an outer container's seccomp filter refuses it: allow it there",
    EOPNOTSUPP: "it is built in and not in use: add landlock to the boot parameter lsm=",
}


def abi() -> int:
    """How much of Landlock this kernel has: 1 (Linux 5.13) to 7 (6.15) and later. landlock_create_ruleset(2).

    Raises StepFailed: ENOSYS, EOPNOTSUPP (not in use), EPERM (a filter).
    """
    result = int(lib.mc_landlock_abi())
    if result < 0:
        raise StepFailed("landlock_create_ruleset", -result, cure=_CURES.get(-result, ""))
    return result


def lacking(
    access: Iterable[str] = (), network: Iterable[str] = (), scopes: Iterable[str] = (), *, log: bool = False
) -> dict[str, str]:
    """Which of these rights this kernel cannot deny: name -> why. Empty: it has them all. Raises as :func:`abi`.

    ``log``: whether flags of :func:`restrict` are wanted; "log" is its name.
    """
    has = abi()
    wanted = (*access, *network, *scopes, *(("log",) if log else ()))
    return {name: _needs(name, has) for name in wanted if abi_of(name) > has}


def _needs(name: str, has: int) -> str:
    needed = abi_of(name)
    return f"{name} needs Landlock ABI {needed} (Linux {LINUX[needed]}), this kernel has ABI {has}"

"""Landlock: what the program may do to files, TCP ports and processes outside. landlock(7), Linux 5.13.

Needs no privilege, no namespace and no root file system: the one wall that an ordinary user can build anywhere.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import frozen, inside, integer, sequence, shown
from minictr.rights import ACCESS, NETWORK, READ, SCOPES, bits, normal
from minictr.steps import EXEC, LOCK, PREPARE, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

ENOENT = 2
NARROW = 1  # enum mc_landlock_flag of the core
LOG_NEW_EXEC_ON = 2  # LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON, linux/landlock.h
PORT_MAX = 65535
RULES = "landlock"  # the handle of the ruleset


class Landlock(Feature):
    """Access to files, TCP ports and processes is denied, but where a rule allows it. Linux 5.13, landlock(7).

    ``ro``: paths that may be read and executed; ``rw``: paths where all is allowed; ``rules``: rows of (path, rights).
    Each holds for all below it. ``access``: the rights over files that are denied elsewhere; None: all, where there are
    paths, else none. ``bind``, ``connect``: the only TCP ports (0: those that the kernel chooses); () is none, None
    leaves them alone. ``scopes``: what reaches no process outside: ``abstract_unix_socket``, ``signal``.
    ``ignore_missing``: a path that is not there is no error. ``log``: denials go to the audit log.

    Paths are the container's. Needs no_new_privs, or CAP_SYS_ADMIN in its user namespace.
    """

    NAME = "landlock"
    SUMMARY = "only the files, TCP ports and processes that are named"

    ro: tuple[str, ...] = ()
    rw: tuple[str, ...] = ()
    rules: tuple[tuple[str, tuple[str, ...]], ...] = ()
    access: tuple[str, ...] | None = None
    bind: tuple[int, ...] | None = None
    connect: tuple[int, ...] | None = None
    scopes: tuple[str, ...] = ()
    ignore_missing: bool = False
    log: bool = False

    def check(self) -> None:
        for field in ("ro", "rw"):
            paths = sequence(getattr(self, field), f"landlock {field}")
            frozen(self, field, tuple(inside(path, f"landlock {field}") for path in paths))
        if self.access is not None:
            frozen(self, "access", normal(self.access, ACCESS, "landlock access"))
        frozen(self, "rules", tuple(self._rule(row) for row in sequence(self.rules, "landlock rules")))
        for field in ("bind", "connect"):
            ports = getattr(self, field)
            if ports is not None:
                numbers = (
                    integer(port, f"landlock {field}", 0, PORT_MAX) for port in sequence(ports, f"landlock {field}")
                )
                frozen(self, field, tuple(numbers))
        frozen(self, "scopes", normal(self.scopes, SCOPES, "landlock scopes"))
        if not self.parts:
            raise SpecError("landlock: nothing is denied: name paths, access, ports or scopes")
        if (self.ro or self.rw) and not self.denied:
            raise SpecError("landlock: paths are allowed and no access is denied elsewhere: leave one of them out")

    def _rule(self, row: object) -> tuple[str, tuple[str, ...]]:
        two = sequence(row, "landlock rule")
        if len(two) != 2:
            raise SpecError(f"landlock rule: {shown(row)} is not (path, rights)")
        path = inside(two[0], "landlock rule")
        allowed = normal(two[1], ACCESS, f"landlock rule {path}")
        if not allowed:
            raise SpecError(f"landlock rule {path}: it allows nothing: name rights, or leave it out")
        for name in allowed:
            if self.access is not None and name not in self.access:
                raise SpecError(f"landlock rule {path}: {name} is not denied by access, so no rule can allow it")
        return path, allowed

    @property
    def denied(self) -> tuple[str, ...]:
        """The rights over files that are denied where no rule allows them."""
        if self.access is not None:
            return self.access
        return tuple(ACCESS) if self.ro or self.rw or self.rules else ()

    @property
    def network(self) -> tuple[str, ...]:
        """The rights over TCP ports that are denied but for the ports named."""
        return tuple(name for name, ports in zip(NETWORK, (self.bind, self.connect)) if ports is not None)

    @property
    def parts(self) -> tuple[str, ...]:
        """All that is denied, by name; and ``log``."""
        return (*self.denied, *self.network, *self.scopes, *(("log",) if self.log else ()))

    def without_part(self, part: str) -> Landlock | None:
        """Less one right, scope or ``log``; None when nothing would be left to deny."""
        if part not in self.parts:
            return self
        denied = tuple(name for name in self.denied if name != part)
        rows = ((path, tuple(name for name in allowed if name != part)) for path, allowed in self.rules)
        left: dict[str, Any] = {
            "ro": self.ro if denied else (),
            "rw": self.rw if denied else (),
            "rules": tuple(row for row in rows if row[1]),
            "access": denied,
            "bind": None if part == "bind_tcp" else self.bind,
            "connect": None if part == "connect_tcp" else self.connect,
            "scopes": tuple(name for name in self.scopes if name != part),
            "log": self.log and part != "log",
        }
        rest = (*denied, *left["scopes"], left["bind"], left["connect"])
        return self.replace(**left) if any(value is not None for value in rest) else None

    def steps(self, ctx: Context) -> Iterator[Step]:
        last = ctx.has("no_new_privs")
        denied: dict[str, Any] = {"access": self.denied, "network": self.network, "scopes": self.scopes}
        told = " ".join(self.parts)
        # root of a user namespace has in it what the caller need not have
        admin = not last and not ctx.has("userns")
        yield self.step("landlock_abi", PREPARE, told, **denied, log=self.log, admin=admin)
        masks: dict[str, Any] = {
            "fs": bits(self.denied, ACCESS),
            "net": bits(self.network, NETWORK),
            "scoped": bits(self.scopes, SCOPES),
        }
        yield self.step("landlock_ruleset", LOCK, told, into=RULES, **masks)
        for path, allowed, flags in self.path_rows():
            args: dict[str, Any] = {"ruleset": RULES, "path": path, "rights": bits(allowed, ACCESS), "flags": flags}
            # the wish says so itself: a path that is not there need not be allowed
            tolerate = (ENOENT,) if self.ignore_missing else ()
            words = "all" if allowed == self.denied else " ".join(allowed)
            yield self.step("landlock_path", LOCK, f"{path}: {words}", tolerate=tolerate, **args)
        for port, names in self._ports():
            told = f"{port}: {' '.join(names)}"
            yield self.step("landlock_port", LOCK, told, ruleset=RULES, port=port, rights=bits(names, NETWORK))
        flags = LOG_NEW_EXEC_ON if self.log else 0
        yield self.step("landlock_restrict", EXEC if last else LOCK, "for good", ruleset=RULES, flags=flags)

    def path_rows(self) -> Iterator[tuple[str, tuple[str, ...], int]]:
        """Rows of path, rights, flags; a right of directories is left out for a file where it was not asked for by
        name."""
        read = tuple(name for name in READ if name in self.denied)
        for path in self.ro if read else ():
            yield path, read, NARROW
        for path in self.rw:
            yield path, self.denied, NARROW
        for path, allowed in self.rules:
            yield path, allowed, 0

    def _ports(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        given = {name: ports for name, ports in zip(NETWORK, (self.bind, self.connect)) if ports}
        for port in sorted({port for ports in given.values() for port in ports}):
            yield port, tuple(name for name, ports in given.items() if port in ports)

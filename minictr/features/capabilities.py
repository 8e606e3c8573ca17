"""Capabilities and no_new_privs: what root may still do, and whether execve may give more. capabilities(7)."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import frozen, sequence, shown
from minictr.features.namespaces import own
from minictr.steps import LOCK, VERIFY, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

# linux/capability.h: the index is the number
CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(CAPABILITIES)}
# what else confines a program by itself, by feature name: it goes with --privileged, of run and of exec
CONFINING = ("no_new_privs", "landlock", "seccomp", "apparmor", "selinux")
ALL_BITS = -1  # every bit of an int64


def canonical(name: object) -> str:
    """``NET_RAW`` from ``net_raw``, ``CAP_NET_RAW`` or ``"13"``. Raises SpecError for what is no capability."""
    if not isinstance(name, str):
        raise SpecError(f"capability: {shown(name)} is not a name")
    upper = name.upper().removeprefix("CAP_")
    if upper in NUMBERS:
        return upper
    if name.isascii() and name.isdigit() and len(name) < 4 and int(name) < len(CAPABILITIES):
        return CAPABILITIES[int(name)]
    raise SpecError(f"capability: {shown(name)} is not one of capabilities(7)")


def mask(names: Iterable[str]) -> int:
    """The bit set of NAMES."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def normal(names: object, what: str) -> tuple[str, ...]:
    """NAMES in the kernel's order, each once."""
    found = {canonical(name) for name in sequence(names, what)}
    return tuple(name for name in CAPABILITIES if name in found)


class Capabilities(Feature):
    """The five capability sets. Linux 2.2; ambient 4.3; capabilities(7).

    Names are without CAP_. ``effective`` and ``permitted`` None are the same as ``bounding``. ``inheritable`` and
    ``ambient`` are empty unless given (a set that was inherited needlessly was CVE-2022-24769).

    ``drop_only``: the bounding set is narrowed and nothing else, as LXC does, and execve works the rest out. For
    wishes such as "all but five", where an outer container may hold less than is asked for.
    """

    NAME = "capabilities"
    SUMMARY = "the privileges of root that are left to the program"

    bounding: tuple[str, ...]
    effective: tuple[str, ...] | None = None
    permitted: tuple[str, ...] | None = None
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()
    drop_only: bool = False

    def check(self) -> None:
        for field in ("bounding", "effective", "permitted", "inheritable", "ambient"):
            value = getattr(self, field)
            if value is not None:
                frozen(self, field, normal(value, f"capabilities {field}"))
        permitted = self.bounding if self.permitted is None else self.permitted
        effective = self.bounding if self.effective is None else self.effective
        self.subset("effective", effective, "permitted", permitted)
        self.subset("ambient", self.ambient, "permitted", permitted)
        self.subset("ambient", self.ambient, "inheritable", self.inheritable)
        self.subset("inheritable", self.inheritable, "bounding", self.bounding)
        if self.drop_only and (self.effective, self.permitted, self.inheritable, self.ambient) != (None, None, (), ()):
            raise SpecError("capabilities: drop_only narrows the bounding set alone: leave the other sets out")

    def subset(self, small: str, few: tuple[str, ...], large: str, many: tuple[str, ...]) -> None:
        """FEW must all be in MANY: the kernel refuses the rest, or has them back after execve."""
        for name in few:
            if name not in many:
                cure = f"add it to {large}, or leave it out of {small}"
                raise SpecError(f"capabilities: {name} is {small} but not {large}: {cure}")

    def steps(self, ctx: Context) -> Iterator[Step]:
        bounding, inheritable, ambient = mask(self.bounding), mask(self.inheritable), mask(self.ambient)
        permitted = bounding if self.permitted is None else mask(self.permitted)
        effective = bounding if self.effective is None else mask(self.effective)
        told = f"keep {len(self.bounding)} of {len(CAPABILITIES)}"
        yield self.step("bounding", LOCK, told, keep=bounding)
        if self.drop_only and not own(ctx, "userns"):  # there root begins with all of them, the inheritable too
            effective = permitted = ALL_BITS  # until execve: nothing is to be verified of these
        else:
            who = ctx.get("user")
            if who is not None and who.resolved().uid != 0:
                # what execve would leave of them (capabilities(7)): kept until then, the others would let a user into
                # directories and programs that are closed to it
                permitted, effective = permitted & ambient, effective & ambient
                # leaving user 0 would clear the permitted set that capset is to choose from
                yield self.step("keep_caps", LOCK, "on", value=1)
            told = f"effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x}"
            yield self.step("capset", LOCK, told, effective=effective, permitted=permitted, inheritable=inheritable)
        yield self.step("ambient", LOCK, " ".join(self.ambient) or "none", ambient=ambient)
        sets: dict[str, Any] = {
            "effective": effective,
            "permitted": permitted,
            "inheritable": inheritable,
            "bounding": bounding,
        }
        yield self.step("verify_caps", VERIFY, f"no more than {len(self.bounding)}", **sets, ambient=ambient)


class NoNewPrivs(Feature):
    """Execve gives no privilege any more: set-user-ID bits and file capabilities mean nothing.

    Linux 3.5, prctl(2) PR_SET_NO_NEW_PRIVS.
    """

    NAME = "no_new_privs"
    SUMMARY = "set-user-ID and file capabilities give nothing any more"

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("no_new_privs", LOCK)
        yield self.step("verify_no_new_privs", VERIFY)

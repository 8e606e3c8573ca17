"""Capabilities and no_new_privs: what root may still do, and whether execve may give more. capabilities(7)."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import frozen, sequence, shown
from minictr.features.namespaces import own
from minictr.steps import LOCK, PREPARE, VERIFY, Context, Feature, Step

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
BITS = 64  # of a set: _LINUX_CAPABILITY_U32S_3 of linux/capability.h, twice 32
EVERYWHERE = 38  # a kernel that can run anything of ours has those below: AUDIT_READ is of Linux 3.16
# what else confines a program by itself, by feature name: it goes with --privileged, of run and of exec
CONFINING = ("securebits", "no_new_privs", "landlock", "seccomp", "apparmor", "selinux")
ALL_BITS = -1  # every bit of an int64


def canonical(name: object) -> str:
    """``NET_RAW`` from ``net_raw``, ``CAP_NET_RAW`` or ``"13"``; ``cap_41`` for a number that has no name here yet.

    Raises SpecError for what is no capability.
    """
    if not isinstance(name, str):
        raise SpecError(f"capability: {shown(name)} is not a name")
    upper = name.upper().removeprefix("CAP_")
    if upper in NUMBERS:
        return upper
    if upper.isascii() and upper.isdigit() and len(upper) < 4 and int(upper) < BITS:
        number = int(upper)
        return CAPABILITIES[number] if number < len(CAPABILITIES) else f"cap_{number}"
    raise SpecError(f"capability: {shown(name)} is not one of capabilities(7), nor a number below {BITS}")


def number_of(name: str) -> int:
    """The number of a name that :func:`canonical` gave."""
    return NUMBERS[name] if name in NUMBERS else int(name[4:])


def mask(names: Iterable[str]) -> int:
    """The bit set of NAMES, 64 bits without a sign."""
    bits = 0
    for name in names:
        bits |= 1 << number_of(name)
    return bits


def signed(bits: int) -> int:
    """BITS as the int64 that an op's argument is."""
    return bits - (1 << BITS) if bits >> (BITS - 1) == 1 else bits


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Canonical NAMES in the kernel's order, each once."""
    return tuple(sorted({*names}, key=number_of))


def normal(names: object, what: str) -> tuple[str, ...]:
    """NAMES in the kernel's order, each once."""
    return ordered(canonical(name) for name in sequence(names, what))


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

    @property
    def parts(self) -> tuple[str, ...]:
        """Every capability that is kept in any set."""
        return ordered((*self.bounding, *(self.permitted or ()), *(self.effective or ())))

    def without_part(self, part: str) -> Capabilities:
        """Less one capability, in all sets."""
        fields = ("bounding", "effective", "permitted", "inheritable", "ambient")
        given = {field: value for field in fields if (value := getattr(self, field)) is not None}
        return self.replace(**{field: tuple(name for name in value if name != part) for field, value in given.items()})

    def unsure(self) -> tuple[str, ...]:
        """What this kernel may not have. "All" but a few (``drop_only``) is all that there are: of these only numbers
        without a name, which nobody has by accident."""
        first = len(CAPABILITIES) if self.drop_only else EVERYWHERE
        return tuple(name for name in self.parts if number_of(name) >= first)

    def sets(self, ctx: Context) -> dict[str, int] | None:
        """Effective, permitted and inheritable as the program is to begin; None where execve works them out."""
        who, securebits = ctx.get("user"), ctx.get("securebits")
        other = who is not None and who.resolved().uid != 0
        # in a user namespace of its own root begins with all of them, the inheritable too; and who becomes another
        # user loses all, while securebits still need one
        if self.drop_only and not own(ctx, "userns") and not (other and securebits is not None):
            return None
        permitted = mask(self.bounding if self.permitted is None else self.permitted)
        effective = mask(self.bounding if self.effective is None else self.effective)
        if other or (securebits is not None and "noroot" in securebits.on):
            # what execve would leave of them (capabilities(7)): kept until then, the others would let a user into
            # directories and programs that are closed to it
            permitted, effective = permitted & mask(self.ambient), effective & mask(self.ambient)
        return {"effective": effective, "permitted": permitted, "inheritable": mask(self.inheritable)}

    def steps(self, ctx: Context) -> Iterator[Step]:
        unsure, sets, ambient = self.unsure(), self.sets(ctx), signed(mask(self.ambient))
        if unsure:
            yield self.step("known_capabilities", PREPARE, " ".join(unsure), names=unsure)
        told = f"keep {len(self.bounding)} of {len(CAPABILITIES)}"
        bounding = signed(mask(self.bounding))
        yield self.step("bounding", LOCK, told, keep=bounding)
        who = ctx.get("user")
        if sets is not None:
            if who is not None and who.resolved().uid != 0:
                # leaving user 0 would clear the permitted set that capset is to choose from
                yield self.step("keep_caps", LOCK, "on", value=1)
            spare = mask(("SETPCAP",)) if ctx.has("securebits") else 0  # it goes with their own capset
            yield self.capset(sets["effective"] | spare, sets["permitted"] | spare, sets["inheritable"])
        yield self.step("ambient", LOCK, " ".join(self.ambient) or "none", ambient=ambient)
        # until execve nothing is to be verified of what it works out
        last = sets or {"effective": ALL_BITS, "permitted": ALL_BITS, "inheritable": 0}
        wanted: dict[str, Any] = {name: signed(bits) for name, bits in last.items()}
        told = f"no more than {len(self.bounding)}"
        yield self.step("verify_caps", VERIFY, told, **wanted, bounding=bounding, ambient=ambient)

    def capset(self, effective: int, permitted: int, inheritable: int, asker: Feature | None = None) -> Step:
        """The step that sets three of the sets, in the name of ASKER."""
        told = f"effective {effective:#x}, permitted {permitted:#x}, inheritable {inheritable:#x}"
        bits: dict[str, Any] = {
            "effective": signed(effective),
            "permitted": signed(permitted),
            "inheritable": signed(inheritable),
        }
        return (asker or self).step("capset", LOCK, told, **bits)


class Securebits(Feature):
    """How far user 0 has privilege by itself, and whether that can change. Linux 2.6.26, capabilities(7).

    ``on``: bits that are set; ``off``: bits that are cleared; the others stay as the caller has them. Names are the
    kernel's without SECBIT_: ``noroot``, ``no_setuid_fixup``, ``no_cap_ambient_raise`` (4.3), ``exec_restrict_file``,
    ``exec_deny_interactive`` (both 6.14), and each with ``_locked``, from which there is no way back; and
    ``keep_caps_locked``. ``keep_caps`` is none of them: execve clears it.

    With ``noroot`` execve gives user 0 what it gives everybody: ambient and file capabilities. A user namespace made
    later begins without any of these bits.
    """

    NAME = "securebits"
    SUMMARY = "root gets no capabilities for being root"

    on: tuple[str, ...]
    off: tuple[str, ...] = ()

    def check(self) -> None:
        from minictr.securebits import normal

        for field in ("on", "off"):
            frozen(self, field, normal(sequence(getattr(self, field), f"securebits {field}")))
        if not self.on and not self.off:
            raise SpecError("securebits: none is named: leave it out, or name one")
        for name in self.on:
            if name in self.off:
                raise SpecError(f"securebits: {name} is on and off: keep one")

    @property
    def parts(self) -> tuple[str, ...]:
        return self.on + self.off

    def without_part(self, part: str) -> Securebits | None:
        on, off = (tuple(name for name in names if name != part) for names in (self.on, self.off))
        return self.replace(on=on, off=off) if on or off else None

    def steps(self, ctx: Context) -> Iterator[Step]:
        from minictr.securebits import bits

        told = " ".join((*(f"+{name}" for name in self.on), *(f"-{name}" for name in self.off)))
        wanted: dict[str, Any] = {"on": bits(self.on), "off": bits(self.off)}
        yield self.step("securebits", LOCK, told, **wanted)
        capabilities: Capabilities | None = ctx.get("capabilities")
        sets = None if capabilities is None else capabilities.sets(ctx)
        if capabilities is not None and sets is not None:
            yield capabilities.capset(**sets, asker=self)
        yield self.step("verify_securebits", VERIFY, told, **wanted)


class NoNewPrivs(Feature):
    """Execve gives no privilege any more: set-user-ID bits and file capabilities mean nothing.

    Linux 3.5, prctl(2) PR_SET_NO_NEW_PRIVS.
    """

    NAME = "no_new_privs"
    SUMMARY = "set-user-ID and file capabilities give nothing any more"

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("no_new_privs", LOCK)
        yield self.step("verify_no_new_privs", VERIFY)

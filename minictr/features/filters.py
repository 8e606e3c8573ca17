"""``SeccompFilter``: which system calls a program may make, as a value. Pure but for what is asked of libseccomp.

The last word counts: of the rules that name a system call and whose conditions hold, the one given last decides; where
none does, the default. libseccomp itself knows no order (a rule without conditions swallows those with, whatever they
say), so what it compiles is compared with what is written here before anybody may load it
(:mod:`minictr.kernel.seccomp_compile`).
"""

from __future__ import annotations

import os

from minictr.errors import SpecError
from minictr.features.check import frozen, sequence, shown
from minictr.features.filter_parts import ALLOW, KILL, Action, Rule, conditions, errno_number
from minictr.features.seccomp import FLAGS
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

__all__ = ["FilterDiff", "SeccompFilter", "Verdict", "native_arches"]

# architecture -> its own name first, then those whose programs its kernel runs as well
COMPATIBLE = {"x86_64": ("x86_64", "x86"), "aarch64": ("aarch64", "arm"), "s390x": ("s390x", "s390")}
# names as libseccomp's SCMP_ARCH_*, in lower case
ARCHES = (
    "x86_64 x86 x32 arm aarch64 mips mips64 mips64n32 mipsel mipsel64 mipsel64n32 parisc parisc64 ppc ppc64 ppc64le"
    " s390 s390x riscv64"
).split()
EPERM = Action("errno", 1)


def native_arches(machine: str = "") -> tuple[str, ...]:
    """MACHINE (this one's) and the architectures that its kernel runs beside it, but x32."""
    machine = machine or os.uname().machine
    machine = {"i386": "x86", "i686": "x86", "armv7l": "arm", "armv8l": "arm"}.get(machine, machine)
    return COMPATIBLE.get(machine, (machine,))


class Verdict(Value):
    """What would happen to a system call, and why.

    ``action`` is None where it depends on arguments that were not told: ``cases`` has them then, in the order asked.
    ``rule`` decided, number ``number`` (from 1) of the filter's; None: ``why`` says what did.
    """

    name: str
    arch: str
    action: Action | None
    rule: Rule | None = None
    number: int = 0
    why: str = ""
    cases: tuple[tuple[str, Action], ...] = ()

    def __str__(self) -> str:
        if self.action is None:
            told = "; ".join(f"{action} {when}" for when, action in self.cases)
            return f"{self.name} on {self.arch}: {told}"
        by = f"rule {self.number} ({_head(self.rule)})" if self.rule is not None else self.why
        return f"{self.name} on {self.arch}: {self.action}, by {by}"


class FilterDiff(Value):
    """What two filters say differently: (what, the first's, the second's), each in words."""

    rows: tuple[tuple[str, str, str], ...]

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __str__(self) -> str:
        return "\n".join(f"{what}: {ours} -> {theirs}" for what, ours, theirs in self.rows)


class SeccompFilter(Value):
    """Rules over system calls. Built with ``allow deny kill log trap trace notify``, or by one of the class methods.

    ``otherwise``: what happens to calls that no rule names (an :class:`Action`, or its kind: "errno" is EPERM).
    ``arches``: those whose calls are judged, the native one first (none given: this machine's and its 32-bit one);
    calls of another, x32 included, get ``bad_arch``. ``newer``: for system calls that libseccomp does not know yet, by
    their number. ``flags``: "log", "spec_allow". ``lenient``: names that libseccomp does not know are reported
    (``unknown``), not refused: for profiles that are newer than it. ``name`` and ``notes`` tell of its source, and do
    not count when filters are compared.

    >>> flt = SeccompFilter("allow").deny("mkdir", "mkdirat", errno="EACCES").deny("socket", when=(0, "==", 38))
    >>> print(flt.explain("socket", 38))
    socket on x86_64: errno EPERM, by rule 2 (errno EPERM if arg0 == 38)
    """

    otherwise: Action = EPERM
    rules: tuple[Rule, ...] = ()
    arches: tuple[str, ...] = ()
    bad_arch: Action = KILL
    newer: Action | None = None
    flags: tuple[str, ...] = ()
    lenient: bool = False
    name: str = ""
    notes: tuple[str, ...] = ()

    def check(self) -> None:
        for field in ("otherwise", "bad_arch", "newer"):
            value: Any = getattr(self, field)
            if isinstance(value, str):
                frozen(self, field, Action(value, 1 if value == "errno" else 0))
            elif not isinstance(value, Action) and (field != "newer" or value is not None):
                raise SpecError(f"seccomp: {field}: {shown(value)} is not an action")
        frozen(self, "rules", sequence(self.rules, "seccomp: rules"))
        for rule in self.rules:
            if not isinstance(rule, Rule):
                raise SpecError(f"seccomp: {shown(rule)} is not a rule")
        frozen(self, "arches", sequence(self.arches, "seccomp: arches") or native_arches())
        for arch in self.arches:
            if arch not in ARCHES:
                raise SpecError(f"seccomp: architecture {shown(arch)} is not one of {', '.join(ARCHES)}")
        for flag in sequence(self.flags, "seccomp: flags"):
            if flag not in FLAGS:
                raise SpecError(f"seccomp: flag {shown(flag)} is not one of {', '.join(FLAGS)}")
        frozen(self, "flags", tuple(flag for flag in FLAGS if flag in self.flags))

    # --- building ---

    def _rule(self, names: tuple[str, ...], action: Action, when: Any) -> Self:
        return self.replace(rules=(*self.rules, Rule(names, action, conditions(when))))

    def allow(self, *names: str, when: Any = ()) -> Self:
        """They are done. ``when``: only if ``(argument, operator, value)`` holds, or all of a list of these."""
        return self._rule(names, ALLOW, when)

    def deny(self, *names: str, errno: int | str = "EPERM", when: Any = ()) -> Self:
        """They fail with ``errno``, and nothing is done."""
        return self._rule(names, Action("errno", errno_number(errno)), when)

    def kill(self, *names: str, thread: bool = False, when: Any = ()) -> Self:
        """They end the process by SIGSYS, or with ``thread`` the calling thread alone."""
        return self._rule(names, Action("kill_thread") if thread else KILL, when)

    def log(self, *names: str, when: Any = ()) -> Self:
        """They are done, and written to the kernel's log. Linux 4.14."""
        return self._rule(names, Action("log"), when)

    def trap(self, *names: str, number: int = 0, when: Any = ()) -> Self:
        """The process gets SIGSYS, with NUMBER as its si_errno."""
        return self._rule(names, Action("trap", number), when)

    def trace(self, *names: str, number: int = 0, when: Any = ()) -> Self:
        """A tracer decides, told NUMBER; without one they fail with ENOSYS."""
        return self._rule(names, Action("trace", number), when)

    def notify(self, *names: str, when: Any = ()) -> Self:
        """A function of the caller's decides, given as ``on_syscall``; the call waits for it. Linux 5.0."""
        return self._rule(names, Action("notify"), when)

    @property
    def notifies(self) -> bool:
        """Whether it asks a function about some calls."""
        given = (self.otherwise, self.bad_arch, self.newer, *(rule.action for rule in self.rules))
        return any(action is not None and action.kind == "notify" for action in given)

    def lets(self, name: str) -> bool:
        """Whether NAME is done, whatever its arguments are."""
        cases = self.cases(name)
        last = () if cases and not cases[-1][1].when else (self.otherwise,)
        return {action.kind for action in (*(rule.action for _, rule in cases), *last)} <= {"allow", "log"}

    # --- ready-made ---

    @classmethod
    def allowlist(cls, names: Iterable[str], *, otherwise: Action | str = EPERM, arches: tuple[str, ...] = ()) -> Self:
        """NAMES are done, anything else is ``otherwise``. To be started, a program needs ``execve`` in it."""
        if isinstance(names, str):
            raise SpecError(f"seccomp: {shown(names)} is not a list of names")
        return cls(otherwise, (Rule(tuple(names), ALLOW),), arches)  # type: ignore[arg-type]  # a str becomes an Action

    @classmethod
    def strict(cls) -> Self:
        """What mode 1 of seccomp(2) leaves (read, write, exit, sigreturn) and no more than a start needs: execve, and
        exit_group, which is what libraries call for _exit. All else kills. For static programs."""
        from minictr.features.policies import strict

        made: Self = strict(cls)
        return made

    @classmethod
    def docker(cls, *, caps: Iterable[str] | None = None, kernel: tuple[int, int] | None = None) -> Self:
        """Docker's default policy, for a program with CAPS (not given: those docker gives) on KERNEL (this one)."""
        from minictr.features.policies import docker

        made: Self = docker(cls, caps, kernel)
        return made

    @classmethod
    def default(cls, *, caps: Iterable[str] | None = None, kernel: tuple[int, int] | None = None) -> Self:
        """That of minictr's profile ``default``: Docker's rules, and x32, AF_ALG and AF_VSOCK closed by every way."""
        from minictr.features.policies import default

        made: Self = default(cls, caps, kernel)
        return made

    @classmethod
    def lxc(cls) -> Self:
        """LXC's common deny list."""
        from minictr.features.policies import lxc

        made: Self = lxc(cls)
        return made

    @classmethod
    def named(cls, name: str, *, caps: Iterable[str] | None = None, kernel: tuple[int, int] | None = None) -> Self:
        """``default``, ``docker``, ``lxc`` or ``strict``."""
        if name in ("default", "docker"):
            return (cls.default if name == "default" else cls.docker)(caps=caps, kernel=kernel)
        if name not in ("lxc", "strict"):
            raise SpecError(f"seccomp: {shown(name)} is not one of default, docker, lxc, strict")
        return cls.lxc() if name == "lxc" else cls.strict()

    @classmethod
    def from_json(
        cls, source: str | dict[str, Any], *, caps: Iterable[str] = (), kernel: tuple[int, int] | None = None
    ) -> Self:
        """From an OCI config.json, its ``linux.seccomp`` alone, or a profile of Docker's: a text, or what it parses to.

        ``caps`` and ``kernel`` decide what Docker's ``includes`` and ``excludes`` leave.
        """
        from minictr.features.filter_json import parse

        made: Self = parse(cls, source, caps, kernel)
        return made

    from_oci = from_docker = from_json

    def json(self) -> dict[str, Any]:
        """As OCI's ``linux.seccomp``. Rules are in OCI's order: one without conditions covers all of its names there,
        so SpecError for a filter whose later conditions take something back out of an earlier rule."""
        from minictr.features.filter_json import written

        return written(self)

    # --- what it says ---

    def cases(self, name: str) -> tuple[tuple[int, Rule], ...]:
        """(number, rule) of all that may decide NAME, in the order they are asked; the last one has no conditions,
        unless the default comes after it."""
        found = []
        for number in range(len(self.rules), 0, -1):
            rule = self.rules[number - 1]
            if name in rule.names:
                found.append((number, rule))
                if not rule.when:
                    break
        return tuple(found)

    def explain(self, call: str | int, *args: int, arch: str = "") -> Verdict:
        """What would happen to CALL (a name, or a number of ARCH's) with ARGS, and by which rule.

        Raises SpecError for what is no system call.
        """
        from minictr.kernel.seccomp_library import name_and_number

        arch = arch or self.arches[0]
        name, number = name_and_number(call, arch, self.lenient)
        if arch not in self.arches:
            return Verdict(name, arch, self.bad_arch, why="its architecture, which the filter does not know")
        if number is None and self.newer is not None and arch != "x32":
            return Verdict(name, arch, self.newer, why="its number, which is newer than libseccomp")
        if number is None and isinstance(call, str) and self.cases(name):
            return Verdict(
                name, arch, self.otherwise, why="default: it is newer than libseccomp, or not of this machine"
            )
        cases: list[tuple[str, Action]] = []
        for place, rule in self.cases(name):
            unknown = any(condition.index >= len(args) for condition in rule.when)
            if not unknown and rule.met(args):
                if not cases:
                    return Verdict(name, arch, rule.action, rule, place)
                return Verdict(name, arch, None, cases=(*cases, ("otherwise", rule.action)))
            if unknown:
                cases.append((f"if {' and '.join(map(str, rule.when))}", rule.action))
        if cases:
            return Verdict(name, arch, None, cases=(*cases, ("otherwise", self.otherwise)))
        return Verdict(name, arch, self.otherwise, why="default")

    @property
    def program(self) -> bytes:
        """The BPF program, by libseccomp; kept on disk. Raises SpecError, Unsupported without libseccomp."""
        from minictr.kernel.seccomp_programs import program

        return program(repr(self.plain()), self.plain)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names in it that libseccomp does not know."""
        from minictr.kernel.seccomp_library import known

        names = dict.fromkeys(name for rule in self.rules for name in rule.names)
        return tuple(name for name in names if not known(name))

    def plain(self) -> tuple[Any, ...]:
        """All that decides, as nested tuples of plain values, for the compiler."""
        rules = tuple(
            (rule.names, rule.action.ret, tuple((c.index, c.op, c.value, c.mask) for c in rule.when))
            for rule in self.rules
        )
        newer = -1 if self.newer is None else self.newer.ret
        return self.otherwise.ret, self.bad_arch.ret, newer, self.arches, self.lenient, rules

    def dump(self) -> str:
        """Readable, under 80 columns."""
        rows = [
            f"{'default':<14}{self.otherwise}",
            f"{'architectures':<14}{' '.join(self.arches)}, others: {self.bad_arch}",
        ]
        if self.newer is not None:
            rows.append(f"{'newer calls':<14}{self.newer}")
        if self.flags:
            rows.append(f"{'flags':<14}{' '.join(self.flags)}")
        for number, rule in enumerate(self.rules, 1):
            rows.append(f"{number:>3} {_head(rule)}")
            rows += _wrapped(rule.names)
        return "\n".join((*rows, *(f"note: {note}" for note in self.notes)))

    def diff(self, other: SeccompFilter) -> FilterDiff:
        """What OTHER says differently, system call by system call."""
        rows = [
            (field, str(getattr(self, field)), str(getattr(other, field)))
            for field in ("otherwise", "bad_arch", "newer")
            if getattr(self, field) != getattr(other, field)
        ]
        for field in ("arches", "flags"):
            if getattr(self, field) != getattr(other, field):
                rows.append((field, " ".join(getattr(self, field)), " ".join(getattr(other, field))))
        names = {name for flt in (self, other) for rule in flt.rules for name in rule.names}
        for name in sorted(names):
            ours, theirs = self._told(name), other._told(name)
            if ours != theirs:
                rows.append((name, ours, theirs))
        return FilterDiff(tuple(rows))

    def _told(self, name: str) -> str:
        cases = self.cases(name)
        told = [f"{rule.action} if {' and '.join(map(str, rule.when))}" for _, rule in cases if rule.when]
        last = cases[-1][1].action if cases and not cases[-1][1].when else self.otherwise
        return "; ".join((*told, f"else {last}" if told else str(last)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeccompFilter) and (self.plain(), self.flags) == (other.plain(), other.flags)

    def __hash__(self) -> int:
        return hash((self.plain(), self.flags))

    def __repr__(self) -> str:
        calls = len({name for rule in self.rules for name in rule.names})
        called = f"{self.name}: " if self.name else ""
        return f"SeccompFilter(<{called}{len(self.rules)} rules for {calls} system calls, else {self.otherwise}>)"


def _head(rule: Rule | None) -> str:
    """A rule without its names."""
    if rule is None:
        return ""
    return f"{rule.action} if {' and '.join(map(str, rule.when))}" if rule.when else str(rule.action)


def _wrapped(names: tuple[str, ...]) -> list[str]:
    lines, line = [], "    "
    for name in names:
        if len(line) + len(name) > 78:
            lines.append(line.rstrip())
            line = "    "
        line += f"{name} "
    return [*lines, line.rstrip()]

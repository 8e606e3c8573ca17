"""What a seccomp filter is made of: an action, a condition on an argument, a rule. Values, pure."""

from __future__ import annotations

import errno as _errno

from minictr.errors import SpecError, errno_name
from minictr.features.check import frozen, integer, sequence, shown
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ALLOW", "ARGUMENTS", "KILL", "OPERATORS", "Action", "Condition", "Rule", "conditions", "errno_number"]

# SECCOMP_RET_*, linux/seccomp.h: the strictest first, as the kernel ranks them
RETURNS = {
    "kill_process": 0x80000000,
    "kill_thread": 0x00000000,
    "trap": 0x00030000,
    "errno": 0x00050000,
    "notify": 0x7FC00000,
    "trace": 0x7FF00000,
    "log": 0x7FFC0000,
    "allow": 0x7FFF0000,
}
WITH_NUMBER = ("errno", "trace", "trap")
MAX_ERRNO = 4095  # linux/err.h: larger ones are cut by the kernel
ARGUMENTS = 6
WORD = (1 << 64) - 1
OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "&")


def errno_number(value: object, what: str = "errno") -> int:
    """1 from 1, ``"1"`` or ``"EPERM"``. Raises SpecError."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 4:
        value = int(value)
    if isinstance(value, str):
        found = getattr(_errno, value.upper(), None)
        if not isinstance(found, int):
            raise SpecError(f"{what}: {shown(value)} is no name of errno(3)")
        return found
    return integer(value, what, 0, MAX_ERRNO)


class Action(Value):
    """What happens to a system call: ``kind`` of SECCOMP_RET_*, and the number that errno, trap and trace carry."""

    kind: str
    number: int = 0

    def check(self) -> None:
        if self.kind not in RETURNS:
            raise SpecError(f"seccomp: action {shown(self.kind)} is not one of {', '.join(RETURNS)}")
        what = f"seccomp: {self.kind}"
        if self.kind == "errno":
            frozen(self, "number", errno_number(self.number, what))
        else:
            integer(self.number, what, 0, 0xFFFF if self.kind in WITH_NUMBER else 0)

    @property
    def ret(self) -> int:
        """SECCOMP_RET_* with its data."""
        return RETURNS[self.kind] | self.number

    @classmethod
    def of(cls, ret: int) -> Action:
        """The action that a program's answer is. What the kernel does not know kills (linux/seccomp.h)."""
        known = {value: kind for kind, value in RETURNS.items()}
        kind = known.get(ret & 0xFFFF0000, "kill_process")
        return cls(kind, ret & 0xFFFF if kind in WITH_NUMBER else 0)

    def __str__(self) -> str:
        if self.kind == "errno":
            return f"errno {errno_name(self.number)}"
        return f"{self.kind} {self.number}" if self.number else self.kind


ALLOW = Action("allow")
KILL = Action("kill_process")


class Condition(Value):
    """A comparison of an argument: ``index`` 0 to 5, an operator of ``== != < <= > >= &``, ``value``.

    With ``&`` the bits of ``mask`` must be those of ``value``. Unsigned, 64 bits; on a 32-bit architecture 32.
    """

    index: int
    op: str
    value: int
    mask: int = WORD

    def check(self) -> None:
        integer(self.index, "seccomp: argument", 0, ARGUMENTS - 1)
        if self.op not in OPERATORS:
            raise SpecError(f"seccomp: operator {shown(self.op)} is not one of {' '.join(OPERATORS)}")
        integer(self.value, f"seccomp: argument {self.index}", 0, WORD)
        integer(self.mask, f"seccomp: mask of argument {self.index}", 0, WORD)
        if self.op != "&" and self.mask != WORD:
            raise SpecError(f"seccomp: argument {self.index}: a mask goes with &, not with {self.op}")
        if self.value & ~self.mask:
            raise SpecError(f"seccomp: argument {self.index}: {self.value:#x} has bits outside its mask {self.mask:#x}")

    def met(self, argument: int) -> bool:
        argument &= WORD
        return {
            "==": argument == self.value,
            "!=": argument != self.value,
            "<": argument < self.value,
            "<=": argument <= self.value,
            ">": argument > self.value,
            ">=": argument >= self.value,
            "&": argument & self.mask == self.value,
        }[self.op]

    def __str__(self) -> str:
        if self.op == "&":
            return f"arg{self.index} & {self.mask:#x} == {self.value:#x}"
        return f"arg{self.index} {self.op} {self.value if self.value < 4096 else hex(self.value)}"


class Rule(Value):
    """ACTION for the system calls ``names``, where all conditions of ``when`` hold (none: always)."""

    names: tuple[str, ...]
    action: Action
    when: tuple[Condition, ...] = ()

    def check(self) -> None:
        names = sequence(self.names, "seccomp: system calls")
        if not names:
            raise SpecError("seccomp: a rule for no system call: name one")
        for name in names:
            if not isinstance(name, str) or not name.isascii() or not name.replace("_", "").isalnum():
                raise SpecError(f"seccomp: {shown(name)} is no name of a system call")
        frozen(self, "names", tuple(dict.fromkeys(names)))
        if not isinstance(self.action, Action):
            raise SpecError(f"seccomp: {shown(self.action)} is not an action")

    def met(self, args: tuple[int, ...]) -> bool:
        return all(condition.met(args[condition.index]) for condition in self.when)

    def __str__(self) -> str:
        told = f" if {' and '.join(map(str, self.when))}" if self.when else ""
        return f"{self.action}{told}: {' '.join(self.names)}"


def conditions(given: Any) -> tuple[Condition, ...]:
    """``(0, "==", 5)``, ``(0, "&", MASK, VALUE)``, a Condition, or a list or tuple of these. Raises SpecError."""
    if isinstance(given, Condition):
        return (given,)
    rows = sequence(given, "seccomp: when")
    if rows and isinstance(rows[0], int):
        return (_condition(rows),)
    return tuple(row if isinstance(row, Condition) else _condition(row) for row in rows)


def _condition(given: Any) -> Condition:
    row = sequence(given, "seccomp: condition")
    if len(row) == 3 and row[1] != "&":
        return Condition(*row)
    if len(row) == 4 and row[1] == "&":
        return Condition(row[0], "&", row[3], row[2])
    raise SpecError(
        f"seccomp: condition {shown(given)} is not (argument, operator, value) or (argument, '&', mask, value)"
    )

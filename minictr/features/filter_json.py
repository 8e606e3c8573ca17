"""Seccomp filters as JSON: OCI's ``linux.seccomp`` (runtime-spec, config-linux.md) and Docker's profiles. Pure.

What a profile means is what runc makes of it, by libseccomp: a rule whose action is the default's says nothing; a rule
without conditions covers its names whatever other rules say of them, the first of several; an argument that is named
twice in one rule makes two rules of it.
"""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import integer, shown
from minictr.features.filter_parts import Action, Condition, Rule, errno_number
from minictr.features.filters import ARCHES, SeccompFilter, native_arches
from minictr.features.seccomp import FLAGS
from minictr.jsontext import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["parse", "written"]

KINDS = {
    "SCMP_ACT_KILL": "kill_thread",
    "SCMP_ACT_KILL_THREAD": "kill_thread",
    "SCMP_ACT_KILL_PROCESS": "kill_process",
    "SCMP_ACT_TRAP": "trap",
    "SCMP_ACT_ERRNO": "errno",
    "SCMP_ACT_TRACE": "trace",
    "SCMP_ACT_ALLOW": "allow",
    "SCMP_ACT_LOG": "log",
    "SCMP_ACT_NOTIFY": "notify",
}
OPERATORS = {
    "SCMP_CMP_NE": "!=",
    "SCMP_CMP_LT": "<",
    "SCMP_CMP_LE": "<=",
    "SCMP_CMP_EQ": "==",
    "SCMP_CMP_GE": ">=",
    "SCMP_CMP_GT": ">",
    "SCMP_CMP_MASKED_EQ": "&",
}
# Go's names of machines, which Docker's includes and excludes have, where they are not libseccomp's
GO_ARCHES = {"amd64": "x86_64", "386": "x86", "arm64": "aarch64"}
KNOWN = frozenset(
    "defaultAction defaultErrnoRet architectures archMap flags syscalls listenerPath listenerMetadata".split()
)


def parse(cls: Any, source: str | dict[str, Any], caps: Iterable[str], kernel: tuple[int, int] | None) -> Any:
    """SOURCE as a filter. Raises SpecError naming what is wrong in it, and where."""
    data: Any = source
    if isinstance(source, str):
        try:
            data = loads(source)
        except ValueError as err:
            raise SpecError(f"seccomp: the profile is no JSON: {err}") from None
    data = _profile(_object(data, "the profile"))
    notes = [f"{key}: not known, and left out" for key in data if key not in KNOWN]
    for key in ("listenerPath", "listenerMetadata"):
        if data.get(key):
            raise SpecError(f"seccomp: {key}: no socket is told; on_syscall= of run, in Python, is the supervisor")
    if "defaultAction" not in data:
        raise SpecError("seccomp: defaultAction is missing")
    otherwise = _action(data["defaultAction"], data.get("defaultErrnoRet"), "defaultAction")
    condition = Conditions(caps, kernel)
    rules = _ordered(_rules(data, otherwise, condition), notes)
    newer = Action("errno", 38) if otherwise.kind == "errno" else None
    return cls(
        otherwise, rules, _arches(data), Action("kill_thread"), newer, _flags(data), True, "profile", tuple(notes)
    )


class Conditions:
    """What Docker's ``includes`` and ``excludes`` are compared with."""

    def __init__(self, caps: Iterable[str], kernel: tuple[int, int] | None) -> None:
        from minictr.features.capabilities import normal
        from minictr.features.policies import running_kernel

        self.caps = frozenset(normal(tuple(caps), "seccomp: capabilities"))
        self.kernel = kernel or running_kernel()
        self.arch = native_arches()[0]

    def told(self, wanted: Any, where: str) -> dict[str, Any]:
        """What WANTED names, in our words."""
        wanted = _object(wanted or {}, where)
        if strange := sorted(wanted.keys() - {"caps", "arches", "minKernel"}):
            raise SpecError(f"seccomp: {where}: {shown(strange[0])} is not one of caps, arches, minKernel")
        from minictr.features.capabilities import canonical

        arches = [_text(name, where) for name in _list(wanted.get("arches") or [], where)]
        found: dict[str, Any] = {"caps": {canonical(name) for name in _list(wanted.get("caps") or [], where)}}
        found["arches"] = {GO_ARCHES.get(name, name) for name in arches}
        found["kernel"] = _version(wanted.get("minKernel"), where)
        return found

    def keeps(self, rule: dict[str, Any], where: str) -> bool:
        """Whether RULE counts here."""
        wanted = self.told(rule.get("includes"), f"{where}.includes")
        unwanted = self.told(rule.get("excludes"), f"{where}.excludes")
        if unwanted["caps"] & self.caps or self.arch in unwanted["arches"]:
            return False
        if unwanted["kernel"] and self.kernel >= unwanted["kernel"]:
            return False
        if not wanted["caps"] <= self.caps or (wanted["arches"] and self.arch not in wanted["arches"]):
            return False
        return bool(not wanted["kernel"] or self.kernel >= wanted["kernel"])


def _profile(data: dict[str, Any]) -> dict[str, Any]:
    """The object with ``defaultAction``: DATA, or inside a config.json."""
    if "defaultAction" in data or not ("linux" in data or "ociVersion" in data):
        return data
    linux = _object(data.get("linux") or {}, "linux")
    if linux.get("seccomp") is None:
        raise SpecError("seccomp: the configuration has no linux.seccomp")
    return _object(linux["seccomp"], "linux.seccomp")


def _rules(data: dict[str, Any], otherwise: Action, condition: Conditions) -> list[Rule]:
    found = []
    for number, given in enumerate(_list(data.get("syscalls") or [], "syscalls")):
        where = f"syscalls[{number}]"
        row = _object(given, where)
        if not condition.keeps(row, where):
            continue
        if "name" in row and "names" in row:
            raise SpecError(f"seccomp: {where}: name and names both: keep one")
        names = [row["name"]] if row.get("name") else _list(row.get("names") or [], f"{where}.names")
        if not names:
            raise SpecError(f"seccomp: {where}: names is missing")
        action = _action(row.get("action"), row.get("errnoRet"), where)
        args = [_condition(arg, where) for arg in _list(row.get("args") or [], f"{where}.args")]
        if action == otherwise:
            continue
        twice = len({arg.index for arg in args}) < len(args)
        found += [Rule(tuple(names), action, when) for when in ([(arg,) for arg in args] if twice else [tuple(args)])]
    return found


def _ordered(rules: list[Rule], notes: list[str]) -> tuple[Rule, ...]:
    """RULES so that the last word counts: conditional ones first, the first given of each kind last."""
    decided: dict[str, Action] = {}
    whole: list[Rule] = []
    for rule in rules:
        if rule.when:
            continue
        names = tuple(name for name in rule.names if name not in decided)
        for name in rule.names:
            if decided.setdefault(name, rule.action) != rule.action:
                notes.append(f"{rule.action} of {name} is never asked: an earlier rule covers it")
        if names:
            whole.append(rule.replace(names=names))
    partial = []
    for rule in rules:
        if not rule.when:
            continue
        names = tuple(name for name in rule.names if name not in decided)
        notes += (
            f"{rule.action} if {' and '.join(map(str, rule.when))} of {name} is never asked: a rule without conditions"
            " covers it"
            for name in rule.names
            if decided.get(name, rule.action) != rule.action
        )
        if names:
            partial.append(rule.replace(names=names))
    if len({rule.action for rule in partial}) > 1:
        partial.reverse()
    return (*partial, *whole)


def _arches(data: dict[str, Any]) -> tuple[str, ...]:
    """The architectures, this machine's first. Docker's archMap is asked for the native one's others."""
    native = native_arches()[0]
    given, mapped = data.get("architectures"), data.get("archMap")
    if given and mapped:
        raise SpecError("seccomp: architectures and archMap both: keep one")
    names: list[Any] = [*_list(given or [], "architectures")]
    for number, row in enumerate(_list(mapped or [], "archMap")):
        row = _object(row, f"archMap[{number}]")
        if _arch(row.get("architecture")) == native:
            names = [row["architecture"], *_list(row.get("subArchitectures") or [], "subArchitectures")]
    found = dict.fromkeys((native, *(arch for arch in map(_arch, names) if arch in ARCHES)))
    return tuple(found)


def _arch(name: Any) -> str:
    text = _text(name, "architecture")
    if not text.startswith("SCMP_ARCH_"):
        raise SpecError(f"seccomp: architecture {shown(name)} is not SCMP_ARCH_...")
    return text.removeprefix("SCMP_ARCH_").lower()


def _flags(data: dict[str, Any]) -> tuple[str, ...]:
    found = []
    for flag in _list(data.get("flags") or [], "flags"):
        name = _text(flag, "flags").removeprefix("SECCOMP_FILTER_FLAG_").lower()
        if name == "tsync":
            continue  # the filter is loaded before there are threads
        if name not in FLAGS:
            raise SpecError(f"seccomp: flag {shown(flag)} is not TSYNC, LOG or SPEC_ALLOW")
        found.append(name)
    return tuple(found)


def _action(name: Any, number: Any, where: str) -> Action:
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise SpecError(f"seccomp: {where}: action {shown(name)} is not one of {', '.join(KINDS)}")
    if kind not in ("errno", "trace"):
        if number:
            raise SpecError(f"seccomp: {where}: {name} takes no errnoRet")
        return Action(kind)
    number = 1 if number is None else number  # EPERM, as runc
    return Action(kind, errno_number(number, f"seccomp: {where}: errnoRet"))


def _condition(given: Any, where: str) -> Condition:
    row = _object(given, f"{where}.args")
    op = OPERATORS.get(_text(row.get("op"), f"{where}.args"))
    if op is None:
        raise SpecError(f"seccomp: {where}.args: operator {shown(row.get('op'))} is not one of {', '.join(OPERATORS)}")
    value, second = row.get("value", 0), row.get("valueTwo", 0)
    integer(value, f"seccomp: {where}.args: value", 0, (1 << 64) - 1)
    if op == "&":
        return Condition(row.get("index", -1), op, second, value)
    return Condition(row.get("index", -1), op, value)


def _version(text: Any, where: str) -> tuple[int, int] | None:
    if text in (None, ""):
        return None
    parts = _text(text, where).split(".")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise SpecError(f"seccomp: {where}: minKernel {shown(text)} is not MAJOR.MINOR")
    return int(parts[0]), int(parts[1])


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecError(f"seccomp: {where}: {shown(value)} is not an object")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise SpecError(f"seccomp: {where}: {shown(value)} is not a list")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise SpecError(f"seccomp: {where}: {shown(value)} is not a string")
    return value


def written(flt: SeccompFilter) -> dict[str, Any]:
    """FLT as OCI's ``linux.seccomp``."""
    kinds = {kind: name for name, kind in KINDS.items() if name != "SCMP_ACT_KILL"}
    operators = {op: name for name, op in OPERATORS.items()}
    found: dict[str, Any] = {"defaultAction": kinds[flt.otherwise.kind]}
    if flt.otherwise.kind in ("errno", "trace"):
        found["defaultErrnoRet"] = flt.otherwise.number
    found["architectures"] = [f"SCMP_ARCH_{arch.upper()}" for arch in flt.arches]
    if flt.flags:
        found["flags"] = [f"SECCOMP_FILTER_FLAG_{flag.upper()}" for flag in flt.flags]
    rows = []
    for number, rule in enumerate(flt.rules, 1):
        names = [name for name in rule.names if _reaches(flt, name, number, rule)]
        if not names or rule.action == flt.otherwise:
            continue
        row: dict[str, Any] = {"names": names, "action": kinds[rule.action.kind]}
        if rule.action.kind in ("errno", "trace"):
            row["errnoRet"] = rule.action.number
        if rule.when:
            row["args"] = [
                {"index": c.index, "value": c.mask if c.op == "&" else c.value, "op": operators[c.op]}
                | ({"valueTwo": c.value} if c.op == "&" else {})
                for c in rule.when
            ]
        rows.append(row)
    found["syscalls"] = rows
    return found


def _reaches(flt: SeccompFilter, name: str, number: int, rule: Rule) -> bool:
    """Whether rule NUMBER has a say over NAME; SpecError where OCI could not say the same."""
    cases = flt.cases(name)
    if all(place != number for place, _ in cases):
        return False
    last = cases[-1][1]
    final = flt.otherwise if last.when else last.action
    actions = {each.action for _, each in cases if each.when}
    if len(actions | {final}) > 2 or (actions and final != flt.otherwise) or flt.otherwise in actions:
        raise SpecError(f"seccomp: {name}: OCI's rules have no order, and cannot take back part of what another says")
    return True

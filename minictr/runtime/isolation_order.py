"""Which of two values of a field confines more. Pure.

Each field of a :class:`~minictr.kernel.isolation_values.Reading` has one rule, by its dotted name; a field without a
rule has no order (mount tables, umask) and is compared by ``diff`` only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from minictr.kernel.isolation_values import Reading

    Rule = Callable[[Any, Any], bool]  # (mine, wanted) -> mine is no weaker

__all__ = ["flat", "told_apart", "weaker"]

NO_LIMIT = -1
WHO = frozenset("pid start command threads".split())
# bits that make a program easier to attack: linux/personality.h, personality(2)
UNSAFE = 0x0040000 | 0x0100000 | 0x0400000  # ADDR_NO_RANDOMIZE, MMAP_PAGE_ZERO, READ_IMPLIES_EXEC
LEVELS = {"rw": 0, "ro": 1, "masked": 2, "absent": 2}
MODES = {"none": 0, "filter": 1, "strict": 2}
PROPAGATION = {"shared": 0, "slave": 1, "private": 2}
# /proc/PID/status as fs/proc/array.c words it; a word that is not here guards nothing
GUARDS = {
    **dict.fromkeys(("thread mitigated", "conditional disabled"), 1),
    **dict.fromkeys(("thread force mitigated", "conditional force disabled"), 2),
    **dict.fromkeys(("globally mitigated", "always disabled"), 3),
    **dict.fromkeys(("not vulnerable", "not affected"), 3),
}


def told_apart(name: str) -> bool:
    """Whether the field tells one process from its equal: nothing about what confines it that ``own`` does not say."""
    top, _, rest = name.partition(".")
    return name in WHO or (top in ("namespaces", "cgroups") and not rest.endswith(".own"))


def flat(reading: Reading) -> dict[str, Any]:
    """Dotted name -> value, without ``unknown``: values inside values one name each, tuples as they are."""
    found: dict[str, Any] = {}
    _flatten("", reading, found)
    return {name: value for name, value in found.items() if not name.startswith("unknown")}


def _flatten(name: str, value: Any, found: dict[str, Any]) -> None:
    if hasattr(value, "_fields"):
        rows = [(field, getattr(value, field)) for field in value._fields]
    elif isinstance(value, dict):
        rows = list(value.items())
    else:
        found[name] = value
        return
    for field, inner in rows:
        _flatten(f"{name}.{field}" if name else field, inner, found)


# --- rules ---


def true(mine: Any, wanted: Any) -> bool:
    return bool(mine) or not wanted


def false(mine: Any, wanted: Any) -> bool:
    return not mine or bool(wanted)


def subset(mine: Any, wanted: Any) -> bool:
    return set(mine) <= set(wanted)


def at_most(mine: Any, wanted: Any) -> bool:
    """Numbers of which less is stricter; -1 is no limit. (soft, hard): both."""
    if isinstance(wanted, tuple):
        return all(map(at_most, mine, wanted))
    return bool(wanted == NO_LIMIT or (mine != NO_LIMIT and mine <= wanted))


def at_least(mine: Any, wanted: Any) -> bool:
    return bool(mine >= wanted)


def ranked(ranks: Mapping[str, int]) -> Rule:
    return lambda mine, wanted: ranks.get(mine, 0) >= ranks.get(wanted, 0)


def numbers_within(mine: Any, wanted: Any) -> bool:
    """ "0-2,5" as sets."""
    return _numbers(mine) <= _numbers(wanted)


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def same_label(mine: Any, wanted: Any) -> bool:
    """A label confines as its policy says, which is not to be seen: only the same one is as strong. AppArmor's also
    under its name alone, where it is enforced, and in a stack of them, of which all must allow."""
    if mine == wanted or wanted == "" or wanted.startswith("unconfined"):
        return True
    names, _, mode = mine.partition(" (")
    return bool(mode == "enforce)" and wanted in names.split("//&"))


def devices_within(mine: Any, wanted: Any) -> bool:
    """Each rule of mine lies within one of those wanted: "c 1:3 rwm", "a *:* rwm"."""
    return all(any(_covers(outer, rule) for outer in wanted) for rule in mine)


def _covers(outer: str, rule: str) -> bool:
    (kind, numbers, access), (rule_kind, rule_numbers, rule_access) = outer.split(), rule.split()
    pairs = zip(numbers.split(":"), rule_numbers.split(":"))
    return kind in ("a", rule_kind) and all(o in ("*", r) for o, r in pairs) and set(rule_access) <= set(access)


def no_new_bits(mine: Any, wanted: Any) -> bool:
    return not mine & UNSAFE & ~wanted


def other_than_root(mine: Any, wanted: Any) -> bool:
    return bool(mine != 0 or wanted == 0)


# The first row whose words begin the dotted name (* is any one word) and end it, if they say so.
RULES: tuple[tuple[str, Rule], ...] = (
    ("namespaces.*.own", true),
    ("user.uid", other_than_root),
    ("user.groups", subset),
    ("user.root_mapped", false),
    ("user.root_is_root", false),
    ("user.setgroups", lambda mine, wanted: mine == "deny" or wanted != "deny"),
    ("capabilities.*", subset),
    ("thread_differences", subset),
    ("no_new_privs", true),
    ("seccomp.mode", ranked(MODES)),
    ("seccomp.filters", at_least),
    ("lsm_label", same_label),
    ("dumpable", false),
    ("speculation.*", ranked(GUARDS)),
    ("root.own", true),
    ("root.readonly", true),
    ("root.nodev", true),
    ("root.propagation", ranked(PROPAGATION)),
    ("kernel_files.*", ranked(LEVELS)),
    ("links", subset),
    ("cgroups.*.own", true),
    ("limits.cpuset.*", numbers_within),
    ("limits.*", at_most),
    ("devices.restricted", true),
    ("devices.rules", devices_within),
    ("devices.programs", at_least),
    ("rlimits.*", at_most),
    ("oom_score_adj", at_least),
    ("personality", no_new_bits),
    ("cpus", numbers_within),
    ("mems", numbers_within),
    ("session.own", true),
    ("init.reaper", true),
)


def rule_of(name: str) -> Rule | None:
    """The rule for a dotted name; None where a field has no order."""
    for pattern, rule in RULES:
        head, star, tail = pattern.partition("*")
        if name == pattern or (star and name.startswith(head) and name.endswith(tail)):
            return rule
    return None


def weaker(mine: Reading, wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Each point in which MINE confines less than the rows WANTED say, in words. None among those asks for nothing."""
    rows, points = flat(mine), []
    for name, value in wanted.items():
        if name in ("masked", "readonly") and value is not None:
            points += _paths(mine, name, value)
            continue
        rule = rule_of(name)
        if value is None or rule is None or _counted_otherwise(rows, name):
            continue
        found = rows.get(name)
        if found is None and name.startswith("limits.") and not _reason(mine, name):
            found = NO_LIMIT
        if found is None:
            points.append(f"{name}: cannot be told: {_reason(mine, name) or 'it has none'}")
        elif not rule(found, value):
            points.append(f"{name}: {_beside(found, value)}")
    return tuple(points)


def _counted_otherwise(rows: Mapping[str, Any], name: str) -> bool:
    """v1 limits memory and swap together, v2 swap alone."""
    other = {"limits.memory.swap": "limits.memory.memsw", "limits.memory.memsw": "limits.memory.swap"}.get(name, "")
    return other in rows and name not in rows


def _paths(mine: Reading, name: str, wanted: tuple[str, ...]) -> list[str]:
    """Masked and read-only paths: each must be so, or not be there."""
    seen = getattr(mine, name)
    if seen is None or mine.masked is None or mine.kernel_files is None or mine.mounts is None:
        return [f"{name}: cannot be told: {_reason(mine, name)}"]
    level = LEVELS["masked" if name == "masked" else "ro"]
    points = []
    for path in wanted:
        known = mine.kernel_files.get(path)
        if path in seen or path in mine.masked or (known is not None and LEVELS[known] >= level):
            continue
        if name == "readonly" and known is None and "ro" in _mount_over(mine.mounts, path).split(" ")[1].split(","):
            continue
        points.append(f"{name}: {path} is {known or 'not known to be so'}")
    return points


def _mount_over(mounts: Mapping[str, str], path: str) -> str:
    """The words of the mount that PATH lies on."""
    while path not in mounts and path not in ("", "/"):
        path = path.rpartition("/")[0] or "/"
    return mounts.get(path, " ")


def _reason(mine: Reading, name: str) -> str:
    """Why NAME, or a field that it is in, is unknown."""
    while name:
        if name in mine.unknown:
            return str(mine.unknown[name])
        name = name.rpartition(".")[0]
    return ""


def _beside(mine: Any, wanted: Any) -> str:
    """In which MINE falls short of WANTED, in words."""
    if isinstance(mine, tuple) and not all(isinstance(one, int) for one in (*mine, *wanted)):
        return f"also {', '.join(one for one in mine if one not in wanted)}"
    return f"{_word(mine)}, wanted {_word(wanted)}"


def _word(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)

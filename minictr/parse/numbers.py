"""Sizes, modes and spans of time."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import decimal, integer, shown, word

DURATION_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
DURATION_MAX = 100 * 365 * 86400.0


def mode(text: str, what: str = "mode") -> int:
    """0o755 from ``"755"`` or ``"0755"``."""
    if not text or len(text) > 5 or not text.isascii() or text.strip("01234567"):
        raise SpecError(f"{what}: {shown(text)} is not an octal number such as 755")
    return integer(int(text, 8), what, 0, 0o7777)


def seconds(text: str, what: str = "seconds") -> float:
    """A plain number of seconds: ``"90"``, ``"-1.5"``. An int where it is whole."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    whole, point, part = digits.partition(".")
    if not decimal(whole) or (point and not decimal(part)):
        raise SpecError(f"{what}: {shown(text)} is not a number of seconds")
    return float(text) if point else int(text)


def duration(text: str, what: str = "duration") -> float:
    """Seconds from ``"90"``, ``"2.5"``, ``"1m30s"``, ``"500ms"``; units h, m, s, ms, us, ns. Never negative."""
    total, rest = 0.0, word(text, what, limit=64)
    if rest.replace(".", "", 1).isdigit():
        rest += "s"
    while rest:
        unit_and_on = rest.lstrip("0123456789.")
        count = rest[: len(rest) - len(unit_and_on)]
        after = unit_and_on.lstrip("hmnsu")
        unit = unit_and_on[: len(unit_and_on) - len(after)]
        if unit not in DURATION_UNITS or not count:
            raise SpecError(f"{what}: {shown(text)} is not a duration: write seconds, or 1m30s, or 500ms")
        total += seconds(count, what) * DURATION_UNITS[unit]
        rest = after
    if total > DURATION_MAX:
        raise SpecError(f"{what}: {shown(text)} is more than a hundred years")
    return total

"""The checks every wish makes of its words and numbers, and nothing else: pure, and raising SpecError only."""

from __future__ import annotations

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

PATH_MAX = 4096  # linux/limits.h, the closing NUL included
SIZE_MAX = 1 << 60  # 1 EiB: beyond it a size is a typing mistake, and the kernel's own arithmetic overflows
ID_MAX = (1 << 32) - 2  # (uid_t) -1 means "leave as it is" to the kernel: credentials(7)
UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def shown(value: object) -> str:
    """VALUE for a one-line message: quoted, cut when long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:76] + "..." + text[-1]


def word(value: object, what: str, *, limit: int = PATH_MAX - 1, empty: bool = False) -> str:
    """A str that the kernel can be given: no NUL, no newline, at most LIMIT bytes."""
    if not isinstance(value, str):
        raise SpecError(f"{what}: {shown(value)} is not a string")
    if not value and not empty:
        raise SpecError(f"{what}: empty")
    if "\0" in value or "\n" in value:
        raise SpecError(f"{what}: {shown(value)} holds a {'NUL' if chr(0) in value else 'newline'} character")
    try:
        length = len(value.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise SpecError(f"{what}: {shown(value)} cannot be encoded") from None
    if length > limit:
        raise SpecError(f"{what}: {shown(value)} is {length} bytes long, the limit is {limit}")
    return value


def inside(value: object, what: str, *, root: bool = True) -> str:
    """An absolute path inside the container, cleaned of ``//`` and ``/./``; with ROOT false not "/" itself."""
    path = word(value, what)
    if not path.startswith("/"):
        raise SpecError(f"{what}: {shown(path)} is relative: a path inside the container begins with /")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise SpecError(f"{what}: {shown(path)} holds '..': write the path it means")
    if not parts and not root:
        raise SpecError(f"{what}: / is the container's root itself: give it with rootfs, or name a directory below it")
    return "/" + "/".join(parts)


def integer(value: object, what: str, low: int, high: int) -> int:
    """A whole number between LOW and HIGH, both included. True and False are not numbers here."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise SpecError(f"{what}: {shown(value)} is not a whole number")
    if not low <= value <= high:
        raise SpecError(f"{what}: {value if abs(value) < 1 << 70 else 'the number'} is not between {low} and {high}")
    return value


def decimal(text: str) -> bool:
    """Whether TEXT is ASCII digits only, and few enough to be meant (str.isdigit is true for other scripts' too)."""
    return text.isascii() and text.isdigit() and len(text) <= 20


def number(text: str, what: str, low: int, high: int) -> int:
    """The whole number that TEXT spells in decimal, between LOW and HIGH."""
    digits = text[1:] if text.startswith("-") else text
    if not decimal(digits):
        raise SpecError(f"{what}: {shown(text)} is not a whole number")
    return integer(int(text), what, low, high)


def size(value: object, what: str = "size", *, low: int = 1) -> int:
    """Bytes from ``"256M"``, ``"1.5g"``, ``"64k"``, ``"4096"`` or an int; units are powers of 1024, as in docker."""
    if isinstance(value, int) and not isinstance(value, bool):
        return integer(value, what, low, SIZE_MAX)
    text = word(value, what, limit=64).strip().lower()
    digits = text.rstrip("bikmgtp ")
    unit = text[len(digits) :].strip()
    if len(unit) > 1 and unit[0] != "b":
        unit = unit.removesuffix("b").removesuffix("i") or unit
    whole, point, part = digits.partition(".")
    if unit not in UNITS or not decimal(whole) or (point and not decimal(part)) or len(part) > 6:
        raise SpecError(f"{what}: {shown(value)} is not a size: write bytes, or a number with b, k, m, g, t or p")
    count = int(whole) * UNITS[unit] + (int(part) * UNITS[unit] // 10 ** len(part) if part else 0)
    return integer(count, what, low, SIZE_MAX)


def choice(value: object, what: str, choices: Iterable[str]) -> str:
    """One of CHOICES."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise SpecError(f"{what}: {shown(value)} is not one of {', '.join(known)}")
    return value


def frozen(feature: Any, field: str, value: object) -> None:
    """Set FIELD of a value to its normal form, from its own ``check``: the only time a value may change."""
    feature.__dict__[field] = value


def sequence(value: object, what: str) -> tuple[Any, ...]:
    """A tuple from a tuple or a list; a str is refused, for it is nearly always a forgotten comma."""
    if not isinstance(value, (tuple, list)):
        raise SpecError(f"{what}: {shown(value)} is not a tuple")
    return tuple(value)

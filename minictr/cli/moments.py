"""``--since`` and ``--until``: points in time, as docker and podman take them."""

from __future__ import annotations

import time

from minictr.errors import SpecError
from minictr.parse.numbers import duration

NS = 1_000_000_000


def moment(opts: dict[str, object], dest: str) -> int | None:
    """Nanoseconds since 1970; None when it was not given. SpecError.

    Seconds since 1970 (``1700000000.5``), a date (``2024-05-01``), a date and time with or without a zone
    (``2024-05-01T10:00:00.5Z``, ``...+02:00``; local time without), or how long ago (``90s``, ``1h30m``).
    """
    if dest not in opts:
        return None
    text, option = str(opts[dest]), f"--{dest}"
    if text.replace(".", "", 1).isdecimal() and text.isascii() and len(text) < 32:
        whole, _, part = text.partition(".")
        return int(whole or "0") * NS + int(part[:9].ljust(9, "0"))
    if "-" in text[1:]:
        return dated(text, option)
    try:
        return time.time_ns() - int(duration(text, option) * NS)
    except SpecError as err:
        raise SpecError(
            f"{option} {text!r}: write 2024-05-01T10:00:00Z, seconds since 1970, or 10m for that ago"
        ) from err


def dated(text: str, option: str) -> int:
    """A date of RFC 3339."""
    from datetime import UTC, datetime

    spelled = text.strip().replace(" ", "T", 1)
    head, point, part = spelled.partition(".")
    digits = part[: len(part) - len(part.lstrip("0123456789"))]
    try:
        found = datetime.fromisoformat((head + part[len(digits) :] if point else spelled).replace("Z", "+00:00"))
        seconds = (found - datetime(1970, 1, 1, tzinfo=UTC)) if found.tzinfo else None
        whole = int(seconds.total_seconds()) if seconds is not None else int(found.timestamp())
    except (ValueError, OverflowError) as err:
        raise SpecError(f"{option} {text!r}: is no date: write 2024-05-01, or 2024-05-01T10:00:00Z") from err
    return whole * NS + (int(digits[:9].ljust(9, "0")) if digits else 0)

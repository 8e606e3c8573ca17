"""Numbers the kernel gives to resources and signals, and the words people write for them."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import shown

# asm-generic/resource.h
RESOURCES = {
    "cpu": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "as": 9,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}

# asm-generic/signal.h, the same on x86_64; importing signal would import enum
SIGNALS = {
    name: number
    for number, name in enumerate(
        "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU "
        "URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS".split(),
        1,
    )
}
SIGNALS.update({"IOT": 6, "CLD": 17, "POLL": 29})
SIGRTMIN, SIGRTMAX = 34, 64  # glibc keeps 32 and 33; signal(7)


def signal_number(name: object) -> int:
    """15 from ``"TERM"``, ``"SIGTERM"``, ``"15"``; 37 from ``"RTMIN+3"``. Raises SpecError."""
    if not isinstance(name, str):
        raise SpecError(f"signal: {shown(name)} is not a name")
    upper = name.upper().removeprefix("SIG")
    if upper in SIGNALS:
        return SIGNALS[upper]
    for prefix, start, sign in (("RTMIN", SIGRTMIN, 1), ("RTMAX", SIGRTMAX, -1), ("", 0, 1)):
        rest = upper.removeprefix(prefix)
        if not upper.startswith(prefix) or (prefix and rest and rest[0] != ("+" if sign > 0 else "-")):
            continue
        digits = rest[1:] if prefix else name
        if not digits and prefix and not rest:
            return start
        if digits.isascii() and digits.isdigit() and len(digits) < 3:
            number = start + sign * int(digits)
            if (SIGRTMIN if prefix else 1) <= number <= SIGRTMAX:
                return number
    raise SpecError(f"signal: {shown(name)} is not one of signal(7): write TERM, SIGTERM, 15 or RTMIN+3")

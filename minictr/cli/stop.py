"""``minictr stop``: ask containers to end, and kill them when they do not."""

from __future__ import annotations

from minictr.cli.show import each, some
from minictr.errors import SpecError
from minictr.features.tables import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SECONDS_MAX = 10**9


def stop(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Stop every container named; one that is over already is no mistake."""
    seconds = grace(opts)
    signal = signal_of(opts, None)
    names = some("stop", words, bool(opts.get("all")), ("created", "running", "paused"))
    return each("stop", names, lambda instance: instance.stop(seconds, signal))


def grace(opts: dict[str, Any]) -> float | None:
    """``-t``: whole seconds, or a part; -1 waits as long as it takes. None when it was not given."""
    if "timeout" not in opts:
        return None
    text = opts["timeout"]
    if text == "-1":
        return float(SECONDS_MAX)
    whole, point, part = text.partition(".")
    if not (whole.isascii() and whole.isdecimal() and (part.isdecimal() or not point) and len(whole) < 10):
        raise SpecError(f"--time {text!r}: seconds are wanted, or -1 for as long as it takes")
    return float(text)


def signal_of(opts: dict[str, Any], default: int | None) -> int | None:
    """``-s``."""
    if "signal" not in opts:
        return default
    try:
        return signal_number(opts["signal"])
    except SpecError as err:
        raise SpecError(f"--signal: {err}") from err

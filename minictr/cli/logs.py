"""``minictr logs``: what a container wrote."""

from __future__ import annotations

import os

from minictr.cli.moments import moment
from minictr.cli.show import one, stamp
from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

OUTPUTS = {"stdout": 1, "stderr": 2, "minictr": 2}


def logs(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Print the log of the container named, each stream to ours of that name."""
    name = one("logs", words)
    since, until, tail = moment(opts, "since"), moment(opts, "until"), last_lines(opts)
    from minictr.runtime.instance import find

    instance = find(name)
    pieces = instance.logs(since=since, until=until, tail=tail, follow=bool(opts.get("follow")))
    try:
        copy(pieces, stamps=bool(opts.get("timestamps")))
    except KeyboardInterrupt:
        return 130 if opts.get("follow") else 1
    ended = instance.exit_record()
    if ended is not None and ended.lost:
        from minictr.cli.entry import complain

        complain("logs", f"{name}: {ended.lost} bytes of its output could not be logged: the disk was full")
    return 0


def copy(pieces: Iterable[tuple[int, str, bytes]], *, stamps: bool) -> None:
    """PIECES to standard output and standard error, as they are: the container's bytes are not ours to change.

    With STAMPS each line begins with its time; the rest of a line that came in pieces has none.
    """
    begun: dict[str, bool] = {}
    for time, stream, data in pieces:
        if stamps and not begun.get(stream):
            data = f"{stamp(time)} ".encode() + data
        begun[stream] = not data.endswith(b"\n")
        fd = OUTPUTS.get(stream, 2)
        view = memoryview(b"minictr: " + data if stream == "minictr" else data)
        while view:
            view = view[os.write(fd, view) :]


def last_lines(opts: dict[str, Any]) -> int | None:
    """``--tail``; None for all."""
    text = opts.get("tail", "all")
    if text in ("all", "-1"):
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise SpecError(f"--tail {text!r}: a number of lines is wanted, or all")
    return int(text)

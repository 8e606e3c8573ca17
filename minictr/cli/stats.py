"""``minictr stats``: what containers use, once or live."""

from __future__ import annotations

import os
import sys
import time

from minictr.cli.show import complain_of, format_of, size, table, write
from minictr.errors import MinictrError, SpecError
from minictr.runtime.store import SHORT, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.kernel.cgroups import Usage
    from minictr.runtime.instance import Instance

    Reading = tuple[float, Usage | None]

HEADINGS = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "BLOCK I/O", "PIDS", "THROTTLED %")
HOME_AND_CLEAR, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"  # console_codes(4)
FIRST = 0.2  # seconds between the two readings of --no-stream: usage is a difference


def stats(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """A table, anew every second, in a terminal in place of the one before; once with ``--no-stream``."""
    shape = format_of(opts, "table", "json")
    pause = interval(opts)
    store = Store()
    store.check()
    watch = Watch(store, words, bool(opts.get("all")), shape, bool(opts.get("no_trunc")))
    watch.look()
    if not watch.found and words:
        return 125
    time.sleep(FIRST if not opts.get("no_stream") or watch.found else 0)
    try:
        while True:
            text = watch.text()
            if opts.get("no_stream"):
                write(text)
                return watch.code
            redraw(text) if shape == "table" and sys.stdout.isatty() else write(text)
            time.sleep(pause)
    except KeyboardInterrupt:
        sys.stdout.write("\n" if sys.stdout.isatty() else "")
        return 0


def interval(opts: dict[str, Any]) -> float:
    """``--interval``."""
    from minictr.parse.numbers import duration

    seconds = duration(opts.get("interval", "1"), "--interval")
    if seconds < 0.1:
        raise SpecError(f"--interval {opts['interval']!r}: 100ms is the least")
    return seconds


def redraw(text: str) -> None:
    """TEXT in place of what was there, cut to the window: a line that wraps would move all the others."""
    from minictr.cli.entry import printable

    try:
        width, height = os.get_terminal_size(1)
    except OSError:
        width, height = 80, 24
    lines = [printable(line)[: width - 1] + CLEAR_LINE for line in text.split("\n")[: height - 1]]
    sys.stdout.write(HOME_AND_CLEAR + "\n".join(lines) + CLEAR_REST)
    sys.stdout.flush()


class Watch:
    """The containers that are watched, and their last readings, by id."""

    def __init__(self, store: Store, words: tuple[str, ...], every: bool, shape: str, whole: bool) -> None:
        self.store, self.words, self.every, self.shape, self.whole = store, words, every, shape, whole
        self.found: list[Instance] = []
        self.before: dict[str, Reading] = {}
        self.code = 0

    def look(self) -> dict[str, Reading]:
        """Who is there, and what each has used until now. A name that is gone is told once."""
        from minictr.runtime.instance import Instance, find
        from minictr.runtime.listing import DAMAGED, glances

        if self.words:
            self.found = []
            for word in self.words:
                try:
                    instance = find(word)
                    _ = instance.state
                    self.found.append(instance)
                except MinictrError as err:
                    self.words = tuple(other for other in self.words if other != word)
                    self.code = complain_of("stats", err)
        else:
            wanted = [look for look in glances(self.store) if look.status != DAMAGED]
            if not self.every:
                wanted = [look for look in wanted if look.status in ("running", "paused")]
            self.found = [Instance(self.store, look.id) for look in wanted]
        last, self.before = self.before, {one.id: (time.monotonic(), reading(one)) for one in self.found}
        return last

    def text(self) -> str:
        """One table, list or line each."""
        last = self.look()
        rows = [row(one, last.get(one.id), self.before[one.id], self.whole) for one in self.found]
        if self.shape == "table":
            columns = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "BlockIO", "PIDs", "ThrottledPerc")
            return table(HEADINGS, [[str(fields[name]) for name in columns] for fields in rows])
        if self.shape == "json":
            from minictr.jsontext import dumps

            return "[" + ",\n ".join(map(dumps, rows)) + "]"
        from minictr.cli.template import compiled, render

        parts = compiled(self.shape)
        return "\n".join(render(parts, fields) for fields in rows)


def reading(instance: Instance) -> Usage | None:
    """What INSTANCE has used; None without cgroups, and for one that has just gone."""
    try:
        return instance.stats() if instance.state.groups else None
    except (MinictrError, OSError):
        return None


def spent(usage: Usage | None) -> float | None:
    """Seconds of processor time."""
    return usage.cpu.usage if usage is not None and usage.cpu is not None else None


def row(instance: Instance, last: Reading | None, now: Reading, whole: bool) -> dict[str, Any]:
    """The fields of one container: docker's names, as texts; then the numbers."""
    usage = now[1]
    before = last[1] if last is not None else None
    seconds = now[0] - last[0] if last is not None else 0.0
    cpu = memory = limit = pids = throttled = None
    read = written = None
    if usage is not None:
        cpu = share(spent(usage), spent(before), seconds)
        throttled = stopped(usage, before)
        if usage.memory is not None:
            memory, limit = usage.memory.current, usage.memory.limit
        pids = usage.pids.current if usage.pids is not None else None
        if usage.io is not None:
            read, written = usage.io.read_bytes, usage.io.write_bytes
    most = ram() if limit is None or limit < 0 else min(limit, ram())
    return {
        "ID": instance.id if whole else instance.id[:SHORT],
        "Name": instance.name,
        "CPUPerc": percent(cpu),
        "MemUsage": "-- / --" if memory is None else f"{size(memory)} / {size(most)}",
        "MemPerc": percent(None if memory is None else 100 * memory / most),
        "BlockIO": "-- / --" if read is None or written is None else f"{size(read)} / {size(written)}",
        "PIDs": "--" if pids is None else str(pids),
        "ThrottledPerc": percent(throttled),
        "cpu_percent": cpu,
        "throttled_percent": throttled,
        "memory_bytes": memory,
        "memory_limit_bytes": limit,
        "pids": pids,
        "read_bytes": read,
        "written_bytes": written,
    }


def share(now: float | None, before: float | None, seconds: float) -> float | None:
    """Percent of one processor."""
    return None if now is None or before is None or seconds <= 0 else max(0.0, 100 * (now - before) / seconds)


def stopped(now: Usage, before: Usage | None) -> float | None:
    """Percent of the periods in which the quota was used up."""
    if now.cpu is None or before is None or before.cpu is None:
        return None
    if None in (now.cpu.periods, before.cpu.periods, now.cpu.throttled_periods, before.cpu.throttled_periods):
        return None
    periods = (now.cpu.periods or 0) - (before.cpu.periods or 0)
    hits = (now.cpu.throttled_periods or 0) - (before.cpu.throttled_periods or 0)
    return 100 * hits / periods if periods > 0 else 0.0


def percent(number: float | None) -> str:
    return "--" if number is None else f"{number:.2f}%"


def ram() -> int:
    """Bytes of memory of this host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

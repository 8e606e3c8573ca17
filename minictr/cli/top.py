"""``minictr top``: the processes of a container."""

from __future__ import annotations

from minictr.cli.entry import FAILED
from minictr.cli.show import table, write
from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.instance import Instance
    from minictr.runtime.top import Row

HEADINGS = ("UID", "PID", "PPID", "NSPID", "S", "RSS", "TIME", "TTY", "COMMAND")


def top(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """A table of the processes of the container named first; further words are options of ps(1), which then prints."""
    if not words:
        raise SpecError("no container: name one (minictr top NAME [PS OPTION]...)")
    from minictr.runtime.instance import find
    from minictr.runtime.top import top as processes

    instance = find(words[0])
    rows = processes(instance)
    if len(words) > 1:
        return by_ps(instance, [row.pid for row in rows], words[1:])
    write(table(HEADINGS, map(columns, rows)))
    return 0


def columns(row: Row) -> tuple[str, ...]:
    seconds = int(row.cpu)
    spent = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    rss = f"{row.rss >> 10}K"
    return (str(row.uid), str(row.pid), str(row.ppid), str(row.inside), row.state, rss, spent, row.tty, row.command)


def by_ps(instance: Instance, pids: list[int], options: tuple[str, ...]) -> int:
    """What the host's ps(1) says with OPTIONS, cut down to PIDS: docker's way. It needs a column PID."""
    import subprocess

    try:
        done = subprocess.run(
            ["ps", *options], stdout=subprocess.PIPE, text=True, errors="surrogateescape", check=False
        )
    except FileNotFoundError as err:
        raise SpecError("top with options of ps: no ps on this host: install procps") from err
    if done.returncode:
        return FAILED
    heading, *lines = done.stdout.splitlines() or [""]
    columns = heading.split()
    if "PID" not in columns:
        raise SpecError(f"top {instance.label}: ps {' '.join(options)} prints no column PID: add -o pid,...")
    place, wanted = columns.index("PID"), set(map(str, pids))
    write("\n".join([heading, *(line for line in lines if line.split()[place : place + 1][0] in wanted)]))
    return 0

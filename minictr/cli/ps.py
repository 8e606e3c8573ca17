"""``minictr ps``: the containers there are."""

from __future__ import annotations

import time

from minictr.cli.show import ago, format_of, span, stamp, table, write
from minictr.errors import SpecError
from minictr.runtime.listing import DAMAGED, Glance, glances
from minictr.runtime.store import SHORT, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADINGS = ("CONTAINER ID", "ROOTFS", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
STATUSES = ("created", "running", "paused", "exited", "dead", DAMAGED)
RUNNING = ("running", "paused")
COMMAND_WIDTH, ROOTFS_WIDTH = 20, 30  # characters of them that are shown, as docker cuts


def ps(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Print the containers that OPTS choose; 0."""
    if words:
        raise SpecError(f"{words[0]!r}: ps takes no names; --filter name={words[0]} chooses one")
    shape = format_of(opts, "table", "json")
    wanted = filters(opts.get("filter", ()))
    store = Store()
    store.check()
    found = [look for look in reversed(glances(store)) if matches(look, wanted)]
    found = chosen(found, opts, every="status" in wanted or "exited" in wanted)
    if opts.get("quiet"):
        lines = [look.id if opts.get("no_trunc") else look.id[:SHORT] for look in found]
        if lines:
            write("\n".join(lines))
        return 0
    whole, now = bool(opts.get("no_trunc")), time.time_ns()
    if shape == "table":
        write(table(HEADINGS, [columns(look, whole, now) for look in found]))
        return 0
    rows = [fields(look, whole, now) for look in found]
    if shape == "json":
        from minictr.jsontext import dumps

        write("[" + ",\n ".join(map(dumps, rows)) + "]")
        return 0
    from minictr.cli.template import print_rows

    print_rows(shape, rows, fields(Glance("", ""), whole, now))
    return 0


def filters(texts: list[str] | tuple[str, ...]) -> dict[str, list[str]]:
    """``KEY=VALUE`` texts by key. SpecError for a key that is not known, and a status that there is not."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key not in ("name", "id", "status", "exited") or not equals:
            raise SpecError(f"--filter {text!r}: name=, id=, status= and exited= are known")
        if key == "status" and value not in STATUSES:
            raise SpecError(f"--filter {text!r}: the status is one of {', '.join(STATUSES)}")
        if key == "exited" and not (value.isascii() and value.isdecimal() and len(value) < 4):
            raise SpecError(f"--filter {text!r}: an exit code is wanted, 0 to 255")
        found.setdefault(key, []).append(value)
    return found


def matches(look: Glance, wanted: dict[str, list[str]]) -> bool:
    """Whether every key of WANTED has a value that LOOK satisfies: a part of the name, the beginning of the id."""
    for key, values in wanted.items():
        if key == "name":
            fits = any(value in look.name for value in values)
        elif key == "id":
            fits = any(look.id.startswith(value) for value in values)
        elif key == "status":
            fits = look.status in values
        else:
            fits = look.status == "exited" and any(look.exit_code == int(value) for value in values)
        if not fits:
            return False
    return True


def chosen(found: list[Glance], opts: dict[str, Any], *, every: bool) -> list[Glance]:
    """Those of FOUND (newest first) that ``-a``, ``-n`` and ``-l`` let through."""
    last = 1 if opts.get("latest") else 0
    if "last" in opts:
        text = opts["last"]
        if not (text.isascii() and text.isdecimal() and 0 < int(text) < 10**9):
            raise SpecError(f"--last {text!r}: a number is wanted, 1 or more")
        last = int(text)
    if last:
        return [look for look in found if look.status != DAMAGED][:last]
    return found if every or opts.get("all") else [look for look in found if look.status in RUNNING]


def command(look: Glance, whole: bool) -> str:
    """As docker has it: quoted, cut."""
    text = " ".join(look.argv)
    if not whole and len(text) > COMMAND_WIDTH:
        text = text[: COMMAND_WIDTH - 1] + "\u2026"
    return f'"{text}"' if look.argv else ""


def status(look: Glance, now: int) -> str:
    """ "Up 2 minutes", "Exited (137) 3 seconds ago"."""
    if look.status in RUNNING:
        return f"Up {span((now - look.started) / 1e9)}{' (Paused)' if look.status == 'paused' else ''}"
    if look.status == "exited":
        return f"Exited ({look.exit_code}) {ago(look.finished, now)}"
    return look.status.capitalize()


def ports(look: Glance) -> str:
    """ "0.0.0.0:80-81->80-81/tcp, 127.0.0.1:9000->90/udp", as docker prints it: neighbours are a range where they have
    the same number on both sides, before all others; by the container's port."""
    runs: dict[tuple[str, str], tuple[int, int]] = {}  # address, protocol -> the run that is not over yet
    over: list[str] = []
    others: list[str] = []
    for protocol, ip, host, inside in sorted(look.ports, key=lambda row: (row[3], row[1], row[2], row[0])):
        name = f"[{ip}]" if ":" in ip else ip or "0.0.0.0"
        if host != inside:
            others.append(f"{name}:{host}->{inside}/{protocol}")
            continue
        first, last = runs.get((name, protocol), (inside, inside - 1))
        if last != inside - 1:
            over.append(_run(name, protocol, first, last))
            first = inside
        runs[name, protocol] = first, inside
    return ", ".join((*over, *(_run(*key, *run) for key, run in runs.items()), *others))


def _run(name: str, protocol: str, first: int, last: int) -> str:
    text = str(first) if first == last else f"{first}-{last}"
    return f"{name}:{text}->{text}/{protocol}"


def columns(look: Glance, whole: bool, now: int) -> tuple[str, ...]:
    """The row of the table."""
    root = look.rootfs
    if not whole and len(root) > ROOTFS_WIDTH:
        root = "\u2026" + root[1 - ROOTFS_WIDTH :]
    created = ago(look.created, now) if look.created else ""
    identity = look.id if whole else look.id[:SHORT]
    return (identity, root, command(look, whole), created, status(look, now), ports(look), look.name)


def fields(look: Glance, whole: bool, now: int) -> dict[str, Any]:
    """The same for machines, by docker's names."""
    return {
        "ID": look.id if whole or not look.id else look.id[:SHORT],
        "Rootfs": look.rootfs,
        "Command": " ".join(look.argv),
        "CreatedAt": stamp(look.created),
        "RunningFor": ago(look.created, now) if look.created else "",
        "Ports": ports(look),
        "State": look.status,
        "Status": status(look, now),
        "Names": look.name,
        "ExitCode": look.exit_code,
        "Pid": look.pid,
        "Detached": look.detached,
        "Error": look.error,
    }

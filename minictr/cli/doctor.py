"""``minictr doctor``: what works here for this user, who refuses the rest, and what would mend it."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from minictr.cli.show import write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from minictr.kernel.surroundings import Surroundings
    from minictr.runtime.doctor import Check, Checkup

INDENT = 2
BY_PATH = ("delegation", "mount")  # answers in which only the path differs: one of them tells it
TELLING = ("ids", "room", "start")  # groups where what works has something to say


@click.command()
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", help="How it is printed.")
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.option("-a", "--all", "every", is_flag=True, help="A line for each thing that works, too.")
@click.pass_context
def doctor(ctx: click.Context, shape: str, as_json: bool, every: bool) -> None:
    """Try what containers need, as this user on this kernel, and say what refuses the rest.

    Each thing is done, not guessed; nothing is left of it. Exit code: 0 when containers of the default profile run
    here, 1 when not.
    """
    from minictr.runtime.doctor import doctor as examine
    from minictr.runtime.ledger import close_ledger

    try:
        found = examine(_progress)
    finally:
        _progress("")
        close_ledger()  # a command ends without atexit
    if as_json or shape == "json":
        write(json.dumps(found.document(), indent=1))
    else:
        width = min(shutil.get_terminal_size((80, 24)).columns, 120) - 1
        write("\n".join(lines(found, width, every=every)))
    ctx.exit(0 if found else 1)


def _progress(words: str) -> None:
    """One line that is written over, for a person who waits."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{words + ' ...' if words else ''}")
        sys.stderr.flush()


def lines(found: Checkup, width: int, *, every: bool) -> Iterator[str]:
    """The report as text: by groups what works, and below what does not, by whom and what helps."""
    host = found.host
    words = f"minictr {host['minictr']}, {host['kernel']} {host['machine']}"
    yield f"{words}, cgroups {host['cgroups']}, Python {host['python']}"
    yield from _around(found.around, width)
    for group in dict.fromkeys(check.group for check in found.checks):
        rows = [check for check in found.checks if check.group == group]
        yield ""
        plain = [check for check in rows if check.works and not check.cure and not every]
        told = [check for check in rows if check not in plain]
        if plain and group not in TELLING:
            yield _filled(f"{group}: ", " ".join(check.name for check in plain) + " work", width, len(group) + 2)
        else:
            yield f"{group}:"
            told = rows
        together = joined(told)
        names = min(max(map(len, together), default=0), width // 3)
        for words, check in together.items():
            yield from _check(words, check, names, width)
    yield ""
    yield from _verdict(found, width)


def _around(around: Surroundings, width: int) -> Iterator[str]:
    """Who we are and what stands around us, where there is something."""
    words = ["root" if not around.uid else f"uid {around.uid}"]
    words += ["in a user namespace of its own"] if around.own_users else []
    if not around.uid and around.lacking:
        words.append(f"without the capabilities {', '.join(around.lacking)}")
    words += ["no_new_privs is set"] if around.no_new_privs else []
    words += [f"{around.filters} seccomp filter{'s' * (around.filters > 1)}"] if around.filters else []
    words += [f"confined: {around.label}"] if around.confined else []
    if around.refused:
        calls = ", ".join(f"{call} ({how})" for call, how in around.refused.items())
        words.append(f"refused before the kernel looks: {calls}")
    yield _filled("", "; ".join(words), width, 0)


def joined(checks: Iterable[Check]) -> dict[str, Check]:
    """The names of checks that have one answer, in a row -> the first of them."""
    names: dict[tuple[object, ...], list[str]] = {}
    first: dict[tuple[object, ...], Check] = {}
    for check in checks:
        told = "" if check.refused_by in BY_PATH and check.errno else check.told + check.cure
        key = (check.works, check.refused_by, check.errno, told)
        names.setdefault(key, []).append(check.name)
        first.setdefault(key, check)
    return {" ".join(names[key]): check for key, check in first.items()}


def _check(words: str, check: Check, names: int, width: int) -> Iterator[str]:
    """Names in their column, in as many lines as they take, and the answer beside the last."""
    *before, last = textwrap.wrap(words, names)
    yield from (f"{'':{INDENT}}{line}" for line in before)
    answer = "yes" if check.works else "no"
    indent = INDENT + names + 6
    who = f"[{check.refused_by}] " if check.refused_by else ""
    yield _filled(f"{'':{INDENT}}{last:<{names}}  {answer:<4}", f"{who}{check.told}".strip(), width, indent)
    if check.cure:
        yield _filled(" " * indent, f"-> {check.cure}", width, indent + 3)


def _verdict(found: Checkup, width: int) -> Iterator[str]:
    good = [name for name, missing in found.profiles.items() if not missing]
    yield _filled("", f"profiles that can be had whole: {', '.join(good) or 'none'}", width, 0)
    for name, missing in found.profiles.items():
        if missing:
            yield _filled(f"{'':{INDENT}}", f"{name} without {', '.join(missing)}", width, INDENT)
    stopped = [check.name for check in found.checks if check.needed and not check.works]
    if stopped:
        words = f"containers of the default profile do NOT run here as a whole, for want of: {', '.join(stopped)}"
        yield _filled("", words, width, 0)
    else:
        yield "containers of the default profile run here"


def _filled(first: str, words: str, width: int, indent: int) -> str:
    later = " " * indent
    return textwrap.fill(words, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)

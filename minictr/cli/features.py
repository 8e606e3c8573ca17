"""``minictr features``: every feature, what it does, whether it can be had here."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from minictr.steps import Support


@click.command()
@click.option("--format", "shape", type=click.Choice(["table", "json"]), default="table", help="How it is printed.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def features(shape: str, names: tuple[str, ...]) -> None:
    """List every feature, what it does, and whether this kernel and this user can have it.

    Each is tried, not guessed from the kernel's configuration. With NAMEs, only those.
    """
    from minictr.runtime.support import supports

    rows = select(supports(), names)
    if shape == "json":
        click.echo(json.dumps(rows, indent=1))
    else:
        click.echo(table(rows, min(shutil.get_terminal_size((80, 24)).columns, 100) - 1))


def select(supports: dict[str, Support], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """One dictionary a feature, in the registry's order."""
    from minictr.features import PROFILES, REGISTRY

    for name in names:
        if name not in REGISTRY:
            raise click.UsageError(f"no feature is called {name}")
    rows: list[dict[str, Any]] = []
    for name, cls in REGISTRY.items():
        if names and name not in names:
            continue
        found = supports.get(name)
        rows.append(
            {
                "name": name,
                "summary": cls.SUMMARY,
                "supported": None if found is None else found.ok,
                "reason": "not probed" if found is None else found.reason,
                "cure": "" if found is None else found.cure,
                "profiles": [profile for profile, has in PROFILES.items() if any(f.name == name for f in has)],
            }
        )
    return rows


def table(rows: list[dict[str, Any]], width: int) -> str:
    """ROWS as text: name, yes or no, what it does; below a "no" its reason and cure."""
    names = max((len(row["name"]) for row in rows), default=0)
    indent = " " * (names + 7)
    lines = []
    for row in rows:
        answer = {True: "yes", False: "no", None: "?"}[row["supported"]]
        first = f"{row['name']:<{names}}  {answer:<4} "
        more = f" ({row['reason']})" if row["supported"] and row["reason"] and not row["cure"] else ""
        lines.append(textwrap.fill(row["summary"] + more, width, initial_indent=first, subsequent_indent=indent))
        why = "; ".join(text for text in (row["reason"], row["cure"]) if text)
        if why and answer != "yes":
            lines.append(textwrap.fill(why, width, initial_indent=indent, subsequent_indent=indent))
    return "\n".join(lines)

"""``minictr plan``: what ``run`` would do, printed. Does none of it."""

from __future__ import annotations

from minictr.cli.build import build
from minictr.cli.settings import settings
from minictr.cli.show import write
from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMATS = ("text", "json")


def plan(opts: dict[str, Any], command: tuple[str, ...]) -> int:
    """Print the plan for OPTS and COMMAND. Raises MinictrError."""
    shape = opts.get("format", "text")
    if shape not in FORMATS:
        raise SpecError(f"--format {shape!r} is not one of {', '.join(FORMATS)}")
    settings(opts)  # what run would refuse, plan refuses too
    from minictr.plan import plan as planned
    from minictr.runtime.resolve import resolve

    spec = resolve(build(opts, command))
    found = planned(spec)
    if "diff" not in opts:
        text = to_json(found.json()) if shape == "json" else str(found)
    else:
        kept = {name: opts[name] for name in ("rootfs",) if name in opts}
        plain = planned(resolve(build({**kept, "profile": opts["diff"]}, command, terminal=False)))
        difference = plain.diff(found)
        text = str(difference)
        if shape == "json":
            changed = {"added": difference.added, "removed": difference.removed}
            rows = {word: found.replace(steps=steps).json() for word, steps in changed.items()}
            text = to_json(rows)
    if text:
        write(text)
    return 0


def to_json(value: object) -> str:
    import json

    return json.dumps(value, indent=1)

"""``minictr events``: what happens to containers."""

from __future__ import annotations

import time

from minictr.cli.moments import moment
from minictr.cli.show import format_of, stamp, write
from minictr.errors import SpecError
from minictr.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Event = dict[str, Any]

PLAIN = ("time", "id", "name", "action")  # of every event; what else there is stands in brackets


def events(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Print events from ``--since`` on, or from now; go on with what happens unless told otherwise."""
    if words:
        raise SpecError(f"{words[0]!r}: events takes no names; --filter container={words[0]} chooses one")
    since, until = moment(opts, "since"), moment(opts, "until")
    line, fits = shaped(format_of(opts, "text", "json")), fitting(opts.get("filter", ()))
    follow = opts.get("stream", True)
    from minictr.runtime.events import follow as following
    from minictr.runtime.events import read
    from minictr.runtime.store import Store

    store = Store()
    store.check()
    start = (0 if until is not None or not follow else time.time_ns()) if since is None else since
    found = following(store, start, until) if follow else read(store, start)
    try:
        for event in found:
            if until is not None and event["time"] > until:
                break
            if fits(event):
                write(line(event))
    except KeyboardInterrupt:
        return 130
    return 0


def fitting(texts: list[str] | tuple[str, ...]) -> Callable[[Event], bool]:
    """Whether an event is wanted: ``container=NAME or id``, ``event=ACTION``."""
    from minictr.runtime.events import ACTIONS

    wanted: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key not in ("container", "event", "action") or not equals:
            raise SpecError(f"--filter {text!r}: container= and event= are known")
        if key != "container" and value not in ACTIONS:
            raise SpecError(f"--filter {text!r}: the events are {', '.join(ACTIONS)}")
        wanted.setdefault("container" if key == "container" else "event", []).append(value)

    def fits(event: Event) -> bool:
        names, actions = wanted.get("container"), wanted.get("event")
        identity = str(event.get("id", ""))
        named = names is None or any(
            name == event.get("name") or (name and identity.startswith(name)) for name in names
        )
        return named and (actions is None or event.get("action") in actions)

    return fits


def shaped(shape: str) -> Callable[[Event], str]:
    """How an event is printed."""
    if shape == "json":
        return dumps
    if shape == "text":
        return as_text
    from minictr.cli.template import compiled, render

    parts = compiled(shape)
    return lambda event: render(parts, event)


def as_text(event: Event) -> str:
    """docker's line: time, kind, action, id, and what else is known."""
    event = dict(event)
    if event.get("action") == "die" and isinstance(event.get("status"), int):
        signal = event["status"] & 0x7F  # as waitpid(2) has it
        event["exitCode"] = 128 + signal if signal else event["status"] >> 8
        del event["status"]
    more = {"name": event.get("name", ""), **{key: value for key, value in event.items() if key not in PLAIN}}
    told = ", ".join(f"{key}={value}" for key, value in more.items())
    return f"{stamp(event['time'])} container {event.get('action', '')} {event.get('id', '')} ({told})"

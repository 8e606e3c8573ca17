"""``minictr attach``: our streams tied to those of a running container."""

from __future__ import annotations

from minictr.cli.show import one
from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minictr.runtime.instance import Instance


def attach(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Stay with the container named until it ends, or the keys to leave are typed."""
    from minictr.runtime.instance import find

    instance = find(one("attach", words))
    instance.must_be("created", "running", verb="attach")
    return stay(instance, opts, stdin=not opts.get("no_stdin"))


def stay(instance: Instance, opts: dict[str, Any], *, stdin: bool, begin: Callable[[], None] | None = None) -> int:
    """Tie our streams to INSTANCE, and BEGIN: its exit code when it ended, 0 when it was left running."""
    if not instance.state.detached:
        raise SpecError(f"attach {instance.label}: its streams are those of the process that started it")
    from minictr.runtime import events
    from minictr.runtime.attach import Client
    from minictr.runtime.attach import attach as tie
    from minictr.runtime.terminal import DETACH_KEYS

    with Client(instance.directory) as client:
        events.tell(instance.store, instance.id, instance.name, "attach")
        keys, proxy = opts.get("detach_keys", DETACH_KEYS), opts.get("sig_proxy", True)
        status = tie(client, 0 if stdin else -1, keys=keys, sig_proxy=proxy, begin=begin)
    if status is None:
        return 0
    signal = status & 0x7F
    return 128 + signal if signal else status >> 8

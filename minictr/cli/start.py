"""``minictr start``: containers that were created, or are over, run."""

from __future__ import annotations

from minictr.cli.show import each, some
from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def start(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Start every container named; with ``-a`` or ``-i`` one, and stay with it to its end."""
    names = some("start", words, False, ())
    if not (opts.get("attach") or opts.get("interactive")):
        for option, dest in (("--detach-keys", "detach_keys"), ("--sig-proxy", "sig_proxy")):
            if dest in opts:
                raise SpecError(f"{option} is for a start that stays with the container: add -a")
        return each("start", names, lambda instance: instance.start())
    if len(names) != 1:
        raise SpecError("start -a stays with one container: name one")
    from minictr.cli.attach import stay
    from minictr.runtime.instance import find
    from minictr.runtime.kept import start_again

    instance = find(names[0])
    if instance.status in ("exited", "dead"):
        start_again(instance, held=True)  # it waits for our being there: nothing that it writes is lost
    instance.must_be("created", verb="start -a")
    return stay(instance, opts, stdin=bool(opts.get("interactive")), begin=instance.start)

"""``minictr cleanup``: what a container's monitor executes as its last act. Not for people: ``gc`` is."""

from __future__ import annotations

from minictr.cli.show import one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def cleanup(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Take back what the container named had on the host, now that it is over; start it again if it rebooted."""
    from minictr.errors import NoSuchContainer
    from minictr.runtime.ended import REBOOTED
    from minictr.runtime.instance import find

    try:
        instance = find(one("cleanup", words))
        ended = instance.exit_record()
        instance.settle()
        if ended is not None and ended.halt == REBOOTED:
            from minictr.runtime.kept import reboot

            reboot(instance, ended.elapsed / 1e9)
    except NoSuchContainer:
        return 0  # it was removed meanwhile
    return 0

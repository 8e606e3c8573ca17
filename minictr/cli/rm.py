"""``minictr rm``: remove what is left of containers."""

from __future__ import annotations

from minictr.cli.show import each, some

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def rm(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Remove every container named. With ``--force`` one that runs too, and one that is not there is no mistake."""
    from minictr.cli.ps import STATUSES

    force = bool(opts.get("force"))
    names = some("rm", words, bool(opts.get("all")), STATUSES if force else ("created", "exited", "dead"))
    if force:
        from minictr.runtime.store import Store

        store = Store()
        store.check()
        names = [name for name in names if store.candidates(name)]
    return each("rm", names, lambda instance: instance.remove(force=force))

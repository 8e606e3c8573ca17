"""``minictr gc``: take back what dead owners left."""

from __future__ import annotations

from minictr.cli.show import write
from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def gc(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Sweep, and print a line for each thing removed, and for each that could not be."""
    if words:
        raise SpecError(f"{words[0]!r}: gc takes no names; minictr rm removes one container")
    shape = opts.get("format", "text")
    if shape not in ("text", "json"):
        raise SpecError(f"--format {shape!r} is not one of text, json")
    from minictr.runtime.store import Store
    from minictr.runtime.sweep import sweep

    store = Store()
    store.check()
    told = sweep(store, names=True)
    if shape == "json":
        from minictr.jsontext import dumps

        write(dumps(told))
    elif told:
        write("\n".join(told))
    return 0

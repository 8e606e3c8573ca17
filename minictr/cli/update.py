"""``minictr update``: other limits for containers."""

from __future__ import annotations

from minictr.cli.limits import limits
from minictr.cli.show import each, some
from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minictr.runtime.instance import Instance


def update(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Write the limits that OPTS give into every container named."""
    if not opts:
        raise SpecError("no limit: give one or more (minictr update --help lists them)")
    return each("update", some("update", words, False, ()), lambda instance: change(instance, opts))


def change(instance: Instance, opts: dict[str, Any]) -> None:
    """The limits of one container: those it has, with what OPTS say."""
    from minictr.runtime.update import update as write

    write(instance, limits(instance.refresh().spec, opts))

"""``minictr pause``: freeze containers."""

from __future__ import annotations

from minictr.cli.show import each, some

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def pause(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Freeze every process of each container named."""
    return each("pause", some("pause", words, bool(opts.get("all")), ("running",)), lambda one: one.pause())

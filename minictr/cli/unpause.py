"""``minictr unpause``: let frozen containers go on."""

from __future__ import annotations

from minictr.cli.show import each, some

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def unpause(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Thaw every container named."""
    return each("unpause", some("unpause", words, bool(opts.get("all")), ("paused",)), lambda one: one.unpause())

"""``minictr rename``: another name for a container."""

from __future__ import annotations

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def rename(opts: dict[str, Any], words: tuple[str, ...]) -> int:
    """Call the container named first by the second name; its host name stays."""
    from minictr.runtime.instance import find

    if len(words) != 2:
        raise SpecError("rename wants two names: minictr rename OLD NEW")
    find(words[0]).rename(words[1])
    return 0

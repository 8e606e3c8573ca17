"""What options were given: texts made values by :mod:`minictr.parse`, mistakes with the option's name in front."""

from __future__ import annotations

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["many", "said"]


def said(option: str, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """FUNCTION of the arguments, its SpecError with OPTION in front."""
    try:
        return function(*args, **named)
    except SpecError as err:
        raise SpecError(f"{option}: {err}") from err


def many(opts: dict[str, Any], dest: str, option: str, parser: str, *more: Any) -> list[Any]:
    """What :mod:`minictr.parse`'s function of that name makes of every value of a repeatable option."""
    if dest not in opts:
        return []
    import minictr.parse as parse  # not "from minictr": its __getattr__ would import importlib

    return [said(option, getattr(parse, parser), text, *more) for text in opts[dest]]

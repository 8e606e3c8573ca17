"""What options were given: texts made values by :mod:`minictr.parse`, mistakes with the option's name in front."""

from __future__ import annotations

import os

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["many", "said", "variables"]


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


def variables(opts: dict[str, Any]) -> list[tuple[str, str]]:
    """What ``--env-file`` and ``-e`` name, the later over the earlier."""
    found = [pair for path in opts.get("env_file", ()) for pair in env_file(path)]
    return [*found, *filter(None, many(opts, "env", "-e", "env", os.environ))]


def env_file(path: str) -> list[tuple[str, str]]:
    """The variables of an env file."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except (OSError, ValueError) as err:
        raise SpecError(f"--env-file {path}: {err.strerror if isinstance(err, OSError) else err}") from err
    import minictr.parse as parse  # not "from minictr": its __getattr__ would import importlib

    return list(said(f"--env-file {path}", parse.env_file, text, os.environ))

"""Landlock's words on the command line: setpriv(1)'s for access and rules, and port numbers."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import number, shown
from minictr.features.landlock import PORT_MAX
from minictr.rights import ACCESS, SCOPES, normal

__all__ = ["access", "port", "rule", "scope"]


def access(text: str) -> tuple[str, ...]:
    """``fs`` or ``fs:RIGHT[,RIGHT]...``: the rights over files that are denied where no rule allows them."""
    kind, colon, words = text.partition(":")
    if kind != "fs" or (colon and not words):
        raise SpecError(f"{shown(text)} is not fs or fs:RIGHT[,RIGHT]...; --landlock-bind and -connect are for ports")
    return normal(words.split(","), ACCESS, shown(text)) if words else tuple(ACCESS)


def rule(text: str) -> tuple[str, tuple[str, ...]]:
    """``path-beneath:[RIGHT[,RIGHT]...]:PATH``, the path and the rights there; () is all that is denied elsewhere."""
    kind, _, rest = text.partition(":")
    words, colon, path = rest.partition(":")
    if kind != "path-beneath" or not colon or not path:
        raise SpecError(f"{shown(text)} is not path-beneath:[RIGHT[,RIGHT]...]:PATH")
    return path, normal(words.split(","), ACCESS, shown(text)) if words else ()


def port(text: str) -> tuple[int, ...]:
    """A TCP port; ``none`` is no port at all."""
    return () if text == "none" else (number(text, "port", 0, PORT_MAX),)


def scope(text: str) -> str:
    """``signal`` or ``abstract-unix-socket``."""
    return normal((text,), SCOPES, "scope")[0]

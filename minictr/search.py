"""Where execve(2) is tried: the search in PATH, without looking."""

from __future__ import annotations


def candidates(program: str, search: str) -> list[str]:
    """The paths execve is tried with, in order: PROGRAM itself if it has a slash, else below each entry of SEARCH."""
    if "/" in program:
        return [program]
    return [f"{directory or '.'}/{program}".replace("//", "/") for directory in search.split(":")]

"""The securebits by name, for wish and hands alike. Pure. capabilities(7), linux/securebits.h."""

from __future__ import annotations

from minictr.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SECUREBITS", "bits", "names", "normal"]

KINDS = (
    "noroot",
    "no_setuid_fixup",
    "keep_caps",
    "no_cap_ambient_raise",
    "exec_restrict_file",
    "exec_deny_interactive",
)
# each has its lock next to it
SECUREBITS = {
    f"{name}{lock}": 1 << 2 * place + bool(lock) for place, name in enumerate(KINDS) for lock in ("", "_locked")
}


def normal(words: Iterable[object]) -> tuple[str, ...]:
    """Names in the kernel's order, each once: ``noroot`` from ``NOROOT``, ``SECBIT_NOROOT``; ``-`` is ``_``.

    Raises SpecError for another word, and for ``keep_caps``, which execve clears.
    """
    found = {_canonical(word) for word in words}
    return tuple(name for name in SECUREBITS if name in found)


def _canonical(word: object) -> str:
    name = word.lower().replace("-", "_").removeprefix("secbit_") if isinstance(word, str) else ""
    if name == "keep_caps":
        raise SpecError("securebits: keep_caps means nothing to a program: execve(2) clears it")
    if name not in SECUREBITS:
        known = ", ".join(name for name in SECUREBITS if name != "keep_caps")
        raise SpecError(f"securebits: {word!r:.60} is not one of {known}")
    return name


def bits(wanted: Iterable[str]) -> int:
    """The bits of NAMES."""
    return sum(SECUREBITS[name] for name in wanted)


def names(value: int) -> tuple[str, ...]:
    """The names of the bits of VALUE, as PR_GET_SECUREBITS tells it; ``bit_12`` for one that has none here.

    >>> names(0x3)
    ('noroot', 'noroot_locked')
    """
    known = tuple(SECUREBITS)
    return tuple(known[n] if n < len(known) else f"bit_{n}" for n in range(value.bit_length()) if value >> n & 1)

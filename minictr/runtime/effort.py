"""Best effort: a start that does without a feature that cannot be had here, where the caller has named it.

Left to itself a start fails closed. What is named here is tried like everything else, and only when it is the very
feature that failed it is left out, and told; where a part of it alone cannot be had, that part. Nothing ran before: a
start that fails is undone.
"""

from __future__ import annotations

from minictr.errors import MinictrError, SpecError, StepFailed, Unsupported
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")

__all__ = ["LeftOut", "best_effort"]


class LeftOut(Value):
    """A feature that could not be had, or a part of one (``landlock:ioctl_dev``): its name, and what said so."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} is left out: {self.reason}"


def best_effort(
    start: Callable[[tuple[str, ...]], T], names: Iterable[str], tell: Callable[[LeftOut], None] | None = None
) -> tuple[T, tuple[LeftOut, ...]]:
    """What START returns, and the features of NAMES that it had to do without, in order.

    START is called with the names to leave out, first none, then those that failed. TELL is called for each before the
    next try. Any other failure is raised as it comes; a name that no feature has is a SpecError.

    >>> process, left = mc.best_effort(lambda out: box.without(*out).popen(["true"]), ["memory", "io"])
    """
    from minictr.features import feature_class

    if isinstance(names, str):
        raise SpecError(f"best effort: {names!r} is not a list of names")
    allowed = tuple(feature_class(name).name for name in names)
    left: list[LeftOut] = []
    while True:
        out = tuple(item.name for item in left)
        try:
            return start(out), tuple(left)
        except (StepFailed, Unsupported) as err:
            more = [item for item in blamed(err, [name for name in allowed if name not in out]) if item.name not in out]
            if not more:
                raise
            for item in more:
                if tell is not None:
                    tell(item)
            left += more


def blamed(err: MinictrError, names: Iterable[str]) -> list[LeftOut]:
    """Which of NAMES failed with ERR. One clone3 makes all namespaces and does not say which it could not: then each of
    NAMES is tried alone."""
    guilty = getattr(err, "feature", "")
    if guilty in names and getattr(err, "parts", None):
        return [LeftOut(f"{guilty}:{part}", reason) for part, reason in err.parts.items()]  # type: ignore[attr-defined]
    if guilty:
        return [LeftOut(name, str(err)) for name in names if name == guilty]
    if not str(err).startswith("clone3"):
        return []
    from minictr.runtime.support import support

    answers = [(name, support(name)) for name in names]
    return [LeftOut(name, str(answer).removeprefix("no: ")) for name, answer in answers if not answer]

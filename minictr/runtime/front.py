"""Small answers of the front door: which features and profiles there are, and what a run would do."""

from __future__ import annotations

from minictr.features import PROFILES, REGISTRY
from minictr.runtime.container import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from minictr.plan import Plan
    from minictr.steps import Feature


class Profiles:
    """The profiles as attributes: ``profiles.DEFAULT``, ``.DOCKER``, ``.LXC``, ``.BARE``, each a tuple of features."""

    def __getattr__(self, name: str) -> tuple[Feature, ...]:
        found = PROFILES.get(name.lower())
        if found is None:
            raise AttributeError(f"no profile {name!r}: there are {', '.join(PROFILES)}")
        return found

    def __dir__(self) -> list[str]:
        return [name.upper() for name in PROFILES]


profiles = Profiles()


def features() -> tuple[type[Feature], ...]:
    """Every feature's class: ``NAME`` and ``SUMMARY`` say what it is, ``support(NAME)`` whether it can be had here."""
    return tuple(REGISTRY.values())


def plan(
    args: Sequence[str],
    *,
    rootfs: str | os.PathLike[str] = "",
    features: Iterable[Feature] | str = "default",
) -> Plan:
    """Every kernel operation of running ARGS in a container, in order. Nothing is done."""
    return Container(rootfs, features=features).plan(args)

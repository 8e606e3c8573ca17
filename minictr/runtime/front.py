"""The profiles as the front door shows them: ``mc.profiles.DEFAULT``."""

from __future__ import annotations

from minictr.features import PROFILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minictr.steps import Feature


class Profiles:
    """The profiles as attributes: ``profiles.DEFAULT``, ``.DOCKER``, ``.LXC``, ``.BARE``, ``.LANDLOCK``: tuples."""

    def __getattr__(self, name: str) -> tuple[Feature, ...]:
        found = PROFILES.get(name.lower())
        if found is None:
            raise AttributeError(f"no profile {name!r}: there are {', '.join(PROFILES)}")
        return found

    def __dir__(self) -> list[str]:
        return [name.upper() for name in PROFILES]


profiles = Profiles()

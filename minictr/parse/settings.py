"""Environment, user, limits, capabilities, sysctls."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.capabilities import CAPABILITIES, Capabilities, Securebits, canonical, ordered
from minictr.features.check import number, shown
from minictr.features.process import Sysctl, checked_variable
from minictr.features.tables import RESOURCES
from minictr.features.users import Identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from minictr.steps import Feature


def env(text: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """``NAME=VALUE``; ``NAME`` alone copies from ENVIRON, and is None where that has none, as in docker."""
    name, equals, value = text.partition("=")
    if not name:
        raise SpecError(f"env: {shown(text)} has no name: NAME=VALUE or NAME is wanted")
    if not equals and name not in environ:
        checked_variable(name, "")
        return None
    return checked_variable(name, value if equals else environ[name])


def env_file(text: str, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Lines of :func:`env`; empty lines and those beginning with # are skipped, quotes are letters, as in docker."""
    found = []
    for position, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if any(letter.isspace() for letter in name):
            raise SpecError(f"line {position}: the name {shown(name)} holds a blank")
        try:
            pair = env(line, environ)
        except SpecError as err:
            raise SpecError(f"line {position}: {err}") from None
        if pair is not None:
            found.append(pair)
    return tuple(found)


def user(text: str) -> Identity:
    """``NAME[:GROUP]`` or ``UID[:GID]``; a name is looked up later, in the container's own files."""
    return Identity(text)


def capabilities(base: Iterable[str], add: Iterable[str] = (), drop: Iterable[str] = ()) -> tuple[str, ...]:
    """``--cap-add`` and ``--cap-drop`` on a BASE set, with docker's meaning of ALL: all that have a name here.

    Add ALL: all but those dropped. Drop ALL: those added and no other. Else BASE without those dropped, with those
    added (added wins). Names with or without CAP_, in any case, or numbers.
    """
    added, dropped = {_capability(name) for name in add}, {_capability(name) for name in drop}
    if "ALL" in added:
        kept = {*CAPABILITIES, *added} - {"ALL"} - dropped
    elif "ALL" in dropped:
        kept = added
    else:
        kept = ({canonical(name) for name in base} - dropped) | added
    return ordered(kept)


def adjusted_capabilities(
    present: Feature | None, add: Sequence[str], drop: Sequence[str], user: Feature | None = None
) -> Capabilities:
    """The wish of a container that has PRESENT, with some added and dropped as :func:`capabilities` does.

    Where the program is another USER than root, execve would leave him nothing of what is added: so what is added by
    name he has by its being ambient, as in podman.
    """
    held = present.bounding if isinstance(present, Capabilities) else CAPABILITIES
    kept = capabilities(held, add, drop)
    every = [{"ALL", "CAP_ALL"}.intersection(name.upper() for name in names) for names in (add, drop)]
    if isinstance(user, Identity) and not user.root:
        his = ordered(name for word in add if (name := _capability(word)) in kept)
        if his:
            return Capabilities(kept, inheritable=his, ambient=his)
    # "All" is what the caller has, which may be less than there are: the set is narrowed, not demanded.
    broad = not isinstance(present, Capabilities) or present.drop_only
    return Capabilities(kept, drop_only=bool(every[0]) or (broad and not every[1]))


def _capability(name: str) -> str:
    return "ALL" if name.upper() in ("ALL", "CAP_ALL") else canonical(name)


def securebits(texts: Iterable[str]) -> Securebits:
    """``+NAME,-NAME``, as ``setpriv --securebits`` has it: + sets a bit and - clears it; the last one said counts."""
    from minictr.securebits import normal

    wanted: dict[str, bool] = {}
    for text in texts:
        for word in text.split(","):
            if word[:1] not in ("+", "-"):
                raise SpecError(f"securebits: {shown(word)} has no sign: +NAME sets it, -NAME clears it")
            wanted |= dict.fromkeys(normal((word[1:],)), word[0] == "+")
    return Securebits(*(tuple(name for name, on in wanted.items() if on is sign) for sign in (True, False)))


def ulimit(text: str) -> tuple[str, int, int]:
    """``NAME=SOFT[:HARD]``; -1 or unlimited for no limit. Without HARD it is SOFT."""
    name, equals, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    if name not in RESOURCES or not equals:
        known = ", ".join(RESOURCES)
        raise SpecError(f"ulimit: {shown(text)} is not NAME=SOFT[:HARD] with NAME one of {known}")
    low = _limit(name, soft)
    high = _limit(name, hard) if colon else low
    if high != -1 and (low == -1 or low > high):
        raise SpecError(f"ulimit {name}: the soft limit {soft} is above the hard limit {hard}")
    return name, low, high


def _limit(name: str, text: str) -> int:
    return -1 if text == "unlimited" else number(text, f"ulimit {name}", -1, (1 << 63) - 1)


def sysctl(text: str) -> tuple[str, str]:
    """``KEY=VALUE`` with KEY as ``net.ipv4.ip_forward`` or ``net/ipv4/ip_forward``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"sysctl: {shown(text)} is not KEY=VALUE")
    return Sysctl(((key.strip(), value.strip()),)).settings[0]
